"""The audit of a checkpoint: measures, verdicts, and what a person or a script is told."""

import itertools
import json
import re
import warnings
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import homojax as hj
import recipes
from homojax.lab.audit.advice import advise
from homojax.lab.audit.by_hand import ByHand
from homojax.lab.audit.config import Audit
from homojax.lab.audit.reading import checkpoint_of
from homojax.lab.audit.recognising import recognise
from homojax.lab.audit.report import as_json, headline
from homojax.lab.audit.verdict import Facts, Judged, Span, Stack, judge_layer, judge_stack
from homojax.lab.cli import main
from homojax.lab.datasets import trained_mhc
from homojax.lab.inputs import InputError

KEYS = ["name", "layer", "site", "preset", "dynamic", "row_error", "col_error", "sigma2"]
KEYS += ["sigma2_converged", "sigma2_upper", "lambda2", "verdict", "certainty"]


def sigma2(matrix):
    centred = matrix - matrix.mean(0, keepdims=True)
    return np.linalg.svd(centred - centred.mean(1, keepdims=True), compute_uv=False)[0]


def stacked(logits):
    """Static logits as layers h.0 … of a checkpoint."""
    return {f"h.{i}.mix": np.asarray(x, float) for i, x in enumerate(logits)}


def audited(logits, **how: Any):
    return hj.audit(stacked(logits), pattern="h.*.mix", preset="mhc-paper", **how)


# ---------------------------------------------------------------- what is published


@pytest.fixture(scope="module")
def trained():
    """The twelve trained matrices, as the code that they come from runs them."""
    data = trained_mhc()
    logits = [np.array(layer["logits"]) for layer in data["layers"]]
    how: Any = {"orientation": "outputs-first", "last": "columns"}
    ds = hj.audit(stacked(logits), pattern="h.*.mix", preset="tokenbender", **how)
    return ds, data["published"]


def test_the_trained_matrices_come_out_as_published(trained):
    ds, published = trained
    assert float(ds.lambda2.mean()) == pytest.approx(published["mean_abs_lambda2"], abs=1e-4)
    distance = float(ds.composite_dist_to_uniform[-1])
    assert distance == pytest.approx(published["composite_frobenius_distance_to_uniform"], abs=1e-4)


def test_their_collapse_is_an_unconverged_projection(trained):
    ds, _ = trained
    assert (ds.attrs["verdict"], ds.attrs["certainty"]) == ("unconverged", "every token")
    assert ds.attrs["unconverged_share"] == pytest.approx(1, abs=1e-9)
    assert float(ds.composite_sigma2[-1]) < 0.1 < 0.999 < float(ds.composite_sigma2_converged[-1])
    assert "100%" in headline(ds) and "unconverged projection" in headline(ds)


# ---------------------------------------------------------------- measures


