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
    if not has_numbers(result):
        return shapes_of(result)
    batch = len(outcome.shape) > 0
    size = f"{matrix.shape[-2]} x {matrix.shape[-1]} {matrix.dtype}"
    facts = [f"{list(outcome.shape)} of {size}" if batch else size]
    limit = "at most " if batch else ""
    for side, field in (("row", "row_error"), ("column", "col_error")):
        if field in result._fields:
            facts.append(f"{side} error {limit}{_largest(getattr(result, field)):.1e}")
    steps = _largest(result.num_steps)
    facts.append(f"{limit}{steps} step{'' if steps == 1 else 's'}")
    return f"{type(result).__name__}: {count_outcomes(outcome, words)}; {', '.join(facts)}"


def has_numbers(result: Any) -> bool:
    """Return whether there are numbers to show: not so in a trace, or of shapes alone."""
    leaves = jax.tree.leaves(result)
    return all(hasattr(leaf, "__array__") and not isinstance(leaf, Tracer) for leaf in leaves)


def shapes_of(result: Any) -> str:
    """Return one line with the shapes and dtypes of a NamedTuple's fields."""
    fields = zip(result._fields, result, strict=True)
    shown = ", ".join(f"{field}={_shape(value)}" for field, value in fields)
    return f"{type(result).__name__}({shown})"


def count_outcomes(outcome: Any, words: Sequence[str]) -> str:
    """Return the word of an outcome, an index into ``words``; of a batch, the count of each."""
    codes = jax.device_get(outcome)
    counts = sorted(Counter(map(int, codes.ravel().tolist())).items())
    return ", ".join(f"{count} {words[k]}" if codes.ndim else words[k] for k, count in counts)


def _largest(values: Any) -> Any:
    """Return the largest number of an array, NaN only if there is no other."""
    values = jax.device_get(values)
    numbers = values[values == values]
    return numbers.max() if numbers.size else values.max()


def _shape(value: Any) -> str:
    known = hasattr(value, "shape") and hasattr(value, "dtype")
    return f"{value.dtype}{list(value.shape)}" if known else repr(value)
