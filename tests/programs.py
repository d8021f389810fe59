"""What a traced program is made of."""

import jax


def equations(jaxpr):
    """Every equation of a jaxpr, however deep."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from equations(getattr(inner, "jaxpr", inner))


def _is_program(x):
    return hasattr(x, "jaxpr") or hasattr(x, "eqns")
