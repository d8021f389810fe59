"""What to do about a verdict that is not healthy, and what would change."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from homojax.lab.audit.config import Audit
from homojax.lab.audit.layers import Layer
from homojax.lab.audit.measures import (
    constants_share,
    converged,
    kept_as_run,
    measure_each,
    measure_stack,
    responses,
)
from homojax.lab.audit.verdict import Verdict
from homojax.residual import turn_bound

MOST_ALTERNATIONS = 10_000  # that are tried
COLDEST = 1e-4  # factor of the temperature that is tried
AIM = 1.1  # times the least share to keep: as run, a product keeps a little less than converged
OPEN = 0.01  # a response at which logits train again; 0.5 is the largest there is


class Advice(NamedTuple):
    """One thing to do."""

    verdict: Verdict  # that it is about
    do: str
    then: str  # what it would change


def _rounded(value: float, *, down: bool) -> float:
    """Return a number of three digits that is on the safe side of a value ≥ 0.

    >>> _rounded(0.55251, down=True), _rounded(0.55251, down=False)
    (0.552, 0.553)
    """
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    shown = (math.floor if down else math.ceil)(value / unit) * unit
    return float(f"{shown:.3g}")


def advise(
    layers: list[Layer], verdicts: list[Verdict], stack: Verdict, audit: Audit
) -> list[Advice]:
    """Return what to do about layers with alternations, static part by static part.

    Args:
        layers: of one stack.
        verdicts: of each layer.
        stack: the verdict about all of them.
        audit: the thresholds.
    """
    alternating = [layer.preset.num_iters is not None for layer in layers]
    advice = []
    ways = [("unconverged", _alternate), ("locked", _heat), ("trap", _cool), ("trap", _blend)]
    running = [layer for layer, fits in zip(layers, alternating, strict=True) if fits]
    least = audit.retention
    if running and stack in ("trap", "unconverged") and constants_share(running, least) >= 0.5:
        advice.append(Advice(stack, *_bare(running, audit)))
    if running and stack == "trap" and _kept(running, audit) >= least:
        # Once converged the static part keeps enough, so a lower temperature mends nothing in it.
        ways, stack = ways[:2], "healthy"
        if not advice and kept_as_run(running, least) < least:
            advice.append(Advice("trap", *_settle(running, audit)))
    for verdict, make in ways:
        concerned = [
            layer
            for layer, own, fits in zip(layers, verdicts, alternating, strict=True)
            if fits and (own == verdict or (stack == verdict == "trap"))
        ]
        if concerned:
            advice.append(Advice(verdict, *make(concerned, audit)))  # type: ignore[arg-type]
    return advice


def _bare(layers: list[Layer], audit: Audit) -> tuple[str, str]:
    """Return what the same alternations would leave without constants."""
    bare = kept_as_run([layer.without_constants() for layer in layers], audit.retention)
    return (
        f"add nothing to entries and sums of {_counted(layers)}, or much less",
        f"their product keeps {bare:.1%} of the detail at the static part, as run, in place of "
        f"{kept_as_run(layers, audit.retention):.1%}",
    )


def _settle(layers: list[Layer], audit: Audit) -> tuple[str, str]:
    """Return what the product keeps once converged, where it keeps too little as run alone."""
    return (
        f"project {_counted(layers)} by a method that converges (hj.sinkhorn)",
        f"their product keeps {_kept(layers, audit):.1%} of the detail at the static part",
    )


def _kept(layers: list[Layer], audit: Audit, factor: float = 1.0) -> float:
    """Return σ₂ of the product once converged, with the temperature times a factor."""
    matrices = _project(np.stack([layer.logits() for layer in layers]) / factor)
    return float(measure_stack(matrices, audit.retention)["composite_sigma2"][-1])


def _alternate(layers: list[Layer], audit: Audit) -> tuple[str, str]:
    """Return the alternations after which all sums are right, by running them."""
    needed = alternations_for(_rows_last(layers), audit.sum_error)
    present, count = _present(layers), _counted(layers)
    if needed is None:
        return (
            f"project {count} by a method that converges (hj.sinkhorn), or raise the temperature",
            f"more than {MOST_ALTERNATIONS:,} alternations would be needed for a sum error of "
            f"{audit.sum_error:g}",
        )
    again = _with(layers, num_iters=needed)
    each = measure_each(np.stack([layer.matrix() for layer in again]))
    error = np.maximum(each["row_error"], each["col_error"]).max()
    return (
        f"run {needed} alternations in place of {present}",
        f"the largest sum error of {count} falls to {error:.2g}, and the mean σ₂ becomes "
        f"{each['sigma2'].mean():.4f}",
    )


def _present(layers: list[Layer]) -> int:
    return max(layer.preset.num_iters or 0 for layer in layers)


def _with(layers: list[Layer], **how: float) -> list[Layer]:
    """Return the layers with other fields of their presets."""
    return [layer._replace(preset=layer.preset._replace(**how)) for layer in layers]


def _rows_last(layers: list[Layer]) -> np.ndarray:
    """Return S/ε, [L, n, n], transposed where the last sums are those of columns."""
    return np.stack([x.logits() if x.preset.last == "rows" else x.logits().T for x in layers])


def alternations_for(logits: np.ndarray, sum_error: float) -> int | None:
    """Return after how many alternations, columns then rows, S/ε [L, n, n] have right sums.

    None where ``MOST_ALTERNATIONS`` do not do.

    >>> alternations_for(np.array([[[1.0, 0.0], [0.0, 0.0]]]), 1e-9)
    8
    """
    s = logits - logits.max((1, 2), keepdims=True)
    g = -np.logaddexp.reduce(s, 1, keepdims=True)
    for count in range(1, MOST_ALTERNATIONS + 1):
        f = -np.logaddexp.reduce(s + g, 2, keepdims=True)
        columns = np.logaddexp.reduce(s + f, 1, keepdims=True)
        if abs(np.expm1(columns + g)).max() <= sum_error:
            return count
        g = -columns
    return None


def _heat(layers: list[Layer], audit: Audit) -> tuple[str, str]:
    """Return the least factor of the temperature at which every layer answers to its logits."""
    logits = np.stack([layer.logits() for layer in layers])
    low, high = 1.0, max(2.0, float(np.ptp(logits)))
    for _ in range(24):
        middle = (low * high) ** 0.5
        matrices = _project(logits / middle)
        opened = responses(matrices, matrices)[0].min() >= OPEN
        low, high = (low, middle) if opened else (middle, high)
    high = _rounded(high, down=False)
    sigma2 = measure_each(_project(logits / high))["sigma2"]
    return (
        f"multiply the temperature of {_counted(layers)} by {high:.3g}, or divide logits by it",
        f"entries answer to logits again (by {OPEN:g} and more), and the mean σ₂ becomes "
        f"{sigma2.mean():.4f}",
    )


def _cool(layers: list[Layer], audit: Audit) -> tuple[str, str]:
    """Return the temperature, lower than the present one, at which the stack keeps enough.

    ``hj.calibrate_depth`` would prove it, and compile for as long as the rest of an audit takes.
    """
    kept = partial(_kept, layers, audit)
    low, high = 1.0, 1.0
    enough = min(AIM * audit.retention, (1 + audit.retention) / 2)
    while kept(low) < enough and low > COLDEST:
        low, high = low / 2, low
    depth = _counted(layers)
    if low <= COLDEST:
        return (
            f"give {depth} other logits: no temperature lets them keep {audit.retention:.0%}",
            "their logits are tied, so that even the assignment that they tend to forgets",
        )
    for _ in range(10):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle) >= enough else (low, middle)
    low = _rounded(low, down=True)
    colder = [y for x in layers for y in _with([x], epsilon=x.preset.epsilon * low)]
    return (
        f"multiply the temperature of {depth} by {low:.3g}, or divide logits by "
        f"it{_and_alternate(colder, audit)}",
        f"their product keeps {kept(low):.1%} of the detail at the static part, once converged; "
        "hj.calibrate_depth proves how much",
    )


def _and_alternate(layers: list[Layer], audit: Audit) -> str:
    """Return how to project so that as run, too, sums are right and the product keeps enough.

    Empty where the present alternations do.
    """
    present = _present(layers)
    count = alternations_for(_rows_last(layers), audit.sum_error)
    while count is not None and count <= MOST_ALTERNATIONS:
        count = max(count, present)
        if kept_as_run(_with(layers, num_iters=count), audit.retention) >= audit.retention:
            return f", and run {count} alternations in place of {present}" * (count > present)
        count *= 2
    return ", and project by a method that converges (hj.sinkhorn)"


def _blend(layers: list[Layer], audit: Audit) -> tuple[str, str]:
    """Return the largest α at which (1 − α)I + αM of all layers keep enough: it turns most."""
    matrices = _project(np.stack([layer.logits() for layer in layers]))
    identity = np.eye(matrices.shape[1])

    def kept(alpha: float) -> float:
        blended = (1 - alpha) * identity + alpha * matrices
        return float(measure_stack(blended, audit.retention)["composite_sigma2"][-1])

    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) >= audit.retention else (low, middle)
    low = _rounded(low, down=True)
    sigma2 = measure_each(matrices)["sigma2"]
    turn = np.degrees(turn_bound(sigma2, alpha=low)).max()
    turned = f"; a layer turns detail by at most {turn:.0f}° (law 5.2, turn)" if turn < 90 else ""
    return (
        f"or mix {_counted(layers)} by (1 − α)I + αM with α = {low:.3g}",
        f"their product keeps {kept(low):.1%} of the detail at the static part, once "
        f"converged{turned}",
    )


def _counted(layers: list[Layer]) -> str:
    return f"{len(layers)} layers" if len(layers) > 1 else "1 layer"


def _project(logits: np.ndarray) -> np.ndarray:
    return np.stack([converged(each).matrix for each in logits])
