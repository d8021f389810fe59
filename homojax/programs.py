"""How functions become programs: once for each shape, and with no more effort than pays.

On a CPU XLA compiles for seconds what then runs for less than a millisecond. With less effort it
compiles several times sooner, and the program runs several times longer.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from homojax.arguments import as_operand, as_setting

P = ParamSpec("P")
R = TypeVar("R")

_SMALL, _LARGE = 32**2, 128**2  # entries of an array


class Effort(enum.Enum):
    """What XLA does for a program on a CPU: LLVM's level, and whether to fuse the newer way.

    That way takes a third of the time to compile. No program of ours was more than a fifth faster
    by it, and none by LLVM's levels above 1.
    """

    LEAST = (0, False)  # for a few runs of small arrays
    LESS = (1, False)
    MOST = ()  # XLA's own choice, for large arrays


def compiled(*static: str, shared: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes one program of a function, and keeps it for later calls.

    Operation by operation, a first call would compile dozens of programs, and a function with a
    loop would compile the loop again at every call. Called by itself, it is compiled with the
    effort that its largest argument is worth. Within another program it changes nothing.

    Args:
        static: the arguments that are no arrays: whole numbers, names, dtypes.
        shared: whether a program that uses it several times holds it once: for functions with
            loops, which take long to trace and to lower.

    >>> @compiled("times")
    ... def doubled(x, times):
    ...     return x * 2**times
    >>> doubled([1.0], times=3).tolist()
    [8.0]
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = tuple(inspect.signature(function).parameters)
        within = jax.jit(function, static_argnames=static, inline=not shared)

        @cache
        def alone(effort: Effort) -> Callable[..., R]:
            options = compiler_options(effort)
            return jax.jit(function, static_argnames=static, compiler_options=options)

        def plain(name: str, value: Any) -> Any:
            fit = as_setting if name in static else as_operand
            return fit(value, name)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            known, unknown = args[: len(names)], args[len(names) :]
            operands = [*map(plain, names, known), *unknown]  # unknown: for Python's own sentence
            named = {name: plain(name, value) for name, value in kwargs.items()}
            leaves = jax.tree.leaves((operands, named))
            try:
                if not _are_traced(leaves):
                    with suppress(ValueError):  # within another program; what is wrong comes again
                        return alone(_effort_for(leaves))(*operands, **named)
                return within(*operands, **named)
            except TypeError as error:
                if "incompatible shapes for broadcasting" not in str(error):
                    raise
                shapes = [list(jnp.shape(x)) for x in (*operands, *named.values())]
            raise ValueError(
                f"{function.__name__} was given arrays of shapes "
                f"{', '.join(map(str, shapes))}, which do not fit each other"
            )

        return call

    return decorate


def program(function: Callable, effort: Effort | None = None, **settings: Any) -> Callable:
    """Return ``jax.jit(function, **settings)`` that is compiled with this effort.

    Within another program it is the function itself.

    Args:
        function: of arrays.
        effort: of XLA, on a CPU; default: LEAST where the arguments are small, else LESS.
        settings: of ``jax.jit``.

    >>> float(program(lambda x: 2 * x)(1.5))
    3.0
    """

    @cache
    def alone(effort: Effort) -> Callable:
        return jax.jit(function, compiler_options=compiler_options(effort), **settings)

    @wraps(function)
    def run(*args: Any) -> Any:
        leaves = jax.tree.leaves(args)
        if _are_traced(leaves):
            return function(*args)
        small = _effort_for(leaves) is Effort.LEAST
        return alone(effort or (Effort.LEAST if small else Effort.LESS))(*args)

    return run


@cache
def compiler_options(effort: Effort) -> dict[str, Any] | None:
    """Return the options of an effort that XLA knows on this backend.

    >>> compiler_options(Effort.MOST) or {}
    {}
    """
    if jax.default_backend() != "cpu":
        return None
    names = ("xla_backend_optimization_level", "xla_cpu_use_fusion_emitters")
    wanted = dict(zip(names, effort.value, strict=False))
    return {name: value for name, value in wanted.items() if _is_known(name, value)}


@cache
def _is_known(name: str, value: Any) -> bool:
    """Return whether this release has an option: they come and go."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _are_traced(leaves: list[Any]) -> bool:
    """Return whether a call is part of another program, of a derivative or of a batch."""
    return any(isinstance(x, Tracer) for x in leaves)


def _effort_for(leaves: list[Any]) -> Effort:
    """Return the effort that a single call with these arguments is worth."""
    entries = max((getattr(x, "size", 1) for x in leaves), default=1)
    return Effort.LEAST if entries <= _SMALL else Effort.LESS if entries <= _LARGE else Effort.MOST
