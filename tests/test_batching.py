"""Many matrices at once: in buckets of like work, and none changes another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import homojax as hj
from homojax.batching import each_lane, in_buckets, where_unknown
from programs import equations

slow = pytest.mark.slow
batched = jax.vmap(hj.sinkhorn)  # one program for each number of lanes


def wide(n, lanes):
    """More lanes than go into one bucket, from the trivial to the hard, in no order."""
    rng = np.random.default_rng(n)
    return rng.normal(size=(lanes, n, n)), rng.permutation(np.geomspace(0.02, 20, lanes))


@pytest.mark.parametrize(
    ("n", "lanes", "dtype"),
    [
        (4, 1100, np.float64),
        pytest.param(4, 1100, np.float32, marks=slow),
        *(
            pytest.param(n, lanes, dtype, marks=slow)
            for n, lanes in ((16, 150), (64, 9))
            for dtype in (np.float64, np.float32)
        ),
    ],
)
def test_what_a_lane_gets_does_not_depend_on_its_neighbours(n, lanes, dtype):
    logits, epsilon = (x.astype(dtype) for x in wide(n, lanes))
    order, third = np.random.default_rng(0).permutation(lanes), lanes // 3
    together, shuffled, part = (
        jax.tree.map(np.asarray, batched(logits[some], epsilon[some]))
        for some in (slice(None), order, slice(third))
    )
    assert together.converged.all()
    eps, within = np.finfo(dtype).eps, 2 * n * hj.numerics.marginal_tolerance(n, dtype)
    for field in ("matrix", "num_steps", "status"):
        in_order = getattr(together, field)[order]
        np.testing.assert_allclose(getattr(shuffled, field), in_order, atol=8 * eps)
    np.testing.assert_allclose(part.matrix, together.matrix[:third], atol=within)
    for i in (0, lanes // 2, lanes - 1):
        alone = hj.sinkhorn(logits[i], epsilon[i])
        np.testing.assert_allclose(alone.matrix, together.matrix[i], atol=within)


@pytest.mark.parametrize("outer", ["logits", pytest.param("epsilon", marks=slow)])
def test_nested_batches_are_one_batch_and_keep_their_axes(outer):
    logits, epsilon = wide(4, 25)[0], np.geomspace(0.05, 5, 44)
    axes = [(None, 0), (0, None)] if outer == "logits" else [(0, None), (None, 0)]
    nested = jax.vmap(jax.vmap(hj.sinkhorn, axes[0]), axes[1])(logits, epsilon).matrix
    assert nested.shape == ((25, 44, 4, 4) if outer == "logits" else (44, 25, 4, 4))
    grid = nested if outer == "logits" else nested.swapaxes(0, 1)
    flat = batched(np.repeat(logits, 44, 0), np.tile(epsilon, 25))
    np.testing.assert_allclose(grid.reshape(-1, 4, 4), flat.matrix, atol=1e-11)


def test_lanes_of_like_work_share_a_bucket_and_come_back_in_their_places():
    work = np.random.default_rng(3).permutation(5000).astype(float)

    def solve(matrices, work):
        return jnp.full_like(work, work.max()), work

    def one(matrix, work):
        return in_buckets(solve, lambda _, work: work)(matrix, work)

    of_bucket, own = jax.jit(jax.vmap(one))(np.zeros((5000, 4, 4)), work)
    np.testing.assert_array_equal(own, work)
    assert len(np.unique(of_bucket)) == -(-5000 // 512)
    assert ((of_bucket >= work) & (of_bucket - work < 512)).all()


@pytest.mark.parametrize(("platform", "batches"), [("cpu", {1, 500}), ("tpu", {1, 1500})])
def test_only_the_program_of_the_platform_is_traced(platform, batches):
    seen = []

    def double(rows):
        seen.append(len(rows))
        return {"twice": 2 * rows, "size": rows[:, 0, 0] > 1}

    doubled = jax.jit(jax.vmap(in_buckets(double, lambda rows: rows[:, 0, 0], most=500)))
    out = export.export(doubled, platforms=[platform])(jnp.ones((1500, 2, 3))).out_avals
    assert set(seen) == batches and len(seen) == 2
    assert [(x.shape, x.dtype.name) for x in out] == [((1500,), "bool"), ((1500, 2, 3), "float64")]


def test_a_single_lane_runs_without_a_batch_axis_and_gets_one_back():
    def solve(matrix, scale):
        shapes.append(jnp.shape(matrix))
        return {"sum": matrix.sum() * scale, "matrix": matrix}

    for lanes in (1, 3):
        shapes = []
        matrices = np.arange(4.0 * lanes).reshape(lanes, 2, 2)
        out = each_lane(solve)(matrices, np.full(lanes, 2.0))
        np.testing.assert_array_equal(out["sum"], 2 * matrices.sum((1, 2)))
        np.testing.assert_array_equal(out["matrix"], matrices)
        assert shapes == [(2, 2)]


@pytest.mark.parametrize("unknown", [0, 1, 7, 40])
def test_only_unknown_lanes_are_found_a_few_at_a_time(unknown):
    found = []

    def trace(matrix):
        jax.debug.callback(lambda x: found.append(float(x)), matrix[0, 0])
        return jnp.where(matrix[0, 0] == 2, jnp.nan, jnp.trace(matrix))  # one stays unknown

    rng = np.random.default_rng(unknown)
    matrices = np.arange(40.0)[:, None, None] * np.ones((40, 2, 2))
    lost = np.isin(np.arange(40), rng.permutation(40)[:unknown])
    values = np.where(lost, np.nan, -1.0)
    out = jax.jit(jax.vmap(where_unknown(trace, most=8)))(matrices, values)
    jax.effects_barrier()
    expected = np.where(lost, np.where(np.arange(40) == 2, np.nan, 2 * np.arange(40)), -1)
    np.testing.assert_array_equal(out, expected)
    assert set(found) >= set(np.flatnonzero(lost)) and len(found) == 8 * -(-unknown // 8)


@pytest.mark.slow
def test_batches_differentiate_like_their_lanes():
    logits, epsilon = wide(4, 600)
    weights = np.random.default_rng(5).normal(size=(4, 4))
    slope = jax.grad(lambda s, e: (weights * hj.sinkhorn(s, e, tol=1e-13).matrix).sum(), (0, 1))
    by_logits, by_epsilon = jax.jit(jax.vmap(slope))(logits, epsilon)
    slope = jax.jit(slope)
    for i in (0, 299, 599):
        alone = slope(logits[i], epsilon[i])
        np.testing.assert_allclose(by_logits[i], alone[0], rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(by_epsilon[i], alone[1], rtol=1e-6, atol=1e-10)


def slope_of_the_projection(logits):
    return jax.vjp(lambda s: hj.sinkhorn(s, 0.5).matrix, logits)[1](logits)


def factored(queries):
    return hj.sinkhorn(hj.low_rank_logits(queries, queries), 0.5).col_potential


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (slope_of_the_projection, (3, 4, 4)),
        (slope_of_the_projection, (3, 128, 128)),
        (hj.sigma2, (3, 40, 40)),
        (hj.lambda2, (3, 16, 16)),
        (hj.balance, (3, 4, 4)),
        (factored, (3, 20, 2)),
        (lambda s: hj.calibrate_epsilon(s, 0.5), (3, 4, 4)),
    ],
)
def test_no_loop_of_lanes_ends_by_a_comparison_of_floats_that_is_made_twice(function, shape):
    """vmap evaluates a loop's condition once to go on and once to say for which lanes.

    Compiled apart, floats that were computed for both can differ in their last bit. A lane that
    only one of them calls finished then goes round for ever.
    """
    program = jax.make_jaxpr(jax.vmap(function))(jnp.ones(shape)).jaxpr
    loops = [e for e in equations(program) if e.primitive.name == "while"]
    conditions = [loop.params["cond_jaxpr"].jaxpr for loop in loops]
    assert conditions
    for condition in conditions:
        outputs = [v.aval.dtype for equation in condition.eqns for v in equation.outvars]
        assert not any(np.issubdtype(dtype, np.floating) for dtype in outputs), condition
