"""The claims about matrices and stacks, judged on trained ones and counted by layer."""

from __future__ import annotations

import numpy as np

from homojax.lab.judging import judge_cells
from homojax.lab.train.stacks import Stacks
from homojax.theory import CLAIMS
from homojax.theory.cases.stack import claim_depths
from homojax.theory.claim import VERDICTS, Claim


def _claims_about(scope: str) -> tuple[Claim, ...]:
    return tuple(claim for claim in CLAIMS.values() if claim.scope == scope)


JUDGED = (*_claims_about("matrix"), *_claims_about("stack"))


def judgements_of(stacks: Stacks) -> dict[str, np.ndarray]:
    """Return verdict -> [claims, L]: how many comparisons of each claim in ``JUDGED`` have it.

    A claim about one matrix is counted at the matrix's layer. A claim about the first l layers is
    counted at layer l, and one about the whole stack at the last layer.
    """
    runs, each, depth = stacks.matrices.shape[:3]
    judged = {}
    for scope, cells in _cells(stacks).items():
        judged |= judge_cells(scope, _claims_about(scope), cells, stacks.matrices.dtype.name)
    counts = {name: np.zeros((len(JUDGED), depth), int) for name in VERDICTS}
    for row, claim in enumerate(JUDGED):
        verdicts = judged[claim.name].verdict
        layers = _layers(claim, verdicts.shape, depth)
        by_layer = verdicts.reshape(runs * each, len(layers), -1)
        for name, verdict in VERDICTS.items():
            counts[name][row, layers] = (by_layer == verdict).sum((0, 2))
    return counts


def theorems_of(stacks: Stacks) -> np.ndarray:
    """Return how many comparisons of theorems hold, are violated, and are undecidable, [3]."""
    counts, theorems = judgements_of(stacks), [claim.status == "theorem" for claim in JUDGED]
    return np.array([counts[name][theorems].sum() for name in ("holds", "violated", "undecidable")])


def _cells(stacks: Stacks) -> dict[str, dict[str, np.ndarray]]:
    """Return scope -> the arrays that ``judge_cells`` takes."""
    runs, each, depth, n, _ = stacks.matrices.shape
    single = stacks.matrices.reshape(-1, n, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(single)  # each matrix is the projection of these, at ε = 1
    return {
        "stack": {
            "matrices": stacks.matrices.reshape(-1, depth, n, n),
            "alpha": np.repeat(stacks.alpha, each, axis=0),
            "probe": np.random.default_rng(0).standard_normal((runs * each, n)),
        },
        "matrix": {"logits": logits, "epsilon": np.ones(len(single)), "matrix": single},
    }


def _layers(claim: Claim, shape: tuple[int, ...], depth: int) -> list[int]:
    """Return the indices of the layers that a claim's verdicts, of this shape, are counted at."""
    depths = claim_depths(depth)
    if claim.scope == "matrix":
        return list(range(depth))
    if shape[1:2] == (len(depths),):
        return [first - 1 for first in depths]
    return [depth - 1]
