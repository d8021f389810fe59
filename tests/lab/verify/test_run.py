"""The whole instrument: theorems hold, refuted claims are refuted, mutants are caught."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from mpmath import mp, mpf

import homojax as hj
import oracles
from homojax.lab.cases import load_case
from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from homojax.lab.judging import chosen_claims, judge_cells
from homojax.lab.store import read_dataset
from homojax.lab.verify import run
from homojax.lab.verify.config import Verification
from homojax.lab.verify.families import FAMILIES
from homojax.lab.verify.outcome import outcome, replay, worst_cases
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.claim import VERDICTS, Verdict, mutants_of

# Noise has its own tests: it compiles for long.
QUIET = tuple(claim.name for claim in hj.CLAIMS.values() if claim.scope != "noise")
COUNTEREXAMPLES = Path(__file__).parents[3] / "docs" / "counterexamples"
# 100 matrices of each family and n, as in test_families.py: all of them share programs.
SMALL = Verification(QUIET, n=(4,), cells=2_300, stacks=120, depth=16)
PAIRS = Verification(
    ("hilbert", "doeblin", "logit_budget"), ("two-by-two", "symmetric-pair"), n=(2,), cells=200
)
ONE = Verification(
    claims=("doeblin", "pinsker"),
    families=("permutations", "uniform"),
    n=(2, 4),
    cells=200,
    stacks=0,
)


@pytest.fixture(scope="module")
def found():
    return hj.verify(SMALL)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys, *args):
    code = 0
    try:
        main(args)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    return code, out, err


# ---------------------------------------------------------------- the theory


def test_no_theorem_is_violated_and_every_claim_is_judged(found):
    as_expected, failures = outcome(found)
    assert as_expected, failures
    judged = (found.violated + found.undecidable + found.holds).sum(("family", "n"))
    assert (judged > 0).all(), found.claim.values[judged == 0]
    assert {claim.number[0] for claim in hj.CLAIMS.values()} == set("1234568")


def test_every_theorem_and_conjecture_holds_somewhere_beyond_its_error(found):
    held = found.holds.sum(("family", "n"))
    always_equal = {
        name
        for name in found.claim.values
        if found.tightness_median.sel(claim=name).min() > 1 - 1e-9
    }
    silent = {
        name for name in found.claim.values[held == 0] if found.status.sel(claim=name) != "refuted"
    }
    assert silent <= always_equal


def test_a_bound_is_attained_to_ten_digits_by_the_family_that_it_names(found):
    pairs = hj.verify(PAIRS)
    for claim in hj.CLAIMS.values():
        # Pinsker's bound is attained at J alone, where both sides are 0.
        bound = claim.attained_by and not claim.is_equality
        if bound and claim.scope == "matrix" and claim.name != "pinsker":
            ds = pairs if claim.attained_by in pairs.family else found
            best = ds.tightness_best.sel(claim=claim.name, family=claim.attained_by)
            assert best.max() > 1 - 1e-10, claim.name


@pytest.mark.parametrize("claims", [("doeblin",), pytest.param(QUIET, marks=pytest.mark.slow)])
def test_every_mutant_is_caught(claims):
    """One claim's where there is little time: the tests of the theory catch those of all claims."""
    names = tuple(name for name in claims if hj.CLAIMS[name].scope != "projection")
    caught = hj.verify(dataclasses.replace(SMALL, claims=names, mutants=True))
    assert outcome(caught) == (True, [])
    assert caught.sizes["claim"] >= 2 * sum(hj.CLAIMS[name].status != "refuted" for name in names)


@pytest.mark.slow
def test_every_mutant_of_the_projection_and_of_noise_is_caught():
    names = tuple(
        name for name, claim in hj.CLAIMS.items() if claim.scope in ("projection", "noise")
    )
    caught = hj.verify(Verification(names, n=(4, 8), cells=8_000, signals=600, mutants=True))
    assert outcome(caught) == (True, [])


