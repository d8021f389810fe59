"""What a verdict is, what a claim is, and what its wrong versions are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
from homojax.theory.claim import (
    CLAIMS,
    VERDICTS,
    Claim,
    Comparison,
    Verdict,
    claim,
    mutants_of,
    tightness,
)

NUMBER = st.one_of(st.floats(-2, 2), st.just(np.nan))
MARGIN = st.one_of(st.floats(0, 1), st.just(np.nan))


def made(direction="≤", **fields):
    """A claim whose case is the comparison itself."""
    words = dict.fromkeys(("name", "statement", "latex", "source"), "made")
    return Claim(
        number="0",
        scope="matrix",
        direction=direction,
        compare=lambda case: case,
        **{**words, **fields},
    )


judge_bound = jax.jit(lambda *sides: made().judge(Comparison(*sides))[1])
judge_equality = jax.jit(lambda *sides: made("=", resolution=0.25).judge(Comparison(*sides))[1])


# ---------------------------------------------------------------- verdicts


def test_verdicts_are_numbers_with_names():
    assert [(verdict.label, int(verdict)) for verdict in Verdict] == [
        ("violated", -1),
        ("undecidable", 0),
        ("holds", 1),
        ("not_applicable", 2),
    ]
    assert list(VERDICTS.values()) == list(Verdict) and VERDICTS["holds"] == Verdict.HOLDS


@given(NUMBER, NUMBER, MARGIN)
def test_a_bound_gets_a_verdict_only_where_the_slack_exceeds_the_margin(lesser, greater, margin):
    expected = Verdict.UNDECIDABLE
    if greater - lesser > margin:
        expected = Verdict.HOLDS
    if greater - lesser < -margin:
        expected = Verdict.VIOLATED
    verdict = judge_bound(lesser, greater, margin, True)
    assert verdict == expected and verdict.dtype == np.int8
    assert judge_bound(greater, lesser, margin, True) == -expected
    assert judge_bound(lesser, greater, margin, False) == Verdict.NOT_APPLICABLE


@given(NUMBER, NUMBER, MARGIN)
def test_an_equality_holds_to_within_its_resolution_with_its_error(lesser, greater, margin):
    expected = Verdict.UNDECIDABLE
    if abs(greater - lesser) + margin <= 0.25:
        expected = Verdict.HOLDS
    if abs(greater - lesser) > margin:
        expected = Verdict.VIOLATED
    assert judge_equality(lesser, greater, margin, True) == expected
    assert judge_equality(greater, lesser, margin, True) == expected
    assert judge_equality(lesser, greater, margin, False) == Verdict.NOT_APPLICABLE


@pytest.mark.parametrize("slack", [0.25, -0.25, 0.0])
def test_a_slack_equal_to_the_margin_is_undecidable(slack):
    assert judge_bound(0.5, 0.5 + slack, abs(slack), True) == Verdict.UNDECIDABLE


def test_an_assumption_that_is_not_met_makes_a_claim_not_applicable_where_it_is_not_met():
    """A predicate may answer for the leading axes of the comparisons alone."""
    sides = Comparison(
        np.zeros((2, 3)), np.ones((2, 1)), np.zeros(()), np.array([True, True, False])
    )
    whole = made(assumptions=(("a whole case", lambda case: True),))
    rows = made(assumptions=(("the first row", lambda case: np.array([True, False])),))
    holds, outside = Verdict.HOLDS, Verdict.NOT_APPLICABLE
    np.testing.assert_array_equal(whole.judge(sides)[1], [[holds, holds, outside]] * 2)
    comparison, verdict = rows.judge(sides)
    np.testing.assert_array_equal(verdict, [[holds, holds, outside], [outside] * 3])
    assert {field.shape for field in comparison} == {(2, 3)}
    np.testing.assert_array_equal(comparison.applies, verdict == holds)


def test_the_measured_and_the_predicted_side_go_by_the_direction():
    sides = Comparison(1.0, 2.0, 0.0)
    for direction, measured in [("≤", 1.0), ("≥", 2.0), ("=", 1.0), ("→", 1.0), ("~", 1.0)]:
        one = made(direction)
        assert (one.measured(sides), one.predicted(sides)) == (measured, 3.0 - measured)


# ---------------------------------------------------------------- claims


def test_claims_are_named_numbered_sourced_and_hashable():
    assert CLAIMS is hj.CLAIMS and all(name == one.name for name, one in CLAIMS.items())
    for one in CLAIMS.values():
        assert one.number.split(".")[0] in "1234568" and one.statement and one.latex and one.source
        assert "\n" not in one.statement and hash(one) == hash(dataclasses.replace(one))
        assert one.is_equality == (one.resolution > 0)
        assert one.status != "refuted" or not one.mutants
    scopes = [one.scope for one in CLAIMS.values()]
    assert list(dict.fromkeys(scopes)) == ["projection", "matrix", "stack", "noise"]
    assert scopes == sorted(scopes, key=list(dict.fromkeys(scopes)).index)


def test_the_decorator_registers_a_claim_and_a_claim_made_by_hand_is_in_no_list():
    before = dict(CLAIMS)
    fields = {"scope": "matrix", "direction": "≤", "statement": "", "latex": "", "source": ""}

    @claim("7.7", name="ours", **fields)
    def ours(case):
        return Comparison(case, 1.0, 0.0)

    assert list(CLAIMS) == [*before, "ours"] and CLAIMS["ours"].compare is ours
    assert CLAIMS["ours"].judge(0.5)[1] == Verdict.HOLDS
    claim("7.8", name="ours", **fields)(ours)  # a notebook cell that is run again
    assert CLAIMS.pop("ours").number == "7.8"
    made()
    assert before == CLAIMS


# ---------------------------------------------------------------- mutants, tightness


def test_wrong_versions_of_a_bound_and_of_an_equality():
    def mutant(compare, case):
        return compare(case)._replace(margin=9.0)

    sides = Comparison(1.0, 2.0, 0.5)
    lower, upper, equality = made("≥"), made("≤", mutants={"own": mutant}), made("=")
    found = {
        wrong.name: tuple(map(float, wrong.compare(sides)[:3]))
        for one in (upper, lower, equality)
        for wrong in mutants_of(dataclasses.replace(one, name=one.direction))
    }
    assert found == {
        "≤: sign reversed": (2.0, 1.0, 0.5),
        "≤: constant halved": (1.0, 1.0, 0.5),
        "≤: own": (1.0, 2.0, 9.0),
        "≥: sign reversed": (2.0, 1.0, 0.5),
        "≥: constant doubled": (2.0, 2.0, 0.5),
        "=: a tenth off": (1.0, 2.2, 0.5),
    }
    nothing = Comparison(0.0, jnp.zeros(()), 0.0)
    assert mutants_of(equality)[0].compare(nothing).greater == pytest.approx(0.1)
    assert mutants_of(upper) is mutants_of(upper)  # what is compiled goes by their identity


def test_tightness_is_the_ratio_of_the_sides_where_two_digits_are_left():
    def tight(direction, *sides):
        return float(tightness(made(direction), Comparison(*map(jnp.asarray, sides))))

    assert tight("≤", 0.2, 0.4, 1e-9, True) == tight("≥", 0.2, 0.4, 1e-9, True) == 0.5
    assert tight("=", 0.2, 0.4, 0.1, True) == pytest.approx(2)
    for sides in [(0.2, 0.4, 0.1, True), (0.2, 0.4, 1e-9, False), (0.0, 0.0, 0.0, True)]:
        assert np.isnan(tight("≤", *sides))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("direction", "=="),
        ("direction", "<="),
        ("scope", "matrices"),
        ("status", "open"),
        ("assumptions", ("M",)),
        ("number", "banana"),
        ("number", 2),
    ],
)
def test_a_claim_of_ones_own_has_fields_that_claims_have(field, value):
    with pytest.raises(ValueError, match="claim mine: .*" + field.removesuffix("s")):
        dataclasses.replace(made(name="mine"), **{field: value})


@pytest.mark.parametrize("compared", [True, None, (0.0, 1.0)])
def test_a_comparison_that_is_none_is_told_so(compared):
    mine = made(name="mine")
    with pytest.raises(TypeError, match="compare must return a Comparison"):
        dataclasses.replace(mine, compare=lambda case: compared).judge(0.0)


def test_a_margin_below_0_decides_nothing():
    assert int(judge_bound(0.0, 1.0, -1.0)) == int(judge_equality(0.0, 0.0, -1.0))
    assert int(judge_bound(0.0, 1.0, -1.0)) == Verdict.UNDECIDABLE
