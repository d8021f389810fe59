"""Print the tables of docs/parametrizations.md in Markdown: maps, public codes, and their errors.

    python experiments/presets.py

The last table is measured at n = 4, which the codes have: the matrix that each preset starts from,
and how far its sums are off at normal parameters of scale 1, 3 and 6: the mean over 1,000 draws of
the largest |sum − 1|.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from homojax import PARAMETRIZATIONS, PRESETS, marginal_errors, sigma2
from homojax.lab.page import markdown_table
from homojax.numerics import rounding
from homojax.presets import Preset

N, SCALES, DRAWS = 4, (1, 3, 6), 1_000


def parametrizations() -> list[list[str]]:
    """Return the table of parametrizations, its header first."""
    header = ["name", "matrix", f"parameters at n = {N}", "n", "sums that are 1", "in 𝔅ₙ"]
    rows = [[*header, "ε", "source"]]
    for row in PARAMETRIZATIONS.values():
        needs = row.needs.removeprefix("n must be ")
        marks = ["yes" if flag else "no" for flag in (row.doubly_stochastic, row.tempered)]
        rows.append(
            [row.name, row.statement, str(list(row.shape(N))), needs, row.exact, *marks, row.source]
        )
    return rows


def presets() -> list[list[str]]:
    """Return the table of presets, its header first."""
    header = ["name", "parametrization", "ε", "alternations", "starts with", "last", "added"]
    rows = [[*header, "mixes with", "initial, n = 2", "source", "assumed"]]
    for row in PRESETS.values():
        steps = ["–"] * 3 if row.num_iters is None else [str(row.num_iters), row.start, row.last]
        mixes = "M" if row.orientation == "outputs-first" else "Mᵀ"
        initial = str(np.asarray(row.initial(2)).astype(int).tolist())
        setting = [row.name, row.parametrization, f"{row.epsilon:g}", *steps, _constants(row)]
        rows.append([*setting, mixes, initial, row.source, row.assumed or "–"])
    return rows


def _constants(preset: Preset) -> str:
    constants = {
        "{:g} to entries": preset.added_to_entries,
        "{:g} to sums": preset.added_to_sums,
        "sums ≥ {:g}": preset.least_sum,
    }
    return ", ".join(text.format(value) for text, value in constants.items() if value) or "–"


def conformance() -> list[list[str]]:
    """Return the measured table, its header first; it says "rounding" for errors within it."""
    header = ["name", "exact", "σ₂", "‖∂M/∂S‖_F, float64", "float32", "rows off", "columns off"]
    sides = [f"{side}, scale {scale}" for scale in SCALES for side in ("rows", "columns")]
    return [[*header, *sides], *(_measured(preset) for preset in PRESETS.values())]


def _measured(preset: Preset) -> list[str]:
    start = preset.initial(N)
    matrix = jax.jit(preset.matrix)(start)
    jacobian = jax.jit(jax.jacrev(preset.matrix))
    sizes = [
        float(jnp.linalg.norm(jacobian(start.astype(dtype)))) for dtype in ("float64", "float32")
    ]
    errors = [_error(x) for x in marginal_errors(matrix)]
    matrices = jax.jit(jax.vmap(preset.matrix))
    for scale in SCALES:
        draws = scale * np.random.default_rng(scale).standard_normal((DRAWS, *start.shape))
        errors += map(_error, _errors_of(matrices(draws)))
    gradients = [f"{x:.1e}" if x else "0" for x in sizes]
    return [preset.name, preset.exact, f"{float(sigma2(matrix)):.4f}", *gradients, *errors]


_errors_of = jax.jit(jax.vmap(marginal_errors))


def _error(errors: jax.Array) -> str:
    mean = float(errors.mean())
    return f"{mean:.1e}" if mean > rounding(N, "float64") else "rounding"


def main() -> None:
    """Print the three tables."""
    jax.config.update("jax_enable_x64", True)
    tables = (parametrizations(), presets(), conformance())
    print("\n\n".join(markdown_table(*table) for table in tables))


if __name__ == "__main__":
    main()
