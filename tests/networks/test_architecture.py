"""Configurations: every field has a range, a sentence names the field, and nothing imports JAX."""

import subprocess
import sys

import numpy as np
import pytest

from homojax.networks.architecture import Architecture
from homojax.networks.effects import require_effects
from homojax.networks.training import Training


def test_configurations_are_read_without_jax():
    source = (
        "import sys, homojax.networks.architecture, homojax.networks.training; "
        "print([name for name in ('jax', 'flax', 'optax', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("depth", 0, "depth must be a whole number of at least 1, got 0"),
        ("depth", 2.5, "depth must be a whole number of at least 1, got 2.5"),
        ("streams", 1, "streams must be a whole number of at least 2, got 1"),
        ("hidden", -1, "hidden must be a whole number of at least 0, got -1"),
        ("norm", "batch", 'norm must be one of none, layer, rms, not "batch"'),
        ("over", "space", 'over must be one of tokens, attention, streams, not "space"'),
        ("placement", "mid", 'placement must be one of pre, post, not "mid"'),
        (
            "mixing_dtype",
            "int8",
            'mixing_dtype must be one of bfloat16, float16, float32, float64, not "int8"',
        ),
        ("logit_scale", float("nan"), "logit_scale must be a finite number of at least 0, got nan"),
        ("logit_scale", -1, "logit_scale must be a finite number of at least 0, got -1"),
    ],
)
def test_an_architecture_out_of_range_is_refused_in_one_sentence(field, value, sentence):
    with pytest.raises(ValueError) as caught:
        Architecture(**{field: value})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("steps", 0, "steps must be a whole number of at least 1, got 0"),
        ("batch", float("nan"), "batch must be a whole number of at least 1, got nan"),
        ("warmup", -1, "warmup must be a whole number of at least 0, got -1"),
        ("learning_rate", 0.0, "learning_rate must be a finite number above 0, got 0.0"),
        ("learning_rate", "0.1", "learning_rate must be a finite number above 0, got '0.1'"),
        (
            "weight_decay",
            float("inf"),
            "weight_decay must be a finite number of at least 0, got inf",
        ),
        ("mixing_decay", -1.0, "mixing_decay must be a finite number of at least 0, got -1.0"),
        ("clip", float("nan"), "clip must be a finite number above 0, got nan"),
    ],
)
def test_a_training_out_of_range_is_refused_in_one_sentence(field, value, sentence):
    with pytest.raises(ValueError) as caught:
        Training(**{field: value})
    assert str(caught.value) == sentence


def test_numbers_of_numpy_become_pythons_so_that_equal_configurations_are_equal():
    made = (
        Architecture(depth=np.int64(2), logit_scale=np.float32(2)),
        Training(clip=1, steps=np.int8(3)),
    )
    plain = Architecture(depth=2, logit_scale=2.0), Training(clip=1.0, steps=3)
    assert made == plain and hash(made) == hash(plain) and repr(made) == repr(plain)


@pytest.mark.parametrize("over", ["attention", "streams"])
def test_width_must_divide_into_heads(over):
    with pytest.raises(ValueError, match="width = 7 does not divide into 3 heads: try width = 9"):
        Architecture(over=over, width=7, heads=3)


@pytest.mark.parametrize(
    ("architecture", "training", "sentence"),
    [
        (
            {"num_iters": 10},
            {},
            "num_iters = 10 has no effect on sinkhorn: try the mixer truncated-sinkhorn",
        ),
        ({"heads": 4}, {}, "heads = 4 .* a matrix over tokens: try over = attention or streams"),
        ({"streams": 8}, {}, "streams = 8 .* the mixing of tokens: try over = streams"),
        ({"dynamic": True}, {}, "dynamic = True .* the mixing of tokens: try over = streams"),
        (
            {"over": "attention", "dynamic": True},
            {},
            "dynamic = True .* attention: try over = streams",
        ),
        (
            {"over": "attention", "learned": False},
            {},
            "learned = False .* attention, which has no mixing parameters: leave it out",
        ),
        ({"over": "attention", "logit_scale": 3}, {}, "logit_scale = 3.0 .* attention"),
        (
            {"over": "streams", "mixer": "mhc-paper", "logit_scale": 3},
            {},
            "logit_scale = 3.0 .* mhc-paper, which starts as its code does: leave it out",
        ),
        (
            {"over": "attention"},
            {"mixing_decay": 0.1},
            "mixing_decay = 0.1 .* attention, .* try weight_decay",
        ),
        (
            {"learned": False},
            {"mixing_decay": 0.1},
            "mixing_decay = 0.1 .* parameters that are not learned: leave it out",
        ),
        ({"over": "streams", "depth": 2}, {}, "depth = 2 .* without effect .* try depth = 3"),
    ],
)
def test_a_setting_without_effect_is_refused_in_one_sentence(architecture, training, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        require_effects(Architecture(**architecture), Training(**training))
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "training"),
    [
        ({}, {"mixing_decay": 0.1, "weight_decay": 0.1}),
        ({"mixer": "truncated-sinkhorn", "num_iters": 5, "logit_scale": 2, "learned": False}, {}),
        ({"over": "attention", "heads": 4}, {"weight_decay": 0.1}),
        ({"over": "streams", "depth": 3, "streams": 8, "heads": 4, "dynamic": True}, {}),
    ],
)
def test_a_setting_with_an_effect_is_let_through(architecture, training):
    require_effects(Architecture(**architecture), Training(**training))
