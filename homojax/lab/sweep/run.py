"""Map the trap: every law's prediction beside its measurement, over entropy × depth × size × seeds × noise × residual weight."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

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
from homojax.lab.inputs import InputError, require_precision
from homojax.lab.runs import open_store, versions, write_dataset
from homojax.lab.sources import Source, load_source
from homojax.lab.sweep.config import Sweep
from homojax.numerics import marginal_tolerance, matmul
from homojax.projection.result import SinkhornResult, Status
from homojax.projection.sinkhorn import sinkhorn
from homojax.projection.truncated import truncated_sinkhorn
from homojax.spectrum import distance_to_uniform
from homojax.theory.claim import verdict
from homojax.theory.matrix import MATRIX_LAWS, matrix_case
from homojax.theory.stack import StackCase, product_comparison, residual_comparison, turn_comparison

NUM_PROBES = 8  # random detail vectors whose turn is measured; the largest is kept

# dimensions after (n, epsilon, seed), unit, meaning
VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "row_error": (("layer",), "1", "max |row sum − 1|"),
    "col_error": (("layer",), "1", "max |column sum − 1|"),
    "num_steps": (("layer",), "steps", "solver steps"),
    "status": (("layer",), "", "how the projection ended"),
    "relative_epsilon": (("layer",), "1", "ε over the logits' spread ‖PSP‖_F/(n−1)"),
    "sigma2": (("layer",), "1", "subdominant singular value σ₂ = ‖PMP‖₂"),
    "lambda2": (("layer",), "1", "subdominant eigenvalue modulus λ₂"),
    "entropy": (("layer",), "nat", "entropy H(M), at most n log n"),
    "entropy_deficit": (("layer",), "nat", "entropy deficit ΔH = n log n − H(M)"),
    **{
        f"{law}_bound": (("layer",), "1", f"bound of {law}: {statement}")
        for law, (statement, _) in MATRIX_LAWS.items()
        if law != "eigenvalue"
    },
    "composite_sigma2": (
        ("depth",),
        "1",
        "σ₂ of the product of the first layers, measured: detail retained",
    ),
    "product_sigma2": (("depth",), "1", "Π σ₂ of the first layers: bound on the above"),
    "lyapunov_sigma2": (
        ("depth",),
        "1",
        "exp(depth × λ₁), λ₁ the mean over seeds of the top Lyapunov exponent: the typical rate",
    ),
    "composite_distance": (
        ("depth",),
        "1",
        "‖M_L ⋯ M_1 − J‖₂: equal to composite_sigma2 on doubly stochastic products only",
    ),
    "dist_to_uniform": (
        ("depth",),
        "1",
        "‖M_L ⋯ M_1 − J‖_F, the Frobenius distance that public mHC logs use",
    ),
    "composite_doeblin_bound": (("depth",), "1", "Π (1 − n min M): bound on composite_distance"),
    "composite_amax_gain_fwd": (
        ("depth",),
        "1",
        "max absolute row sum of the composite: sees lost feasibility, blind to collapse",
    ),
    "composite_amax_gain_bwd": (("depth",), "1", "max absolute column sum of the composite"),
    "lyapunov_exponent": (
        (),
        "nat/layer",
        "top Lyapunov exponent of the stack on V⊥, from its max(depth) layers: a transient if they are few",
    ),
    "effective_depth_bound": (
        (),
        "layers",
        "depth at which Π σ₂ (geometric mean) falls to the retention; inf: σ₂ rounds to 1",
    ),
    "effective_depth_lyapunov": (
        (),
        "layers",
        "depth at which the typical rate falls to the retention; inf: the loss is rounding",
    ),
    "effective_depth_measured": (
        (),
        "layers",
        "depth at which the measured composite falls to it; inf: not within the stack",
    ),
    "output_snr": (("snr",), "1", "‖Mx‖²/(dν²) after the first layer"),
    "cosine_mean": (("snr",), "1", "layer-norm cosine, Monte Carlo mean"),
    "cosine_stderr": (("snr",), "1", "standard error of that mean"),
    "cosine_exact": (("snr",), "1", "layer-norm cosine, exact mean (4.2) at output_snr"),
    "cosine_ks": (("snr",), "1", "Kolmogorov-Smirnov distance of the draws to the exact law (4.1)"),
    "residual_sigma2": (
        ("depth", "alpha"),
        "1",
        "σ₂ of the product of residual layers: retention, measured",
    ),
    "residual_sigma2_bound": (("depth", "alpha"), "1", "Π (1 − α + ασ₂): bound on the above (5.1)"),
    "turn": (
        ("depth", "alpha"),
        "rad",
        f"largest angle turned by {NUM_PROBES} random detail vectors: transformation, measured",
    ),
    "turn_bound": (
        ("depth", "alpha"),
        "rad",
        "Σ arcsin(ασ₂/(1−α)): bound on the turn where its premise holds, else π or more (5.2)",
    ),
}
LAWS: dict[str, tuple[tuple[str, ...], str]] = {
    **{law: (("layer",), statement) for law, (statement, _) in MATRIX_LAWS.items()},
    "product": (("depth",), "σ₂(M_L ⋯ M_1) ≤ Π σ₂(M_l)"),
    "residual": (("depth", "alpha"), "σ₂(Π R_α) ≤ Π (1 − α + ασ₂)"),
    "turn": (("depth", "alpha"), "turn ≤ Σ arcsin(ασ₂/(1−α))"),
}
VARIABLES |= {
    f"verdict_{law}": (dims, "", f"verdict on {statement}")
    for law, (dims, statement) in LAWS.items()
}
FLAGS = {
    "status": {
        "not_finite": -1,
        "step_limit": 0,
        "converged": 1,
        "truncated_as_asked": 2,
        "stalled": 3,
        "infeasible": 4,
    },
    "verdict": {"violated": -1, "undecidable": 0, "holds": 1, "not_applicable": 2},
}
CELL_DIMS = ("n", "epsilon", "seed")


# XLA calls LAPACK matrix by matrix. OpenBLAS's own threads gain nothing at these sizes, and where cores are busy they wait for
# each other: an SVD at n = 256 took 170 times as long.
@threadpool_limits.wrap(limits=1, user_api="blas")
def sweep(
    sweep: Sweep,
    store: str | Path | None = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> xr.Dataset:
    """Runs a sweep and returns its Dataset; with ``store`` it is also kept as zarr there, and an interrupted run goes on.

    Dimensions n, epsilon, seed, and layer, depth, snr, alpha where a quantity varies with them; ``units`` and ``long_name`` on
    every variable; everything needed to run it again in the Dataset's attrs. Results do not
    depend on how cells are blocked, but for rounding.

    Args:
        sweep: what to run.
        store: a path for the zarr store. If it holds this very sweep already, that is read and returned.
        progress: called with (cells done, cells in all, what is being done).

    Raises:
        InputError: the source or the store is not usable as asked, or float64 is asked with JAX's x64 switched off.
        OSError: the store cannot be written; blocks done so far are kept beside it.

    >>> ds = sweep(Sweep(epsilon=(1.0,), depth=(1, 2), n=(4,), seeds=1, samples=8, dtype="float32"))
    >>> sorted(ds.sizes) == ["alpha", "depth", "epsilon", "layer", "n", "seed", "snr"]
    True
    """
    require_precision(sweep.dtype)
    source = load_source(sweep)
    for n in source.sizes:
        _block_size(sweep, n)  # says what cannot fit before anything runs
    found, blocks = open_store(store, sweep.digest)
    if found is not None:
        return found
    total = len(source.sizes) * len(sweep.epsilon) * source.seeds
    done = 0
    results: list[dict[str, np.ndarray]] = []
    for n in source.sizes:
        cells = [
            (e, s) for e in range(len(sweep.epsilon)) for s in range(source.seeds)
        ]  # lanes alike in ε lie together
        block_size = min(_block_size(sweep, n), max(1, -(-len(cells) // 4)))
        parts = []
        for number, start in enumerate(range(0, len(cells), block_size)):
            if progress:
                progress(done, total, f"n = {n}" + (", compiling" if number == 0 else ""))
            chosen = cells[start : start + block_size]
            key = f"{n}-{start}-{block_size}"
            part = blocks.load(key) if blocks else None
            if part is None:
                part = _measure_block(sweep, source, n, chosen, block_size)
                if blocks:
                    blocks.save(key, part)
            parts.append(part)
            done += len(chosen)
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        results.append(
            {
                name: x.reshape(len(sweep.epsilon), source.seeds, *x.shape[1:])
                for name, x in joined.items()
            }
        )
    if progress:
        progress(total, total, "done")
    dataset = _dataset(sweep, source, results)
    if blocks:
        write_dataset(dataset, blocks.store)
        blocks.clear()
    return dataset


def _block_size(sweep: Sweep, n: int) -> int:
    """Cells that fit in the memory allowed, by a count of the largest arrays alive at once."""
    layers = max(sweep.depth)
    stack = layers * n * n * (24 + 3 * len(sweep.alpha))
    noise = sweep.samples * (len(sweep.snr) * n + 6 * 256)
    cell = np.dtype(sweep.dtype).itemsize * (stack + noise)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if cell > machine:
        what = f"one cell at n = {n}, depth {layers} and {sweep.samples} samples"
        raise InputError(
            f"{what} needs about {cell / 1e9:.3g} GB, and this machine has {machine / 1e9:.3g}: ask for less."
        )
    return max(1, int(sweep.memory_mb * 1e6 / cell))


def _measure_block(
    sweep: Sweep, source: Source, n: int, cells: list[tuple[int, int]], block_size: int
) -> dict[str, np.ndarray]:
    """One block of cells as arrays [cells, …]; short blocks are filled up, so that there is one compilation per n."""
    filled = cells + [cells[-1]] * (block_size - len(cells))
    layers = max(sweep.depth)
    stacks = {seed: source.draw(n, seed, layers) for seed in {seed for _, seed in filled}}
    logits = jnp.asarray(np.stack([stacks[seed] for _, seed in filled]), sweep.dtype)
    epsilon = jnp.asarray([sweep.epsilon[e] for e, _ in filled], sweep.dtype)
    key = jax.random.fold_in(jax.random.key(sweep.seed), n)
    keys = jax.vmap(partial(jax.random.fold_in, key))(
        jnp.asarray([e * source.seeds + s for e, s in filled])
    )

    def over_cells(stage, *args):
        # On CPUs jaxlib's batched LAPACK calls wait for the thread pool that they run on: several at once can wait for each
        # other for good (jaxlib 0.10.2 on 2 cores, at n = 64). So a stage is a program with one chain of them at most, and
        # ends before the next one starts.
        return jax.block_until_ready(_compiled(stage, sweep)(*args))

    projected = over_cells(_project, logits, epsilon)
    matrices = projected.matrix
    spectra = Spectra(
        over_cells(_sigma2, matrices),
        over_cells(_lambda2, matrices),
        over_cells(_exponent, matrices),
    )
    stack = StackCase(matrices, spectra.sigma2, projected.row_error, projected.col_error)
    measured = {
        **over_cells(_measure_matrices, logits, epsilon, projected, spectra),
        **over_cells(_measure_depth, stack, spectra),
        **over_cells(_measure_composites, matrices),
        **over_cells(_measure_layernorm, matrices, keys),
        **over_cells(_measure_residual, stack, keys),
    }
    return {name: np.asarray(x)[: len(cells)] for name, x in jax.device_get(measured).items()}


@cache
def _compiled(stage: Callable, sweep: Sweep) -> Callable:
    return jax.jit(jax.vmap(partial(stage, sweep)))


class Spectra(NamedTuple):
    """What the stages with a decomposition find of a stack, for those without."""

    sigma2: jax.Array  # [L]
    lambda2: jax.Array  # [L]
    exponent: jax.Array  # the top Lyapunov exponent


# The stages: each takes one stack of L layers (vmapped over the cells of a block), and returns variables named as in VARIABLES.


def _project(sweep: Sweep, logits, epsilon) -> SinkhornResult:
    if sweep.iterations is not None:
        truncated = partial(truncated_sinkhorn, num_iters=sweep.iterations, last=sweep.last)
        return jax.vmap(truncated, (0, None))(logits, epsilon)
    return jax.vmap(lambda s: sinkhorn(s, epsilon, tol=sweep.tol, max_steps=sweep.max_steps))(
        logits
    )


def _sigma2(sweep: Sweep, matrices):
    return jax.vmap(spectrum.sigma2)(matrices)


def _lambda2(sweep: Sweep, matrices):
    return jax.vmap(spectrum.lambda2)(matrices)


def _exponent(sweep: Sweep, matrices):
    return lyapunov_exponents(matrices)[0]


def _measure_matrices(sweep: Sweep, logits, epsilon, projected, spectra) -> dict[str, jax.Array]:
    names = [status.name.lower() for status in Status]
    if sweep.iterations is not None:
        names = [name if name == "not_finite" else "truncated_as_asked" for name in names]
    flags = [FLAGS["status"][name] for name in names]

    def of_one(logits, matrix, sigma2, lambda2):
        case = matrix_case(logits, epsilon, matrix, sigma2, lambda2)
        laws = {law: compare(case) for law, (_, compare) in MATRIX_LAWS.items()}
        return {
            "relative_epsilon": epsilon / logit_spread(logits),
            "entropy": entropy(matrix),
            "entropy_deficit": entropy_deficit(matrix),
            **{
                f"{law}_bound": (c.lesser if law.endswith("lower") else c.greater)
                for law, c in laws.items()
                if law != "eigenvalue"
            },
            **{f"verdict_{law}": verdict(comparison) for law, comparison in laws.items()},
        }

    return {
        "row_error": projected.row_error,
        "col_error": projected.col_error,
        "num_steps": projected.num_steps,
        "status": jnp.asarray(flags, jnp.int8)[projected.status],
        "sigma2": spectra.sigma2,
        "lambda2": spectra.lambda2,
        **jax.vmap(of_one)(logits, projected.matrix, spectra.sigma2, spectra.lambda2),
    }


def _measure_depth(sweep: Sweep, stack, spectra) -> dict[str, jax.Array]:
    every = product_comparison(stack, np.arange(1, max(sweep.depth) + 1))
    last = np.asarray(sweep.depth) - 1
    geometric_mean = jnp.exp(jnp.log(stack.sigma2).mean())
    return {
        "composite_sigma2": every.lesser[last],
        "product_sigma2": every.greater[last],
        "verdict_product": verdict(every)[last],
        "composite_doeblin_bound": composite_doeblin_bound(stack.matrices)[last],
        "lyapunov_exponent": spectra.exponent,
        "effective_depth_bound": effective_depth(geometric_mean, sweep.retention),
        "effective_depth_lyapunov": effective_depth(jnp.exp(spectra.exponent), sweep.retention),
        "effective_depth_measured": measured_depth(every.lesser, sweep.retention),
    }


def _measure_composites(sweep: Sweep, matrices) -> dict[str, jax.Array]:
    products = composite(matrices)[np.asarray(sweep.depth) - 1]
    forward, backward = jax.vmap(amax_gain)(products)
    return {
        "composite_distance": jax.vmap(distance_to_uniform)(products),
        "dist_to_uniform": jnp.sqrt(((products - 1 / products.shape[1]) ** 2).sum((1, 2))),
        "composite_amax_gain_fwd": forward,
        "composite_amax_gain_bwd": backward,
    }


def _measure_layernorm(sweep: Sweep, matrices, key) -> dict[str, jax.Array]:
    matrix = matrices[0]
    n, dtype = matrix.shape[0], matrix.dtype
    direction_key, *noise_keys = jax.random.split(jax.random.fold_in(key, 0), 1 + len(sweep.snr))
    x = center(jax.random.normal(direction_key, (n,), dtype))
    x = x / jnp.sqrt((x**2).sum())
    signal = center(matmul(matrix, x))

    def at(point):
        snr, key = point
        noise_std = 1 / jnp.sqrt((n - 1) * snr)  # SNR = ‖x‖²/(dν²) with ‖x‖ = 1
        draws = layernorm.sample_cosine(key, signal, noise_std, sweep.samples)
        output_snr = layernorm.signal_to_noise(signal, noise_std)
        return {
            "output_snr": output_snr,
            "cosine_mean": draws.mean(),
            "cosine_stderr": draws.std(ddof=1) / jnp.sqrt(sweep.samples),
            "cosine_exact": layernorm.expected_cosine(output_snr, n - 1),
            "cosine_ks": _ks_distance(draws, output_snr, n - 1),
        }

    return jax.lax.map(at, (jnp.asarray(sweep.snr, dtype), jnp.stack(noise_keys)))


def _ks_distance(draws, snr, d):
    """sup |empirical − exact CDF|; at d = 1 the cosine is ±1 and the law has one jump inside, whose height is compared."""
    draws = jnp.sort(draws)
    count = draws.shape[0]
    exact = jax.vmap(lambda t: layernorm.cosine_cdf(jnp.clip(t, -1, 1), snr, d))(draws)
    ranks = jnp.arange(count, dtype=draws.dtype)
    continuous = jnp.maximum(exact - ranks / count, (ranks + 1) / count - exact).max()
    below = layernorm.cosine_cdf(jnp.zeros((), draws.dtype), snr, d)
    return jnp.where(d == 1, abs((draws < 0).mean() - below), continuous)


def _measure_residual(sweep: Sweep, stack, key) -> dict[str, jax.Array]:
    depths = np.asarray(sweep.depth)
    n, dtype = stack.matrices.shape[1], stack.matrices.dtype
    probes = jax.random.normal(jax.random.fold_in(key, 1), (NUM_PROBES, n), dtype)

    def at(alpha):
        kept = residual_comparison(stack, alpha, depths)
        turns = jax.vmap(lambda probe: turn_comparison(stack, alpha, probe, depths))(probes)
        verdicts = jax.vmap(verdict)(turns)
        return {
            "residual_sigma2": kept.lesser,
            "residual_sigma2_bound": kept.greater,
            "verdict_residual": verdict(kept),
            "turn": turns.lesser.max(0),
            "turn_bound": turns.greater[0],
            "verdict_turn": verdicts.min(
                0
            ),  # violated < undecidable < holds; where it applies is the same for every probe
        }

    by_alpha = jax.lax.map(at, jnp.asarray(sweep.alpha, dtype))
    return {name: jnp.moveaxis(x, 0, -1) for name, x in by_alpha.items()}


def _dataset(sweep: Sweep, source: Source, results: list[dict[str, np.ndarray]]) -> xr.Dataset:
    variables = {name: np.stack([result[name] for result in results]) for name in results[0]}
    exponents = variables["lyapunov_exponent"].mean(
        2, keepdims=True
    )  # over seeds: the ensemble's rate, not the stack's own
    typical = np.exp(np.asarray(sweep.depth) * np.repeat(exponents, source.seeds, 2)[..., None])
    variables["lyapunov_sigma2"] = typical.astype(sweep.dtype)
    data = {}
    for name, (dims, units, meaning) in VARIABLES.items():
        attrs = {"long_name": meaning, "units": units}
        flags = FLAGS.get(name.split("_")[0])
        if flags:
            attrs = {
                "long_name": meaning,
                "flag_values": list(flags.values()),
                "flag_meanings": " ".join(flags),
            }
        data[name] = ((*CELL_DIMS, *dims), variables[name], attrs)
    coords = {
        "n": ("n", list(source.sizes), {"long_name": "mixed units", "units": "1"}),
        "epsilon": (
            "epsilon",
            list(sweep.epsilon),
            {"long_name": "entropy weight ε", "units": "logit units"},
        ),
        "seed": ("seed", np.arange(source.seeds), {"long_name": "independent stack"}),
        "layer": (
            "layer",
            np.arange(1, max(sweep.depth) + 1),
            {"long_name": "layer, from the input"},
        ),
        "depth": ("depth", list(sweep.depth), {"long_name": "depth", "units": "layers"}),
        "snr": (
            "snr",
            list(sweep.snr),
            {"long_name": "input signal-to-noise ratio ‖x‖²/(dν²)", "units": "1"},
        ),
        "alpha": ("alpha", list(sweep.alpha), {"long_name": "residual weight α", "units": "1"}),
    }
    return xr.Dataset(data, coords, _provenance(sweep, source))


def _provenance(sweep: Sweep, source: Source) -> dict[str, object]:
    device = jax.devices()[0]
    return {
        "title": f"homojax sweep: {sweep.label}",
        "source": source.description,
        "distinct_layers": source.layers if source.layers is not None else max(sweep.depth),
        "config": json.dumps(sweep.as_dict()),
        "config_hash": sweep.digest,
        "versions": json.dumps(versions()),
        "dtype": sweep.dtype,
        "device": f"{device.platform}: {device.device_kind}",
        "seed": sweep.seed,
        "tol": "as truncated"
        if sweep.iterations
        else str(sweep.tol or {n: marginal_tolerance(n, sweep.dtype) for n in source.sizes}),
    }
