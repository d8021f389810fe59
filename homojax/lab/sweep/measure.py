"""What a sweep measures of one block of cells: a chain of compiled stages."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from homojax import layernorm, spectrum
from homojax.birkhoff import center, entropy, entropy_deficit, logit_spread
from homojax.depth import (
    amax_gain,
    composite,
    composite_doeblin_bound,
    effective_depth,
    lyapunov_exponents,
    measured_depth,
)
from homojax.lab.sources import Source
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import BOUNDS, NUM_PROBES
from homojax.layernorm.kolmogorov import distance_to_law
from homojax.numerics import matmul
from homojax.projection.result import SinkhornResult
from homojax.projection.sinkhorn import sinkhorn
from homojax.projection.truncated import truncated_sinkhorn
from homojax.theory import CLAIMS
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.cases.stack import stack_case

Measured = dict[str, jax.Array]  # by the names of dataset.VARIABLES
FEW = 8  # cells whose layer norm is simulated side by side: more need memory and are slower


def measure_block(
    sweep: Sweep, source: Source, n: int, cells: list[tuple[int, int]], size: int
) -> dict[str, np.ndarray]:
    """Return the variables of some cells, arrays [cells, …].

    A block of fewer cells than ``size`` is filled up, so that there is one compilation for each n.
    """
    logits, epsilon, keys = _inputs(sweep, source, n, cells + [cells[-1]] * (size - len(cells)))

    def over_cells(stage: Callable, *args):
        settings = tuple((name, getattr(sweep, name)) for name in _settings_of(stage))
        at_once = min(size, FEW) if stage is _measure_layernorm else None
        return program_of(stage, settings, at_once)(*args)

    projected = over_cells(_project, logits, epsilon)
    matrices, asked = projected.matrix, sweep.measure
    measured = over_cells(_measure_matrices, logits, epsilon, projected)
    # layer norm alone does not need σ₂
    sigma2 = over_cells(_sigma2, matrices) if set(asked) - {"layernorm"} else None
    if "spectrum" in asked:
        lambda2 = over_cells(_lambda2, matrices)
        measured |= over_cells(_measure_spectrum, logits, epsilon, matrices, sigma2, lambda2)
    if "bounds" in asked:
        measured |= over_cells(_measure_bounds, logits, epsilon, matrices, sigma2)
    if "depth" in asked:
        measured |= over_cells(_measure_depth, matrices, sigma2, over_cells(_exponent, matrices))
        measured |= over_cells(_measure_composites, matrices)
    if "layernorm" in asked:
        measured |= over_cells(_measure_layernorm, matrices, keys)
    if "residual" in asked:
        measured |= over_cells(_measure_residual, matrices, sigma2, keys)
    return {name: np.asarray(x)[: len(cells)] for name, x in jax.device_get(measured).items()}


def _inputs(
    sweep: Sweep, source: Source, n: int, cells: list[tuple[int, int]]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return logits [cells, L, n, n], ε [cells] and a key for each cell."""
    layers = max(sweep.depth)
    stacks = {seed: source.draw(n, seed, layers) for seed in {seed for _, seed in cells}}
    logits = jnp.asarray(np.stack([stacks[seed] for _, seed in cells]), sweep.dtype)
    epsilon = jnp.asarray([sweep.epsilon[e] for e, _ in cells], sweep.dtype)
    key = jax.random.fold_in(jax.random.key(sweep.seed), n)
    numbers = jnp.asarray([e * source.seeds + seed for e, seed in cells])
    return logits, epsilon, jax.vmap(partial(jax.random.fold_in, key))(numbers)


@cache
def program_of(
    stage: Callable, settings: tuple[tuple[str, Any], ...], at_once: int | None = None
) -> Callable:
    """Return a stage over the cells of a block, compiled once for the settings that it reads.

    Sweeps over other ε, seeds or sources run the same programs.

    Args:
        stage: one of the functions below.
        settings: its keyword-only arguments.
        at_once: how many cells are computed side by side, a divisor of the block's size; default:
            all.
    """
    over_one = partial(stage, **dict(settings))
    if at_once is None:
        return jax.jit(jax.vmap(over_one))
    return jax.jit(
        lambda *args: jax.lax.map(lambda cell: over_one(*cell), args, batch_size=at_once)
    )


