"""Probes by gradient: they find what is there, check it in many digits, make it short, and do not find what is not there."""

import dataclasses
import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.lab.cases import load_case, save_case
from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from homojax.lab.probe import report as findings
from homojax.lab.probe import run as probe
from homojax.lab.probe.run import Search, refute, tighten
from homojax.lab.verify.run import replay
from homojax.theory import CLAIMS
from homojax.theory.claim import Claim, Comparison

SHORT = Search(n=3, starts=26, steps=60, polish=0)


@pytest.fixture(scope="module")
def not_monotone():
    """1.4 at n = 4 and ε = 1, logits within 6."""
    return refute("sigma2_slope", Search(n=4, starts=32, steps=160, polish=20))


@pytest.mark.slow
def test_that_sigma2_falls_is_refuted_from_random_starts_with_a_slope_of_seven_hundredths(
    not_monotone,
):
    logits = not_monotone.case.arrays["logits"]
    assert not_monotone.refuted and not_monotone.share > 0.1
    assert abs(logits).max() <= 6 * (1 + 1e-12)
    cold, hot = (
        oracles.sigma2(oracles.project(logits, epsilon)) for epsilon in (1 - 1e-5, 1 + 1e-5)
    )
    assert (hot - cold) / 2e-5 > 0.07
    assert (hot - cold) / 2e-5 == pytest.approx(not_monotone.score, abs=1e-6)


@pytest.mark.slow
def test_a_violation_is_checked_in_many_digits_and_reduced_to_digits_that_a_person_reads(
    not_monotone, tmp_path
):
    lesser, greater = not_monotone.exact
    assert not_monotone.exact_verdict == "violated" and float(lesser - greater) == pytest.approx(
        not_monotone.score, abs=1e-6
    )
    logits = not_monotone.reduced.arrays["logits"]
    assert not_monotone.digits <= 2 and (logits[0] == 0).all() and (logits[:, 0] == 0).all()
    np.testing.assert_array_equal(logits, np.round(logits, not_monotone.digits))
    save_case(not_monotone.reduced, tmp_path / "reduced.npz")
    rows = replay(load_case(tmp_path / "reduced.npz"))
    assert (
        rows["float64"][-1] == rows["50 digits"][-1] == "violated"
        and rows["float32"][-1] != "holds"
    )


@pytest.mark.slow
def test_the_history_never_falls_and_draws_itself(not_monotone):
    history = not_monotone.history
    assert (
        history.shape == (180, 32)
        and (np.diff(history, axis=0)[~np.isnan(history[:-1])] >= 0).all()
    )
    assert np.nanmax(history[-1]) == pytest.approx(not_monotone.score, abs=1e-9)
    (ax,) = not_monotone.plot().axes
    assert ax.get_xlabel() == "steps" and "greater" in ax.get_ylabel()


@pytest.mark.slow
def test_the_same_search_twice_finds_the_same():
    first, second = (refute("doeblin", SHORT) for _ in range(2))
    np.testing.assert_array_equal(first.history, second.history)
    assert not first.refuted and first.reduced is None and first.score < 0


@pytest.mark.parametrize(
    ("claim", "n", "least"),
    [
        ("hilbert", 2, 0.9999),
        pytest.param("frobenius_lower", 3, 0.999, marks=pytest.mark.slow),
        pytest.param("frobenius_upper", 3, 0.999, marks=pytest.mark.slow),
    ],
)
def test_bounds_that_are_attained_are_tightened_until_they_are(claim, n, least):
    found = tighten(claim, dataclasses.replace(SHORT, n=n, steps=150))
    assert least < found.score <= 1 + 1e-9 and found.verdict != "violated"
    matrix = oracles.project(found.case.arrays["logits"], 1.0)
    assert oracles.sigma2(matrix) == pytest.approx(
        found.greater if claim == "frobenius_lower" else found.lesser, abs=1e-9
    )


def test_the_first_order_steps_never_claim_more_than_a_bound_allows():
    assert np.nanmax(tighten("hilbert", SHORT).history) <= 1 + 1e-9


@pytest.mark.slow
def test_a_free_epsilon_is_searched_too():
    found = tighten("doeblin", dataclasses.replace(SHORT, epsilon=None))
    assert found.case.arrays["epsilon"] != 1


def test_a_claim_about_stacks_is_refuted_at_the_depth_that_breaks_it():
    found = refute("gain_retention", dataclasses.replace(SHORT, n=2, layers=2, steps=20))
    assert found.refuted and found.exact_verdict == "violated"
    assert 1 <= len(found.case.arrays["matrices"]) <= 2 and found.reduced is not None
    np.testing.assert_allclose(found.reduced.arrays["matrices"].sum(-1), 1, atol=1e-12)


# ---------------------------------------------------------------- what is not so


def with_claim(monkeypatch, name, **changes) -> Claim:
    claim = CLAIMS[name]._replace(**changes)
    monkeypatch.setitem(CLAIMS, name, claim)
    return claim


def test_a_violation_that_many_digits_take_back_is_not_reported_as_one(monkeypatch):
    compare = CLAIMS["doeblin"].compare
    with_claim(
        monkeypatch,
        "doeblin",
        compare=lambda case: compare(case)._replace(lesser=1.5 + 0 * case.sigma2, margin=0.0),
    )
    found = refute("doeblin", dataclasses.replace(SHORT, steps=3))
    assert (
        found.verdict == "violated"
        and found.exact_verdict == "holds"
        and not found.refuted
        and found.reduced is None
    )
    assert "take back" in findings.describe(found)[0]


