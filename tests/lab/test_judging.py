"""There is one judge: a sweep and a verification say the same of the same cells."""

import jax
import numpy as np
import pytest

import homojax as hj
from homojax.lab.inputs import InputError
from homojax.lab.judging import chosen_claims, judge_cells, project
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import LAWS, NUM_PROBES
from homojax.lab.verify.families import FAMILIES
from homojax.theory.cases.stack import claim_depths, stack_case
from homojax.theory.claim import Claim, Comparison, Verdict

MATRIX = tuple(claim for claim in hj.CLAIMS.values() if claim.scope == "matrix")


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
    cells = {"logits": np.zeros((1, 4, 4)), "epsilon": np.ones(1), "matrix": np.eye(4)[None]}
    assert judge_cells("matrix", (own,), cells, "float64")["trace"].verdict == Verdict.UNDECIDABLE


@pytest.mark.parametrize(
    ("name", "offered"), [("hilbrt", 'did you mean "hilbert"'), ("9.9", "there is no claim")]
)
def test_an_unknown_claim_is_refused_with_the_nearest(name, offered):
    with pytest.raises(InputError, match=offered):
        chosen_claims(["doeblin", name])


# ---------------------------------------------------------------- many cells


def test_many_cells_are_judged_as_each_of_them_is(dtype):
    """And a matrix that is not given is the projection of its logits."""
    logits, epsilon, _ = FAMILIES["gaussian"].draw(np.random.default_rng(0), 4, 6)
    given = {"logits": logits, "epsilon": epsilon}
    matrix = np.asarray(project(logits.astype(dtype), epsilon.astype(dtype)))
    judged = judge_cells("matrix", MATRIX, given, dtype.name)
    again = judge_cells("matrix", MATRIX, {**given, "matrix": matrix}, dtype.name)
    for name, (comparison, verdict, tightness) in judged.items():
        assert verdict.shape == tightness.shape == comparison.lesser.shape == (6,)
        assert comparison.greater.dtype == dtype and verdict.dtype == np.int8
        np.testing.assert_array_equal(verdict, again[name].verdict)


# ---------------------------------------------------------------- one judge

ASKED = Sweep(
    source="file",
    path="logits.npy",
    epsilon=(0.2, 1.0),
    depth=claim_depths(5),
    snr=(1.0,),
    alpha=(0.0, 0.4, 1.0),
    samples=2,
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
    ds = hj.sweep(**{**ASKED.as_dict(), "iterations": iterations}).squeeze("n")
    matrices = np.array([[layers_of(s, e, iterations) for s in logits] for e in ASKED.epsilon])

    shape = matrices.shape[:3]
    single = {
        "logits": np.broadcast_to(logits, matrices.shape).reshape(-1, 4, 4),
        "epsilon": np.repeat(ASKED.epsilon, shape[1] * shape[2]),
        "matrix": matrices.reshape(-1, 4, 4),
    }
    judged = judge_cells("matrix", MATRIX, single, "float64")
    for name in LAWS:
        if name in judged:
            verdicts = judged[name].verdict.reshape(shape)
            np.testing.assert_array_equal(ds[f"verdict_{name}"], verdicts, err_msg=name)
    silent = ds.verdict_hilbert == Verdict.NOT_APPLICABLE
    assert silent.any() == (iterations == 2) and not silent.all()

    stacks = matrices.reshape(-1, *matrices.shape[2:])
    claims = tuple(hj.CLAIMS[name] for name in ("product", "residual", "turn"))
    for alpha in ASKED.alpha:
        for name, verdicts in verdicts_on(claims, stacks, alpha).items():
            found = ds[f"verdict_{name}"]
            found = found if name == "product" else found.sel(alpha=alpha)
            expected = verdicts.reshape(*shape[:2], -1)
            if name == "turn":  # by other probes: where the claim applies is the same for all
                found, expected = (x == Verdict.NOT_APPLICABLE for x in (found, expected))
            np.testing.assert_array_equal(found, expected, err_msg=f"{name} at α = {alpha}")
