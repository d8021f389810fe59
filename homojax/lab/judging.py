"""The judge of many cells at once: every verdict that anyone sees is ``Claim.judge``'s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from homojax import spectrum
from homojax.lab.inputs import InputError
from homojax.programs import program
from homojax.projection.sinkhorn import sinkhorn
from homojax.registry import enumerated, nearest
from homojax.theory import CLAIMS
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.cases.noise import noise_case
from homojax.theory.cases.projection import projection_case
from homojax.theory.cases.stack import stack_case
from homojax.theory.claim import Claim, Comparison, tightness


class Judged(NamedTuple):
    """The judgement of a claim on many cells; arrays [cells, …], a number for each comparison."""

    comparison: Comparison
    verdict: Any  # of ``Verdict``
    tightness: Any


def chosen_claims(wanted: Iterable[str | Claim] = ()) -> list[Claim]:
    """Return the claims that are wanted, in the order of ``CLAIMS``; all where none is named.

    Args:
        wanted: names (hilbert), numbers (2.3, or 3 for all of §3), or claims. A claim that is in no
            list comes last.

    Raises:
        InputError: there is no such claim; the nearest is named. Or a claim that is in no list has
            the name of one that is.

    >>> [claim.name for claim in chosen_claims(["2.3", "hilbert"])]
    ['hilbert', 'frontier']
    """
    chosen = {}
    for one in wanted:
        claims = [_unlisted(one)] if isinstance(one, Claim) else _named(one)
        chosen |= {claim.name: claim for claim in claims}
    order = {name: position for position, name in enumerate(CLAIMS)}
    chosen = chosen or CLAIMS
    return sorted(chosen.values(), key=lambda claim: order.get(claim.name, len(order)))


def _unlisted(claim: Claim) -> Claim:
    """Return a claim, unless it goes by the name of another one."""
    if CLAIMS.get(claim.name, claim) != claim:
        raise InputError(f'there is a claim "{claim.name}" already: give yours another name.')
    return claim


def require_judging(claim: Claim, n: int) -> None:
    """Raise InputError, with its reason, where a claim of the user's fails on a case of this n."""

    def number(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    given = {
        "matrix": (number(n, n), number(), number(n, n), number(), number()),
        "projection": (number(n, n), number()),
        "stack": (number(2, n, n), number(2), number(2), number(), number(n)),
        "noise": (jax.ShapeDtypeStruct((), jnp.uint32), number()),
    }[claim.scope]
    make = _case_maker(claim.scope, n)
    try:
        jax.eval_shape(lambda *arrays: claim.judge(make(*arrays))[1], *given)
    except Exception as error:  # of code that is not ours
        said = f"{error} ".splitlines()[0].strip(" .:")
        if said.startswith(f"claim {claim.name}: "):
            raise InputError(f"{said}.") from error
        hint = ""
        if isinstance(error, jax.errors.JAXTypeError):
            hint = "; it is traced, so write it with jax.numpy"
        elif isinstance(error, AttributeError):
            fields = dir(jax.eval_shape(make, *given))
            hint = f"; there are {', '.join(name for name in fields if name[0] != '_')}"
        raise InputError(
            f"claim {claim.name} fails on a {claim.scope} case of n = {n}: {said}{hint}."
        ) from error


@contextmanager
def listed(*claims: Claim) -> Iterator[None]:
    """Have claims in the list, for as long as this lasts."""
    own = {}
    for claim in map(_unlisted, claims):
        if own.setdefault(claim.name, claim) != claim:
            raise InputError(f'two claims are called "{claim.name}": give one another name.')
    own = {name: claim for name, claim in own.items() if name not in CLAIMS}
    CLAIMS.update(own)
    try:
        yield
    finally:
        for name in own:
            del CLAIMS[name]


def _named(name: str) -> list[Claim]:
    """Return the claims of a name or number, or with a number that starts with it."""
    if not isinstance(name, str):
        raise InputError(
            f"a claim goes by its name or its number, as a word: not by a {type(name).__name__}."
        )
    claims = [
        claim
        for claim in CLAIMS.values()
        if name in (claim.name, claim.number) or claim.number.startswith(f"{name}.")
    ]
    if not claims:
        if not name[:1].isdigit():
            raise InputError(f'there is no claim "{name}": {nearest(name, CLAIMS)}')
        numbers = list(dict.fromkeys(claim.number for claim in CLAIMS.values()))
        section = [number for number in numbers if number.split(".")[0] == name.split(".")[0]]
        raise InputError(f'there is no claim "{name}": {enumerated(section or numbers)}')
    return claims


def judge_cells(
    scope: str, claims: tuple[Claim, ...], cells: dict[str, np.ndarray], dtype: str, n: int = 0
) -> dict[str, Judged]:
    """Return what each claim says of each cell, by the claim's name.

    The claims are compiled together, once for each shape of the cells. σ₂ and λ₂ are found before,
    by programs that all claims share.

    Args:
        scope: of the claims.
        claims: to judge by.
        cells: arrays [cells, …]: logits and epsilon, and matrix where it is not their projection;
            or matrices, alpha and probe; or key and snr.
        dtype: the precision to judge in.
        n: the number of units, of signals alone, which have no matrix.

    >>> cells = {"logits": np.zeros((26, 3, 3)), "epsilon": np.ones(26)}
    >>> judged = judge_cells("matrix", (CLAIMS["doeblin"],), cells, "float64")
    >>> set(judged["doeblin"].verdict.tolist())
    {0}
    """
    typed = {key: jnp.asarray(x, dtype) for key, x in cells.items() if key not in ("key", "n")}
    judge = _judges(scope, claims, n if scope == "noise" else 0)
    if scope == "noise":
        judged = judge(jnp.asarray(cells["key"]), typed["snr"])
    elif scope == "projection":
        judged = judge(typed["logits"], typed["epsilon"])
    elif scope == "stack":
        stacks = typed["matrices"]
        flat = stacks.reshape(-1, *stacks.shape[2:])
        spectra = (one.reshape(stacks.shape[:2]) for one in _spectra(flat))
        judged = judge(stacks, *spectra, typed["alpha"], typed["probe"])
    else:
        given = "matrix" in typed
        matrix = typed["matrix"] if given else project(typed["logits"], typed["epsilon"])
        judged = judge(typed["logits"], typed["epsilon"], matrix, *_spectra(matrix))
    return jax.device_get(judged)


@program
@jax.vmap
def project(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return the projections of logits [cells, n, n] at ε [cells]."""
    return cast(jax.Array, sinkhorn(logits, epsilon).matrix)  # no factors here


_sigma2 = program(jax.vmap(spectrum.sigma2))
_lambda2 = program(jax.vmap(spectrum.lambda2))


def _spectra(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return σ₂ and λ₂ of matrices [cells, n, n]."""
    return _sigma2(matrices), _lambda2(matrices)


@cache
def _judges(scope: str, claims: tuple[Claim, ...], n: int) -> Callable:
    """Return the compiled judge of these claims, on arrays with a leading axis of cells."""
    make = _case_maker(scope, n)

    def judge(*arrays: jax.Array) -> dict[str, Judged]:
        case, judged = make(*arrays), {}
        for claim in claims:
            comparison, verdict = claim.judge(case)
            judged[claim.name] = Judged(comparison, verdict, tightness(claim, comparison))
        return judged

    return program(jax.vmap(judge))


def _case_maker(scope: str, n: int) -> Callable[..., Any]:
    """Return what makes a case of this scope of the arrays that ``judge_cells`` has of it."""
    makers: dict[str, Callable[..., Any]] = {
        "matrix": lambda logits, epsilon, matrix, sigma2, lambda2: matrix_case(
            logits, epsilon, matrix, sigma2=sigma2, lambda2=lambda2
        ),
        "projection": projection_case,
        "stack": lambda matrices, sigma2, lambda2, alpha, probe: stack_case(
            matrices, sigma2=sigma2, lambda2=lambda2, alpha=alpha, probe=probe
        ),
        "noise": lambda key, snr: noise_case(jax.random.key(key), n, snr),
    }
    return makers[scope]
