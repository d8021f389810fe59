"""Every layout in every kind of file: all layers found, none mis-sorted, each as NumPy has it."""

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import homojax as hj
from checkpoint_writers import write_gguf, write_sharded, write_torch
from homojax.lab.audit.by_hand import ByHand
from homojax.lab.audit.layouts import LAYOUTS
from homojax.lab.audit.names import LOOKS_LIKE_MIXING, WORDS
from homojax.lab.audit.recognising import mixing_of
from homojax.lab.inputs import InputError
from homojax.presets import PRESETS
from recipes import CODES

LAYOUTS_WRITTEN = [
    *("deepseek-v4", "transformers", "glm", "gguf", "openpangu", "openpangu, apart", "magi-2"),
    *("megatron", "maxtext", "maxtext, stacked", "maxtext, lite", "lucidrains", "mhc-lite"),
    *("kromhc", "tokenbender", "no mixing matrix"),
]


def save(place, model, kind):
    """The file or folder of a model, with what is no mixing beside it."""
    others = {
        "embed.weight": np.zeros((5, 3), np.float32),
        "layers.0.norm.weight": np.ones(3, "f4"),
    }
    tensors = {**others, **model.tensors}
    order = np.random.default_rng(0).permutation(len(tensors))
    tensors = {name: tensors[name] for name in np.array(list(tensors))[order].tolist()}
    if kind == "gguf":
        write_gguf(place / "model.gguf", tensors)
        return place / "model.gguf"
    (place / "config.json").write_text(json.dumps(model.config))
    if kind == "sharded":
        write_sharded(place, tensors)
        return place
    path = place / f"model.{kind}"
    if kind == "safetensors":
        save_file(tensors, path)
    elif kind == "npz":
        np.savez_compressed(path, **tensors)
    else:
        write_torch(path, tensors)
    return path


def check(mixing, expected, tolerance=1e-6):
    """All layers, in order, each with the parameters and the Gram matrix that NumPy has."""
    assert [(x.number, x.site) for x in mixing.layers] == [(x.number, x.site) for x in expected]
    for layer, row in zip(mixing.layers, expected, strict=True):
        np.testing.assert_allclose(layer.base, row.base, rtol=tolerance, atol=tolerance)
        assert layer.scale == pytest.approx(row.scale, rel=tolerance, abs=1e-12)
        assert layer.n == 4 and layer.preset.name == row.recipe
        assert layer.dynamic == (row.phi is not None)
        for weights, logits, most in ((layer.read, row.read, 1), (layer.write, row.write, 2)):
            if logits is not None:
                np.testing.assert_allclose(weights, most / (1 + np.exp(-logits)), rtol=1e-6)
        if row.phi is not None:
            assert layer.features == 6 and layer.radius == pytest.approx(24**0.5)
            phi = row.phi.astype(float)
            np.testing.assert_allclose(layer.gram, phi @ phi.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["safetensors", "sharded", "npz", "gguf", "pt"])
@pytest.mark.parametrize("name", LAYOUTS_WRITTEN)
def test_every_layout_is_found_in_every_kind_of_file(name, kind, models, tmp_path):
    model = models[name]
    mixing = mixing_of(save(tmp_path, model, kind))
    check(mixing, model.expected)
    assert not mixing.skipped


def test_the_names_in_the_guide_are_recognised():
    guide = (Path(__file__).parents[3] / "docs" / "audit.md").read_text("utf-8")
    rows = re.findall(r"^\| (\S+) \| (`.*`) \|$", guide, flags=re.MULTILINE)
    assert {code for code, _ in rows} == set(LAYOUTS)
    for code, names in rows:
        for name in re.findall(r"`([^`]+)`", names):
            own = f"module.model.layers.3.{name}"
            assert any(pattern.fullmatch(own) for pattern in LAYOUTS[code].names), own


def test_the_layouts_written_are_those_of_the_table(models):
    assert set(models) == set(LAYOUTS_WRITTEN)
    children = {"mhc-lite", "kromhc"}  # of lucidrains' row
    written = {row.recipe for model in models.values() for row in model.expected}
    assert written - children - {"none"} == set(LAYOUTS)


def test_every_name_of_the_table_has_one_of_its_words(models):
    """Names without any of them are not looked at."""
    names = [name for model in models.values() for name in model.tensors]
    looks = [f"a.{x}.b" for x in ("hc", "mhc", "hyper_connection", "h_res", "sinkhorn", "mixing")]
    assert all(LOOKS_LIKE_MIXING.search(name) for name in looks)
    assert all(any(word in name.lower() for word in WORDS) for name in names + looks)