def _settings_of(stage: Callable) -> list[str]:
    """Return the fields of ``Sweep`` that a stage reads: its keyword-only arguments."""
    parameters = inspect.signature(stage).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY]


# ---------------------------------------------------------------- stages
# Each takes one stack of L layers, and names the settings that it reads; ``over_cells`` vmaps it
# over the cells of a block.


def _project(
    logits: jax.Array,
    epsilon: jax.Array,
    *,
    iterations: int | None,
    last: Literal["rows", "columns"],
    tol: float | None,
    max_steps: int,
) -> SinkhornResult:
    if iterations is not None:
        truncated = partial(truncated_sinkhorn, num_iters=iterations, last=last)
        return jax.vmap(truncated, (0, None))(logits, epsilon)
    project = partial(sinkhorn, tol=tol, max_steps=max_steps)
    return jax.vmap(project, (0, None))(logits, epsilon)


def _sigma2(matrices: jax.Array) -> jax.Array:
    return jax.vmap(spectrum.sigma2)(matrices)


def _lambda2(matrices: jax.Array) -> jax.Array:
    return jax.vmap(spectrum.lambda2)(matrices)


def _exponent(matrices: jax.Array) -> jax.Array:
    return lyapunov_exponents(matrices)[0]


def _measure_matrices(logits: jax.Array, epsilon: jax.Array, projected: SinkhornResult) -> Measured:
    matrices = cast(jax.Array, projected.matrix)
    return {
        "row_error": projected.row_error,
        "col_error": projected.col_error,
        "num_steps": projected.num_steps,
        "status": projected.status.astype(jnp.int8),
        "relative_epsilon": epsilon / jax.vmap(logit_spread)(logits),
        "entropy": jax.vmap(entropy)(matrices),
        "entropy_deficit": jax.vmap(entropy_deficit)(matrices),
    }


def _measure_spectrum(
    logits: jax.Array,
    epsilon: jax.Array,
    matrices: jax.Array,
    sigma2: jax.Array,
    lambda2: jax.Array,
) -> Measured:
    def judge(logits, matrix, sigma2, lambda2) -> jax.Array:
        case = matrix_case(logits, epsilon, matrix, sigma2=sigma2, lambda2=lambda2)
        return CLAIMS["eigenvalue"].judge(case)[1]

    verdict = jax.vmap(judge)(logits, matrices, sigma2, lambda2)
    return {"sigma2": sigma2, "lambda2": lambda2, "verdict_eigenvalue": verdict}


def _measure_bounds(
    logits: jax.Array, epsilon: jax.Array, matrices: jax.Array, sigma2: jax.Array
) -> Measured:
    def measure(logits, matrix, sigma2) -> Measured:
        # no bound is told of λ₂
        case = matrix_case(logits, epsilon, matrix, sigma2=sigma2, lambda2=jnp.nan)
        judged = {claim.name: claim.judge(case) for claim in BOUNDS}
        return {
            **{f"{claim.name}_bound": claim.predicted(judged[claim.name][0]) for claim in BOUNDS},
            **{f"verdict_{name}": verdict for name, (_, verdict) in judged.items()},
        }

    return jax.vmap(measure)(logits, matrices, sigma2)


