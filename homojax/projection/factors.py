"""Logits and matrices given by factors, used in blocks of rows: nothing has size n²."""

# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
# chex.dataclass makes the constructor and `replace`, and pyright does not see them.

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from homojax.arguments import as_float
from homojax.birkhoff import center
from homojax.loops import scan
from homojax.numerics import matmul
from homojax.programs import compiled

_BLOCK = 2**22  # entries formed at once


class FactoredLogits(NamedTuple):
    """Logits S = Q Kᵀ + r 1ᵀ + 1 cᵀ, never formed, with centred Q and K.

    ``low_rank_logits`` and ``point_cloud_logits`` make them. The shifts r and c do not change the
    projection, only its potentials.

    >>> low_rank_logits(jnp.ones((5, 2)), jnp.ones((5, 2))).shape
    (5, 5)
    """

    queries: jax.Array  # [n, d], Q
    keys: jax.Array  # [n, d], K
    row_shift: jax.Array  # [n], r
    col_shift: jax.Array  # [n], c

    @property
    def shape(self) -> tuple[int, int]:
        return self.queries.shape[0], self.keys.shape[0]

    @property
    def dtype(self) -> DTypeLike:
        return self.queries.dtype

    @compiled()
    def dense(self) -> jax.Array:
        """Return S, [n, n]."""
        return matmul(self.queries, self.keys.T) + self.row_shift[:, None] + self.col_shift[None, :]


@compiled()
def low_rank_logits(queries: ArrayLike, keys: ArrayLike) -> FactoredLogits:
    """Return logits Sᵢⱼ = qᵢ · kⱼ, as in attention.

    Source: Vaswani et al. (arXiv 1706.03762), without its 1/√d: that is part of ε.

    Args:
        queries: q, [n, d].
        keys: k, [n, d].

    Raises:
        ValueError: the shapes differ, or are not [n, d] with n ≥ 2 and d ≥ 1.

    >>> low_rank_logits([[1.0], [3.0]], [[2.0], [4.0]]).dense().tolist()
    [[2.0, 4.0], [6.0, 12.0]]
    """
    queries, keys = _checked(queries, keys, "queries", "keys")
    query, key = queries.mean(0), keys.mean(0)
    queries, keys = center(queries), center(keys)
    return FactoredLogits(
        queries=queries,
        keys=keys,
        row_shift=matmul(queries, key) + matmul(query, key),
        col_shift=matmul(keys, query),
    )


@compiled()
def point_cloud_logits(x: ArrayLike, y: ArrayLike) -> FactoredLogits:
    """Return logits Sᵢⱼ = −|xᵢ − yⱼ|² of two clouds of points.

    No digits are lost where both clouds are far from the origin.

    Args:
        x: [n, d].
        y: [n, d].

    Raises:
        ValueError: the shapes differ, or are not [n, d] with n ≥ 2 and d ≥ 1.

    >>> point_cloud_logits([[0.0], [1.0]], [[0.0], [2.0]]).dense().tolist()
    [[0.0, -4.0], [-1.0, -1.0]]
    """
    x, y = _checked(x, y, "x", "y")
    middle_x, middle_y = x.mean(0), y.mean(0)
    x, y, offset = center(x), center(y), middle_x - middle_y
    return FactoredLogits(
        queries=2 * x,
        keys=y,
        row_shift=-((x + offset[None, :]) ** 2).sum(1),
        col_shift=-(y**2).sum(1) + 2 * matmul(y, offset),
    )


def _checked(queries: ArrayLike, keys: ArrayLike, *names: str) -> tuple[jax.Array, jax.Array]:
    queries, keys = as_float(queries, names[0]), as_float(keys, names[1])
    shape = queries.shape
    if len(shape) != 2 or shape != keys.shape or shape[0] < 2 or shape[1] < 1:
        raise ValueError(
            f"{names[0]} and {names[1]} must have one shape [n, features] with n >= 2, got "
            f"{list(shape)} and {list(keys.shape)}; batch with jax.vmap"
        )
    dtype = jnp.result_type(queries, keys)
    return queries.astype(dtype), keys.astype(dtype)


