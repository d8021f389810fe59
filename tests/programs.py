"""Programs of public functions: with their gradients, and what they are made of."""

import jax
import jax.numpy as jnp


def with_gradient(function):
    """A function of the same arguments: all that it returns, and the gradient of its floats."""

    def split(*args):
        found = function(*args)
        floats = [x for x in jax.tree.leaves(found) if jnp.issubdtype(x.dtype, jnp.floating)]
        return floats, found

    def both(*args):
        floats, pull_back, found = jax.vjp(split, *args, has_aux=True)
        return found, pull_back([jnp.ones_like(x) for x in floats])

    return both


def equations(jaxpr):
    """Every equation of a jaxpr, however deep."""
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name == "choice_of_platform":  # traced no sooner than it is lowered
            given = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
            for branch in ("cpu", "default"):
                yield from equations(jax.make_jaxpr(equation.params[branch])(*given).jaxpr)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from equations(getattr(inner, "jaxpr", inner))


def _is_program(x):
    return hasattr(x, "jaxpr") or hasattr(x, "eqns")
