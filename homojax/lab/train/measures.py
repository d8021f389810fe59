"""What is measured of trained networks: σ₂, how much detail is left, how far it is turned."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from homojax import spectrum
from homojax.birkhoff import marginal_errors
from homojax.depth import detail_composite, effective_depth, lyapunov_exponents, product_depth
from homojax.lab.train.judgements import judgements_of
from homojax.lab.train.stacks import Stacks, stacks_of
from homojax.layernorm import expected_cosine
from homojax.networks.run import Run, first_not_finite, last_not_finite
from homojax.networks.trainer import Trainer, side_by_side
from homojax.programs import program
from homojax.residual import residual_bound, residual_matrix, turn_bound
from homojax.spectrum.singular_value import spectral_norm

COMPARED = 32  # held-out examples whose details with and without noise are compared
RETENTION = 0.5  # the ρ of the effective depths


def measure(
    trainer: Trainer, start: Run, end: Run, *, noisy: bool, claims: bool
) -> dict[str, np.ndarray]:
    """Return every variable of the Dataset but the training loss, [runs, …]; counts [claims, L].

    Args:
        trainer: of the runs.
        start: runs before training.
        end: the same runs after it.
        noisy: whether to compare details with and without noise.
        claims: whether to judge the claims on the trained matrices.
    """
    loss, accuracy = side_by_side(trainer.evaluate, end)
    measured = {"test_loss": np.asarray(loss), "accuracy": np.asarray(accuracy)}
    for when, runs in (("start", start), ("end", end)):
        stacks = stacks_of(trainer, runs)
        found = measures_of(stacks)
        found["energy"] = np.asarray(stacks.trace.energy, np.float64).mean(1)
        found["turned"] = np.asarray(stacks.trace.turned, np.float64).mean(1)
        if noisy:
            snr, found["cosine"], d = directions_of(trainer, runs)
            found["cosine_predicted"] = np.asarray(expected_cosines(snr, d))
        measured |= {f"{name}_{when}": values for name, values in found.items()}
        if claims and when == "end":
            measured |= judgements_of(stacks)
    return measured | failures_of(trainer, end)


# ---------------------------------------------------------------- matrices


def measures_of(stacks: Stacks) -> dict[str, np.ndarray]:
    """Return α, σ₂ by layer, retention and effective depths of every run, [runs, …].

    They are means over a run's stacks; of ``row_error`` and ``col_error`` the largest.
    """
    runs = [
        jax.device_get(_measures(jnp.asarray(matrices), alpha))
        for matrices, alpha in zip(stacks.matrices, stacks.alpha, strict=True)
    ]
    over_stacks = {"row_error": np.max, "col_error": np.max}
    return {
        name: np.stack([over_stacks.get(name, np.mean)(run[name], axis=0) for run in runs])
        for name in runs[0]
    }


@program
@partial(jax.vmap, in_axes=(0, None))
def _measures(matrices: jax.Array, alpha: jax.Array) -> dict[str, jax.Array]:
    """Return the measures of stacks [stacks, L, n, n] with residual weights α [L]."""
    sigma2 = jax.vmap(spectrum.sigma2)(matrices)
    layers = jax.vmap(residual_matrix)(matrices, alpha)
    row, col = jax.vmap(marginal_errors)(matrices)
    kept = jax.vmap(spectral_norm)(detail_composite(layers))
    bounds = residual_bound(sigma2, alpha=alpha)
    return {
        "alpha": alpha,
        "sigma2": sigma2,
        "row_error": row.max(),
        "col_error": col.max(),
        "kept": kept[-1],
        "kept_after": kept,
        "kept_predicted": jnp.cumprod(bounds, axis=-1),
        "turned_predicted": turn_bound(sigma2, alpha=alpha),
        "depth_bound": product_depth(bounds, retention=RETENTION),
        "depth_typical": effective_depth(
            jnp.exp(lyapunov_exponents(layers)[0]), retention=RETENTION
        ),
    }


# ---------------------------------------------------------------- directions


def directions_of(
    trainer: Trainer, runs: Run, examples: int = COMPARED
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return what noise does to the detail after every layer, on the same held-out examples.

    Returns:
        The SNR, [runs, L]: the mean energy of the detail without noise over that of the detail
        that noise added, ∞ where there is no noise. The mean cosine of the details with and without
        noise, [runs, L]. The number d of directions that the detail has.
    """
    inputs = trainer.test[0][:examples]
    inputs = jnp.broadcast_to(inputs, (len(runs.step), *inputs.shape))
    settings = jax.tree.map(jnp.copy, runs.settings)
    settings["layers"]["noise"] = jax.tree.map(jnp.zeros_like, settings["layers"]["noise"])
    noisy, clean = (
        _details(side_by_side(trainer.trace, each, inputs)[1].states[:, :, 1:])
        for each in (runs, runs._replace(settings=settings))
    )
    energy, heard, added = ((x**2).sum((3, 4)) for x in (clean, noisy, noisy - clean))
    cosine = ((noisy * clean).sum((3, 4)) / jnp.sqrt(heard * energy)).mean(1)
    units, features = clean.shape[3:]
    snr = energy.mean(1) / added.mean(1)
    return np.asarray(snr), np.asarray(cosine), (units - 1) * features


def _details(states: jax.Array) -> jax.Array:
    """Return states [runs, examples, L, n, …] less their mean over units, features flattened."""
    flat = states.reshape(*states.shape[:4], -1)
    return flat - flat.mean(3, keepdims=True)


@program
@partial(jnp.vectorize, excluded=(1,))
def expected_cosines(snr: jax.Array, d: int) -> jax.Array:
    """Return the expected cosine (law 4.2) at each SNR of an array, for details of d directions."""
    return expected_cosine(snr, d=d)


# ---------------------------------------------------------------- numbers that are not finite


def failures_of(trainer: Trainer, runs: Run) -> dict[str, np.ndarray]:
    """Return where each run met a number that is not finite: step, layer, and whether backward."""
    failed = np.asarray(runs.failed)
    layers, backward = np.full(len(failed), -1), np.zeros(len(failed), bool)
    broken = np.flatnonzero(failed >= 0)
    if len(broken):
        chosen = jax.tree.map(lambda x: x[broken], runs)
        _, traces = side_by_side(trainer.trace, chosen, side_by_side(trainer.batch, chosen)[0])
        _, slopes = side_by_side(trainer.slope, chosen)
        for place, run in enumerate(broken):
            trace, slope = jax.tree.map(lambda x, place=place: x[place], (traces, slopes))
            layer = first_not_finite(trace)
            if layer is None:  # the forward pass was finite
                layer = last_not_finite(slope)
                backward[run] = layer is not None
            beyond = trace.finite.shape[-1]  # L + 1
            layers[run] = beyond if layer is None else layer
    return {"failed_step": failed, "failed_layer": layers, "failed_backward": backward}