@pytest.mark.parametrize("name", LAYOUTS_WRITTEN)
def test_a_layers_matrix_is_that_of_the_recipe_and_is_applied_as_y_is_mx(name, models, tmp_path):
    model = models[name]
    np.savez(tmp_path / "model.npz", **model.tensors)
    layers = mixing_of(tmp_path / "model.npz", ByHand()).layers
    for layer, row in zip(layers, model.expected, strict=True):
        expected = CODES[row.recipe](row.base.astype(float))
        np.testing.assert_allclose(layer.matrix(), expected, atol=1e-6)
    if name not in ("kromhc", "no mixing matrix"):  # symmetric
        assert abs(expected - expected.T).max() > 1e-3


@pytest.mark.parametrize("name", ["deepseek-v4", "magi-2", "lucidrains", "maxtext"])
def test_the_logits_of_a_token_lie_in_the_ellipsoid_of_base_scale_and_gram(name, models, tmp_path):
    """(logits − base)ᵀ (ΦΦᵀ)⁺ (logits − base) ≤ scale² nC, for any normalised token."""
    model, rng = models[name], np.random.default_rng(1)
    np.savez(tmp_path / "model.npz", **model.tensors)
    layer, row = mixing_of(tmp_path / "model.npz").layers[0], model.expected[0]
    for _ in range(20):
        streams = rng.normal(size=(4, 6)) * rng.exponential(size=(4, 1))
        axis = 1 if layer.streams_apart else None
        normed = streams / np.sqrt((streams**2).mean(axis, keepdims=True))
        moved = row.scale * row.phi @ normed.reshape(-1)
        size = moved @ np.linalg.pinv(layer.gram) @ moved
        assert size <= (layer.scale * layer.radius) ** 2 * (1 + 1e-9)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model._orig_mod.module.", "model."])
def test_what_trainers_put_before_names_is_seen_through(prefix, models, tmp_path):
    model = models["tokenbender"]
    np.savez(tmp_path / "m.npz", **{prefix + name: x for name, x in model.tensors.items()})
    mixing = mixing_of(tmp_path / "m.npz")
    check(mixing, model.expected)
    assert mixing.layers[0].name == "transformer.h.0.hc_attn"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e4m3fn"])
