"""A result shows a line, and is refused with a hint where a matrix is wanted."""

import jax
import numpy as np
import pytest

import homojax as hj

LOGITS = np.random.default_rng(7).normal(size=(4, 4))


def test_a_result_shows_its_status_size_and_errors_and_no_array():
    shown = repr(hj.sinkhorn(LOGITS, 1.0))
    assert shown.startswith("SinkhornResult: CONVERGED; 4 x 4 float64, row error ")
    assert ", column error " in shown and shown.endswith(" steps") and "[" not in shown
    assert repr(hj.balance(LOGITS)).startswith("BalanceResult: CONVERGED; 4 x 4 float64, ")
    factors = hj.low_rank_logits(LOGITS, LOGITS)
    assert repr(hj.sinkhorn(factors, 5.0)).startswith("FactoredResult: CONVERGED; 4 x 4 float64, ")


def stacked(results):
    """What ``jax.vmap`` would return, without a program of its own."""
    return jax.tree.map(lambda *lanes: np.stack(lanes), *results)


def test_a_batch_shows_how_many_ended_in_which_way():
    epsilons = (0.5, -1.0, 1.0)
    shown = repr(stacked([hj.sinkhorn(LOGITS, epsilon) for epsilon in epsilons]))
    assert shown.startswith("SinkhornResult: 2 CONVERGED, 1 NOT_FINITE (a NaN, ")
    assert "; [3] of 4 x 4 float64, row error at most " in shown
    assert "row error at most " in shown and "at most" in shown and "nan" not in shown
    balanced = repr(stacked([hj.balance(LOGITS / epsilon) for epsilon in epsilons]))
    assert balanced.startswith("BalanceResult: 3 CONVERGED; [3] of 4 x 4 float64, at most ")


def test_in_a_trace_a_result_shows_shapes():
    seen = []
    jax.eval_shape(lambda s: seen.append(repr(hj.sinkhorn(s, 1.0))), LOGITS)
    jax.make_jaxpr(jax.vmap(lambda s: seen.append(repr(hj.balance(s)))))(LOGITS[None])
    assert seen[0].startswith("SinkhornResult(matrix=float64[4, 4], log_matrix=float64[4, 4], ")
    assert seen[1].startswith("BalanceResult(log_matrix=float64[4, 4], num_steps=int")
    abstract = jax.eval_shape(hj.sinkhorn, LOGITS, 1.0)
    assert repr(abstract) == seen[0]
    assert "row_error=0" in repr(jax.tree.map(lambda _: 0, abstract))  # axes, as vmap takes them


def test_a_result_is_a_pytree_with_fields_by_name():
    result = jax.tree.map(lambda x: x, hj.sinkhorn(LOGITS, 1.0))
    assert isinstance(result, tuple) and result._fields[0] == "matrix"
    assert result._replace(num_steps=7).num_steps == 7


@pytest.mark.parametrize("function", [hj.sigma2, hj.entropy, hj.contraction_gap, hj.composite])
def test_a_result_where_a_matrix_is_wanted_is_told_which_field_to_pass(function):
    logarithm = r"pass result\.log_matrix"
    dense, scaled = r"pass result\.matrix", r"pass jnp\.exp\(result\.log_matrix\)"
    if function is hj.contraction_gap:
        dense = scaled = logarithm
    with pytest.raises(TypeError, match=f"got a SinkhornResult: {dense}"):
        function(hj.sinkhorn(LOGITS, 1.0))
    with pytest.raises(TypeError, match=f"got a BalanceResult: {scaled}"):
        function(hj.balance(LOGITS))
    with pytest.raises(TypeError, match=r"got a FactoredLogits: .* dense\(\)"):
        function(hj.low_rank_logits(LOGITS, LOGITS))
