"""Probe a claim by gradient: the matrix that makes it tightest, and the matrix that breaks it."""

from __future__ import annotations

from typing import Any

import numpy as np

from homojax.lab.devices import matrices_in_memory, require_memory
from homojax.lab.inputs import InputError, as_config, require_precision
from homojax.lab.judging import chosen_claims, require_judging
from homojax.lab.probe.climb import climb
from homojax.lab.probe.config import Goal, Search
from homojax.lab.probe.finding import Finding, judge_best
from homojax.lab.probe.objective import cell_program, without_starts
from homojax.lab.probe.reduction import reduce_digits
from homojax.lab.progress import Progress, require_progress, silent
from homojax.theory.claim import Claim


def tighten(
    claim: str | Claim, search: Search | None = None, *, progress: Progress = silent, **fields: Any
) -> Finding:
    """Find the logits that bring a bound closest to equality.

    The search climbs from random starts to the largest ratio of the lesser to the greater side.

    Args:
        claim: a name, a number of docs/claims.md that only one claim has, or a ``Claim``.
        search: where to look; or give its fields as keywords, such as ``n=3, starts=8``.
        progress: called with (steps done, steps in all, what is being done).
        fields: fields of ``Search``.

    Returns:
        A Finding. Its ``score`` is the ratio, 1 where the bound is attained.

    Raises:
        InputError: there is no such claim, it has no bound to tighten, JAX's x64 is switched off,
            or no start came to a finite value.

    >>> found = tighten("hilbert", n=3, starts=26, steps=60, polish=0)
    >>> 0.99 < found.score <= 1 + 1e-9  # symmetric pairs attain this bound
    True
    """
    return _search("tighten", claim, as_config(Search, search, fields), progress)


def refute(
    claim: str | Claim, search: Search | None = None, *, progress: Progress = silent, **fields: Any
) -> Finding:
    """Hunt a violation: the logits whose lesser side exceeds the greater by most.

    A violation is judged again in float64 with its margins, then in 50 digits where n ≤ 12. Then
    it is rounded to the fewest digits that keep it (``Finding.reduced``).

    Args:
        claim: a name, a number of docs/claims.md that only one claim has, or a ``Claim``.
        search: where to look; or give its fields as keywords, such as ``n=4, starts=32``.
        progress: called with (steps done, steps in all, what is being done).
        fields: fields of ``Search``.

    Returns:
        A Finding; ``refuted`` says whether a violation was found and stood.

    Raises:
        InputError: there is no such claim, it is not about matrices, JAX's x64 is switched off, or
            no start came to a finite value.

    >>> found = refute("gain_retention", n=2, starts=26, steps=20, polish=0)
    >>> found.refuted, found.exact_verdict
    (True, 'violated')
    """
    return _search("refute", claim, as_config(Search, search, fields), progress)


def probed_claim(goal: Goal, wanted: str | Claim) -> Claim:
    """Return the claim of this name or number, or a claim as it is.

    Raises:
        InputError: there is none, there are several, or this goal makes no sense for it.

    >>> probed_claim("tighten", "1.7").name
    'truncated_norm'
    """
    claims = chosen_claims((wanted,))
    if len(claims) > 1:
        names = ", ".join(claim.name for claim in claims)
        raise InputError(f"{wanted} is the number of several claims: {names}; name one.")
    claim = claims[0]
    if claim.scope == "noise":
        raise InputError(f"{claim.name} is about signals in noise: there is no matrix to probe.")
    if goal == "tighten" and claim.is_equality:
        raise InputError(f"{claim.name} is an equality: there is nothing to tighten; refute it.")
    return claim


def _search(goal: Goal, wanted: str | Claim, search: Search, progress: Progress) -> Finding:
    require_progress(progress)
    claim = probed_claim(goal, wanted)
    if isinstance(wanted, Claim):
        require_judging(claim, search.n)
    need = matrices_in_memory(search.starts * search.layers, search.n)
    require_memory(need, f"a search from {search.starts} starts at n = {search.n}")
    require_precision("float64")
    parameters, history = climb(goal, claim, search, progress)
    progress(len(history), len(history), "judging")
    if np.isnan(history[-1]).all():
        raise InputError(
            f"no start of the search for {claim.name} came to a finite value at n = {search.n}: "
            "its assumptions are met nowhere, or the optimiser diverged; try more starts, a "
            "smaller bound or a larger epsilon."
        )
    cells = cell_program(claim.scope, without_starts(search))(parameters)
    arrays = {key: np.asarray(x) for key, x in cells.items()}
    finding = judge_best(goal, claim, search, arrays, history)
    return reduce_digits(finding) if goal == "refute" and finding.refuted else finding
