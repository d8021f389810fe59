"""A claim as data, and the verdicts on it: holds, violated or undecidable.

A comparison says that ``lesser ≤ greater``, and by how much both sides together can be off: through the marginal errors
of a matrix that is only nearly in 𝔅ₙ, through rounding, and through sampling where there is any. The verdict is *undecidable*
wherever the slack is within that margin. So no bound is ever called satisfied on the strength of its own noise, and equality,
where a bound is attained, is undecidable too.

The claims themselves, one module a section of theory.md, are in ``homojax.theory``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp


class Verdict(enum.IntEnum):
    """What a comparison comes to. Stored as these numbers, and by these names in lower case.

    >>> [verdict.name.lower() for verdict in Verdict]
    ['violated', 'undecidable', 'holds', 'not_applicable']
    """

    VIOLATED = -1  # the slack is below minus the margin
    UNDECIDABLE = 0  # the slack is within the margin, or something is NaN
    HOLDS = 1  # the slack exceeds the margin
    NOT_APPLICABLE = 2  # an assumption of the claim is not met


class Comparison(NamedTuple):
    """A law on one case: ``lesser ≤ greater``, with the error that both sides together can carry."""

    lesser: jax.Array
    greater: jax.Array
    margin: jax.Array  # ≥ 0; NaN where nothing can be said
    applies: jax.Array | bool = True  # the law's own premise


def verdict(comparison: Comparison) -> jax.Array:
    """int8: HOLDS (1) or VIOLATED (−1) where the slack exceeds the margin, else UNDECIDABLE (0); NOT_APPLICABLE (2) off premise.

    Anything NaN is undecidable.

    >>> int(verdict(Comparison(0.5, 0.6, 0.01))), int(verdict(Comparison(0.5, 0.5, 0.01)))
    (1, 0)
    """
    slack = jnp.asarray(comparison.greater) - comparison.lesser
    decided = jnp.where(
        slack > comparison.margin,
        Verdict.HOLDS,
        jnp.where(slack < -jnp.asarray(comparison.margin), Verdict.VIOLATED, Verdict.UNDECIDABLE),
    )
    return jnp.where(comparison.applies, decided, Verdict.NOT_APPLICABLE).astype(jnp.int8)


class Claim(NamedTuple):
    """A numbered claim of theory.md as an executable, falsifiable object. How to add one: CONTRIBUTING.md."""

    number: str  # theory.md's
    name: str
    statement: str  # one line
    latex: str
    source: str
    scope: Literal["matrix", "projection", "stack", "noise"]  # the kind of case that it is about
    direction: Literal[
        "≤", "≥", "=", "→", "~"
    ]  # of measured to predicted; → a limit with its rate, ~ a distribution
    compare: Callable[[Any], Comparison]  # pure, for one case; vmaps
    assumptions: tuple[
        tuple[str, Callable[[Any], Any]], ...
    ] = ()  # what it presupposes, and the predicate of it
    attained_by: str | None = None  # the family that makes it an equality
    status: Literal["theorem", "conjecture", "refuted"] = "theorem"
    resolution: float = 0.0  # of = and ~, which hold *to within this*, errors included: equality itself is never certified
    mutants: tuple[
        tuple[str, Callable[[Any], Comparison]], ...
    ] = ()  # wrong versions of its own; see ``mutants_of``

    def measured(self, case: Any) -> jax.Array:
        """The side that is found by measuring. For → the deviation from the limit."""
        comparison = self.compare(case)
        return comparison.greater if self.direction == "≥" else comparison.lesser

    def predicted(self, case: Any) -> jax.Array:
        """The side that the claim is about: a bound, a value. For → the rate."""
        comparison = self.compare(case)
        return comparison.lesser if self.direction == "≥" else comparison.greater

    def judge(self, case: Any) -> tuple[Comparison, jax.Array]:
        """The comparison, its fields of one shape, and its verdict, int8 as of ``verdict``.

        =, ~: violated where the two sides differ by more than the margin, holding where the difference and the margin together
        are within the ``resolution``, undecidable between.
        """
        comparison = self.compare(case)
        applies = jnp.asarray(comparison.applies)
        for _, predicate in self.assumptions:
            applies = applies & predicate(case)
        fields = (comparison.lesser, comparison.greater, comparison.margin, applies)
        comparison = Comparison(*jnp.broadcast_arrays(*map(jnp.asarray, fields)))
        if self.direction not in ("=", "~"):
            return comparison, verdict(comparison)
        apart = abs(comparison.lesser - comparison.greater)
        decided = jnp.where(
            apart > comparison.margin,
            Verdict.VIOLATED,
            jnp.where(
                apart + comparison.margin <= self.resolution, Verdict.HOLDS, Verdict.UNDECIDABLE
            ),
        )
        return comparison, jnp.where(comparison.applies, decided, Verdict.NOT_APPLICABLE).astype(
            jnp.int8
        )


def tightness(claim: Claim, comparison: Comparison) -> jax.Array:
    """lesser/greater: 1 where a bound is attained, above 1 where it is violated; for = and ~ the difference over the margin.

    NaN where the claim does not apply, and where the margin leaves less than two digits of the greater side.
    """
    lesser, greater = comparison.lesser, comparison.greater
    if claim.direction in ("=", "~"):
        lesser, greater = abs(lesser - greater), comparison.margin
    else:
        greater = jnp.where(comparison.margin < 0.01 * greater, greater, 0)
    known = comparison.applies & (greater > 0)
    return jnp.where(known, lesser / jnp.where(known, greater, 1), jnp.nan)


def mutants_of(claim: Claim) -> tuple[Claim, ...]:
    """Wrong versions of a claim, each of which an instrument that works finds violated somewhere.

    The sign turned round and the constant halved (doubled, of a lower bound), or a value a tenth off; and the claim's own.
    """

    def altered(change: Callable[[Comparison], Comparison]) -> Callable[[Any], Comparison]:
        return lambda case: change(claim.compare(case))

    if claim.direction in ("=", "~"):
        general = {
            "a tenth off": altered(
                lambda c: c._replace(greater=1.1 * c.greater + 0.1 * (jnp.asarray(c.greater) == 0))
            )
        }
    else:
        reversed_ = altered(lambda c: c._replace(lesser=c.greater, greater=c.lesser))
        if claim.direction == "≥":
            scaled = {"constant doubled": altered(lambda c: c._replace(lesser=2 * c.lesser))}
        else:
            scaled = {"constant halved": altered(lambda c: c._replace(greater=c.greater / 2))}
        general = {"sign reversed": reversed_, **scaled}
    return tuple(
        claim._replace(name=f"{claim.name}: {what}", compare=compare, mutants=())
        for what, compare in {**general, **dict(claim.mutants)}.items()
    )
