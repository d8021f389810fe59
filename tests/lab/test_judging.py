"""There is one judge: a sweep and a verification say the same of the same cells."""

import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.lab.inputs import InputError
from homojax.lab.judging import chosen_claims, judge_cells, project
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import LAWS
from homojax.lab.verify.families import FAMILIES
from homojax.theory.cases.stack import claim_depths
from homojax.theory.claim import Claim, Comparison, Verdict

MATRIX = tuple(claim for claim in hj.CLAIMS.values() if claim.scope == "matrix")
STACK = tuple(hj.CLAIMS[name] for name in ("product", "residual", "turn"))
CELLS = 60  # of every test here: ε × seeds × layers of the sweep below, to compile once for all


# ---------------------------------------------------------------- which claims


def test_claims_are_chosen_by_name_by_number_and_by_section_in_their_order():
    names = [claim.name for claim in chosen_claims(["frontier", "1.4", "hilbert", "2.3"])]
    assert names == ["sigma2_falls", "sigma2_slope", "hilbert", "frontier"]
    assert {claim.number for claim in chosen_claims(["5"])} == {"5.1", "5.2", "5.3"}
    assert chosen_claims() == list(hj.CLAIMS.values())


def test_a_claim_of_ones_own_is_chosen_as_it_is_and_judged_like_any_other():
    words = dict.fromkeys(("statement", "latex", "source"), "")
    own = Claim(
        number="2",
        name="trace",
        scope="matrix",
        direction="≥",
        compare=lambda case: Comparison(case.matrix.trace() - 1, 3 * case.sigma2, case.distance),
        **words,
    )
    assert chosen_claims([own, "doeblin"]) == [hj.CLAIMS["doeblin"], own]
    cells = {"logits": np.zeros((CELLS, 4, 4)), "epsilon": np.ones(CELLS)}
    cells["matrix"] = np.stack([np.eye(4)] * CELLS)
    verdict = judge_cells("matrix", (own,), cells, "float64")["trace"].verdict
    assert (verdict == Verdict.UNDECIDABLE).all()


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("hilbrt", 'did you mean "hilbert"'),
        ("2.9", "there are: 2, 2.1, 2.2"),  # the laws of that section
        ("12", "there are: 1.1, "),
    ],
)
def test_an_unknown_claim_is_refused_with_the_nearest(name, offered):
    with pytest.raises(InputError, match=offered):
        chosen_claims(["doeblin", name])


# ---------------------------------------------------------------- many cells


@pytest.mark.parametrize(
    "dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)], indirect=True
)
def test_many_cells_are_judged_as_each_of_them_is(dtype):
    """And a matrix that is not given is the projection of its logits."""
    logits, epsilon, _ = FAMILIES["gaussian"].draw(np.random.default_rng(0), 4, CELLS)
    given = {"logits": logits, "epsilon": epsilon}
    matrix = np.asarray(project(logits.astype(dtype), epsilon.astype(dtype)))
    judged = judge_cells("matrix", MATRIX, given, dtype.name)
    again = judge_cells("matrix", MATRIX, {**given, "matrix": matrix}, dtype.name)
    for name, (comparison, verdict, tightness) in judged.items():
        assert verdict.shape == tightness.shape == comparison.lesser.shape == (CELLS,)
        assert comparison.greater.dtype == dtype and verdict.dtype == np.int8
        np.testing.assert_array_equal(verdict, again[name].verdict)


# ---------------------------------------------------------------- one judge

ASKED = Sweep(  # the shapes of tests/lab/sweep, to compile once for both
    source="file",
    path="logits.npy",
    epsilon=(0.2, 1.0, 5.0),
    depth=claim_depths(5),
    snr=(0.1, 10.0),
    alpha=(0.0, 0.25, 1.0),
    samples=200,
    retention=0.3,
)


