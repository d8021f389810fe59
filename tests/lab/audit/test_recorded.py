"""What was recorded of a running model: the streams before each mixing, or its matrices."""

import json
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import homojax as hj
from homojax.lab.audit.plots import layers as draw_layers
from homojax.lab.audit.reading import checkpoint_of
from homojax.lab.audit.recognising import mixing_of, recognise
from homojax.lab.audit.recorded import QUANTILES, samples_of
from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from oracles import project, sigma2
from recipes import CODES

TOKENS = 5
DYNAMIC = ("deepseek-v4", "openpangu", "megatron", "maxtext", "maxtext, lite", "lucidrains")


def logits_of(row, streams):
    """The logits [T, n, n] for y = M x, of a code that has them transposed."""
    size = np.sqrt((streams**2).mean((-2, -1), keepdims=True))
    moved = row.scale * (streams / size).reshape(len(streams), -1) @ row.phi.T
    return (row.base + moved.reshape(-1, *row.base.shape)).transpose(0, 2, 1)


def matrices_of(row, streams, *, apart):
    """The matrices [T, n, n] that a token's streams give, by NumPy alone."""
    size = np.sqrt((streams**2).mean(-1 if apart else (-2, -1), keepdims=True))
    moved = row.scale * (streams / size).reshape(len(streams), -1) @ row.phi.T
    return np.stack([CODES[row.recipe](row.base + x.reshape(row.base.shape)) for x in moved])


def recording(layers, seed=3):
    rng = np.random.default_rng(seed)
    return {
        layer.name: rng.normal(size=(TOKENS, layer.n, layer.features))
        * rng.exponential(size=(TOKENS, layer.n, 1))
        for layer in layers
    }


@pytest.mark.parametrize("name", [*DYNAMIC, "mhc-lite", "kromhc"])
def test_the_matrices_of_recorded_streams_are_those_of_numpy(name, models, tmp_path):
    model = models[name]
    np.savez(tmp_path / "model.npz", **model.tensors)
    layers = mixing_of(tmp_path / "model.npz").layers
    streams = recording(layers)
    samples = samples_of(layers, streams, "streams")
    for layer, row, sample in zip(layers, model.expected, samples, strict=True):
        expected = matrices_of(row, streams[layer.name], apart=name == "lucidrains")
        np.testing.assert_allclose(sample.run, expected, atol=2e-6)
        assert sample.outside in (0, None)
        found = [sigma2(m) for m in expected]
        np.testing.assert_allclose(sample.values["sigma2"], found, atol=1e-5)


@pytest.fixture(scope="module")
def v4(models):
    """The model of DeepSeek's layout, streams of five tokens, and its audits by either."""
    model = models["deepseek-v4"]
    ds = hj.audit(model.tensors)
    streams = {
        name: np.random.default_rng(k).normal(size=(TOKENS, 4, 6))
        for k, name in enumerate(ds.name.values)
    }
    matrices = {  # as the model has them: it mixes with the transpose
        name: matrices_of(row, streams[name], apart=False).transpose(0, 2, 1)
        for name, row in zip(streams, model.expected, strict=True)
    }
    return model, streams, matrices


@pytest.fixture(scope="module")
def by_streams(v4):
    return hj.audit(v4[0].tensors, streams=v4[1])


@pytest.fixture(scope="module")
def by_matrices(v4):
    return hj.audit(v4[0].tensors, matrices=v4[2])


@pytest.fixture(scope="module")
def alone(v4):
    return hj.audit(matrices=v4[2], orientation="inputs-first")


