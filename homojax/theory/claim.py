"""A claim as data, and the verdicts on it: holds, violated, undecidable, or not applicable.

A comparison says that ``lesser ≤ greater``, and by how much both sides together can be off: by the
marginal errors of a matrix that is only nearly in 𝔅ₙ, by rounding, and by sampling. The verdict is
*undecidable* wherever the slack is within that margin. So no bound is called satisfied on the
strength of its own noise, and equality, where a bound is attained, is undecidable too.

Every verdict that anyone sees comes from ``Claim.judge``.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.registry import Registry


class Verdict(enum.IntEnum):
    """The outcome of a comparison. Results store these numbers.

    >>> Verdict(1).label
    'holds'
    """

    VIOLATED = -1  # the slack is below minus the margin
    UNDECIDABLE = 0  # the slack is within the margin, or something is NaN
    HOLDS = 1  # the slack exceeds the margin
    NOT_APPLICABLE = 2  # an assumption of the claim is not met

    @property
    def label(self) -> str:
        """The name that results and pages show."""
        return self.name.lower()


VERDICTS = {verdict.label: verdict for verdict in Verdict}


class Comparison(NamedTuple):
    """A law on one case: ``lesser ≤ greater``, with the error that both sides together can carry.

    The four fields broadcast against each other: a case may have several comparisons.

    >>> compared = Comparison(jnp.asarray(0.5), jnp.asarray(0.75), jnp.asarray(0.0))
    >>> bool(compared.lesser <= compared.greater)
    True
    """

    lesser: jax.Array
    greater: jax.Array
    margin: jax.Array  # ≥ 0; NaN where nothing can be said
    applies: jax.Array | bool = True  # whether the law says anything here


Compare = Callable[[Any], Comparison]  # of one case; pure, and vmaps
Mutant = Callable[[Compare, Any], Comparison]  # (the claim's own comparison, case)
Assumption = tuple[str, Callable[[Any], Any]]  # in words, and a predicate of a case
C = TypeVar("C", bound=Compare)


Scope = Literal["matrix", "projection", "stack", "noise"]
Direction = Literal["≤", "≥", "=", "→", "~"]  # measured to predicted; → limit, ~ distribution
Standing = Literal["theorem", "conjecture", "refuted"]
_ALLOWED = {
    name: get_args(kind)
    for name, kind in (("scope", Scope), ("direction", Direction), ("status", Standing))
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A numbered claim of theory.md as an executable, falsifiable object.

    docs/add-a-claim.md says how to make one. A claim that is made by hand is judged like any other,
    and is in no list.

    >>> from homojax.theory import CLAIMS
    >>> print(CLAIMS["hilbert"].number, CLAIMS["hilbert"].statement, CLAIMS["hilbert"].status)
    2 σ₂ ≤ tanh(Δ(S)/4ε) theorem
    """

    number: str  # theory.md's
    name: str  # of the claim, unlike all others
    scope: Scope  # the kind of case that it is about
    direction: Direction  # of the measured side to the predicted one: ≤, ≥, =, → or ~
    statement: str  # one line
    latex: str  # the same
    source: str  # where it was published or proved
    compare: Compare  # a case -> both sides, and how far they can be off together
    assumptions: tuple[Assumption, ...] = ()  # in words, and a predicate of a case
    attained_by: str | None = None  # the family of cases that makes it an equality
    status: Standing = "conjecture"  # or "theorem", of what is proved, or "refuted"
    resolution: float = 0.0  # = and ~ hold to within this, errors included
    mutants: Mapping[str, Mutant] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self):
        """Raise ValueError where a field has a value that no claim has."""
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"claim {self.name}: {name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}"
                )
        if not self.name.strip():
            raise ValueError('claim "": name must be a word')
        words = self.number.split(".") if isinstance(self.number, str) else [""]
        if len(words) > 2 or not all(map(str.isdecimal, words)):
            raise ValueError(
                f'claim {self.name}: number must be a section or a law, as "2" or "2.3", '
                f"got {self.number!r}"
            )
        if not callable(self.compare):
            raise ValueError(
                f"claim {self.name}: compare must be a function of a case, got {self.compare!r}"
            )
        for one in self.assumptions:
            if not (isinstance(one, tuple) and len(one) == 2 and callable(one[1])):
                raise ValueError(
                    f"claim {self.name}: an assumption is a pair (in words, predicate of a case), "
                    f"got {one!r}"
                )

    @partial(jax.jit, static_argnums=0, inline=True)  # or each operation would be a program
    def judge(self, case: Any) -> tuple[Comparison, jax.Array]:
        """Return the comparison of a case, its fields of one shape, and its verdict, int8.

        ≤, ≥ and → hold, or are violated, where the slack exceeds the margin. = and ~ are violated
        where the two sides differ by more than the margin. They hold where the difference and the
        margin together are within the ``resolution``: equality itself is never certified.

        >>> from homojax.theory import CLAIMS
        >>> from homojax.theory.cases.matrix import matrix_case
        >>> case = matrix_case([[1.0, 0.0], [0.0, 1.0]], 0.5, [[0.8, 0.2], [0.2, 0.8]])
        >>> Verdict(int(CLAIMS["hilbert"].judge(case)[1])).label
        'holds'
        """
        compared = self.compare(case)
        if not isinstance(compared, Comparison):
            raise TypeError(
                f"claim {self.name}: compare must return a Comparison(lesser, greater, margin), "
                f"got {type(compared).__name__}"
            )
        comparison = Comparison(*jnp.broadcast_arrays(*map(jnp.asarray, compared)))
        applies = jnp.asarray(comparison.applies)
        for _, predicate in self.assumptions:
            applies = applies & _spread(predicate(case), applies.shape)
        comparison = comparison._replace(applies=applies)
        holds, violated = self._decide(comparison)
        decided = jnp.where(holds, Verdict.HOLDS, Verdict.UNDECIDABLE)
        decided = jnp.where(violated, Verdict.VIOLATED, decided)
        decided = jnp.where(applies, decided, Verdict.NOT_APPLICABLE)
        return comparison, decided.astype(jnp.int8)

    def _decide(self, comparison: Comparison) -> tuple[jax.Array, jax.Array]:
        """Return whether it holds, and whether it is violated; both are False of a NaN."""
        slack = comparison.greater - comparison.lesser
        # An error below 0 is none: nothing can be said.
        comparison = comparison._replace(
            margin=jnp.where(comparison.margin < 0, jnp.nan, comparison.margin)
        )
        if self.is_equality:
            certain = abs(slack) + comparison.margin <= self.resolution
            violated = abs(slack) > comparison.margin
            return certain & ~violated, violated
        return slack > comparison.margin, slack < -comparison.margin

    @property
    def is_equality(self) -> bool:
        """Whether it is about two sides that are equal, and not about a bound."""
        return self.direction in ("=", "~")

    def measured(self, comparison: Comparison) -> jax.Array:
        """Return the side that is found by measuring; of a limit, the deviation from it."""
        return comparison.greater if self.direction == "≥" else comparison.lesser

    def predicted(self, comparison: Comparison) -> jax.Array:
        """Return the side that the claim is about: a bound or a value; of a limit, the rate."""
        return comparison.lesser if self.direction == "≥" else comparison.greater


