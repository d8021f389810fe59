"""What a projection returns, and the verdict on it."""

from __future__ import annotations

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.typing import ArrayLike

from homojax.birkhoff import marginal_errors
from homojax.projection.factors import FactoredMatrix
from homojax.projection.summary import summary


class Status(enum.IntEnum):
    """How a projection ended. Only ``CONVERGED`` says that both errors are within the tolerance.

    >>> Status(3).name
    'INFEASIBLE'
    """

    CONVERGED = 0
    STEP_LIMIT = 1  # ``max_steps`` are spent: allow more, or another method
    STALLED = 2  # the error fell no further, or the logits were lost: wider floats, larger tol or ε
    INFEASIBLE = 3  # no doubly stochastic matrix is 0 wherever the logits are −inf
    NOT_FINITE = 4  # a NaN (tol, too), a logit of +inf, ε ≤ 0, or S/ε beyond the largest number


_REASONS = {
    Status.STEP_LIMIT: "allow a larger max_steps",
    Status.STALLED: "try float64, or a larger tol or ε",
    Status.INFEASIBLE: "too many logits are −inf",
    Status.NOT_FINITE: "a NaN, a logit of +inf, ε not above 0, or S/ε too large",
}
_WORDS = tuple(
    f"{status.name} ({_REASONS[status]})" if status in _REASONS else status.name
    for status in Status
)


class SinkhornResult(NamedTuple):
    """A projection and how far to trust it. Laws about 𝔅ₙ need the two errors beside the matrix.

    >>> import homojax as hj
    >>> result = hj.sinkhorn([[1.0, 0.0], [0.0, 1.0]], 0.5)
    >>> bool(result.converged), bool(result.row_error < 1e-6)
    (True, True)
    """

    matrix: jax.Array  # [n, n], exp(log_matrix)
    log_matrix: jax.Array  # [n, n], logits/ε + f[:, None] + g[None, :]; −inf off the support
    row_potential: jax.Array  # [n], f, dimensionless
    col_potential: jax.Array  # [n], g, dimensionless, mean 0
    row_error: jax.Array  # max |row sum − 1| of ``matrix``
    col_error: jax.Array  # max |column sum − 1| of ``matrix``
    num_steps: jax.Array  # alternations (rows and columns) and Newton steps done
    converged: jax.Array  # bool: both errors ≤ tol, and the logits not lost to rounding; not if NaN
    status: jax.Array  # a ``Status``

    def __repr__(self) -> str:
        return summary(self, self.matrix, self.status, _WORDS)


class FactoredResult(NamedTuple):
    """A projection of factors: as a SinkhornResult, with a matrix for products alone.

    >>> import homojax as hj
    >>> result = hj.sinkhorn(hj.point_cloud_logits([[0.0], [1.0]], [[0.0], [1.0]]), 1.0)
    >>> result.matrix.shape, bool(result.converged)
    ((2, 2), True)
    """

    matrix: FactoredMatrix  # [n, n]
    row_potential: jax.Array  # [n], f, dimensionless
    col_potential: jax.Array  # [n], g, dimensionless, mean 0
    row_error: jax.Array  # max |row sum − 1| of ``matrix``
    col_error: jax.Array  # max |column sum − 1| of ``matrix``
    num_steps: jax.Array  # passes over the blocks
    converged: jax.Array  # bool: both errors ≤ tol; not if NaN
    status: jax.Array  # a ``Status``

    def __repr__(self) -> str:
        return summary(self, self.matrix, self.status, _WORDS)


class BalanceResult(NamedTuple):
    """A scaling with every entry to relative accuracy, and whether it is one.

    >>> import homojax as hj
    >>> result = hj.balance([[20.0, 0.0], [0.0, 20.0]])  # of the logits over ε
    >>> bool(result.converged), round(float(result.log_matrix[0, 1]), 4)
    (True, -20.0)
    """

    log_matrix: jax.Array  # [n, n]
    num_steps: jax.Array  # Newton steps
    converged: jax.Array  # bool: the last step moved no logarithm by more than √eps, the next none

    def __repr__(self) -> str:
        return summary(self, self.log_matrix, self.converged, ("NOT_CONVERGED", "CONVERGED"))


# so that jax.export can write programs that return them
for _kind in (SinkhornResult, BalanceResult):
    export.register_namedtuple_serialization(_kind, serialized_name=f"homojax.{_kind.__name__}")


def dense_result(
    log_matrix: jax.Array,
    f: jax.Array,
    g: jax.Array,
    num_steps: jax.Array,
    tol: ArrayLike,
    **how: ArrayLike,
) -> SinkhornResult:
    """Return the result of an iterate, its errors measured and judged (``how`` as for ``judge``).

    >>> zero = jnp.zeros(2)
    >>> dense_result(jnp.zeros((2, 2)), zero, zero, jnp.asarray(0), 2.0).converged.item()
    True
    """
    matrix = jnp.exp(log_matrix)
    f, g = with_mean_zero(f, g)
    return SinkhornResult(
        matrix=matrix,
        log_matrix=log_matrix,
        row_potential=f,
        col_potential=g,
        num_steps=num_steps,
        **judge(*marginal_errors(matrix), tol, **how),
    )


def with_mean_zero(f: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (f + s, g − s), which give the same matrix. A mean of 0 makes derivatives unique."""
    shift = g.mean()
    return f + shift, g - shift


def judge(
    row_error: jax.Array,
    col_error: jax.Array,
    tol: ArrayLike,
    *,
    kept: ArrayLike = True,
    gave_up: ArrayLike = False,
    feasible: ArrayLike = True,
) -> dict[str, jax.Array]:
    """Return the errors and the verdict on them, by field.

    Args:
        row_error: largest |row sum − 1|.
        col_error: largest |column sum − 1|.
        tol: of both.
        kept: whether the matrix still is a scaling of exp(S/ε).
        gave_up: whether there were steps left over.
        feasible: whether any doubly stochastic matrix is 0 where the logits are −inf.
    """
    within = (row_error <= tol) & (col_error <= tol)
    status = jnp.where(within | gave_up, Status.STALLED, Status.STEP_LIMIT)
    status = jnp.where(within & kept, Status.CONVERGED, status)
    known = jnp.isfinite(row_error) & jnp.isfinite(col_error) & ~jnp.isnan(tol)
    status = jnp.where(known, status, Status.NOT_FINITE)
    return {
        "row_error": row_error,
        "col_error": col_error,
        "converged": within & kept,
        "status": jnp.where(feasible, status, Status.INFEASIBLE),
    }