def test_what_is_measured_is_what_numpy_measures(rng):
    logits = rng.normal(size=(5, 4, 4))
    ds, product = audited(logits), np.eye(4)
    for i, own in enumerate(logits):
        m = recipes.mhc_paper(own)
        product = m @ product
        one = ds.isel(layer=i)
        expected = {
            "matrix": m,
            "row_error": abs(m.sum(1) - 1).max(),
            "col_error": abs(m.sum(0) - 1).max(),
            "sigma2": sigma2(m),
            "lambda2": sorted(abs(np.linalg.eigvals(m)))[-2],
            "dist_to_identity": np.linalg.norm(m - np.eye(4)),
            "dist_to_uniform": np.linalg.norm(m - 0.25),
            "entropy_share": -(m * np.log(m)).sum() / (4 * np.log(4)),
            "leaving": 1 - np.trace(m) / 4,
            "composite_sigma2": sigma2(product),
            "composite_dist_to_uniform": np.linalg.norm(product - 0.25),
            "composite_amax_gain_fwd": abs(product).sum(1).max(),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(one[name], value, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(one.gap_converged, 1 - sigma2(m), rtol=1e-5)
        best = 0
        for row, k in itertools.combinations(range(4), 2):
            for j, other in itertools.combinations(range(4), 2):
                best = max(best, 4 / (1 / m[np.ix_([row, k], [j, other])]).sum())
        np.testing.assert_allclose(one.response_converged, best, rtol=1e-4)


def test_reach_is_what_is_read_of_what_was_written(models):
    model = models["deepseek-v4"]
    ds = hj.audit(model.tensors)
    matrices = [recipes.maxtext(x.base) for x in model.expected]
    read = [1 / (1 + np.exp(-x.read)) for x in model.expected]
    write = [2 / (1 + np.exp(-x.write)) for x in model.expected]
    for start in range(len(matrices)):
        for end in range(start + 1, len(matrices)):
            carried = write[start]
            for m in matrices[start + 1 : end]:
                carried = m @ carried
            even = read[end].sum() * write[start].sum() / 4
            found = float(ds.reach[start, end])
            assert found == pytest.approx(abs(read[end] @ carried) / even, rel=1e-5)
    assert np.isnan(ds.reach.values[np.tril_indices(len(matrices))]).all()


@pytest.mark.parametrize("name", ["lucidrains", "kromhc", "mhc-lite", "maxtext", "openpangu"])
def test_models_of_every_kind_are_audited(models, name):
    ds = hj.audit(models[name].tensors)
    assert ds.dynamic.all()
    assert (ds.sigma2_upper >= ds.sigma2 - 1e-9).all()
    assert (ds.gap_lower <= ds.gap_converged + 1e-9).all()
    assert (ds.sum_error_upper >= np.maximum(ds.row_error, ds.col_error) - 1e-12).all()


# ---------------------------------------------------------------- verdicts


def known(rng, kind):
    """Logits whose state follows from how they are made."""
    turn = rng.permutation(4)
    shifts = rng.normal(size=4)[:, None] + rng.normal(size=4)[None, :]
    if kind == "near-identity":
        return rng.uniform(4.5, 9) * np.eye(4) + 0.1 * rng.normal(size=(4, 4)) + 0.1 * shifts
    if kind == "trap":
        return 0.02 * rng.normal(size=(4, 4)) + shifts
    if kind == "locked":
        return rng.uniform(45, 90) * np.eye(4)[turn] + rng.normal(size=(4, 4))
    if kind == "healthy":
        return rng.uniform(2, 3) * np.eye(4)[np.roll(np.arange(4), 1)] + shifts
    # A block of two rows that want the same column: alternations crawl.
    x = np.full((4, 4), -30.0)
    x[0, 0] = x[1, 0] = x[2, 2] = x[3, 3] = x[1, 1] = 0.0
    x[0, 1] = -rng.uniform(12, 25)
    return x[turn][:, rng.permutation(4)]


@pytest.mark.parametrize("kind", ["near-identity", "trap", "locked", "healthy", "unconverged"])
def test_states_that_are_known_by_construction(rng, kind):
    ds = audited([known(rng, kind) for _ in range(120)])
    assert set(ds.certainty.values.tolist()) == {"every token"}
    assert (ds.verdict.values == kind).all(), ds.reason.values[ds.verdict.values != kind]


def test_at_an_edge_the_rounding_of_stored_numbers_decides_nothing():
    """Of d·I a share 3/(e^d + 3) leaves; what bfloat16 rounded to 3.3 is within 0.013 of it."""
    import ml_dtypes

    stored: Any = ml_dtypes.bfloat16(3.3)
    share = 3 / (np.exp(float(stored)) + 3)
    how: Any = {"pattern": "h.*.mix", "preset": "mhc-paper", "sum_error": 0.1}

    def told(logits, factor):
        ds = hj.audit({"h.0.mix": logits}, near_identity=factor * share, **how)
        return ds.verdict.item(), ds.certainty.item()

    exact = float(stored) * np.eye(4)
    rounded = exact.astype(stored.dtype)
    assert told(exact, 1.001) == ("near-identity", "every token")
    assert told(exact, 0.999) == ("healthy", "every token")
    assert told(rounded, 1.25) == ("near-identity", "every token")
    assert told(rounded, 0.8) == ("healthy", "every token")
    assert told(rounded, 1.001)[1] == told(rounded, 0.999)[1] == "undecidable"


def test_what_cannot_be_told_is_as_it_was_measured():
    """And not half-way to a bound that may be far too wide."""
    facts = Facts(Span(0, 0.5, 1e-5), Span(0.3, 0.3), Span(0.2, 0.2), Span(0.5, 0.5))
    assert judge_layer(facts, Audit(), "every token")[:2] == ("healthy", "undecidable")
    facts = facts._replace(sum_error=Span(0, 0.5, 0.02))
    verdict, certainty, reason = judge_layer(facts, Audit(), "every token")
    assert (verdict, certainty) == ("unconverged", "undecidable")
    assert "by at most 0.5 (the stored numbers: 0.02)" in reason


SUM_ERROR = 0.3  # near identities 20 alternations cannot be proved to do better


def state(matrix):
    """The verdict about one matrix, by NumPy."""
    errors = max(abs(matrix.sum(0) - 1).max(), abs(matrix.sum(1) - 1).max())
    if errors > SUM_ERROR:
        return "unconverged"
    if 1 - np.trace(matrix) / 4 < 0.1:
        return "near-identity"
    return "trap" if sigma2(matrix) < 0.1 else "healthy"


@pytest.mark.parametrize("reach", [0.01, 0.1, 1.0])
def test_a_verdict_for_every_token_is_that_of_each_token(rng, reach):
    phi, radius = rng.normal(size=(16, 24)), 24**0.5
    scale = reach / radius / np.sqrt((phi**2).sum(1)).max()
    tensors, bases = {}, []
    for i in range(40):
        base = rng.uniform(0, 4) * np.eye(4) + 10 ** rng.uniform(-3, -0.5) * rng.normal(size=(4, 4))
        at = f"layers.{i}.hc_attn_"
        tensors[f"{at}fn"] = np.concatenate([np.zeros((8, 24)), phi])
        tensors[f"{at}base"] = np.concatenate([np.zeros(8), base.reshape(-1)])
        tensors[f"{at}scale"] = np.array([1.0, 1.0, scale])
        bases.append(base)
    ds = hj.audit(tensors, sum_error=SUM_ERROR)
    verdicts, certainties = ds.verdict.values, ds.certainty.values
    for base, verdict, certainty in zip(bases, verdicts, certainties, strict=True):
        assert certainty in ("every token", "static part")
        u = rng.normal(size=(40, 24))
        u *= radius / np.sqrt((u**2).sum(1, keepdims=True))
        tokens = recipes.maxtext(base + scale * (u @ phi.T).reshape(-1, 4, 4))
        if certainty == "every token":
            assert {state(m) for m in tokens} == {verdict}
        assert state(recipes.maxtext(base)) == verdict
    told = set(verdicts[certainties == "every token"].tolist())
    assert told >= {0.01: {"near-identity", "healthy"}, 0.1: {"healthy", "trap"}}.get(reach, set())


def layers_of(*pairs):
    return [Judged(verdict, certainty, "") for verdict, certainty in pairs]


@pytest.mark.parametrize(
    ("layers", "share", "sums", "expected"),
    [
        ([("healthy", "every token")] * 2, 0.0, 1e-6, ("trap", "every token")),
        ([("healthy", "every token")] * 2, 0.0, 3.0, ("trap", "static part")),
        ([("healthy", "undecidable")] * 2, 0.9, 1e-6, ("trap", "undecidable")),
        ([("unconverged", "undecidable")] * 2, 0.9, 3.0, ("unconverged", "undecidable")),
        ([("unconverged", "static part")] * 2, 0.9, 3.0, ("unconverged", "static part")),
    ],
)
def test_a_stack_is_certified_only_where_nothing_could_change_its_verdict(
    layers, share, sums, expected
):
    stack = Stack(
        layers=layers_of(*layers),
        sigma2=Span(0.01, 0.02),
        unconverged_share=share,
        certainty="static part",
        sigma2_upper=0.05,
        sum_error_upper=sums,
    )
    told = judge_stack(stack, Audit())
    assert told[:2] == expected
    if expected == ("trap", "every token"):  # the number is the one that is proved of them
        assert "at most 0.05 of any token's detail is left" in told.reason
    if expected == ("trap", "static part"):
        assert "between 0.01 and 0.02 of the detail is left" in told.reason


@pytest.mark.parametrize(
    ("near", "open_layers", "expected"),
    [
        (3, 0, ("near-identity", "static part")),
        (3, 3, ("near-identity", "undecidable")),
        (1, 0, ("healthy", "static part")),
        (1, 2, ("healthy", "static part")),
        (1, 3, ("healthy", "undecidable")),
    ],
)
def test_layers_that_are_undecided_leave_a_stack_undecided_where_they_matter(
    near, open_layers, expected
):
    """Of five layers; the undecided ones are among those near the identity, then the healthy."""
    verdicts = ["near-identity"] * near + ["healthy"] * (5 - near)
    certainties = ["undecidable"] * open_layers + ["every token"] * (5 - open_layers)
    stack = Stack(
        layers=layers_of(*zip(verdicts, certainties, strict=True)),
        sigma2=Span(0.5, 0.6),
        unconverged_share=0.0,
        certainty="static part",
        sigma2_upper=1.0,
        sum_error_upper=3.0,
    )
    assert judge_stack(stack, Audit())[:2] == expected


def wide_logits(layers):
    """Return DeepSeek-V4's tensors with logits so far apart that a constant of 1e-6 matters."""
    rng, tensors = np.random.default_rng(0), {}
    for k in range(layers):
        base = np.concatenate([np.zeros(8), 30 * rng.normal(size=16)])
        tensors[f"layers.{k}.hc_attn_base"] = base.astype(np.float32)
        tensors[f"layers.{k}.hc_attn_fn"] = np.zeros((24, 32), np.float32)
        tensors[f"layers.{k}.hc_attn_scale"] = np.ones(3, np.float32)
    return tensors


def test_a_collapse_that_constants_make_is_told_and_no_alternation_is_said_to_cure_it():
    tensors = wide_logits(16)
    run, more, bare = (
        hj.audit(tensors, **how) for how in ({}, {"iterations": 2000}, {"constant": 0.0})
    )
    assert float(bare.composite_sigma2[-1]) > 2 * float(run.composite_sigma2[-1])
    assert "of the collapse as run vanishes without the constants" in run.attrs["reason"]
    assert "add nothing to entries and sums" in run.attrs["advice"]
    assert float(more.composite_sigma2[-1]) < 0.1 < float(more.composite_sigma2_converged[-1])
    assert more.attrs["verdict"] == "trap" and "is left as run" in more.attrs["reason"]
    assert "constants" not in bare.attrs["reason"]


@pytest.mark.parametrize(("iterations", "told"), [(3, "a method that converges"), (12, "")])
def test_no_lower_temperature_is_advised_where_the_limit_keeps_enough(iterations, told):
    by_hand = ByHand(iterations=iterations, constant=0.0)
    layers = list(recognise(checkpoint_of(wide_logits(16)), by_hand).layers)
    advice = " ".join(one.do for one in advise(layers, ["healthy"] * 16, "trap", Audit()))
    assert told in advice and "temperature" not in advice and bool(advice) == bool(told)


def test_a_stack_that_keeps_little_as_run_alone_is_in_the_trap():
    stack = Stack(
        layers=layers_of(*[("healthy", "every token")] * 4),
        sigma2=Span(0.5, 0.5),
        unconverged_share=0.7,
        certainty="every token",
        sigma2_upper=0.5,
        sum_error_upper=0.001,
        sigma2_run=Span(0.05, 0.05),
    )
    assert judge_stack(stack, Audit()) == (
        "trap",
        "every token",
        "after 4 layers 0.05 of the detail is left as run, and 0.5 once converged",
    )
    open_ = stack._replace(sigma2_run=Span(0.05, 0.2))
    assert judge_stack(open_, Audit())[1] != "every token"


def test_a_stack_that_leaves_the_trap_on_convergence_is_not_healthy():
    """However little of its collapse vanishes: as run it keeps less than a tenth."""
    stack = Stack(
        layers=layers_of(("unconverged", "every token"), ("healthy", "every token")),
        sigma2=Span(0.101, 0.101),
        unconverged_share=0.35,
        certainty="every token",
        sigma2_upper=0.2,
        sum_error_upper=0.5,
        sigma2_run=Span(0.029, 0.029),
    )
    told = judge_stack(stack, Audit())
    assert told[:2] == ("unconverged", "every token")
    assert "0.029 of the detail is left, and 0.101 once converged" in told.reason
    for edge in ({"sigma2": Span(0.09, 0.12)}, {"sigma2_run": Span(0.02, 0.12)}):
        assert judge_stack(stack._replace(**edge), Audit())[:2] == ("unconverged", "undecidable")
    sums_are_right = stack._replace(layers=layers_of(*[("healthy", "every token")] * 2))
    assert judge_stack(sums_are_right, Audit())[:2] == ("trap", "every token")
    enough = stack._replace(sigma2_run=Span(0.1, 0.1))
    assert judge_stack(enough, Audit())[:2] == ("healthy", "every token")


def test_one_file_of_many_is_told_as_a_part(tmp_path):
    save_file(wide_logits(1), tmp_path / "model-00001-of-00002.safetensors")
    for place in (tmp_path, tmp_path / "model-00001-of-00002.safetensors"):
        assert (
            "1 of the model's 2 files were read, model-00001-of-00002"
            in hj.audit(place).attrs["notes"]
        )
    save_file({"wte": np.zeros((2, 2))}, tmp_path / "model-00002-of-00002.safetensors")
    assert "files were read" not in hj.audit(tmp_path).attrs["notes"]


def test_healthy_layers_that_miss_their_sums_are_told_of():
    stack = Stack(
        layers=layers_of(("unconverged", "every token"), *[("healthy", "every token")] * 4),
        sigma2=Span(0.5, 0.5),
        unconverged_share=0.1,
        certainty="every token",
        sigma2_upper=0.5,
        sum_error_upper=0.1,
    )
    told = judge_stack(stack, Audit())
    assert told.verdict == "healthy"
    assert told.reason.endswith("; 1 of 5 matrices are not doubly stochastic as run")


def test_of_a_stack_in_the_trap_the_layers_that_keep_least_are_named():
    strong = [3, 1, 4]  # at these places
    logits = np.stack([np.eye(4) * (1.0 + 0.1 * k if k in strong else 3.0) for k in range(6)])
    ds = audited(logits)
    assert ds.attrs["verdict"] == "trap"
    least = np.argsort([sigma2(recipes.mhc_paper(x)) for x in logits])[:3]
    where = [ds.attrs["notes"].find(str(ds.name.values[k])) for k in least]
    assert -1 not in where and where == sorted(where)
    assert set(least) == set(strong)


def test_a_model_without_a_mixing_matrix_is_told_so(models):
    ds = hj.audit(models["no mixing matrix"].tensors, None)
    assert ds.attrs["verdict"] == "none" and "never mixed" in headline(ds)


# ---------------------------------------------------------------- the command


@pytest.fixture
def model(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    save_file(models["deepseek-v4"].tensors, tmp_path / "model.safetensors")
    return "model.safetensors"


def said(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(list(args))
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_json_has_the_keys_that_scripts_rely_on(capsys, model, tmp_path):
    code, out, _ = said(capsys, "audit", model, "--json")
    found = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    ends = ["skipped", "notes", "advice"]
    assert list(found) == ["verdict", "certainty", "reason", "layers", "composite", *ends]
    assert [list(layer) for layer in found["layers"]] == [KEYS] * 6
    assert list(found["composite"]) == [
        *("sigma2", "sigma2_converged", "dist_to_uniform", "dist_to_uniform_converged"),
        "unconverged_share",
    ]
    assert not (tmp_path / "runs").exists()
    assert found == as_json(hj.audit(model))
    code, again, _ = said(capsys, "audit", model, "--json", "--out", "kept")
    assert code == 0 and json.loads(again) == found
    assert (tmp_path / "kept/report.html").exists()


def test_a_gate_fails_on_the_verdicts_that_it_names(capsys, model, tmp_path):
    locked: Any = stacked([60 * np.eye(4)] * 2)
    np.savez(tmp_path / "locked.npz", **locked)
    how = ("--pattern", "h.*.mix", "--preset", "mhc-paper", "--json")
    assert said(capsys, "audit", "locked.npz", *how)[0] == 0
    assert said(capsys, "audit", "locked.npz", *how, "--fail-on", "trap,unconverged")[0] == 0
    assert said(capsys, "audit", "locked.npz", *how, "--fail-on", "trap,locked")[0] == 1
    code, _, err = said(capsys, "audit", model, "--fail-on", "loked")
    assert code == 2 and 'did you mean "locked"?' in err


def test_a_run_leaves_data_figures_and_a_page(capsys, model, tmp_path):
    code, out, _ = said(capsys, "audit", model)
    assert code == 0 and "at the static part" in " ".join(out.split())
    ds = hj.open_run("runs/audit")
    assert ds.homojax.kinds == ("layers", "matrices", "reach")
    assert ds.homojax.summary() == headline(ds)
    page = (tmp_path / "runs/audit/report.html").read_text("utf-8")
    assert headline(ds) in page and page.count("<img alt") == 3
    assert page.count("<select>") == 2 and "Plotly" in page


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere.safetensors"], "there is no file or folder nowhere.safetensors"),
        (["model.safetensors", "--retention", "2"], "strictly between 0 and 1"),
        (["model.safetensors", "--pattern", "h.*"], "needs a preset (--preset) or a number"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(capsys, model, args, message):
    code, _, err = said(capsys, "audit", *args)
    assert code == 2 and message in err and err.count("\n") == 1


def test_float64_is_asked_for(monkeypatch):
    import jax

    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64"):
        hj.audit({"h.0.hc_attn.H_res_logits": np.eye(4)})


# ---------------------------------------------------------------- what to do


def advice_for(logits, **how):
    ds = audited(logits, **how)
    advice = json.loads(ds.attrs["advice"])
    return {each["verdict"]: each for each in reversed(advice)}, advice


@pytest.mark.parametrize("last", ["rows", "columns"])
def test_the_alternations_that_are_advised_are_the_fewest_that_do(rng, last):
    logits = [known(rng, "unconverged") for _ in range(3)]
    told = advice_for(logits, last=last)[0]["unconverged"]["do"]
    count = int(told.split()[1])

    def worst(iterations):
        ds = audited(logits, iterations=iterations, last=last)
        return float(np.maximum(ds.row_error, ds.col_error).max())

    assert worst(count) <= 0.01 < worst(count - 1)


def test_the_temperature_that_is_advised_keeps_what_is_asked(rng):
    logits = [rng.normal(size=(4, 4)) for _ in range(8)]
    told = advice_for(logits)[0]["trap"]["do"]
    factor = float(told.split(" by ")[1].split(",")[0])
    kept = [
        float(audited(logits, temperature=f * factor).composite_sigma2_converged[-1])
        for f in (0.98, 1.02)
    ]
    assert kept[0] > 0.11 > kept[1]  # a little more than a tenth, for what alternations lose


def test_the_advice_for_the_trap_makes_a_stack_healthy_as_run(rng):
    logits = [rng.normal(size=(4, 4)) for _ in range(8)]
    told = advice_for(logits)[0]["trap"]["do"]
    factor = float(told.split(" by ")[1].split(",")[0])
    count = int(re.search(r"run (\d+) alternations", told)[1])
    followed = audited(logits, temperature=factor, iterations=count)
    assert followed.attrs["verdict"] == "healthy" and float(followed.composite_sigma2[-1]) > 0.1
    assert "unconverged" not in followed.verdict
    assert "unconverged" in audited(logits, temperature=factor).verdict


def test_the_residual_weight_that_is_advised_is_the_largest_that_keeps_what_is_asked(rng):
    logits = [rng.normal(size=(4, 4)) for _ in range(8)]
    advice = advice_for(logits)[1]
    (told,) = (each for each in advice if "α = " in each["do"])
    alpha, matrices = float(told["do"].split("α = ")[1]), audited(logits).matrix_converged.values
    kept = [
        sigma2(np.linalg.multi_dot([(1 - a) * np.eye(4) + a * m for m in matrices[::-1]]))
        for a in (0.98 * alpha, 1.02 * alpha)
    ]
    assert kept[0] > 0.1 > kept[1]
    turn = np.arcsin(alpha * max(map(sigma2, matrices)) / (1 - alpha))
    assert f"at most {np.degrees(turn):.0f}°" in told["then"]


def test_the_temperature_that_is_advised_unlocks(rng):
    logits = [known(rng, "locked") for _ in range(4)]
    told = advice_for(logits)[0]["locked"]["do"]
    factor = float(told.split(" by ")[1].split(",")[0])
    assert not (audited(logits, temperature=1.01 * factor).verdict == "locked").any()
    assert (audited(logits).verdict == "locked").all()


def test_nothing_is_advised_to_what_is_healthy(rng):
    assert advice_for([known(rng, "healthy")])[1] == []


@pytest.mark.parametrize("size", [1e8, 1e15, 1e30])
def test_logits_too_large_for_their_rounding_leave_everything_undecided(size, tmp_path, rng):
    """A stored logit is off by more than ε: no warning, no NaN, and nothing is claimed."""
    np.savez(tmp_path / "m.npz", mixing=(size * rng.normal(size=(4, 4))).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        ds = hj.audit(tmp_path / "m.npz", pattern="mixing", iterations=20, temperature=0.05)
    assert ds.attrs["certainty"] == "undecidable"
    assert "between 0 and 1 of the detail" in ds.attrs["reason"]
    assert headline(ds).startswith("Undecidable within the error of the stored numbers")
    assert ds.attrs["advice"] == "[]"
