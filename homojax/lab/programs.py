"""The lab's programs, compiled in two thirds of the time that JAX's defaults take on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax

# LLVM's later passes, and XLA's newer way to write fused loops, take a third to a half of the time
# to compile on a CPU. They made no program faster (docs/benchmarks.md).
_QUICK: dict[str, Any] = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}


def program(function: Callable, **settings: Any) -> Callable:
    """Return ``jax.jit(function, **settings)`` that compiles quickly.

    Within another program it is the function itself. Which backend there is, it asks when it is
    called.

    >>> float(program(lambda x: 2 * x)(1.5))
    3.0
    """

    @cache
    def compiled() -> Callable:
        return jax.jit(function, compiler_options=compiler_options(), **settings)

    @wraps(function)
    def run(*args: Any) -> Any:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
        return (function if traced else compiled())(*args)

    return run


@cache
def compiler_options() -> dict[str, Any] | None:
    """Return XLA's options for short compile times on this backend, those that it knows.

    >>> compiler_options() is None or "xla_backend_optimization_level" in compiler_options()
    True
    """
    if jax.default_backend() != "cpu":
        return None
    return {name: value for name, value in _QUICK.items() if _is_known({name: value})}


def _is_known(option: dict[str, Any]) -> bool:
    """Return whether this release has an option: they come and go."""
    try:
        jax.jit(lambda: 0, compiler_options=option).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