def test_streams_and_matrices_of_the_same_tokens_say_the_same(v4, by_streams, by_matrices, alone):
    model, streams, matrices = v4
    for ds in (by_streams, by_matrices, alone):
        assert (ds.tokens == TOKENS).all() and ds["quantile"].values.tolist() == list(QUANTILES)
        for k, name in enumerate(matrices):
            run = matrices[name].transpose(0, 2, 1)
            errors = abs(run.sum(2) - 1).max(1), abs(run.sum(1) - 1).max(1)
            # of matrices alone, the constants that were added are not known
            logits = (
                logits_of(model.expected[k], streams[name]) if ds is by_streams else np.log(run)
            )
            limits = [sigma2(project(x, 1.0)) for x in logits]
            expected = {
                "sigma2": [sigma2(m) for m in run],
                "sigma2_converged": limits,
                "row_error": errors[0],
                "col_error": errors[1],
                "dist_to_identity": [np.linalg.norm(m - np.eye(4)) for m in run],
            }
            for key, values in expected.items():
                found = ds[f"{key}_sample"][k]
                np.testing.assert_allclose(
                    found, np.quantile(values, QUANTILES), atol=1e-4, err_msg=key
                )
    assert (by_streams.outside == 0).all() and (by_matrices.outside == 0).all()
    assert alone.outside.isnull().all()


def test_the_product_is_taken_token_by_token(v4, by_matrices, alone):
    product = np.eye(4)[None]
    for stack in v4[2].values():
        product = stack.transpose(0, 2, 1) @ product
    expected = np.quantile([sigma2(m) for m in product], QUANTILES)
    for ds in (by_matrices, alone):
        np.testing.assert_allclose(ds.composite_sigma2_sample, expected, atol=1e-9)


def test_matrices_that_no_token_can_have_are_counted(v4):
    """Those of the transposes, as where orientation is taken for the other; and of other layers."""
    model, _, matrices = v4
    narrow = {name: 1e-3 * x if name.endswith("scale") else x for name, x in model.tensors.items()}
    turned = {name: x.transpose(0, 2, 1) for name, x in matrices.items()}
    assert (hj.audit(narrow, matrices=turned).outside == TOKENS).all()


def test_the_verdict_is_on_the_recorded_sample_where_it_is_not_proved(v4, by_streams):
    model, streams, matrices = v4
    assert set(by_streams.certainty.values) == {"recorded sample"}
    assert by_streams.attrs["certainty"] == "recorded sample"
    for k, name in enumerate(matrices):
        run = matrices[name].transpose(0, 2, 1)
        error = np.maximum(abs(run.sum(2) - 1).max(1), abs(run.sum(1) - 1).max(1))
        limits = np.stack([project(x, 1.0) for x in logits_of(model.expected[k], streams[name])])
        kinds = []
        for m, e in zip(limits, error, strict=True):
            leaving = 1 - np.trace(m) / 4
            named = "near-identity" if leaving < 0.1 else "trap" if sigma2(m) < 0.1 else "healthy"
            kinds.append("unconverged" if e > 0.01 else named)
        most = max(dict.fromkeys(kinds), key=kinds.count)
        assert by_streams.verdict[k] == most and "recorded tokens" in by_streams.reason.values[k]


@pytest.mark.parametrize("state", ["unconverged", "near-identity", "trap", "healthy", "locked"])
def test_recorded_matrices_of_a_known_state_are_told_as_that(state, rng):
    identity, flat = np.eye(4), np.full((4, 4), 0.25)
    noise = project(0.1 * rng.normal(size=(4, 4)), 1.0)
    made = {
        "unconverged": 0.9 * identity + 0.2 * flat,
        "near-identity": 0.95 * identity + 0.05 * flat,
        "trap": noise,
        "healthy": 0.5 * identity + 0.5 * noise,
        "locked": (1 - 1e-8) * identity + 1e-8 * flat,
    }[state]
    ds = hj.audit(matrices=np.broadcast_to(made, (20, 1, 4, 4)))
    assert ds.verdict.values.tolist() == [state] and ds.attrs["certainty"] == "recorded sample"
    # A stack is unconverged where that hides detail: here it amplifies.
    assert ds.attrs["verdict"] == ("healthy" if state == "unconverged" else state)


