"""Run a verification: judge every block of cells, and count."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from homojax.lab.blocks import Blocks, resume
from homojax.lab.devices import matrices_in_memory, on_all_devices, require_memory
from homojax.lab.inputs import InputError, as_config, require_precision
from homojax.lab.judging import Judged, judge_cells, listed, require_judging
from homojax.lab.progress import Progress, require_progress, silent
from homojax.lab.referee import REFEREED_SIZE, decided, referee
from homojax.lab.verify.config import Verification
from homojax.lab.verify.dataset import assemble
from homojax.lab.verify.plan import Group, claims_of, draw, plan
from homojax.theory.claim import Claim, Verdict

REFEREED_CELLS = 4  # of a claim and block, that many digits decide

Arrays = dict[str, np.ndarray]
Place = tuple[Group, int]  # and the number of the block


def verify(
    config: Verification | None = None,
    store: str | Path | None = None,
    *,
    progress: Progress = silent,
    **fields: Any,
) -> xr.Dataset:
    """Test claims on cells, and count the verdicts.

    Args:
        config: what to test; or give its fields as keywords, such as ``claims=("hilbert",), n=4``.
            ``claims`` may have a ``Claim`` of your own.
        store: a path for a zarr store; one that holds this very verification is read and returned,
            and an interrupted one goes on.
        progress: called with (cells done, cells in all, what is being done).
        fields: fields of ``Verification``.

    Returns:
        A Dataset of dimensions claim, family, n. ``violated``, ``undecidable``, ``holds`` and
        ``not_applicable`` count comparisons. ``tightness_median`` and ``tightness_best`` are the
        lesser over the greater side: 1 where a bound is attained; for equalities the difference
        over the margin. ``least_slack`` is in units of the margin, below −1 a violation; it is at
        ``cell`` of ``block``.

    Raises:
        InputError: a claim or a family does not exist, the store holds something else, a store is
            asked for a claim of your own, or float64 with JAX's x64 switched off.
        OSError: the store cannot be written; blocks done so far are kept beside it.

    >>> few = dict(families=("uniform",), n=4, cells=1, stacks=0, dtype="float32")
    >>> int(verify(claims=("doeblin",), **few).undecidable.sum())  # attained
    1
    """
    given = fields.get("claims", ())
    wanted = list(given) if isinstance(given, list | tuple | set) else [given]
    own = [claim for claim in wanted if isinstance(claim, Claim)]
    odd = [one for one in wanted if not isinstance(one, str | Claim)]
    if odd:
        raise InputError(
            f"claims must be names, numbers as words or claims of your own, not {odd[0]!r}."
        )
    if own:
        fields["claims"] = [one.name if isinstance(one, Claim) else one for one in wanted]
        if store is not None:
            raise InputError(
                f"{own[0].name} is a claim of your own, and a store could not tell it from another "
                "of that name: leave store out."
            )
    with listed(*own):
        require_progress(progress)
        config = as_config(Verification, config, fields)
        for claim, n in itertools.product(own, config.n):
            require_judging(claim, n)
        require_precision("float64" if config.escalate else config.dtype)
        return resume(store, config.digest, partial(_verify, config, progress))


def _verify(config: Verification, progress: Progress, blocks: Blocks) -> xr.Dataset:
    groups = plan(config)
    total = sum(group.cells for group in groups)
    if not total:
        raise InputError(
            "there is no case to judge these claims on: choose other families or claims, or more "
            "cells, stacks or signals."
        )
    for group in groups:
        layers = config.depth if group.scope == "stack" else 1
        need = matrices_in_memory(layers * group.block, group.n)
        require_memory(need, f"a block of {group.scope} cases at n = {group.n}")
    places = [(group, block) for group in groups for block in range(group.num_blocks())]
    loaded = ((place, blocks.load(_key(*place))) for place in places)
    parts = {place: part for place, part in loaded if part is not None}
    left = [place for place in places if place not in parts]
    done = sum(group.cells_of(block) for group, block in parts)

    def say(following: int) -> None:
        for group, _ in left[following : following + 1]:
            progress(done, total, f"{group.scope}, {group.family}, n = {group.n}")

    say(0)
    judged = on_all_devices(partial(judge_block, config), left)
    for following, ((group, block), found) in enumerate(judged, 1):
        # Here, and not where it was judged: mpmath's digits are those of the whole process.
        part = parts[group, block] = _counts(config, group, block, *found)
        blocks.save(_key(group, block), part)
        done += group.cells_of(block)
        say(following)
    progress(total, total, "done")
    counted = [[parts[group, block] for block in range(group.num_blocks())] for group in groups]
    return assemble(config, groups, counted)


def _key(group: Group, block: int) -> str:
    return f"{group.scope}-{group.family}-{group.n}-{block}"


def judge_block(config: Verification, place: Place) -> tuple[Arrays, dict[Claim, Judged]]:
    """Return the cells of a block, and what each claim says of each of them."""
    group, block = place
    cells = draw(config, group, block)
    judged: dict[Claim, Judged] = {}
    for scope in ("matrix", "projection") if group.scope == "matrix" else (group.scope,):
        claims = claims_of(config, scope)
        if not claims or (scope == "projection" and "matrix" in cells):
            continue
        found = _judge(config, scope, claims, cells, group.n)
        judged |= {claim: found[claim.name] for claim in claims}
    return cells, judged


def _judge(
    config: Verification, scope: str, claims: tuple[Claim, ...], cells: Arrays, n: int
) -> dict[str, Judged]:
    """Return what each claim says of each cell, in float64 where float32 cannot tell."""
    judged = judge_cells(scope, claims, cells, config.dtype, n)
    if config.escalate and config.dtype == "float32" and scope != "noise":
        finer = judge_cells(scope, claims, cells, "float64", n)
        judged = {name: _sharper(judged[name], finer[name]) for name in judged}
    return judged


def _sharper(coarse: Judged, fine: Judged) -> Judged:
    """Return ``fine`` where ``coarse`` could not decide."""
    undecided = np.asarray(coarse.verdict) == Verdict.UNDECIDABLE
    return jax.tree.map(lambda a, b: np.where(undecided, b, a), coarse, fine)


def _counts(
    config: Verification, group: Group, block: int, cells: Arrays, judged: dict[Claim, Judged]
) -> Arrays:
    """Return the verdicts, the tightness and the worst cell of each claim on one block.

    "claim/verdicts" counts by ``Verdict``, "claim/tightness" has one number for each comparison,
    and "claim/worst" is (least slack, block, cell, comparisons decided in many digits).
    """
    part: Arrays = {}
    for claim, found in judged.items():
        part |= _count(config, group, block, cells, claim, found)
    return part


def _count(
    config: Verification, group: Group, block: int, cells: Arrays, claim: Claim, judged: Judged
) -> Arrays:
    """Return what one claim adds to ``_counts``."""
    used = group.cells_of(block)
    verdict = np.array(judged.verdict[:used]).reshape(used, -1)
    slack = _slack_in_margins(claim, judged, used)
    relative = np.where(verdict == Verdict.NOT_APPLICABLE, np.inf, slack)
    refereed = _decide_again(config, group, cells, claim, verdict)
    worst = np.nan_to_num(relative, nan=np.inf).min(1)
    tight = np.clip(judged.tightness[:used], 0, 1e30).astype(np.float32).ravel()
    return {
        f"{claim.name}/verdicts": np.array([(verdict == kind).sum() for kind in Verdict]),
        f"{claim.name}/tightness": tight,
        f"{claim.name}/worst": np.array([worst.min(), block, worst.argmin(), refereed]),
    }


def _slack_in_margins(claim: Claim, judged: Judged, used: int) -> np.ndarray:
    """Return the slack of each comparison in units of its margin, [used, comparisons]."""
    lesser, greater, margin = (
        np.asarray(side[:used], np.float64).reshape(used, -1) for side in judged.comparison[:3]
    )
    slack = -abs(lesser - greater) if claim.direction in ("=", "~") else greater - lesser
    with np.errstate(all="ignore"):
        return slack / margin


def _decide_again(
    config: Verification, group: Group, cells: Arrays, claim: Claim, verdict: np.ndarray
) -> int:
    """Decide a few undecidable cells in many digits, in ``verdict``; return how many."""
    few = group.scope == "matrix" and group.n <= REFEREED_SIZE and not config.mutants
    if not (config.escalate and few):
        return 0
    refereed = 0
    for cell in np.flatnonzero(verdict[:, 0] == Verdict.UNDECIDABLE)[:REFEREED_CELLS]:
        matrix = cells["matrix"][cell] if "matrix" in cells else None
        sides = referee(claim.name, cells["logits"][cell], float(cells["epsilon"][cell]), matrix)
        if sides is not None:
            verdict[cell, 0] = decided(claim.name, *sides)
            refereed += 1
    return refereed