def _spread(met: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return a predicate's answer, which may have the leading axes alone, in a whole shape."""
    met = jnp.asarray(met)
    return jnp.broadcast_to(met.reshape(met.shape + (1,) * (len(shape) - met.ndim)), shape)


# ---------------------------------------------------------------- declaring claims

CLAIMS: Registry[Claim] = Registry("claim")  # in the order of declaration


def claim(number: str, **fields: Any) -> Callable[[C], C]:
    """Return a decorator that registers a comparison as a claim, in ``CLAIMS``.

    Args:
        number: that of theory.md.
        fields: the other fields of ``Claim``, but ``compare``; a theorem unless said otherwise.

    A claim of a name that is known replaces it, so that a notebook cell can run twice.

    >>> @claim("9.9", name="trivial", scope="matrix", direction="≤", statement="0 ≤ 1", latex="",
    ...        source="Peano (1889)")
    ... def trivial(case):
    ...     return Comparison(jnp.zeros(()), jnp.ones(()), jnp.zeros(()))
    >>> CLAIMS.pop("trivial").number
    '9.9'
    """

    def register(compare: C) -> C:
        declared = Claim(number=number, compare=compare, **{"status": "theorem", **fields})
        CLAIMS[declared.name] = declared
        return compare

    return register


# ---------------------------------------------------------------- wrong versions


@cache  # what is compiled for a mutant goes by its identity
def mutants_of(claim: Claim) -> tuple[Claim, ...]:
    """Return wrong versions of a claim, each of which a working instrument finds violated.

    A bound has its sign reversed, and its constant halved (doubled, of a lower bound). An equality
    is a tenth off. The claim's own ``mutants`` follow.

    >>> [mutant.name for mutant in mutants_of(CLAIMS["doeblin"])]
    ['doeblin: sign reversed', 'doeblin: constant halved']
    """
    if claim.is_equality:
        general: dict[str, Mutant] = {"a tenth off": predicting(_a_tenth_off)}
    elif claim.direction == "≥":
        general = {"sign reversed": _reversed, "constant doubled": _doubled}
    else:
        general = {"sign reversed": _reversed, "constant halved": scaled(lambda case: 0.5)}
    return tuple(
        dataclasses.replace(
            claim,
            name=f"{claim.name}: {error}",
            compare=partial(mutant, claim.compare),
            mutants={},
        )
        for error, mutant in {**general, **claim.mutants}.items()
    )


def _a_tenth_off(_, comparison: Comparison) -> jax.Array:
    return 1.1 * comparison.greater + 0.1 * (jnp.asarray(comparison.greater) == 0)


def _reversed(compare: Compare, case: Any) -> Comparison:
    comparison = compare(case)
    return comparison._replace(lesser=comparison.greater, greater=comparison.lesser)


def _doubled(compare: Compare, case: Any) -> Comparison:
    comparison = compare(case)
    return comparison._replace(lesser=2 * comparison.lesser)


def predicting(predict: Callable[[Any, Comparison], ArrayLike]) -> Mutant:
    """Return a mutant that has ``predict(case, comparison)`` for the greater side."""

    def mutant(compare: Compare, case: Any) -> Comparison:
        comparison = compare(case)
        return comparison._replace(greater=jnp.asarray(predict(case, comparison)))

    return mutant


def scaled(factor: Callable[[Any], ArrayLike]) -> Mutant:
    """Return a mutant that has ``factor(case)`` times the greater side."""
    return predicting(lambda case, comparison: comparison.greater * factor(case))


def lambda_for_sigma(compare: Compare, case: Any) -> Comparison:
    """Return the comparison with λ₂ in the place of σ₂: a mutant of claims that have both."""
    return compare(dataclasses.replace(case, sigma2=case.lambda2))


# ---------------------------------------------------------------- tightness


def tightness(claim: Claim, comparison: Comparison) -> jax.Array:
    """Return lesser/greater: 1 where a bound is attained, above 1 where it is violated.

    Of = and ~ it is the difference over the margin. It is NaN where the claim does not apply, and
    where the margin leaves less than two digits of the greater side.

    >>> from homojax.theory import CLAIMS
    >>> half = Comparison(*map(jnp.asarray, (0.2, 0.4, 1e-9)))
    >>> float(tightness(CLAIMS["doeblin"], half))
    0.5
    """
    lesser, greater = comparison.lesser, comparison.greater
    if claim.is_equality:
        lesser, greater = abs(lesser - greater), comparison.margin
    else:
        greater = jnp.where(comparison.margin < 0.01 * greater, greater, 0)
    known = comparison.applies & (greater > 0)
    return jnp.where(known, lesser / jnp.where(known, greater, 1), jnp.nan)