@pytest.mark.slow
def test_no_claim_about_noise_is_violated():
    names = tuple(name for name, claim in hj.CLAIMS.items() if claim.scope == "noise")
    ds = hj.verify(Verification(names, signals=600))
    assert outcome(ds) == (True, []) and ((ds.holds > 0).sum(("family", "n")) > 0).all()


def test_a_mutant_posing_as_a_theorem_is_reported_as_a_failure(monkeypatch, capsys):
    halved = next(m for m in mutants_of(hj.CLAIMS["doeblin"]) if "halved" in m.name)
    halved = dataclasses.replace(halved, name="doeblin")
    monkeypatch.setitem(hj.CLAIMS, "doeblin", halved)
    asked = "--claims doeblin --families permutations --n 4 --cells 100 --out a"
    code, out, _ = said(capsys, "verify", *asked.split())
    assert code == 1 and "doeblin is a theorem, and is violated" in " ".join(out.split())
    assert list(Path("a/violations").glob("doeblin-4.npz"))


@pytest.mark.slow
def test_sigma2_rises_with_epsilon_and_the_saved_case_says_so_again(capsys):
    asked = "--claims 1.4 --families rising --n 4 --cells 100 --out a"
    code, out, _ = said(capsys, "verify", *asked.split())
    assert code == 0 and "homojax verify --replay a/violations/sigma2_falls-4.npz" in out
    case = load_case(Path("a/violations/sigma2_falls-4.npz"))
    cells = {name: np.repeat(array[None], 100, 0) for name, array in case.arrays.items()}
    claims = tuple(chosen_claims(["1.4"]))  # as many cells as before, to compile nothing new
    judged = judge_cells("projection", claims, cells, "float64")
    assert (judged["sigma2_falls"].verdict == Verdict.VIOLATED).all()


@pytest.mark.parametrize("n", [3, 4, 8])
def test_the_committed_counterexamples_to_a_monotone_sigma2_are_ones(n):
    case = load_case(COUNTEREXAMPLES / f"sigma2_falls-{n}.npz")
    cold, hot = (
        oracles.alternate(case.arrays["logits"], r * float(case.arrays["epsilon"]), 20_000)
        for r in (1, 1.25)
    )
    assert max(abs(m.sum(axis) - 1).max() for m in (cold, hot) for axis in (0, 1)) < 1e-9
    assert oracles.sigma2(hot) > oracles.sigma2(cold) + 0.01
    assert oracles.entropy_deficit(hot) < oracles.entropy_deficit(cold)


def test_a_refuted_claim_that_is_not_refuted_is_a_failure():
    ds = hj.verify(Verification(("normalised_entropy",), ("uniform",), n=(4,), cells=100, stacks=0))
    as_expected, (failure,) = outcome(ds)
    assert not as_expected and "was not refuted here" in failure


# ---------------------------------------------------------------- verdicts


def test_truncation_alone_never_makes_a_violation():
    """At logit scales 1, 3, 6: claims that assume M ∈ 𝔅ₙ are silent where rows miss their sums."""
    members = ("hilbert", "dobrushin", "doeblin", "pinsker", "frontier")
    asked = Verification(members, ("truncated",), n=(4,), cells=100, stacks=0)
    seeds = [hj.verify(dataclasses.replace(asked, seed=seed)) for seed in range(10)]
    ds = sum(each[list(VERDICTS)] for each in seeds)
    assert ds.violated.sum() == 0
    assert (ds.undecidable + ds.not_applicable).sum("claim").min() > 0 and (
        ds.holds.sum(("family", "n")) > 0
    ).all()


@pytest.mark.slow
def test_undecidable_cells_of_float32_are_decided_in_float64_and_then_in_many_digits():
    """Of every family. A matrix and its logits, both rounded to float32, contradict each other."""
    names = ("hilbert", "logit_budget", "doeblin", "dobrushin")
    asked = Verification(names, n=(2, 4), cells=1_500, stacks=0, dtype="float32")
    coarse, finer = hj.verify(asked), hj.verify(dataclasses.replace(asked, escalate=True))
    assert finer.undecidable.sum() < coarse.undecidable.sum() and finer.refereed.sum() > 0
    assert finer.violated.sum() == coarse.violated.sum() == 0
    totals = [sum(int(ds[kind].sum()) for kind in VERDICTS) for ds in (coarse, finer)]
    assert totals[0] == totals[1]


