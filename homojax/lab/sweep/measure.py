"""What a sweep measures of one block of cells: a chain of compiled stages."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache, partial, reduce
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from homojax import layernorm, spectrum
from homojax.birkhoff import center, detail, entropy, entropy_deficit, logit_spread
from homojax.depth import (
    amax_gain,
    composite,
    composite_doeblin_bound,
    detail_composite,
    effective_depth,
    lyapunov_exponents,
    measured_depth,
    product_depth,
)
from homojax.lab.sources import Source
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import BOUNDS, KS_ROUNDING, NUM_PROBES
from homojax.lab.sweep.plan import FEW, Block, Cell
from homojax.lab.traces import traced_once
from homojax.layernorm.kolmogorov import distance_to_law
from homojax.numerics import matmul
from homojax.programs import Effort, compiler_options, program
from homojax.projection.result import SinkhornResult
from homojax.projection.sinkhorn import sinkhorn
from homojax.projection.truncated import truncated_sinkhorn
from homojax.spectrum.singular_value import spectral_norm
from homojax.theory import CLAIMS
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.cases.stack import stack_case

Measured = dict[str, jax.Array]  # by the names of dataset.VARIABLES

# A sweep of so few numbers (entries of its matrices) takes longer to compile well than to run.
BRIEF = 2**21
IN_CACHE = 2**18  # entries of all layers of the cells that a CPU's cache can hold
NUMBERS_A_DRAW = 4  # a draw of layer norm, with its exact law, takes as long as so many entries


def measure_block(sweep: Sweep, source: Source, block: Block) -> dict[str, np.ndarray]:
    """Return the variables of a block of cells, arrays [1, epsilon, seed, …].

    It is filled up to its number of lanes, so that there is one compilation for each n. What it
    gets does not depend on other blocks.
    """
    count = len(block.cells)
    cells = block.cells + [block.cells[-1]] * (block.lanes - count)
    logits, epsilon, keys = _inputs(sweep, source, block.n, cells)
    layers = logits.shape[1]

    def run(stage: Callable, at_once: int | None, *args, **own):
        values = {**vars(sweep), **own}
        settings = tuple((name, values[name]) for name in _settings_of(stage))
        return program_of(stage, settings, at_once, _effort(stage, sweep, block))(*args)

    def over_cells(stage: Callable, *args, **own):
        return run(stage, _at_once(stage, sweep, block), *args, **own)

    def over_layers(stage: Callable, *args):
        """As ``over_cells``, of each layer: with one axis to trace the longest stages through."""
        flat = (x.reshape(block.lanes * layers, *x.shape[2:]) for x in args)
        out = run(stage, None, *flat)
        return jax.tree.map(lambda x: x.reshape(block.lanes, layers, *x.shape[1:]), out)

    asked = sweep.measure
    projected = over_layers(_project, logits, jnp.repeat(epsilon[:, None], layers, 1))
    matrices = projected.matrix
    measured = over_cells(_measure_matrices, logits, epsilon, projected)
    # Layer norm alone needs no norm.
    stacked = tuple(group for group in ("depth", "residual") if group in asked)
    norms = over_cells(_norms, matrices, of=stacked) if set(asked) - {"layernorm"} else {}
    sigma2 = norms.get("sigma2")
    if "spectrum" in asked:
        lambda2 = over_layers(spectrum.lambda2, matrices)
        measured |= over_cells(_measure_spectrum, logits, epsilon, matrices, sigma2, lambda2)
    if "bounds" in asked:
        measured |= over_cells(_measure_bounds, logits, epsilon, matrices, sigma2)
    if "depth" in asked:
        measured |= over_cells(_measure_depth, matrices, norms, over_cells(_exponent, matrices))
    if "layernorm" in asked:
        measured |= over_cells(_measure_layernorm, matrices, keys)
    if "residual" in asked:
        measured |= over_cells(_measure_residual, matrices, norms, keys)
    measured = jax.device_get(measured)
    return {name: x[:count].reshape(*block.shape, *x.shape[1:]) for name, x in measured.items()}


def _inputs(
    sweep: Sweep, source: Source, n: int, cells: list[Cell]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return logits [cells, L, n, n], ε [cells] and a key for each cell."""
    layers = max(sweep.depth)
    stacks = {seed: source.draw(n, seed, layers) for seed in {seed for _, seed in cells}}
    logits = jnp.asarray(np.stack([stacks[seed] for _, seed in cells]), sweep.precision)
    epsilon = jnp.asarray([sweep.epsilon[e] for e, _ in cells], sweep.precision)
    # of ε itself and not of its place in the grid: a cell is the same in every grid
    words = [[n, seed, *np.array([sweep.epsilon[e]]).view(np.uint32)] for e, seed in cells]
    return logits, epsilon, _keys(jax.random.key(sweep.seed), np.array(words, np.uint32))