def _measure_depth(
    matrices: jax.Array,
    sigma2: jax.Array,
    exponent: jax.Array,
    *,
    depth: tuple[int, ...],
    retention: float,
) -> Measured:
    depths = tuple(range(1, max(depth) + 1))
    case = stack_case(matrices, sigma2=sigma2, depths=depths, measured=("composite_sigma2",))
    product, verdict = CLAIMS["product"].judge(case)
    last = np.asarray(depth) - 1
    geometric_mean = jnp.exp(jnp.log(sigma2).mean())
    return {
        "composite_sigma2": product.lesser[last],
        "product_sigma2": product.greater[last],
        "verdict_product": verdict[last],
        "composite_doeblin_bound": composite_doeblin_bound(matrices)[last],
        "lyapunov_exponent": exponent,
        "effective_depth_bound": effective_depth(geometric_mean, retention=retention),
        "effective_depth_lyapunov": effective_depth(jnp.exp(exponent), retention=retention),
        "effective_depth_measured": measured_depth(product.lesser, retention=retention),
    }


def _measure_composites(matrices: jax.Array, *, depth: tuple[int, ...]) -> Measured:
    products = composite(matrices)[np.asarray(depth) - 1]
    forward, backward = jax.vmap(amax_gain)(products)
    return {
        "composite_distance": jax.vmap(spectrum.distance_to_uniform)(products),
        "dist_to_uniform": jnp.sqrt(((products - 1 / products.shape[1]) ** 2).sum((1, 2))),
        "composite_amax_gain_fwd": forward,
        "composite_amax_gain_bwd": backward,
    }


def _measure_layernorm(
    matrices: jax.Array, key: jax.Array, *, snr: tuple[float, ...], samples: int
) -> Measured:
    matrix = matrices[0]
    n, dtype = matrix.shape[0], matrix.dtype
    direction_key, *noise_keys = jax.random.split(jax.random.fold_in(key, 0), 1 + len(snr))
    x = center(jax.random.normal(direction_key, (n,), dtype))
    x = x / jnp.sqrt((x**2).sum())
    signal = center(matmul(matrix, x))

    def measure(ratio_and_key) -> Measured:
        ratio, key = ratio_and_key
        noise_std = 1 / jnp.sqrt((n - 1) * ratio)  # SNR = ‖x‖²/(dν²) with ‖x‖ = 1
        draws = layernorm.sample_cosine(key, signal, noise_std=noise_std, num_samples=samples)
        output_snr = layernorm.signal_to_noise(signal, noise_std)
        return {
            "output_snr": output_snr,
            "cosine_mean": draws.mean(),
            "cosine_stderr": draws.std(ddof=1) / jnp.sqrt(samples),
            "cosine_exact": layernorm.expected_cosine(output_snr, d=n - 1),
            "cosine_ks": distance_to_law(draws, snr=output_snr, d=n - 1),
        }

    return jax.lax.map(measure, (jnp.asarray(snr, dtype), jnp.stack(noise_keys)))


def _measure_residual(
    matrices: jax.Array,
    sigma2: jax.Array,
    key: jax.Array,
    *,
    depth: tuple[int, ...],
    alpha: tuple[float, ...],
) -> Measured:
    n, dtype = matrices.shape[1], matrices.dtype
    probes = jax.random.normal(jax.random.fold_in(key, 1), (NUM_PROBES, n), dtype)
    case = partial(stack_case, matrices, sigma2=sigma2, depths=depth)

    def measure(weight) -> Measured:
        def judge_turn(probe):
            return CLAIMS["turn"].judge(case(alpha=weight, probe=probe, measured=("turned",)))

        kept, verdict = CLAIMS["residual"].judge(case(alpha=weight, measured=("residual_sigma2",)))
        turns, turn_verdicts = jax.vmap(judge_turn)(probes)
        return {
            "residual_sigma2": kept.lesser,
            "residual_sigma2_bound": kept.greater,
            "verdict_residual": verdict,
            "turn": turns.lesser.max(0),
            "turn_bound": turns.greater[0],
            # violated < undecidable < holds; where the claim applies is the same for every probe
            "verdict_turn": turn_verdicts.min(0),
        }

    by_alpha = jax.lax.map(measure, jnp.asarray(alpha, dtype))
    return {name: jnp.moveaxis(x, 0, -1) for name, x in by_alpha.items()}