@pytest.mark.slow
def test_many_digits_are_asked_about_projections_too():
    """2 × 2 matrices attain weight_decay: float64 cannot tell, nor may 50 digits."""
    ds = hj.verify(
        Verification(("weight_decay",), ("gaussian",), n=(2,), cells=4, stacks=0, escalate=True)
    )
    assert ds.refereed.sum() == 4 == ds.undecidable.sum()


# ---------------------------------------------------------------- runs


def test_an_interrupted_verification_goes_on_and_ends_as_one_that_was_not(monkeypatch):
    def interrupt(done, total, doing):
        if done > 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hj.verify(ONE, "a.zarr", progress=interrupt)
    kept = len(list(Path("a.zarr.blocks-" + ONE.digest).glob("*.npz")))
    assert kept > 0 and not Path("a.zarr").exists()
    judged, judge_block = [], run.judge_block
    monkeypatch.setattr(run, "judge_block", lambda *args: judged.append(1) or judge_block(*args))
    whole = hj.verify(ONE)
    blocks, judged[:] = len(judged), []
    resumed = hj.verify(ONE, "a.zarr")
    assert len(judged) == blocks - kept  # none twice
    assert resumed.identical(whole) and hj.verify(ONE, "a.zarr").identical(resumed)
    with pytest.raises(InputError, match="holds something else"):
        hj.verify(Verification(claims=("doeblin",)), "a.zarr")


@pytest.mark.slow
def test_all_devices_of_a_process_give_the_bits_of_one(tmp_path):
    program = (
        "import sys, homojax as hj; import jax; jax.config.update('jax_enable_x64', True);"
        "few = dict(families=('permutations', 'gaussian'), n=(2, 3), cells=60, stacks=0);"
        "hj.verify(claims=('doeblin', 'pinsker'), escalate=True, store=sys.argv[1], **few)"
    )
    for devices in (1, 2, 4):
        flags = f"--xla_force_host_platform_device_count={devices}"
        command = [sys.executable, "-c", program, str(tmp_path / f"{devices}.zarr")]
        subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, check=True)
    one, two, four = (read_dataset(tmp_path / f"{devices}.zarr") for devices in (1, 2, 4))
    assert one.refereed.sum() > 0
    assert two.identical(one) and four.identical(one)