def test_one_array_has_the_layers_in_their_order(v4, by_matrices, tmp_path):
    model, streams, matrices = v4
    stacked = np.stack(list(matrices.values()), 1)
    np.save(tmp_path / "matrices.npy", stacked)
    ds = hj.audit(model.tensors, matrices=tmp_path / "matrices.npy")
    np.testing.assert_array_equal(ds.sigma2_sample, by_matrices.sigma2_sample)
    prefixed = {f"module.{name}": x.astype(np.float32) for name, x in streams.items()}
    save_file(prefixed, tmp_path / "streams.safetensors")
    ds = hj.audit(model.tensors, streams=tmp_path / "streams.safetensors")
    np.testing.assert_allclose(ds.sigma2_sample, by_matrices.sigma2_sample, atol=1e-5)


def test_a_layer_that_was_not_recorded_is_judged_at_its_static_part(v4):
    model, streams, _ = v4
    some = dict(list(streams.items())[:2])
    ds = hj.audit(model.tensors, streams=some)
    assert ds.tokens.values.tolist() == [TOKENS, TOKENS, 0, 0, 0, 0]
    assert ds.certainty.values.tolist() == 2 * ["recorded sample"] + 4 * ["static part"]
    assert ds.sigma2_sample[2:].isnull().all() and "composite_sigma2_sample" not in ds
    assert ds.attrs["certainty"] == "static part"


def test_a_recording_that_does_not_fit_is_refused_in_a_sentence(v4, tmp_path):
    model, streams, matrices = v4
    name = next(iter(streams))
    both: Any = {"streams": streams, "matrices": matrices}
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (model.tensors, both, "give recorded streams or recorded matrices, not both"),
        (None, {"streams": streams}, "streams say nothing without the checkpoint"),
        (None, {}, "name a checkpoint, or recorded matrices"),
        (model.tensors, {"streams": {"layers.0.hc_atn": 0}}, "has no arrays"),
        (
            model.tensors,
            {"streams": {"layers.0.hc_atn": streams[name]} | streams},
            'no layer "layers.0.hc_atn": did you mean "layers.0.attn"',
        ),
        (model.tensors, {"streams": {name: np.ones((3, 4, 7))}}, r"takes \[tokens, 4, 6\]"),
        (model.tensors, {"streams": np.ones((3, 2, 4, 6))}, r"record \[..., 6, n, C\]"),
        (model.tensors, {"matrices": {name: np.eye(3)[None]}}, "n = 3, and the checkpoint"),
        (None, {"matrices": -np.ones((2, 3, 4, 4))}, "not negative; record the matrix that"),
        (None, {"matrices": np.ones((2, 2, 3, 4))}, r"matrices have \[..., n, n\]"),
        (None, {"matrices": np.ones((9, 4, 4))}, r"give \[tokens, layers, n, n\]"),
        (None, {"matrices": np.ones((0, 2, 4, 4))}, "no token was recorded"),
        (None, {"matrices": np.zeros((1, 2, 4, 4))}, "a row or a column of zeros"),
        (None, {"matrices": np.full((2, 2, 4, 4), np.nan)}, "no token whose numbers are finite"),
        (None, {"matrices": {}}, "has no arrays"),
        (model.tensors, {"streams": {**streams, f"m.{name}_hc": streams[name]}}, "recorded twice"),
        ([model.tensors, model.tensors], {}, "given as a list of paths"),
        (model.tensors, {"steps": (1, 2)}, r"2 steps \(--steps\) for 1 checkpoint: give one"),
        (
            None,
            {"matrices": {f"h.{k}": np.ones((k + 2, 4, 4)) for k in range(2)}},
            "different numbers of tokens",
        ),
        (None, {"matrices": tmp_path / "none.npz"}, "there is no file"),
    ]
    for checkpoint, given, said in wrong:
        with pytest.raises(InputError, match=said):
            hj.audit(checkpoint, **given)


def test_layers_of_one_preset_share_what_is_compiled(v4):
    model, streams, _ = v4
    layers = recognise(checkpoint_of(model.tensors)).layers
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    samples = samples_of(layers, streams, "streams")
    next(samples)
    compiled.clear()
    assert len(list(samples)) == len(layers) - 1 and not compiled


