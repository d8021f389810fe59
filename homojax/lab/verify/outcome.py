"""What a verification comes to: failures, worst cases, replays, and the isolated unit."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
import xarray as xr

from homojax import spectrum
from homojax.birkhoff import entropy, isolated_unit
from homojax.lab.cases import Case, up_to_comparison
from homojax.lab.judging import judge_cells
from homojax.lab.referee import decided, in_many_digits
from homojax.lab.store import versions
from homojax.lab.verify.config import Verification
from homojax.lab.verify.plan import draw, plan
from homojax.theory import CLAIMS
from homojax.theory.claim import Verdict


def outcome(ds: xr.Dataset) -> tuple[bool, list[str]]:
    """Return whether all is as theory.md says, and what is not.

    That is: every theorem holds, and every refuted claim was refuted again; of mutants, each was
    caught.
    """
    failures = []
    for name in ds.claim.values:
        row = ds.sel(claim=name)
        violated = int(row.violated.sum())
        judged = int((row.violated + row.undecidable + row.holds).sum())
        status = str(row.status.item())
        if status == "theorem" and violated:
            failures.append(
                f"{name} is a theorem, and is violated {violated:,} times: a bug of ours until "
                "shown otherwise."
            )
        if status == "refuted" and judged and not violated:
            failures.append(
                f"{name} is known to be false, and was not refuted here: give it more cells."
            )
        if status == "mutant" and not violated:
            failures.append(f"the mutant {name} was not caught in {judged:,} comparisons.")
    return not failures, failures


def worst_cases(config: Verification, ds: xr.Dataset) -> Iterator[tuple[str, int, Case]]:
    """Yield (claim, n, case): the worst cell of every claim and n at which one is violated.

    The cells are drawn again, not remembered.
    """
    groups = {(group.scope, group.family, group.n): group for group in plan(config)}
    about = {"seed": config.seed, "dtype": config.dtype, "versions": versions()}
    for name in ds.claim.values:
        for n in ds.n.values:
            rows = ds.sel(claim=name, n=n)
            violated = rows.violated.values > 0
            if not violated.any():
                continue
            worst = int(np.where(violated, rows.least_slack.values, np.inf).argmin())
            family, scope = str(rows.family.values[worst]), str(rows.scope.item())
            group = groups["matrix" if scope == "projection" else scope, family, int(n)]
            block, cell = int(rows.block.values[worst]), int(rows.cell.values[worst])
            cells = draw(config, group, block)
            arrays = {key: np.asarray(values[cell]) for key, values in cells.items()}
            yield (
                str(name),
                int(n),
                Case(claim=str(name), scope=scope, family=family, arrays=arrays, about=about),
            )


def replay(case: Case) -> dict[str, tuple[str, str, str, str]]:
    """Return precision -> (lesser side, greater side, margin, verdict) of a saved case.

    A small matrix is judged in 50 digits, too.
    """
    rows = {}
    claim = CLAIMS[case.claim]
    for dtype in ("float32", "float64"):
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            continue
        cells = {key: np.asarray(values)[None] for key, values in case.arrays.items()}
        n = int(case.arrays.get("n", 0))
        judged = judge_cells(case.scope, (claim,), cells, dtype, n)[claim.name]
        verdicts = np.ravel(judged.verdict)
        worst = int(np.argmin(verdicts))
        sides = (f"{float(np.ravel(side)[worst]):.9g}" for side in judged.comparison[:3])
        rows[dtype] = (*sides, Verdict(int(verdicts[worst])).label)
        case = up_to_comparison(case, judged.comparison.lesser.shape[1:], worst)
    exact = in_many_digits(case)
    if exact is not None:
        verdict = Verdict(decided(case.claim, *exact)).label
        rows["50 digits"] = (*(str(side)[:24] for side in exact), "0", verdict)
    return rows


def isolated_units(sizes: tuple[int, ...] = (4, 64, 1024)) -> list[tuple[int, float, float]]:
    """Return (n, H/(n log n), σ₂) of 1 ⊕ J_{n−1}: nearly all entropy, and σ₂ = 1. Law 2.2."""
    rows = []
    for n in sizes:
        matrix = isolated_unit(n)
        rows.append((n, float(entropy(matrix)) / (n * np.log(n)), float(spectrum.sigma2(matrix))))
    return rows