def project_all(logits, epsilon, iterations):
    """The matrices of logits [ε, …, n, n] at each ε, as a model truncates them or converged."""
    flat = logits.reshape(-1, *logits.shape[-2:])
    each = np.repeat(epsilon, len(flat) // len(epsilon))
    if iterations is None:
        return np.asarray(project(flat, each)).reshape(logits.shape)
    alternate = partial(oracles.alternate, num_iters=iterations)
    return np.array([alternate(*cell) for cell in zip(flat, each, strict=True)]).reshape(
        logits.shape
    )


@pytest.mark.parametrize("iterations", [2, None])
def test_a_sweep_and_a_verification_give_the_same_verdicts_on_the_same_cells(
    iterations, tmp_path, monkeypatch
):
    """Normal logits of scale 1 and 6, 5 layers, truncated after 2 alternations or converged."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(4, 5, 4, 4)) * np.array([1, 6, 1, 6])[:, None, None, None]
    np.save("logits.npy", logits)
    ds = hj.sweep(dataclasses.replace(ASKED, iterations=iterations)).squeeze("n")
    logits = np.stack([logits] * len(ASKED.epsilon))
    matrices = project_all(logits, ASKED.epsilon, iterations)
    cells = logits.shape[:3]  # ε, seed, layer
    assert np.prod(cells) == CELLS

    single = {"logits": logits, "matrix": matrices}
    single = {name: x.reshape(-1, 4, 4) for name, x in single.items()}
    single["epsilon"] = np.repeat(ASKED.epsilon, cells[1] * cells[2])
    judged = judge_cells("matrix", MATRIX, single, "float64")
    compared = [name for name in LAWS if name in judged]
    for name in compared:
        verdicts = judged[name].verdict.reshape(cells)
        np.testing.assert_array_equal(ds[f"verdict_{name}"], verdicts, err_msg=name)
    silent = (ds.verdict_hilbert == Verdict.NOT_APPLICABLE).values
    assert len(compared) == 9 and silent.any() == (iterations == 2) and not silent.all()

    stacks = matrices.reshape(-1, *matrices.shape[2:])
    for alpha in ASKED.alpha:
        given = {"matrices": stacks, "alpha": np.full(len(stacks), alpha)}
        given["probe"] = rng.normal(size=(len(stacks), 4))
        for name, (_, verdict, _) in judge_cells("stack", STACK, given, "float64").items():
            swept = ds[f"verdict_{name}"]
            swept = swept.sel(alpha=alpha) if "alpha" in swept.dims else swept
            verdict = verdict.reshape(*cells[:2], -1)
            np.testing.assert_array_equal(swept, verdict, err_msg=f"{name}, α = {alpha}")
    silent = (ds.verdict_product == Verdict.NOT_APPLICABLE).isel(depth=slice(1, None)).values
    assert silent.any() == (iterations == 2) and not silent.all()


@pytest.fixture
def mine():
    """σ₂ ≤ ½: a guess that is wrong."""

    def compare(case):
        return Comparison(case.sigma2, 0 * case.sigma2 + 0.5, case.distance)

    return Claim(
        number="0",
        name="half",
        scope="matrix",
        direction="≤",
        statement="σ₂ ≤ ½",
        latex="",
        source="a guess",
        compare=compare,
    )


def test_a_claim_of_ones_own_is_verified_and_refuted(mine):
    # As many cells as there are starts, to compile less.
    cells = {"families": "gaussian", "n": 3, "cells": 26}
    ds = hj.verify(claims=(mine, "doeblin"), **cells)
    assert ds.claim.values.tolist() == ["doeblin", "half"]
    assert ds.sel(claim="half").violated.sum() > 0 == ds.sel(claim="doeblin").violated.sum()
    found = hj.refute(mine, n=3, starts=26, steps=20, polish=0)
    assert found.refuted and found.claim is mine and found.exact is None
    assert "half" not in hj.CLAIMS
    with pytest.raises(InputError, match="a store could not tell it"):
        hj.verify(claims=mine, store="a.zarr")
    with pytest.raises(InputError, match='a claim "doeblin" already'):
        hj.refute(dataclasses.replace(mine, name="doeblin"))


@pytest.mark.slow
def test_a_claim_of_ones_own_is_tightened(mine):
    assert hj.tighten(mine, n=3, starts=26, steps=20, polish=0).score > 1.9


def own_claim(compare, name="mine", scope="matrix"):
    fields = {"statement": "mine", "latex": "mine", "source": "a guess", "direction": "≤"}
    return Claim(number="2", name=name, scope=scope, compare=compare, **fields)


def fine(case):
    return Comparison(case.sigma2, 2 * jnp.ones(()), jnp.zeros(()))


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ([own_claim(fine, "hilbert")], 'there is a claim "hilbert" already'),
        ([own_claim(fine), own_claim(lambda case: fine(case))], 'two claims are called "mine"'),
        ([own_claim(lambda case: case.sigma)], "no attribute 'sigma'; there are col_error, dist"),
        (
            [own_claim(lambda case: case.foo, scope="noise")],
            "a noise case of n = 3: .*cosines, ",
        ),
        (
            [own_claim(lambda case: case.foo, scope="stack")],
            "a stack case of n = 3: .*composites",
        ),
        ([own_claim(lambda case: float(case.sigma2))], "is traced, so write it with jax.numpy."),
        ([own_claim(lambda case: case.sigma2)], "^claim mine: compare must return a Comparison"),
        ([fine], "claims must be names, numbers as words or claims of your own, not <function"),
    ],
)
def test_a_claim_of_ones_own_that_cannot_be_judged_is_told_why(claims, sentence):
    with pytest.raises(InputError, match=sentence):
        hj.verify(claims=claims, n=(3,), cells=26, stacks=0, signals=0)


def test_a_claim_of_ones_own_is_tried_at_the_sizes_that_are_asked():
    """And only there; what is no fault of tracing is not called one."""
    at_four = own_claim(lambda case: Comparison(case.matrix, jnp.ones((4, 4)), 0.0))
    few = {"families": "uniform", "cells": 2, "stacks": 0}
    assert int(hj.verify(claims=at_four, n=4, **few).violated.sum()) == 0
    with pytest.raises(InputError, match=r"matrix case of n = 3: Incompatible shapes"):
        hj.verify(claims=at_four, n=(3, 4), **few)
    with pytest.raises(InputError, match=r"matrix case of n = 3: Incompatible shapes"):
        hj.refute(at_four, n=3)
    with pytest.raises(InputError, match=r"division by zero\.$"):
        hj.verify(claims=own_claim(lambda case: 1 / 0), n=4, **few)


def test_a_claim_compares_by_a_function():
    with pytest.raises(ValueError, match="claim mine: compare must be a function of a case"):
        own_claim(None)