def test_a_theorem_that_is_refuted_is_said_loudly_to_be_a_bug(monkeypatch):
    with_claim(
        monkeypatch,
        "doeblin",
        compare=lambda case: Comparison(case.sigma2, 0.0 * case.sigma2, 1e-9),
    )
    monkeypatch.setattr(probe, "in_many_digits", lambda *_: None)
    found = refute("doeblin", dataclasses.replace(SHORT, steps=3))
    assert found.refuted and found.exact is None and "BUG OF OURS" in findings.describe(found)[0]


def test_an_optimiser_that_diverges_is_an_error_and_no_result(monkeypatch):
    with_claim(
        monkeypatch,
        "doeblin",
        compare=lambda case: Comparison(jnp.nan * case.sigma2, case.sigma2, 0.0),
    )
    with pytest.raises(
        InputError, match="no start of the search for doeblin came to a finite value at n = 3"
    ):
        refute("doeblin", dataclasses.replace(SHORT, steps=3))


@pytest.mark.parametrize(
    ("goal", "claim", "message"),
    [
        (tighten, "hilbrt", 'did you mean "hilbert"'),
        (tighten, "2", "is the number of several claims"),
        (refute, "cosine_law", "about signals in noise"),
        (tighten, "differential", "is an equality"),
    ],
)
def test_a_claim_that_cannot_be_probed_is_named(goal, claim, message):
    claim = (
        next(c.name for c in CLAIMS.values() if c.scope == "noise")
        if claim == "cosine_law"
        else claim
    )
    with pytest.raises(InputError, match=message):
        goal(claim, SHORT)


@pytest.mark.parametrize(
    "field",
    [{"n": 1}, {"starts": 0}, {"steps": 0}, {"bound": -1.0}, {"epsilon": 0.0}, {"epsilon": np.nan}],
)
def test_a_search_that_cannot_be_is_refused(field):
    with pytest.raises(InputError, match=f"{next(iter(field))} = .* is not possible"):
        Search(**field)


# ---------------------------------------------------------------- at the terminal


def test_the_command_saves_what_it_found_and_says_how_to_replay_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["probe", "tighten", "hilbert", "--n", "1"])
    assert ended.value.code == 2 and "n = 1 is not possible" in capsys.readouterr().err
    main(
        [
            "probe",
            "refute",
            "gain_retention",
            "--n",
            "2",
            "--starts",
            "26",
            "--steps",
            "20",
            "--polish",
            "0",
            "--out",
            "found",
        ]
    )
    out = capsys.readouterr().out
    assert "VIOLATED" in out and "homojax verify --replay found/reduced.npz" in out
    assert {path.name for path in Path("found").iterdir()} >= {
        "case.npz",
        "reduced.npz",
        "figure.png",
        "report.html",
        "history.npz",
    }
    main(["verify", "--replay", "found/reduced.npz"])
    assert "violated" in capsys.readouterr().out


def test_a_refuted_claim_that_is_not_refuted_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with_claim(monkeypatch, "doeblin", status="refuted")  # it is true
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "probe",
                "refute",
                "doeblin",
                "--n",
                "3",
                "--starts",
                "26",
                "--steps",
                "60",
                "--polish",
                "0",
            ]
        )
    assert ended.value.code == 1 and "was not refuted" in capsys.readouterr().out


def test_probe_lists_what_it_can_and_names_the_nearest(capsys):
    main(["probe"])
    listed = capsys.readouterr().out
    assert all(
        f"  {what} " in listed
        for what in ("tighten", "refute", "frontier", "calibrate", "sensitivity")
    )
    with pytest.raises(SystemExit):
        main(["probe", "frontir"])
    assert 'did you mean "frontier"?' in capsys.readouterr().err


def test_the_public_names_are_there():
    assert hj.tighten is tighten and hj.refute is refute and hj.lab.probe.run.Search is Search


@pytest.mark.parametrize(
    "name",
    [
        "frobenius_upper",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("sigma2_falls", "gain_retention")
        ),
    ],
)
def test_first_order_steps_see_all_directions_of_a_tie_alike(name):
    """At S = I, which no renumbering changes, nor does it the slope of a smooth score; σ₂'s own subgradient takes one side."""
    claim, basis = CLAIMS[name], np.asarray(hj.birkhoff.detail_basis(3))
    stacked = claim.scope == "stack"
    start = {"logits": basis.T @ basis} | ({"alpha": 0.0, "probe": np.ones(2)} if stacked else {})
    start["logits"] = start["logits"][None] if stacked else start["logits"]

    def slope(smooth):
        score = functools.partial(probe._score, claim, "refute", Search(n=3, layers=1), smooth)
        found = np.asarray(jax.jit(jax.grad(score))(start)["logits"]).reshape(2, 2)
        return basis @ found @ basis.T

    orders = [list(order) for order in itertools.permutations(range(3))]
    for smooth, alike in ((True, True), (False, False)):
        found = slope(smooth)
        assert abs(found).max() > 1e-2
        assert (
            all(np.allclose(found[order][:, order], found, atol=1e-9) for order in orders) == alike
        )