@chex.dataclass(frozen=True, mappable_dataclass=False)
class FactoredMatrix:
    """The matrix M = exp(Q Kᵀ + f 1ᵀ + 1 gᵀ), [n, n], as an operator.

    ``m @ x`` and ``m.T @ x`` take x [n] or [n, m]. Products are differentiable in both modes, in x
    and in the factors, with memory O(n · block). Each potential is a sum of two: a reference, of
    the size of Q Kᵀ, and a correction of order 1, whose last digits count where the other's are
    rounded.

    >>> from homojax.projection.sinkhorn import sinkhorn
    >>> m = sinkhorn(point_cloud_logits([[0.0], [1.0]], [[0.0], [1.0]]), 1.0).matrix
    >>> [round(y, 4) for y in (m @ jnp.array([1.0, 0.0])).tolist()], m.shape
    ([0.7311, 0.2689], (2, 2))
    """

    queries: jax.Array  # [n, d], Q, over ε
    keys: jax.Array  # [n, d], K
    row_reference: jax.Array  # [n], f less its correction
    col_reference: jax.Array  # [n], g less its correction
    row_correction: jax.Array  # [n]
    col_correction: jax.Array  # [n]

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, n], after the axes of a batch that ``jax.vmap`` returned."""
        return *self.queries.shape[:-1], self.keys.shape[-2]

    @property
    def dtype(self) -> DTypeLike:
        return self.queries.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> FactoredMatrix:  # noqa: N802
        return FactoredMatrix(
            queries=self.keys,
            keys=self.queries,
            row_reference=self.col_reference,
            col_reference=self.row_reference,
            row_correction=self.col_correction,
            col_correction=self.row_correction,
        )

    @property
    def row_potential(self) -> jax.Array:
        """f, [n]."""
        return self.row_reference + self.row_correction

    @property
    def col_potential(self) -> jax.Array:
        """g, [n]."""
        return self.col_reference + self.col_correction

    @compiled()
    def __matmul__(self, x: ArrayLike) -> jax.Array:
        x = as_float(x)
        n = self.shape[-1]
        if x.ndim not in (1, 2) or x.shape[0] != n:
            raise ValueError(f"x must have shape [{n}] or [{n}, m], got {list(x.shape)}")
        return self._over_blocks(lambda _, block: (None, matmul(block, x)), None)[1]

    @compiled()
    def sums(self) -> tuple[jax.Array, jax.Array]:
        """Return the row sums [n] and the column sums [n], in one pass."""
        start = jnp.zeros_like(self.col_reference)
        cols, rows = self._over_blocks(
            lambda sums, block: (sums + block.sum(0), block.sum(1)), start
        )
        return rows, cols

    @compiled()
    def gram(self, x: jax.Array) -> jax.Array:
        """Return Mᵀ M x, [n], in one pass."""
        return self._over_blocks(
            lambda y, block: (y + matmul(matmul(block, x), block), None), jnp.zeros_like(x)
        )[0]

    @compiled()
    def dense(self) -> jax.Array:
        """Return M, [n, n]."""
        return jnp.exp(self.log_block(self.queries, self.row_reference, self.row_correction))

    def log_block(
        self, queries: jax.Array, row_reference: jax.Array, row_correction: jax.Array
    ) -> jax.Array:
        """Return log M of the rows with these queries and potentials, [rows, n]."""
        large = matmul(queries, self.keys.T) + row_reference[:, None] + self.col_reference[None, :]
        return large + (row_correction[:, None] + self.col_correction[None, :])

    def _over_blocks(self, use: Callable, carry):
        if self.ndim > 2:
            raise ValueError(
                f"this is a batch of factored matrices, of shape {list(self.shape)}: use them "
                "under jax.vmap"
            )
        rows = self.queries, self.row_reference, self.row_correction
        return over_rows(
            lambda carry, rows: use(carry, jnp.exp(self.log_block(*rows))), carry, *rows
        )


def over_rows(
    use: Callable, carry, queries: jax.Array, row_reference: jax.Array, row_correction: jax.Array
):
    """Return the scan of ``use``, (carry, block of rows) -> (carry, outputs).

    Rows of zeros fill up the last block.
    """
    n = len(queries)
    count = -(-n // max(64, _BLOCK // n))
    size = -(-n // count)
    fill = (0, count * size - n)
    rows = (
        jnp.pad(queries, (fill, (0, 0))),
        jnp.pad(row_reference, fill, constant_values=-jnp.inf),
        jnp.pad(row_correction, fill),
    )
    blocks = jax.tree.map(lambda a: a.reshape(count, size, *a.shape[1:]), rows)
    # Without the checkpoint a derivative would keep every block.
    carry, out = scan(jax.checkpoint(use), carry, blocks)
    return carry, jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:])[:n], out)