def test_narrow_types_are_widened_exactly_and_their_rounding_is_kept(dtype, models, tmp_path):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    model = models["deepseek-v4"]
    tensors = {name: x.astype(kind) for name, x in model.tensors.items()}
    save_file(tensors, tmp_path / "m.safetensors")
    layer = mixing_of(tmp_path / "m.safetensors").layers[0]
    base, fn = (tensors[f"layers.0.hc_attn_{x}"].astype(float) for x in ("base", "fn"))
    np.testing.assert_array_equal(layer.base, base[8:].reshape(4, 4))
    np.testing.assert_allclose(layer.gram, fn[8:] @ fn[8:].T, rtol=1e-12)
    assert layer.base_precision.dtype == dtype
    units = {"float16": 2**-11, "bfloat16": 2**-8, "float64": 2**-53, "float8_e4m3fn": 2**-4}
    assert layer.base_precision.unit == layer.fn_precision.unit == units[dtype]
    exact = model.tensors["layers.0.hc_attn_base"][8:].astype(float)
    assert (abs(layer.base.ravel() - exact) <= units[dtype] * abs(exact) + 2**-10).all()


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1"])
def test_quantised_blocks_are_widened_and_their_error_is_kept(kind, tmp_path):
    gguf = pytest.importorskip("gguf", reason="the gguf package writes this file")
    rng = np.random.default_rng(3)
    fn, writer = rng.normal(size=(24, 64)).astype("f4"), gguf.GGUFWriter(tmp_path / "m.gguf", "x")
    writer.add_uint32("deepseek4.hyper_connection.sinkhorn_iterations", 7)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "d"])
    blocks = gguf.quants.quantize(fn, gguf.GGMLQuantizationType[kind])
    name = "blk.0.hc_attn_"
    writer.add_tensor(f"{name}fn.weight", blocks, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor(f"{name}base.weight", np.arange(24, dtype="f4"))
    writer.add_tensor(f"{name}scale.weight", np.ones(3, "f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (layer,) = mixing_of(tmp_path / "m.gguf").layers
    wide = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]).astype(float)
    np.testing.assert_allclose(layer.gram, wide[8:] @ wide[8:].T, rtol=1e-12)
    assert layer.fn_precision[::2] == (kind, 32) and layer.preset.num_iters == 7
    off = abs(wide - fn).reshape(24, 2, 32).max(2) / abs(fn).reshape(24, 2, 32).max(2)
    assert 0.5 * layer.fn_precision.unit < off.max() <= layer.fn_precision.unit


# ---------------------------------------------------------------- settings, and by hand


def test_alternations_constant_and_streams_come_from_the_models_configuration(models, tmp_path):
    save_file(models["deepseek-v4"].tensors, tmp_path / "model.safetensors")
    config = {"text_config": {"hc_mult": 4, "hc_sinkhorn_iters": 3, "hc_eps": 1e-3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for place in (tmp_path, tmp_path / "model.safetensors"):
        preset = mixing_of(place).layers[0].preset
        assert (preset.num_iters, preset.added_to_entries, preset.added_to_sums) == (3, 1e-3, 1e-3)
    (tmp_path / "config.json").write_text('{"hc_sinkhorn_iters": -1}')
    with pytest.raises(InputError, match="hc_sinkhorn_iters = -1: correct it"):
        mixing_of(tmp_path)
    (tmp_path / "config.json").write_text('{"hc_mult": 8}')
    with pytest.raises(InputError, match="24 rows are n = 4, and the configuration says 8"):
        mixing_of(tmp_path)


def test_by_hand_a_pattern_and_a_preset_find_what_no_layout_has(tmp_path):
    rng = np.random.default_rng(0)
    stacked, alone = rng.normal(size=(3, 5, 5)), rng.normal(size=(5, 5))
    np.savez(tmp_path / "m.npz", **{"a.mix": stacked, "b.mix": alone, "c.mix": np.zeros((2, 3))})
    with pytest.raises(InputError, match=r"needs a preset \(--preset\) or a number"):
        ByHand(pattern="*.mix")
    mixing = mixing_of(tmp_path / "m.npz", ByHand(pattern="*.mix", preset="lucidrains"))
    names = [layer.name for layer in mixing.layers]
    assert names == ["a.mix[0]", "a.mix[1]", "a.mix[2]", "b.mix"]
    np.testing.assert_array_equal([x.base for x in mixing.layers], [*stacked, alone])
    assert [each.name for each in mixing.skipped] == ["c.mix"]
    with pytest.raises(InputError, match='no logits of matrices that fit the pattern "z"'):
        mixing_of(tmp_path / "m.npz", ByHand(pattern="z", iterations=3))


def test_by_hand_every_part_of_a_layouts_preset_can_be_replaced(models, tmp_path):
    np.savez(tmp_path / "m.npz", **models["megatron"].tensors)
    by_hand = ByHand(iterations=5, temperature=2.0, constant=0.0, last="columns")
    preset = mixing_of(tmp_path / "m.npz", by_hand).layers[0].preset
    expected = PRESETS["megatron"]._replace(
        num_iters=5, epsilon=2.0, added_to_entries=0.0, added_to_sums=0.0, last="columns"
    )
    assert preset == expected
    (tmp_path / "config.json").write_text('{"mhc_sinkhorn_iterations": 6}')
    turned = ByHand(preset="magi-2", orientation="inputs-first")
    layer = mixing_of(tmp_path / "m.npz", turned).layers[0]
    assert layer.preset.name == "magi-2" and layer.preset.num_iters == 6
    assert layer.preset.orientation == "inputs-first"
    with pytest.raises(InputError, match='no preset "magi": did you mean "magi-2"'):
        ByHand(preset="magi")


# ---------------------------------------------------------------- what is left out, and why


def reasons(path):
    return {each.name: each.reason for each in mixing_of(path).skipped}


def test_what_looks_like_mixing_and_is_skipped_is_listed_with_its_reason(models, tmp_path):
    tensors = dict(models["deepseek-v4"].tensors)
    ones = np.ones((4, 24), "f4")
    tensors |= {"hc_head_fn": ones, "hc_head_base": np.ones(4, "f4")}
    tensors |= {"layers.11.hc_attn_fn": ones, "layers.12.hc_attn_base": np.ones(24, "f4")}
    tensors |= {"h.0.hc_attn.H_res_logits": ones, "ema.layers.0.hc_attn_fn": ones}
    tensors |= {"opt_state.0.mu.layers.0.hc_ffn_fn": ones, "layers.3.mixing.weight": ones}
    tensors |= {"h.1.hc_mlp.H_res_logits": np.eye(4, dtype="f4")}
    tensors |= {"h.1.hc_mlp.H_res_alpha_logit": np.zeros(1, "f4")}
    np.savez(tmp_path / "m.npz", **tensors)
    found = reasons(tmp_path / "m.npz")
    assert found["hc_head_fn"] == found["hc_head_base"]
    assert "joins the streams at the end" in found["hc_head_fn"]
    assert found["layers.11.hc_attn_fn"] == "there is no base, scale beside it"
    assert found["layers.12.hc_attn_base"] == "there is no fn, scale beside it"
    assert "shape [4, 24], not [n, n]" in found["h.0.hc_attn.H_res_logits"]
    assert "H_res_alpha_logit) mixes the identity in" in found["h.1.hc_mlp.H_res_logits"]
    assert found["ema.layers.0.hc_attn_fn"] == "it is an averaged copy"
    assert found["opt_state.0.mu.layers.0.hc_ffn_fn"] == "it is of the optimiser"
    assert found["layers.3.mixing.weight"] == "no layout that is known has it"
    assert len(mixing_of(tmp_path / "m.npz").layers) == 6


def test_hyper_connections_without_a_projection_are_no_mhc(models, tmp_path):
    tensors = {"h.0.static_alpha": np.ones((4, 5)), "h.0.dynamic_alpha_fn": np.ones((6, 5))}
    np.savez(tmp_path / "m.npz", **tensors, **{"h.0.norm.gamma": np.ones(6)})
    with pytest.raises(InputError, match=r"no mixing matrix .* of before mHC have no projection"):
        mixing_of(tmp_path / "m.npz")


def test_more_logits_than_a_gram_matrix_can_have_are_skipped(models, tmp_path):
    """n = 100 streams of one feature would have a Gram matrix of 800 MB, in a file of 4 MB."""
    n, name = 100, "layers.9.hc_attn_"
    tensors = {**models["deepseek-v4"].tensors, f"{name}fn": np.ones((n * n + 2 * n, n), "f4")}
    tensors |= {f"{name}base": np.ones(n * n + 2 * n, "f4"), f"{name}scale": np.ones(3, "f4")}
    save_file(tensors, tmp_path / "m.safetensors")
    found = reasons(tmp_path / "m.safetensors")
    assert found[f"{name}fn"].startswith("10000 logits depend on the token: more than 5040")


def test_eight_bit_numbers_in_units_of_others_are_not_taken_for_the_numbers(models, tmp_path):
    tensors = dict(models["deepseek-v4"].tensors)
    name = "layers.0.hc_attn_fn"
    tensors[name] = tensors[name].astype(ml_dtypes.float8_e4m3fn)
    save_file({**tensors, f"{name}_scale_inv": np.ones(1, "f4")}, tmp_path / "m.safetensors")
    found = reasons(tmp_path / "m.safetensors")
    assert f"in units of {name}_scale_inv: audit the model before" in found[name]


def test_a_number_that_is_none_is_refused_by_the_name_of_its_tensor(models, tmp_path):
    for value, shown in ((np.nan, "nan"), (np.inf, "inf")):
        for name in ("layers.2.hc_ffn_fn", "layers.2.hc_ffn_base"):
            tensors = {key: x.copy() for key, x in models["deepseek-v4"].tensors.items()}
            tensors[name][-1] = value
            save_file(tensors, tmp_path / "m.safetensors")
            with pytest.raises(InputError, match=rf"{name} is {shown} at \["):
                mixing_of(tmp_path / "m.safetensors")


def test_a_projection_too_large_to_square_is_refused(models, tmp_path):
    name = "layers.2.hc_ffn_fn"
    tensors = {**models["deepseek-v4"].tensors, name: np.full((24, 24), 1e200)}
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=f"{name} has numbers too large to square"):
        mixing_of(tmp_path / "m.safetensors")


def test_a_hole_in_a_row_of_layers_is_named(rng):
    tensors = {f"h.{k}.{s}.mix": rng.normal(size=(4, 4)) for k in range(5) for s in ("attn", "mlp")}
    asked = {"pattern": "h.*.*.mix", "preset": "mhc-paper"}
    assert "No matrix was found" not in hj.audit(tensors, **asked).attrs["notes"]
    del tensors["h.3.attn.mix"]
    assert (
        "No matrix was found of h.3.attn.mix, though" in hj.audit(tensors, **asked).attrs["notes"]
    )
    for k in (0, 1):  # every other layer, by design
        del tensors[f"h.{k}.attn.mix"]
    assert "No matrix was found" not in hj.audit(tensors, **asked).attrs["notes"]
