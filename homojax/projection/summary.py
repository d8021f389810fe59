"""One line about a result, which a notebook shows in place of its arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
from jax.core import Tracer


def summary(result: Any, matrix: Any, outcome: Any, words: Sequence[str]) -> str:
    """Return one line about a result, or about a batch of them, in place of its arrays.

    Args:
        result: a NamedTuple with ``num_steps`` and, perhaps, ``row_error`` and ``col_error``.
        matrix: [..., n, n], for its size and dtype.
        outcome: [...], index into ``words``.
        words: how a projection can end.

    >>> import jax.numpy as jnp
    >>> from homojax.projection.result import BalanceResult
    >>> BalanceResult(jnp.zeros((2, 2), "float32"), jnp.asarray(3), jnp.asarray(True))
    BalanceResult: CONVERGED; 2 x 2 float32, 3 steps
    """
    name = type(result).__name__
    if not all(map(_is_known, jax.tree.leaves(result))):
        fields = zip(result._fields, result, strict=True)
        shown = ", ".join(f"{field}={_shape(value)}" for field, value in fields)
        return f"{name}({shown})"
    codes = jax.device_get(outcome)
    batch = codes.ndim > 0
    counts = sorted(Counter(map(int, codes.ravel().tolist())).items())
    ended = ", ".join(f"{count} {words[k]}" if batch else words[k] for k, count in counts)
    size = f"{matrix.shape[-2]} x {matrix.shape[-1]} {matrix.dtype}"
    facts = [f"{list(codes.shape)} of {size}" if batch else size]
    limit = "at most " if batch else ""
    for side, field in (("row", "row_error"), ("column", "col_error")):
        if field in result._fields:
            facts.append(f"{side} error {limit}{_largest(getattr(result, field)):.1e}")
    steps = _largest(result.num_steps)
    facts.append(f"{limit}{steps} step{'' if steps == 1 else 's'}")
    return f"{name}: {ended}; {', '.join(facts)}"


def _largest(values: Any) -> Any:
    """Return the largest number of an array, NaN only if there is no other."""
    values = jax.device_get(values)
    numbers = values[values == values]
    return numbers.max() if numbers.size else values.max()


def _is_known(leaf: Any) -> bool:
    """Return whether there are numbers to show: not so in a trace, or of shapes alone."""
    return hasattr(leaf, "__array__") and not isinstance(leaf, Tracer)


def _shape(value: Any) -> str:
    known = hasattr(value, "shape") and hasattr(value, "dtype")
    return f"{value.dtype}{list(value.shape)}" if known else repr(value)