def test_the_dataset_says_what_it_is_and_how_to_make_it_again(found):
    assert Verification(**json.loads(found.attrs["config"])).digest == found.attrs["config_hash"]
    assert set(found.dims) == {"claim", "family", "n"} and all(
        found[name].attrs["long_name"] for name in found.data_vars
    )
    assert {"jax", "homojax", "numpy"} <= set(json.loads(found.attrs["versions"]))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--claims", "hilbrt"], 'there is no claim "hilbrt": did you mean "hilbert"?'),
        (["--claims", "9.9"], 'there is no claim "9.9"'),
        (["--families", "gausian"], 'there is no family "gausian": did you mean "gaussian"?'),
        (
            ["--families", "de-bruijn", "--n", "6"],
            "family de-bruijn has no matrix at n = 6: it needs",
        ),
        (["--n", "1"], "--n 1 is not possible"),
        (["--n"], "--n has no value"),
        (["--cells", "-3"], "--cells -3 is not possible"),
        (["--replay", "none.npz"], "there is no file none.npz"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(capsys, args, message):
    code, _, err = said(capsys, "verify", *args)
    assert (
        code == 2 and message in err and err.strip().count("\n") == 0 and not Path("runs").exists()
    )


def test_the_worst_case_of_a_violation_is_drawn_again_and_judged_in_every_precision():
    ds = hj.verify(
        claims="normalised_entropy", families="isolated-unit", n=4, cells=100, stacks=0, seed=1
    )
    assert int(ds.violated.sum()) > 0
    ((name, n, case),) = worst_cases(Verification(**json.loads(ds.attrs["config"])), ds)
    assert (name, n, case.family) == ("normalised_entropy", 4, "isolated-unit")
    assert case.about["versions"] and case.about["seed"] == 1
    rows = replay(case)
    assert list(rows) == ["float32", "float64", "50 digits"]
    assert {verdict for *_, verdict in rows.values()} == {"violated"}
    assert float(rows["float64"][0]) == pytest.approx(oracles.sigma2(case.arrays["matrix"]))


def test_nothing_to_judge_is_told_in_one_sentence():
    with pytest.raises(InputError, match="no case to judge these claims on"):
        hj.verify(claims="hilbert", families="noise", n=4)
    with pytest.raises(InputError, match="as a word"):
        hj.refute(1.4, n=3)


def test_the_run_has_a_report_that_opens_with_nothing_else_and_its_cases_replay(capsys):
    asked = "--claims 2.2 --families isolated-unit uniform --n 4 --cells 100 --out a"
    code, out, _ = said(capsys, "verify", *asked.split())
    assert code == 0 and "1024" in out and "0.998883" in out
    page = Path("a/report.html").read_text()
    assert "http:" not in page and "https:" not in page and page.count("<img") == 1
    assert "homojax verify --replay a/violations/" in page
    code, out, _ = said(capsys, "verify", "--replay", "a/violations/normalised_entropy-4.npz")
    assert code == 0 and "float64" in out and "violated" in out
    code, _, err = said(capsys, "verify", *asked.split())
    assert code == 2 and "exists already" in err


# ---------------------------------------------------------------- never too soon


@jax.jit
@jax.vmap
def judge_shifted(logits, shift):
    """Claim -> verdict, with ``shift`` added to the bound."""
    case = matrix_case(logits, 1.0, hj.sinkhorn(logits, 1.0).matrix)

    def verdict_of(claim):
        comparison = claim.compare(case)
        shifted = comparison._replace(greater=comparison.greater + shift)
        return dataclasses.replace(claim, compare=lambda _: shifted).judge(case)[1]

    names = ("hilbert", "doeblin", "frobenius_upper")
    return {name: verdict_of(hj.CLAIMS[name]) for name in names}


def test_no_verdict_is_given_against_many_digits_however_near_to_equality():
    """2,400 claims whose truth mpmath knows, most within 1e-12 of equality.

    Bounds are shifted by as much as they are then true or false by.
    """
    rng = np.random.default_rng(3)
    count = 800
    p = rng.uniform(0.02, 0.98, count)
    logits = np.log(p / (1 - p))[:, None, None] * np.array([[0.5, -0.5], [-0.5, 0.5]])
    shift = rng.choice([-1, 1], count) * 10.0 ** rng.uniform(-17, -10, count)
    judged = jax.device_get(judge_shifted(logits, shift))
    mp.dps = 40
    for i in range(count):
        ((a, b), (_, d)) = (map(mpf, map(float, row)) for row in logits[i])
        difference = a + d - 2 * b
        sigma2 = abs(mp.tanh(difference / 4))
        diagonal = 1 / (1 + mp.exp(-abs(difference) / 2))
        bounds = {
            "hilbert": mp.tanh(abs(difference) / 4),
            "doeblin": 1 - 2 * (1 - diagonal),
            "frobenius_upper": sigma2,
        }
        for name, bound in bounds.items():
            slack = bound + mpf(float(shift[i])) - sigma2
            truth = Verdict.HOLDS if slack > 0 else Verdict.VIOLATED
            assert judged[name][i] in (Verdict.UNDECIDABLE, truth), (name, i, slack)
    decided = np.concatenate(list(judged.values()))
    counts = [(decided == kind).sum() for kind in Verdict]
    assert counts[0] > 100 and counts[1] > 500 and counts[2] > 100


def test_families_that_attain_exist():
    assert {claim.attained_by for claim in hj.CLAIMS.values() if claim.attained_by} <= set(FAMILIES)


def test_more_cells_than_can_be_planned_are_refused():
    with pytest.raises(InputError, match="between 0 and a billion"):
        hj.verify(cells=10**18)