@program
@partial(jax.vmap, in_axes=(None, 0))
def _keys(key: jax.Array, words: jax.Array) -> jax.Array:
    """Return ``key`` with the words of each cell folded in, [cells, words] -> [cells]."""
    return reduce(jax.random.fold_in, words, key)


def _at_once(stage: Callable, sweep: Sweep, block: Block) -> int | None:
    """Return how many cells of a block a stage computes side by side; all if None."""
    few = block.lanes
    if stage is _measure_layernorm:
        few = FEW
    elif jax.default_backend() == "cpu":
        few = max(1, IN_CACHE // (max(sweep.depth) * block.n**2))
        few = 2 ** (few.bit_length() - 1)  # as lanes are a power of two, none are left over
    return few if few < block.lanes else None


def _effort(stage: Callable, sweep: Sweep, block: Block) -> Effort:
    """Return the effort that compiling a stage is worth, for all cells of the sweep."""
    numbers = block.in_all * max(sweep.depth) * block.n**2
    if stage is _measure_layernorm:
        numbers = NUMBERS_A_DRAW * block.in_all * sweep.samples * len(sweep.snr)
    elif stage in (_norms, _exponent):  # long loops, the slowest with the least effort
        numbers *= 8
    return Effort.LEAST if numbers <= BRIEF else Effort.LESS


@cache
def program_of(
    stage: Callable,
    settings: tuple[tuple[str, Any], ...],
    at_once: int | None = None,
    effort: Effort = Effort.LESS,
) -> Callable:
    """Return a stage over the cells of a block, compiled once for the settings that it reads.

    Sweeps over other ε, seeds or sources run the same programs.

    Args:
        stage: one of the functions below.
        settings: its keyword-only arguments.
        at_once: how many cells are computed side by side, a divisor of the block's size; default:
            all.
        effort: of compiling.
    """
    over_one = partial(stage, **dict(settings))

    def over_few(*args):
        return jax.lax.map(lambda cell: over_one(*cell), args, batch_size=at_once)

    return traced_once(
        jax.vmap(over_one) if at_once is None else over_few,
        (stage.__name__, settings, at_once),
        compiler_options=compiler_options(effort),
    )


def _settings_of(stage: Callable) -> list[str]:
    """Return the settings that a stage reads, most of them of ``Sweep``: what is keyword-only."""
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
    """Of one layer; the other stages are of one stack."""
    if iterations is not None:
        return truncated_sinkhorn(logits, epsilon, num_iters=iterations, last=last)
    return sinkhorn(logits, epsilon, tol=tol, max_steps=max_steps)


def _norms(
    matrices: jax.Array,
    *,
    depth: tuple[int, ...],
    alpha: tuple[float, ...],
    of: tuple[str, ...],
) -> Measured:
    """Return σ₂ of each matrix, and the products that groups need with their norms."""
    last, n = np.asarray(depth) - 1, matrices.shape[1]
    parts = {"sigma2": jax.vmap(detail)(matrices)}  # [L, n, n]
    products = {}
    # The plain stack and the residual ones are multiplied together.
    weights = (1.0,) * ("depth" in of) + alpha * ("residual" in of)
    if weights:
        details = detail_composite(matrices, alpha=jnp.asarray(weights, matrices.dtype))
        if "depth" in of:
            products["composite"] = composite(matrices)[last]
            parts["composite_sigma2"] = details[0]  # after every layer
            parts["composite_distance"] = products["composite"] - 1 / n
        if "residual" in of:
            parts["residual_sigma2"] = details[-len(alpha) :, last]  # [alpha, depth, n, n]
    together = jnp.concatenate([part.reshape(-1, n, n) for part in parts.values()])
    values = jax.vmap(spectral_norm)(together)
    ends = np.cumsum([part.size // n**2 for part in parts.values()])[:-1]
    split = zip(parts.items(), jnp.split(values, ends), strict=True)
    return products | {name: own.reshape(part.shape[:-2]) for (name, part), own in split}


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
    norms: Measured,
    exponent: jax.Array,
    *,
    depth: tuple[int, ...],
    retention: float,
) -> Measured:
    sigma2 = norms["sigma2"]
    case = stack_case(
        matrices,
        sigma2=sigma2,
        depths=tuple(range(1, max(depth) + 1)),
        measured=("composite_sigma2",),
        composite_sigma2=norms["composite_sigma2"],
    )
    product, verdict = CLAIMS["product"].judge(case)
    last = np.asarray(depth) - 1
    products = norms["composite"]
    forward, backward = jax.vmap(amax_gain)(products)
    return {
        "composite_sigma2": product.lesser[last],
        "product_sigma2": product.greater[last],
        "verdict_product": verdict[last],
        "composite_doeblin_bound": composite_doeblin_bound(matrices)[last],
        "lyapunov_exponent": exponent,
        "effective_depth_bound": product_depth(sigma2, retention=retention),
        "effective_depth_lyapunov": effective_depth(jnp.exp(exponent), retention=retention),
        "effective_depth_measured": measured_depth(product.lesser, retention=retention),
        "composite_distance": norms["composite_distance"],
        "dist_to_uniform": jnp.sqrt(((products - 1 / products.shape[1]) ** 2).sum((1, 2))),
        "composite_amax_gain_fwd": forward,
        "composite_amax_gain_bwd": backward,
    }


def _measure_layernorm(
    matrices: jax.Array, key: jax.Array, *, snr: tuple[float, ...], samples: int
) -> Measured:
    matrix = matrices[0]
    n, dtype = matrix.shape[0], matrix.dtype
    direction_key, noise_key = jax.random.split(jax.random.fold_in(key, 0))
    x = center(jax.random.normal(direction_key, (n,), dtype))
    x = x / jnp.sqrt((x**2).sum())
    signal = center(matmul(matrix, x))

    def sample(noise_std: jax.Array) -> jax.Array:  # the same noise at every SNR, scaled
        return layernorm.sample_cosine(noise_key, signal, noise_std=noise_std, num_samples=samples)

    def measure(noise_std: jax.Array, draws: jax.Array) -> Measured:
        output_snr = layernorm.signal_to_noise(signal, noise_std)
        # 1 − cos θ is about 1/(2 SNR): where that is near eps, rounding moves the draws.
        coarse = 16 * float(jnp.finfo(dtype).eps) * output_snr > KS_ROUNDING
        distance = distance_to_law(draws, snr=output_snr, d=n - 1)
        return {
            "output_snr": output_snr,
            "cosine_mean": draws.mean(),
            "cosine_stderr": draws.std(ddof=1) / math.sqrt(samples),
            "cosine_exact": layernorm.expected_cosine(output_snr, d=n - 1),
            "cosine_ks": jnp.where(coarse, jnp.nan, distance),
        }

    # SNR = ‖x‖²/(dν²) with ‖x‖ = 1
    noise_std = 1 / jnp.sqrt((n - 1) * jnp.asarray(snr, dtype))
    draws = jax.vmap(sample)(noise_std)
    return jax.vmap(measure)(noise_std, draws)


def _measure_residual(
    matrices: jax.Array,
    norms: Measured,
    key: jax.Array,
    *,
    depth: tuple[int, ...],
    alpha: tuple[float, ...],
) -> Measured:
    n, dtype = matrices.shape[1], matrices.dtype
    probes = jax.random.normal(jax.random.fold_in(key, 1), (NUM_PROBES, n), dtype)
    case = partial(stack_case, matrices, sigma2=norms["sigma2"], depths=depth)

    def measure(weight_and_kept) -> Measured:
        weight, kept = weight_and_kept

        def judge_turn(probe):
            return CLAIMS["turn"].judge(case(alpha=weight, probe=probe, measured=("turned",)))

        of_residual = case(alpha=weight, measured=("residual_sigma2",), residual_sigma2=kept)
        kept, verdict = CLAIMS["residual"].judge(of_residual)
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

    by_alpha = jax.vmap(measure)((jnp.asarray(alpha, dtype), norms["residual_sigma2"]))
    return {name: jnp.moveaxis(x, 0, -1) for name, x in by_alpha.items()}
