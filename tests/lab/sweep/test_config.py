"""A sweep's configuration says what is wrong with it, in one sentence, before anything runs."""

import dataclasses

import jax
import pytest

from homojax.lab.inputs import InputError
from homojax.lab.sweep.config import Sweep, load_sweeps


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epsilon", (), "epsilon is an empty grid"),
        ("epsilon", (1.0, 0.0), "epsilon = 0.0 is not possible"),
        ("epsilon", (float("nan"),), "epsilon = nan is not possible"),
        ("epsilon", (float("inf"),), "epsilon = inf is not possible"),
        ("epsilon", (1.0, 1.0), "epsilon has a value twice"),
        ("depth", (0,), "depth = 0 is not possible: it must be at least 1 layer"),
        ("n", (1,), "n = 1 is not possible: it must be at least 2"),
        ("n", (), "n is an empty grid"),
        ("snr", (-1.0,), "snr = -1.0"),
        ("alpha", (1.5,), "alpha = 1.5"),
        ("retention", 1.0, "retention = 1.0"),
        ("seeds", 0, "seeds = 0"),
        ("samples", 1, "samples = 1"),
        ("iterations", 0, "iterations = 0"),
        ("max_steps", 0, "max_steps = 0"),
        ("tol", 0.0, "tol = 0.0"),
        ("memory_mb", 0.0, "memory_mb"),
        ("name", "../evil", "cannot name a file"),
        ("measure", ("spectum",), 'a sweep measures no "spectum": did you mean "spectrum"?'),
        ("measure", ("everything",), "there are: bounds, depth, layernorm, residual, spectrum."),
        ("measure", ("depth", "depth"), "measure has a value twice"),
        ("measure", (), "measure is an empty grid"),
        ("path", "x.npy", "path is read only by source"),
        ("source", "file", "source file needs a path"),
    ],
)
def test_an_impossible_value_is_named(field, value, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(")) as caught:
        Sweep(**{field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epsilom = [1.0]", 'no sweep has the key "epsilom"; did you mean "epsilon"'),
        ("epsilon = ", "not valid TOML"),
        ('epsilon = "warm"', "neither a number"),
        ("epsilon = true", "epsilon must be numbers"),
        ("depth = [1.5]", "depth must be int"),
        ("seeds = 1.5", "seeds must be int"),
        ("samples = true", "samples must be int"),
        ('dtype = "float16"', "dtype must be one of float32, float64"),
        ("source = 3", "source must be str"),
        ("sweep = 3", "write each sweep as a"),
        ("[[sweep]]\n[[sweep]]", 'two sweeps are called "gaussian"'),
        ("depth = [0]", "depth = 0 is not possible"),
        ('measure = ["dept"]', 'a sweep measures no "dept": did you mean "depth"'),
        ("measure = [1]", "measure must be str"),
    ],
)
def test_a_mistake_in_a_toml_file_is_named(tmp_path, text, said):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_sweeps(path)


def test_a_missing_or_binary_config_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read the config"):
        load_sweeps(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        load_sweeps(tmp_path / "binary.toml")


def test_tables_share_what_stands_above_them(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(
        'seeds = 3\nepsilon = ["0.1:10:3"]\n[[sweep]]\nn = 4\n'
        '[[sweep]]\nname = "cold"\nepsilon = 1\n'
    )
    first, second = load_sweeps(path)
    assert (first.seeds, first.n, first.epsilon) == (3, (4,), (0.1, 1.0, 10.0))
    assert (second.label, second.seeds, second.epsilon) == ("cold", 3, (1.0,))


def test_a_path_is_relative_to_the_config_that_names_it(tmp_path):
    (tmp_path / "my.toml").write_text('source = "file"\npath = "logits.npy"')
    assert load_sweeps(tmp_path / "my.toml")[0].path == tmp_path / "logits.npy"


def test_the_digest_follows_results_and_nothing_else(tmp_path):
    sweep = Sweep(seed=1)
    assert sweep.digest == dataclasses.replace(sweep, memory_mb=9.0, name="other").digest
    assert sweep.digest != dataclasses.replace(sweep, seed=2).digest
    assert sweep.digest != Sweep(seed=1, measure=("depth",)).digest
    orders = ("spectrum", "depth"), ("depth", "spectrum")
    assert len({Sweep(measure=order).digest for order in orders}) == 1
    path = tmp_path / "a.npy"
    digests = []
    for content in (b"a", b"b"):
        path.write_bytes(content)
        digests.append(Sweep(source="file", path=path).digest)
    assert digests[0] != digests[1]


def test_python_values_of_any_like_type_are_taken_and_others_named():
    import numpy as np

    sweep = Sweep(
        epsilon=np.array([1.0, 2.0]),
        depth=[1, np.int64(2)],
        n=4,
        samples=np.int64(8),
        source="file",
        path="x.npy",
    )
    assert (sweep.epsilon, sweep.depth, sweep.n, sweep.samples) == ((1.0, 2.0), (1, 2), (4,), 8)
    assert hash(sweep) and sweep.path.name == "x.npy"
    wrong = (
        {"orientation": "input-first"},
        {"dtype": "float16"},
        {"last": "cols"},
        {"seeds": 2.5},
        {"depth": (1.0,)},
    )
    for fields in wrong:
        with pytest.raises(InputError, match=f"{next(iter(fields))} must be"):
            Sweep(**fields)


@pytest.mark.parametrize(("backend", "precision"), [("cpu", "float64"), ("gpu", "float32")])
def test_the_precision_is_that_of_the_machine_unless_it_is_asked_for(
    backend, precision, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert Sweep().settled(None).dtype == precision
    assert Sweep(dtype="float32").precision == "float32"
    assert Sweep(dtype="float64").settled(None).dtype == "float64"
