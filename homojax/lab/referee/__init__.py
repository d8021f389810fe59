"""Claims about a matrix, a projection or a stack, decided again in as many digits as it takes.

Both sides are computed anew, in mpmath, and share no code with ``homojax.theory``. That takes a
tenth of a second at n = 4, and seconds at n = 16.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import mpmath as mp
import numpy as np

from homojax.lab.cases import Case
from homojax.lab.referee.algebra import detail, scaled
from homojax.lab.referee.matrix import MATRIX_SIDES
from homojax.lab.referee.projection import PROJECTION_SIDES, projection_at
from homojax.lab.referee.stack import referee_stack
from homojax.projection.masks import total_support
from homojax.theory import CLAIMS
from homojax.theory.claim import Verdict

ABOUT_LOGITS = (
    *("hilbert", "logit_budget", "sinkhorn_forgets_more", "softmax_forgets_more"),
    "identity_start",
)
REFEREED_SIZE = 6  # n up to which a question of many digits is answered unless it is asked for more


def in_many_digits(case: Case, largest: int = REFEREED_SIZE) -> tuple[Any, Any] | None:
    """Return (lesser, greater) of a case, as the referee finds them.

    Args:
        case: a saved case.
        largest: the largest n that is worth the time.

    Returns:
        None for a larger n, and where the referee says nothing.
    """
    arrays = case.arrays
    if case.scope == "stack" and arrays["matrices"].shape[-1] <= largest:
        return referee_stack(
            case.claim, arrays["matrices"], float(arrays["alpha"]), arrays["probe"]
        )
    if case.scope in ("matrix", "projection") and len(arrays["logits"]) <= largest:
        return referee(case.claim, arrays["logits"], float(arrays["epsilon"]), arrays.get("matrix"))
    return None


def decided(claim_name: str, lesser: mp.mpf, greater: mp.mpf) -> Verdict:
    """Return the verdict of 50 digits on a claim of the list.

    A bound that is attained to 40 digits stays undecidable. An equality holds to within its
    resolution.
    """
    claim = CLAIMS[claim_name]
    slack = greater - lesser
    if claim.is_equality:
        slack = claim.resolution - abs(slack)
    if abs(slack) <= 1e-40 * (1 + abs(greater)):
        return Verdict.UNDECIDABLE
    return Verdict.HOLDS if slack > 0 else Verdict.VIOLATED


def referee(
    claim_name: str, logits: np.ndarray, epsilon: float, matrix: np.ndarray | None, digits: int = 50
) -> tuple[mp.mpf, mp.mpf] | None:
    """Return (lesser, greater) of a claim about a matrix or a projection, in many digits.

    The float64 inputs are taken to be exact. A given matrix stands for the doubly stochastic one
    that scaling its rows and columns leads to. Zeros stay zeros, so that equalities survive that
    are a matter of pattern. Its logits are then its logarithms, and those given are not read.
    ``truncated_norm``, about matrices that are not doubly stochastic, takes the matrix as it is.

    Args:
        claim_name: of the list.
        logits: [n, n].
        epsilon: the entropy weight.
        matrix: [n, n]; None for the projection of the logits.
        digits: places of each side, and of its distance from 1.

    Returns:
        None where nothing can be said: of a claim that has no sides here; of one about logits where
        the matrix has zeros; of one about how the projection changes where there is a matrix; of
        inputs that are not numbers or admit no scaling; where Newton's method does not end.
    """
    given = np.asarray(logits if matrix is None else matrix, float)
    support = _usable_support(claim_name, given, is_matrix=matrix is not None)
    if support is None:
        return None
    # By Hilbert's bound 1 − σ₂ ≥ e^−spread, and its digits are wanted.
    values = given[support] / epsilon if matrix is None else np.log(given[support])
    places = digits + 20 + int(np.ptp(values) / np.log(10))
    with mp.workdps(places):
        kernel = mp.matrix(np.where(support, given, 0 if matrix is None else 1).tolist())
        kernel = kernel / mp.mpf(float(epsilon)) if matrix is None else kernel.apply(mp.log)
        try:
            if claim_name == "truncated_norm" and matrix is not None:
                exact = mp.matrix(given.tolist())
            else:
                exact = scaled(kernel, support, places - 10)
            if exact is None:
                return None
            with mp.workdps(2 * places):  # squares of small differences keep their digits
                if claim_name in MATRIX_SIDES:
                    return MATRIX_SIDES[claim_name](exact, detail(exact), kernel)
                project = partial(projection_at, kernel, support, places - 10)
                return PROJECTION_SIDES[claim_name](exact, project, kernel)
        except (ZeroDivisionError, RuntimeError):  # a singular system, iterations without an end
            return None


def _usable_support(claim_name: str, given: np.ndarray, *, is_matrix: bool) -> np.ndarray | None:
    """Return where a matrix or logits may be positive; None where nothing can be said."""
    least = 0.0 if is_matrix else -np.inf
    known = claim_name in MATRIX_SIDES or (claim_name in PROJECTION_SIDES and not is_matrix)
    if not known or not ((given >= least) & (given < np.inf)).all():
        return None
    support = given > least
    if not (claim_name == "truncated_norm" and is_matrix):
        support = np.asarray(jax.jit(total_support)(support))
    about_logits = claim_name in ABOUT_LOGITS
    if not support.any() or (about_logits and not support.all()):
        return None
    return support
