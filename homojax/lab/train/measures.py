"""What is measured of trained networks: σ₂, what they keep of the detail, where they turn it, and how the laws fare on that."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from homojax import spectrum
from homojax.birkhoff import marginal_errors
from homojax.depth import detail_composite, effective_depth, lyapunov_exponents
from homojax.lab.verify.run import VERDICTS, judge_cells
from homojax.layernorm import expected_cosine
from homojax.networks.model import Trace
from homojax.networks.run import Run, residual_weights
from homojax.networks.trainer import Trainer, side_by_side
from homojax.residual import residual_bound, residual_matrix, turn_bound
from homojax.spectrum.singular_value import spectral_norm
from homojax.theory import CLAIMS
from homojax.theory.claim import Claim
from homojax.theory.stack import claim_depths

SEEN = 2  # held-out examples whose matrices are measured, where these differ by example
COMPARED = 32  # held-out examples whose details with and without noise are compared
RETENTION = 0.5  # the ρ of the effective depths


class Stacks(NamedTuple):
    """The matrices that runs mixed by, as stacks [runs, stacks, L, n, n] in the precision of JAX."""

    matrices: np.ndarray
    trace: Trace  # leading axes [runs, examples]
    alpha: np.ndarray  # [runs, L]


def stacks_of(of: Trainer, runs: Run) -> Stacks:
    """The mixing of every run on a few held-out examples: one stack of a matrix of parameters, else one a head or token."""
    inputs = of.test[0][:SEEN]
    _, traces = side_by_side(
        of.trace, runs, jnp.broadcast_to(inputs, (len(runs.step), *inputs.shape))
    )
    m = np.asarray(
        traces.matrices, np.float64 if jax.config.read("jax_enable_x64") else np.float32
    )  # [R, B, L, …, n, n]
    several = m.ndim > 5  # matrices of parameters are the same for every example
    m = np.moveaxis(m, 3, 2).reshape(len(m), -1, m.shape[2], *m.shape[-2:]) if several else m[:, :1]
    return Stacks(m, traces, np.asarray(residual_weights(runs), m.dtype))


def measures_of(stacks: Stacks) -> dict[str, np.ndarray]:
    """α, σ₂ by layer, what the composite kept, effective depths: means over a run's stacks, of errors the largest. [runs, …]."""
    found = [
        jax.device_get(_measures(jnp.asarray(m), a))
        for m, a in zip(stacks.matrices, stacks.alpha, strict=True)
    ]
    of_stacks = {"row_error": np.max, "col_error": np.max}  # of the others the mean
    return {
        name: np.stack([of_stacks.get(name, np.mean)(measure[name], axis=0) for measure in found])
        for name in found[0]
    }


def directions_of(
    of: Trainer, runs: Run, examples: int = COMPARED
) -> tuple[np.ndarray, np.ndarray, int]:
    """What noise does to detail after every layer: (SNR, cosine of the details with and without noise, both [runs, L], and d).

    The SNR is the energy without noise over that of what noise added, as means over held-out examples: ∞ where there is none.
    """
    inputs = of.test[0][:examples]
    inputs = jnp.broadcast_to(inputs, (len(runs.step), *inputs.shape))
    settings = jax.tree.map(jnp.copy, runs.settings)
    settings["layers"]["noise"] = jax.tree.map(jnp.zeros_like, settings["layers"]["noise"])
    silent = runs._replace(settings=settings)
    seen = (
        side_by_side(of.trace, r, inputs)[1].states[:, :, 1:] for r in (runs, silent)
    )  # [runs, examples, L, n, …]
    noisy, clean = (
        x.reshape(*x.shape[:4], -1) - x.reshape(*x.shape[:4], -1).mean(3, keepdims=True)
        for x in seen
    )
    energy, heard, added = ((x**2).sum((3, 4)) for x in (clean, noisy, noisy - clean))
    cosine = ((noisy * clean).sum((3, 4)) / jnp.sqrt(heard * energy)).mean(1)
    return (
        np.asarray(energy.mean(1) / added.mean(1)),
        np.asarray(cosine),
        (clean.shape[3] - 1) * clean.shape[4],
    )


