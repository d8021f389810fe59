"""What public mHC codes do to their sums and gradients: the tables of docs/parametrizations.md, in Markdown.

    python experiments/presets.py

At n = 4, which the codes have: the matrix that each preset starts from, and how far its sums are off at normal parameters of
scale 1, 3 and 6, the mean over 1,000 draws of the largest |sum − 1|.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from homojax import PARAMETRIZATIONS, PRESETS, marginal_errors, sigma2
from homojax.lab.page import markdown_table
from homojax.numerics import rounding

N, SCALES, DRAWS = 4, (1, 3, 6), 1_000


def parametrizations() -> list[list[str]]:
    """The table of parametrizations, its header first."""
    rows = [
        ["name", "matrix", f"parameters at n = {N}", "n", "sums that are 1", "in 𝔅ₙ", "ε", "source"]
    ]
    for row in PARAMETRIZATIONS.values():
        needs = row.needs.removeprefix("n must be ")
        marks = ["yes" if flag else "no" for flag in (row.doubly_stochastic, row.tempered)]
        rows.append(
            [row.name, row.statement, str(list(row.shape(N))), needs, row.exact, *marks, row.source]
        )
    return rows


def presets() -> list[list[str]]:
    """The table of presets, its header first."""
    header = [
        "name",
        "parametrization",
        "ε",
        "alternations",
        "starts with",
        "last",
        "added",
        "mixes with",
        "initial, n = 2",
    ]
    rows = [[*header, "source", "assumed"]]
    for row in PRESETS.values():
        constants = {
            "{:g} to entries": row.added_to_entries,
            "{:g} to sums": row.added_to_sums,
            "sums ≥ {:g}": row.least_sum,
        }
        added = ", ".join(text.format(value) for text, value in constants.items() if value)
        alternations = (
            ["–"] * 3 if row.num_iters is None else [str(row.num_iters), row.start, row.last]
        )
        mixes = "M" if row.orientation == "outputs-first" else "Mᵀ"
        initial = str(np.asarray(row.initial(2)).astype(int).tolist())
        rows.append(
            [
                row.name,
                row.parametrization,
                f"{row.epsilon:g}",
                *alternations,
                added or "–",
                mixes,
                initial,
                row.source,
            ]
        )
        rows[-1].append(row.assumed or "–")
    return rows


def conformance() -> list[list[str]]:
    """The table of what is measured, its header first; errors of sums within rounding are told as such."""
    header = ["name", "exact", "σ₂", "‖∂M/∂S‖, float64", "float32", "rows off", "columns off"]
    rows = [
        [*header, *(f"{side}, scale {scale}" for scale in SCALES for side in ("rows", "columns"))]
    ]
    for preset in PRESETS.values():
        start = preset.initial(N)
        matrix = jax.jit(preset.matrix)(start)
        jacobian = jax.jit(jax.jacrev(preset.matrix))
        gradients = [
            float(jnp.linalg.norm(jacobian(start.astype(dtype))))
            for dtype in ("float64", "float32")
        ]
        errors = [_error(x) for x in marginal_errors(matrix)]
        matrices = jax.jit(jax.vmap(preset.matrix))
        for scale in SCALES:
            draws = scale * np.random.default_rng(scale).standard_normal((DRAWS, *start.shape))
            errors += map(_error, jax.vmap(marginal_errors)(matrices(draws)))
        kept = f"{float(sigma2(matrix)):.4f}"
        rows.append(
            [
                preset.name,
                preset.exact,
                kept,
                *(f"{x:.1e}" if x else "0" for x in gradients),
                *errors,
            ]
        )
    return rows


def _error(errors: jax.Array) -> str:
    mean = float(errors.mean())
    return f"{mean:.1e}" if mean > rounding(N, "float64") else "rounding"


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    print(
        "\n\n".join(markdown_table(*table()) for table in (parametrizations, presets, conformance))
    )


if __name__ == "__main__":
    main()
