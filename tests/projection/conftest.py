"""Programs that the tests of projections share: compiling is most of their time.

``hj.sinkhorn`` compiles a program for each shape, dtype, ``method`` and ``max_steps``, and another
with ``init``, whatever the tolerance. So batches are filled up to a few sizes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj

LANES = {2: 400, 4: 400, 16: 100, 64: 192}  # of every batch, by n


@pytest.fixture(scope="session")
def normal():
    """Eight normal logit matrices, [8, 4, 4]."""
    return np.random.default_rng(7).normal(size=(8, 4, 4))


@pytest.fixture(scope="session")
def project_each():
    """[B, n, n] at one ε or [B], filled up to ``LANES`` with the last one -> results, [B]."""

    def project(logits, epsilon, init=None, **options):
        count, n, _ = logits.shape
        epsilon = np.broadcast_to(np.asarray(epsilon, logits.dtype), count)
        lanes = [logits, epsilon] if init is None else [logits, epsilon, init]
        filled = [
            np.concatenate([x, np.repeat(x[-1:], LANES[n] - count, 0)])
            for x in map(np.asarray, lanes)
        ]
        result = jax.vmap(
            lambda s, e, *init: hj.sinkhorn(s, e, init=init[0] if init else None, **options)
        )(*filled)
        return jax.tree.map(lambda x: np.asarray(x)[:count], result)

    return project


@pytest.fixture(scope="session")
def project_all(project_each):
    """[B, n, n], [E] -> results, [B, E]."""

    def project(logits, epsilons):
        result = project_each(np.repeat(logits, len(epsilons), 0), np.tile(epsilons, len(logits)))
        return jax.tree.map(lambda x: x.reshape(len(logits), len(epsilons), *x.shape[1:]), result)

    return project


@pytest.fixture(scope="session")
def masked_logits():
    """Logits allowed on a random permutation, so that a projection exists, and on a third more."""

    def make(n, count, dtype="float64"):
        rng = np.random.default_rng(n)
        allowed = rng.random((count, n, n)) < 1 / 3
        allowed |= np.array([np.eye(n, dtype=bool)[rng.permutation(n)] for _ in range(count)])
        return np.where(allowed, rng.normal(size=(count, n, n)), -np.inf).astype(dtype)

    return make


def _scalar(logits, epsilon, weights, tol, solver):
    """A scalar of all that is differentiable in a result; a weight of 0 leaves out what is ∞."""
    result = solver(logits, epsilon) if tol is None else solver(logits, epsilon, tol=tol)
    c, u, v, w = weights
    potentials = u @ result.row_potential + v @ result.col_potential
    logs = jnp.where(w != 0, w * result.log_matrix, 0).sum()
    return (c * result.matrix).sum() + potentials + logs, result


_slopes = jax.jit(jax.value_and_grad(_scalar, (0, 1), has_aux=True), static_argnames="solver")


@pytest.fixture(scope="session")
def scalar():
    """The function that ``slopes`` differentiates."""
    return _scalar


@pytest.fixture(scope="session")
def slopes():
    """((scalar, result), (its derivative by logits, by ε)), by one program for all weights."""

    def differentiate(logits, epsilon, weights, tol=1e-13, solver=hj.sinkhorn):
        dtype = logits.dtype
        weights = jax.tree.map(lambda x: np.asarray(x, dtype), weights)
        tol = None if tol is None else np.asarray(tol, dtype)
        return _slopes(logits, np.asarray(epsilon, dtype), weights, tol, solver=solver)

    return differentiate


@pytest.fixture(scope="session")
def of_matrix():
    """Weights of ``slopes`` for the matrix alone."""

    def weigh(weights):
        zeros = np.zeros_like(weights)
        return weights, zeros[0], zeros[0], zeros

    return weigh