@jax.jit
@partial(jnp.vectorize, excluded=(1,))
def expected_cosines(snr: jax.Array, d: int) -> jax.Array:
    """4.2's, of an array."""
    return expected_cosine(snr, d=d)


@jax.jit
@partial(jax.vmap, in_axes=(0, None))  # stacks
def _measures(matrices: jax.Array, alpha: jax.Array) -> dict[str, jax.Array]:
    sigma2 = jax.vmap(spectrum.sigma2)(matrices)
    layers = jax.vmap(residual_matrix)(matrices, alpha)
    row, col = jax.vmap(marginal_errors)(matrices)
    kept = jax.vmap(spectral_norm)(detail_composite(layers))
    return {
        "alpha": alpha,
        "sigma2": sigma2,
        "row_error": row.max(),
        "col_error": col.max(),
        "kept": kept[-1],
        "kept_after": kept,
        "kept_predicted": jnp.cumprod(residual_bound(sigma2, alpha=alpha), axis=-1),
        "turned_predicted": turn_bound(sigma2, alpha=alpha),
        "depth_bound": effective_depth(
            jnp.exp(jnp.log(residual_bound(sigma2, alpha=alpha)).mean()), retention=RETENTION
        ),
        "depth_typical": effective_depth(
            jnp.exp(lyapunov_exponents(layers)[0]), retention=RETENTION
        ),
    }


def _claims_about(scope: str) -> tuple[Claim, ...]:
    return tuple(claim for claim in CLAIMS.values() if claim.scope == scope)


JUDGED = (*_claims_about("matrix"), *_claims_about("stack"))


def judgements_of(stacks: Stacks) -> dict[str, np.ndarray]:
    """verdict -> [claims, L]: comparisons of the claims about one matrix on those of each layer, and of the claims about stacks.

    What these say of the first l layers is counted at layer l, and at the last one what they say of the whole stack.
    """
    runs, each, depth, n, _ = stacks.matrices.shape
    single = stacks.matrices.reshape(-1, n, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(single)  # of which each is the projection, at ε = 1
    cells = {
        "stack": {
            "matrices": stacks.matrices.reshape(-1, depth, n, n),
            "alpha": np.repeat(stacks.alpha, each, axis=0),
            "probe": np.random.default_rng(0).standard_normal((runs * each, n)),
        },
        "matrix": {"logits": logits, "epsilon": np.ones(len(single)), "matrix": single},
    }
    judged = {}
    for scope, arrays in cells.items():
        judged |= judge_cells(scope, _claims_about(scope), arrays, single.dtype.name)
    counts = {name: np.zeros((len(JUDGED), depth), int) for name in VERDICTS}
    for i, claim in enumerate(JUDGED):
        verdicts = judged[claim.name][1]
        if claim.scope == "matrix":
            layers, verdicts = range(depth), verdicts.reshape(runs * each, depth, -1)
        elif verdicts.shape[1:2] == (len(claim_depths(depth)),):
            layers = np.array(claim_depths(depth)) - 1
        else:
            layers, verdicts = [depth - 1], verdicts.reshape(runs * each, 1, -1)
        for name, value in VERDICTS.items():
            counts[name][i, layers] = (
                (verdicts == value).reshape(*verdicts.shape[:2], -1).sum((0, 2))
            )
    return counts


def theorems_of(stacks: Stacks) -> np.ndarray:
    """[3]: comparisons of the theorems among these claims that hold, are violated, are undecidable."""
    judged, theorems = judgements_of(stacks), [claim.status == "theorem" for claim in JUDGED]
    return np.array([judged[name][theorems].sum() for name in ("holds", "violated", "undecidable")])
