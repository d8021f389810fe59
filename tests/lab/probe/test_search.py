"""Searches find what is there, check it, make it short, and do not find what is not there."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.lab.cases import load_case, save_case
from homojax.lab.inputs import InputError
from homojax.lab.probe import finding, objective
from homojax.lab.probe.config import Search
from homojax.lab.probe.search import probed_claim, refute, tighten
from homojax.lab.verify.outcome import replay
from homojax.theory import CLAIMS
from homojax.theory.claim import Comparison

# ---------------------------------------------------------------- what is there


@pytest.fixture(scope="module")
def not_monotone():
    """Law 1.4 (sigma2_slope) at n = 4 and ε = 1, logits within 6."""
    return refute("sigma2_slope", n=4, starts=32, steps=160, polish=20)


@pytest.mark.slow
def test_that_sigma2_falls_is_refuted_with_a_slope_of_seven_hundredths(not_monotone):
    logits = not_monotone.case.arrays["logits"]
    assert not_monotone.refuted and not_monotone.share > 0.1
    assert abs(logits).max() <= 6 * (1 + 1e-12)
    ends = (1 - 1e-5, 1 + 1e-5)
    cold, hot = (oracles.sigma2(oracles.project(logits, epsilon)) for epsilon in ends)
    assert (hot - cold) / 2e-5 > 0.07
    assert (hot - cold) / 2e-5 == pytest.approx(not_monotone.score, abs=1e-6)


@pytest.mark.slow
def test_a_violation_is_reduced_to_digits_that_a_person_reads(not_monotone, tmp_path):
    lesser, greater = not_monotone.exact
    assert not_monotone.exact_verdict == "violated"
    assert float(lesser - greater) == pytest.approx(not_monotone.score, abs=1e-6)
    logits = not_monotone.reduced.arrays["logits"]
    assert not_monotone.digits <= 2
    np.testing.assert_array_equal(logits, np.round(logits, not_monotone.digits))
    save_case(not_monotone.reduced, tmp_path / "reduced.npz")
    rows = replay(load_case(tmp_path / "reduced.npz"))
    assert rows["float64"][-1] == rows["50 digits"][-1] == "violated"
    assert rows["float32"][-1] != "holds"


@pytest.mark.slow
def test_the_history_has_every_step_of_both_stages(not_monotone):
    assert not_monotone.history.shape == (180, 32)
    assert np.nanmax(not_monotone.history[-1]) == pytest.approx(not_monotone.score, abs=1e-9)


def test_a_claim_about_stacks_is_refuted_at_the_depth_that_breaks_it(broken_gain):
    assert broken_gain.refuted and broken_gain.exact_verdict == "violated"
    assert 1 <= len(broken_gain.case.arrays["matrices"]) <= 2
    reduced = broken_gain.reduced.arrays["matrices"]
    np.testing.assert_allclose([reduced.sum(-1), reduced.sum(-2)], 1, atol=1e-12)
    logits = np.asarray(broken_gain.reduced.about["logits"])
    np.testing.assert_array_equal(logits, np.round(logits, broken_gain.digits))
    epsilon = broken_gain.reduced.about["epsilon"]
    for layer, matrix in zip(logits, reduced, strict=False):
        np.testing.assert_allclose(matrix, oracles.project(layer, epsilon), atol=1e-9)


def test_a_bound_is_tightened_and_never_exceeded(tight_hilbert):
    history = tight_hilbert.history
    assert history.shape == (60, 26) and np.nanmax(history) <= 1 + 1e-9
    assert (np.diff(history, axis=0)[~np.isnan(history[:-1])] >= 0).all()
    assert 0.99 < tight_hilbert.score <= 1 + 1e-9 and tight_hilbert.verdict != "violated"
    matrix = oracles.project(tight_hilbert.case.arrays["logits"], 1.0)
    assert oracles.sigma2(matrix) == pytest.approx(tight_hilbert.lesser, abs=1e-9)
    assert tight_hilbert.reduced is None and not tight_hilbert.refuted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "n", "side"),
    [
        ("hilbert", 2, "lesser"),
        ("frobenius_lower", 3, "greater"),
        ("frobenius_upper", 3, "lesser"),
    ],
)
def test_bounds_that_are_attained_are_tightened_until_they_are(short, claim, n, side):
    found = tighten(claim, dataclasses.replace(short, n=n, steps=150))
    assert 0.999 < found.score <= 1 + 1e-9 and found.verdict != "violated"
    matrix = oracles.project(found.case.arrays["logits"], 1.0)
    assert oracles.sigma2(matrix) == pytest.approx(getattr(found, side), abs=1e-9)


def test_the_same_search_twice_finds_the_same(short, tight_hilbert):
    again = tighten("hilbert", short)
    np.testing.assert_array_equal(again.history, tight_hilbert.history)
    other = tighten("hilbert", dataclasses.replace(short, seed=1))
    assert not np.array_equal(other.history, tight_hilbert.history, equal_nan=True)


@pytest.mark.slow
def test_a_free_epsilon_is_searched_too(short):
    found = tighten("doeblin", dataclasses.replace(short, epsilon=None))
    assert found.case.arrays["epsilon"] != 1
    assert 1e-3 < found.case.arrays["epsilon"] < 1e2


def test_a_case_says_how_it_was_found(broken_gain):
    about = broken_gain.case.about
    assert about["verb"] == f"probe refute {broken_gain.claim.name}" and about["dtype"] == "float64"
    assert Search(**about["config"]) == broken_gain.search
    assert about["config_hash"] == broken_gain.search.digest
    assert {"jax", "numpy", "homojax", "python"} <= set(about["versions"]) and about["device"]


# ---------------------------------------------------------------- what is not there


@pytest.fixture
def altered(monkeypatch):
    """Replace fields of a claim for the time of a test."""

    def alter(name, **changes):
        claim = dataclasses.replace(CLAIMS[name], **changes)
        monkeypatch.setitem(CLAIMS, name, claim)
        return claim

    return alter


def test_a_violation_that_many_digits_take_back_is_not_reported_as_one(short, altered, monkeypatch):
    compare = CLAIMS["doeblin"].compare

    def compare_wrongly(case):
        return compare(case)._replace(lesser=1.5 + 0 * case.matrix[0, 0], margin=0.0)

    altered("doeblin", compare=compare_wrongly)
    found = refute("doeblin", dataclasses.replace(short, steps=3))
    assert found.verdict == "violated" and found.exact_verdict == "holds"
    assert not found.refuted and found.reduced is None
    monkeypatch.setattr(finding, "in_many_digits", lambda *_: None)
    unchecked = refute("doeblin", dataclasses.replace(short, steps=3))
    assert unchecked.refuted and unchecked.exact is None and unchecked.reduced is not None


@pytest.mark.slow
def test_an_optimiser_that_diverges_is_an_error_and_no_result(short, altered):
    def compare_nothing(case):
        return Comparison(jnp.nan * case.matrix[0, 0], case.matrix[0, 0], 0.0)

    altered("doeblin", compare=compare_nothing)
    message = "no start of the search for doeblin came to a finite value at n = 3"
    with pytest.raises(InputError, match=message):
        refute("doeblin", dataclasses.replace(short, steps=3))


NOISE_CLAIM = next(claim.name for claim in CLAIMS.values() if claim.scope == "noise")


@pytest.mark.parametrize(
    ("goal", "name", "message"),
    [
        ("tighten", "hilbrt", 'did you mean "hilbert"'),
        ("tighten", "2", "is the number of several claims"),
        ("refute", NOISE_CLAIM, "about signals in noise"),
        ("tighten", "differential", "is an equality"),
    ],
)
def test_a_claim_that_cannot_be_probed_is_named(goal, name, message):
    with pytest.raises(InputError, match=message):
        probed_claim(goal, name)
    with pytest.raises(InputError, match=message):
        {"tighten": tighten, "refute": refute}[goal](name)


@pytest.mark.parametrize(
    "field",
    [
        {"n": 1},
        {"layers": 0},
        {"starts": 0},
        {"steps": 0},
        {"polish": -1},
        {"seed": -1},
        {"bound": -1.0},
        {"epsilon": 0.0},
        {"epsilon": np.nan},
    ],
)
def test_a_search_that_cannot_be_is_refused(field):
    with pytest.raises(InputError, match=f"{next(iter(field))} = .* is not possible"):
        Search(**field)


def test_a_search_is_a_config_or_its_fields():
    with pytest.raises(InputError, match='no option "start": did you mean "starts"'):
        hj.tighten("hilbert", start=3)
    with pytest.raises(InputError, match="not both"):
        hj.refute("hilbert", Search(), n=3)


# ---------------------------------------------------------------- ties


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frobenius_upper", "sigma2_falls", "gain_retention"])
def test_first_order_steps_see_all_directions_of_a_tie_alike(name):
    """S = I changes with no renumbering of units, and so does the slope of a smooth score there.

    The subgradient of σ₂ itself takes one side.
    """
    claim, basis = CLAIMS[name], np.asarray(hj.birkhoff.detail_basis(3))
    stacked = claim.scope == "stack"
    start = {"logits": basis.T @ basis} | ({"alpha": 0.0, "probe": np.ones(2)} if stacked else {})
    start["logits"] = start["logits"][None] if stacked else start["logits"]

    score = functools.partial(objective.score, claim, "refute", Search(n=3, layers=1))

    @jax.jit
    def slopes(start):
        return [
            jax.grad(functools.partial(score, smooth=s))(start)["logits"] for s in (True, False)
        ]

    orders = [list(order) for order in itertools.permutations(range(3))]
    for slope, alike in zip(slopes(start), (True, False), strict=True):
        found = basis @ np.asarray(slope).reshape(2, 2) @ basis.T
        assert abs(found).max() > 1e-2
        renumbered = [found[order][:, order] for order in orders]
        assert all(np.allclose(each, found, atol=1e-9) for each in renumbered) == alike


def test_a_theorem_is_not_refuted(short):
    finding = refute("doeblin", short)
    assert not finding.refuted and finding.reduced is None and finding.score < 0