def test_one_module_alone_is_that_layer_whatever_its_number_of_tokens(v4):
    model, streams, _ = v4
    first = next(iter(streams))
    for name in (first, "model.layers.0.attn_hc"):
        for tokens in (1, len(streams)):
            given = {name: np.ones((tokens, 4, 6))}
            found = hj.audit(model.tensors, streams=given).tokens.values
            assert found.tolist() == [tokens, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("form", ["h.{}.self_attn h.{}.mlp", "attn_{} ffn_{}", "b{} a{}"])
def test_matrices_alone_follow_each_other_as_layers_do(form, rng):
    """Attention before feed-forward, 2 before 10; names that say nothing in their natural order."""
    names = [name.format(k) for k in (2, 10) for name in form.split()]
    names = sorted(names, key=lambda x: (x[0], int(x[1:]))) if form[0] == "b" else names
    matrices = {name: project(3 * rng.normal(size=(4, 4)), 1.0)[None] for name in names}
    shuffled = {name: matrices[name] for name in rng.permutation(names).tolist()}
    ds = hj.audit(matrices=shuffled)
    product = np.linalg.multi_dot([matrices[name][0] for name in names[::-1]])
    assert ds.name.values.tolist() == names and ds.stacked.all()
    assert float(ds.composite_sigma2_sample[3]) == pytest.approx(sigma2(product), abs=1e-12)


def test_a_token_that_is_not_finite_is_left_out_and_told(v4):
    model, streams, _ = v4
    spoilt = {name: x.copy() for name, x in streams.items()}
    spoilt[next(iter(spoilt))][2, 0, 0] = np.inf
    ds = hj.audit(model.tensors, streams=spoilt)
    left = {name: np.delete(x, 2, 0) for name, x in streams.items()}
    expected = hj.audit(model.tensors, streams=left)
    np.testing.assert_allclose(ds.sigma2_sample[0], expected.sigma2_sample[0])
    np.testing.assert_allclose(ds.composite_sigma2_sample, expected.composite_sigma2_sample)
    assert ds.attrs["verdict"] == expected.attrs["verdict"]
    assert "Quantiles leave out 1 recorded matrix of layers." in ds.attrs["notes"]


def test_what_a_reader_could_miss_is_told(v4, rng):
    model, streams, matrices = v4
    some = dict(list(streams.items())[:2])
    notes = hj.audit(model.tensors, streams=some).attrs["notes"]
    assert "no product of what was recorded: " in notes and "and 1 more are missing" in notes
    fewer = {name: x[: 3 + (k > 0)] for k, (name, x) in enumerate(streams.items())}
    notes = hj.audit(model.tensors, streams=fewer).attrs["notes"]
    assert "no product of what was recorded: the numbers of tokens differ" in notes
    mixed = {"h.0": np.eye(3)[None], "h.1": np.eye(4)[None], "h.2": np.eye(4)[None]}
    notes = hj.audit(matrices=mixed).attrs["notes"]
    assert "1 of 3 layers are in no product: h.0." in notes and "add --orientation" in notes
    notes = hj.audit(matrices=mixed, orientation="inputs-first").attrs["notes"]
    assert "x (--orientation inputs-first)." in notes and "add --orientation" not in notes
    narrow = {name: 1e-3 * x if name.endswith("scale") else x for name, x in model.tensors.items()}
    turned = {name: x.transpose(0, 2, 1) for name, x in matrices.items()}
    told = hj.audit(narrow, matrices=turned).attrs["notes"]
    assert "Of 6 of 6 layers matrices were recorded that no token of this" in told
    (least,) = json.loads(hj.audit(model.tensors, streams=streams).attrs["notes"])
    assert least.startswith("Least is kept by layers.0.attn (σ₂ = ")  # and nothing is amiss
    wide = {name: 1e3 * x if name.endswith("scale") else x for name, x in model.tensors.items()}
    notes = hj.audit(wide).attrs["notes"]
    assert "Of 6 layers nothing follows for every token: record the streams" in notes


def test_streams_of_tokens_that_differ_in_a_gain_are_refused(models):
    model = models["magi-2"]
    ds = hj.audit(model.tensors)
    streams = {name: np.ones((1, 4, 6)) for name in ds.name.values}
    with pytest.raises(InputError, match="several modalities, each with its own gain: record"):
        hj.audit(model.tensors, streams=streams)
    alike = {name: x for name, x in streams.items() if not name.startswith("block.layers.0.")}
    assert hj.audit(model.tensors, streams=alike).tokens.values.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_masked_entry_stays_zero_and_zero_streams_are_the_static_part(v4):
    model, streams, _ = v4
    masked = np.array([[0.5, 0.5, 0], [0.5, 0.2, 0.3], [0, 0.3, 0.7]])
    ds = hj.audit(matrices=masked[None, None])
    assert float(ds.sigma2_sample[0, 3]) == pytest.approx(sigma2(masked), abs=1e-12)
    assert float(ds.sigma2_converged_sample[0, 3]) == pytest.approx(sigma2(masked), abs=1e-9)
    still = hj.audit(model.tensors, streams={name: 0 * x for name, x in streams.items()})
    np.testing.assert_allclose(still.sigma2_sample[:, 3], still.sigma2, atol=1e-9)


def test_the_command_shows_what_was_recorded_and_says_how_to_ask_again(v4, tmp_path, capsys):
    model, streams, matrices = v4
    np.savez(tmp_path / "model.npz", **model.tensors)
    np.savez(tmp_path / "s.npz", **streams)
    np.savez(tmp_path / "m.npz", **matrices)
    alone = ["--matrices", str(tmp_path / "m.npz"), "--orientation", "inputs-first"]
    for args in ([str(tmp_path / "model.npz"), "--streams", str(tmp_path / "s.npz")], alone):
        out = tmp_path / f"run-{len(args)}"
        with pytest.raises(SystemExit) as stop:
            main(["audit", *args, "--out", str(out)])
        shown = " ".join(capsys.readouterr().out.split())
        assert not stop.value.code and "Recorded tokens: medians" in shown
        assert "quantiles over recorded tokens" in shown
        page = (out / "report.html").read_text()
        assert "on the recorded sample" in page and (out / "layers.png").exists()
        ds = hj.open_run(out)
        assert ds.attrs["command"].split()[2:] == args
        assert "recorded sample" in ds.homojax.summary()
    with pytest.raises(SystemExit):
        main(["audit", *alone, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["certainty"] == "recorded sample" and told["layers"][0]["tokens"] == TOKENS
    assert set(told["layers"][0]["sample"]["sigma2"]) == {f"{x:g}" for x in QUANTILES}
    assert told["composite"]["sample"]["sigma2"]["0.5"] > 0


def test_the_figure_shows_every_layer_that_was_recorded(alone, by_streams):
    for ds in (alone, by_streams):
        gap = draw_layers(ds).axes[0]
        medians = next(line for line in gap.lines if line.get_marker() == "D")
        expected = 1 - ds.sigma2_converged_sample.sel(quantile=0.5)
        np.testing.assert_allclose(medians.get_ydata(), expected)


def test_what_is_certified_of_a_static_checkpoint_needs_no_recording(rng, tmp_path):
    """Whatever was recorded, here of another model, its matrices are those that are stored."""
    stored = {f"layers.{k}.mixing": 0.1 * rng.normal(size=(4, 4)) for k in range(3)}
    np.savez(tmp_path / "m.npz", **stored)
    recorded = {name: np.tile(np.eye(4), (TOKENS, 1, 1)) for name in stored}
    ways = {"pattern": "layers.*.mixing", "iterations": 20}
    plain = hj.audit(tmp_path / "m.npz", **ways)
    beside = hj.audit(tmp_path / "m.npz", **ways, matrices=recorded)
    told = [[ds.attrs[x] for x in ("verdict", "certainty", "reason")] for ds in (plain, beside)]
    assert told[0] == told[1] and told[0][:2] == ["trap", "every token"]
