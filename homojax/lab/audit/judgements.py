"""The verdicts about a checkpoint's layers and their stack, from what is measured and proved."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from homojax.lab.audit.certificates import Certificate, bounded, certify, within_sums
from homojax.lab.audit.config import Audit
from homojax.lab.audit.ellipsoid import ellipsoid_of
from homojax.lab.audit.layers import Layer
from homojax.lab.audit.measures import constants_share, responses, unconverged_share
from homojax.lab.audit.recorded import Sample
from homojax.lab.audit.verdict import (
    NO_MATRIX,
    Certainty,
    Facts,
    Judged,
    Span,
    Stack,
    judge_layer,
    judge_stack,
    judge_tokens,
)


def judge(
    layer: Layer,
    certificate: Certificate,
    measured: dict[str, Any],
    converged: np.ndarray,
    config: Audit,
    sample: Sample | None = None,
) -> Judged:
    """Return the verdict for every token; else on the sample; else at the static part."""
    if layer.preset.parametrization == "identity":
        return NO_MATRIX
    if layer.dynamic:
        told = judge_layer(_of_every_token(certificate), config, "every token")
        if told.certainty == "every token":
            return told
        if sample is not None:
            return judge_tokens(sample.values, config)
    static: Certainty = "static part" if layer.dynamic else "every token"
    return judge_layer(
        _at_static_part(layer, measured, converged, config.sum_error), config, static
    )


def _of_every_token(certificate: Certificate) -> Facts:
    least, largest = certificate.least, certificate.largest
    return _facts(least, largest, Span(0, certificate.sum_error), 1 - certificate.gap)


def _at_static_part(
    layer: Layer, measured: dict[str, Any], converged: np.ndarray, threshold: float
) -> Facts:
    """Return what is known where stored logits may be off by the rounding of their type."""
    n, eta = layer.n, _rounding(layer)
    off = float(measured["error"]) * n
    # No entry's logarithm moves by more than the logits round a cycle of 2n corners.
    least, largest = bounded(converged, 2 * n * eta, off)
    least, largest = within_sums(np.maximum(least, 0), largest)
    error = max(float(measured["row_error"]), float(measured["col_error"]))
    moved = np.expm1(min(700.0, 2 * (layer.preset.num_iters or 0) * eta)) + 1e-15 * n
    most = error + moved
    if error <= threshold < most:  # a proof takes long, and may tell
        most = max(error, min(most, certify(layer._replace(scale=0.0)).sum_error))
    sums = Span(max(0, error - moved), most, error)
    facts = _facts(least, largest, sums, np.inf)
    sigma2, moved = float(measured["sigma2_converged"]), _moved_by_rounding(layer) + off
    return facts._replace(sigma2=Span(max(0, sigma2 - moved), min(1, sigma2 + moved), sigma2))


def _rounding(layer: Layer) -> float:
    """Return how far a stored logit of the static part, over ε, may be from what was rounded."""
    return ellipsoid_of(layer._replace(scale=0.0)).farthest()


def _moved_by_rounding(layer: Layer) -> float:
    """Return how far that moves the converged matrix, in the Frobenius norm.

    The derivative is a projection between the norms of dS √M and dM/√M, and M sums to n.
    """
    return layer.n**0.5 * _rounding(layer) + 1e-15 * layer.n


def _facts(least: np.ndarray, largest: np.ndarray, sums: Span, sigma2: float) -> Facts:
    n = len(least)
    low, high = responses(least[None], largest[None])
    kept = (np.trace(least) / n, min(1.0, np.trace(largest) / n))
    lowest = max(0.0, (np.trace(least) - 1) / (n - 1))
    return Facts(
        sum_error=sums,
        leaving=Span(1 - kept[1], 1 - kept[0]),
        response=Span(float(low[0]), float(high[0])),
        sigma2=Span(lowest, sigma2),
    )


def judge_whole(
    config: Audit,
    ds: xr.Dataset,
    judged: list[Judged],
    layers: tuple[Layer, ...],
    certificates: list[Certificate],
    tokens: dict[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Return the attrs that say what the stack is.

    Args:
        ds: with what is measured at the static part.
        judged: the verdicts about the layers.
        layers: all of them.
        certificates: theirs; none of recorded matrices alone.
        tokens: σ₂ of the products of recorded tokens, as run and converged.
        config: the thresholds.
    """
    which = np.flatnonzero(ds.stacked.values)
    last = int(which[-1])
    dynamic = not certificates or any(layers[k].dynamic for k in which)
    if tokens is None or not dynamic:  # what every token has needs no sample
        runs, ends = (ds[f"composite_sigma2{end}"].values[last:][:1] for end in ("", "_converged"))
        off, own = sum(_moved_by_rounding(layers[k]) for k in which), [layers[k] for k in which]
        certainty: Certainty = "static part" if dynamic else "every token"
    else:
        there = np.isfinite(np.stack(list(tokens.values()))).all(0)
        runs, ends = (
            tokens[f"composite_sigma2{end}"][there] if there.any() else np.full(1, np.nan)
            for end in ("", "_converged")
        )
        off, own, certainty = 0.0, [], "recorded sample"  # a sample says nothing of constants
    proved = [certificates[k] for k in which] if certificates else []
    share = float(np.median([unconverged_share(*pair) for pair in zip(runs, ends, strict=True)]))
    run, converged = float(np.median(runs)), float(np.median(ends))
    stack = Stack(
        layers=[judged[k] for k in which],
        sigma2=Span(max(0.0, converged - off), min(1.0, converged + off), converged),
        unconverged_share=share,
        certainty=certainty,
        sigma2_upper=float(np.prod([1 - x.gap for x in proved])) if proved else np.inf,
        sum_error_upper=max((x.sum_error for x in proved), default=np.inf),
        sigma2_run=Span(max(0.0, run - off), min(1.0, run + off), run),
        constants_share=constants_share(own, config.retention) if share >= 0.5 else 0.0,
    )
    verdict = judge_stack(stack, config)
    return {
        "verdict": verdict.verdict,
        "certainty": verdict.certainty,
        "reason": verdict.reason,
        "unconverged_share": share,
    }
