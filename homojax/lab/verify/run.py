"""Test the theory: every claim on many matrices, stacks and noisy signals; what holds, what is violated, what cannot be told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from homojax import spectrum
from homojax.birkhoff import entropy, isolated_unit
from homojax.lab.cases import Case, up_to_comparison
from homojax.lab.inputs import InputError, nearest, require_precision
from homojax.lab.referee import REFEREED_SIZE, decided, in_many_digits, referee
from homojax.lab.runs import open_store, versions, write_dataset
from homojax.lab.verify.families import FAMILIES, Family, choose_families
from homojax.projection.sinkhorn import sinkhorn
from homojax.theory import CLAIMS
from homojax.theory.claim import Claim, Verdict, mutants_of, tightness
from homojax.theory.matrix import matrix_case
from homojax.theory.noise import noise_case
from homojax.theory.projection import projection_case
from homojax.theory.stack import depth_case

NOISE = "noise"  # the family of the claims about signals, which have no matrix
NOISE_SIZES = 3, 8, 64  # few and many directions for the noise to go
VERDICTS = {
    "violated": Verdict.VIOLATED,
    "undecidable": Verdict.UNDECIDABLE,
    "holds": Verdict.HOLDS,
    "not_applicable": Verdict.NOT_APPLICABLE,
}
REFEREED_CELLS = 4  # of a claim and block, that many digits decide


@dataclasses.dataclass(frozen=True)
class Verification:
    """Which claims to test, on what, how often. Cells are spread evenly over families and sizes."""

    claims: tuple[str, ...] = ()
    """Names (hilbert) or numbers of docs/claims.md (2.3, or 3 for all of §3); default: all."""
    families: tuple[str, ...] = ()
    """Families of matrices, and "noise" for signals in noise; default: all."""
    n: tuple[int, ...] = (2, 3, 4, 8, 16)
    """Numbers of mixed units, at least 2. A family has its cells at those that it exists at."""
    cells: int = 20_000
    """Single matrices, in all."""
    stacks: int = 2_000
    """Stacks of matrices, in all; half of them one matrix repeated."""
    depth: int = 32
    """Layers of a stack."""
    signals: int = 1_000
    """Signals in noise, in all, at n = 3, 8 and 64; each is drawn 4096 times."""
    dtype: Literal["float32", "float64"] = "float64"
    """Precision of everything computed."""
    escalate: bool = False
    """Decide again what is undecidable: from float32 in float64, and of small matrices a few in 50 digits."""
    mutants: bool = False
    """Test the instrument: wrong versions of every claim, each of which must be found violated."""
    seed: int = 0
    """Of all randomness."""

    def __post_init__(self):
        for name, values in (("claims", self.claims), ("families", self.families), ("n", self.n)):
            object.__setattr__(self, name, tuple(values))
        for name, least in (("cells", 0), ("stacks", 0), ("signals", 0), ("depth", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} = {getattr(self, name)} is not possible: it must be at least {least}."
                )
        if not self.n:
            raise InputError("n is an empty grid: give at least one value.")
        bad = next((n for n in self.n if n < 2), None)
        if bad is not None:
            raise InputError(
                f"n = {bad} is not possible: it must be at least 2: one unit has no detail to mix."
            )
        if len(set(self.n)) < len(self.n):
            raise InputError(f"n has a value twice: {', '.join(map(str, self.n))}.")
        if self.dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be one of float32, float64, not {self.dtype!r}.")
        chosen_claims(self.claims)
        for family in self._matrix_families():
            if self.families and not any(map(family.sizes, self.n)):
                sizes = ", ".join(map(str, self.n))
                raise InputError(
                    f"family {family.name} has no matrix at n = {sizes}: it needs {family.needs}."
                )

    def _matrix_families(self) -> list[Family]:
        if not self.families:
            return list(FAMILIES.values())
        return (
            choose_families([name for name in self.families if name != NOISE])
            if set(self.families) != {NOISE}
            else []
        )

    @property
    def digest(self) -> str:
        """Hash of everything that changes a result."""
        return hashlib.sha256(
            json.dumps([dataclasses.asdict(self), version("homojax")]).encode()
        ).hexdigest()[:16]


class Unit(NamedTuple):
    """One family at one n: so many cells of one scope, by blocks."""

    scope: str  # "matrix" (with the claims of scope projection where there are logits), "stack" or "noise"
    family: str
    n: int
    cells: int
    block: int  # cells computed together

    def blocks(self) -> int:
        return -(-self.cells // self.block)


def chosen_claims(names: tuple[str, ...]) -> list[Claim]:
    """The claims of these names or numbers, all for none.

    Raises:
        InputError: there is no such claim; the nearest is named.
    """
    if not names:
        return list(CLAIMS.values())
    chosen = {}
    for name in names:
        found = {
            k: c
            for k, c in CLAIMS.items()
            if name in (k, c.number) or c.number.startswith(f"{name}.")
        }
        if not found:
            known = [*CLAIMS, *{claim.number for claim in CLAIMS.values()}]
            raise InputError(f'there is no claim "{name}": {nearest(name, known)}')
        chosen |= found
    return [claim for claim in CLAIMS.values() if claim.name in chosen]


# As in a sweep: XLA calls LAPACK matrix by matrix, and OpenBLAS's own threads wait for each other.
@threadpool_limits.wrap(limits=1, user_api="blas")
def verify(
    verification: Verification,
    store: str | Path | None = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> xr.Dataset:
    """Tests claims on cells, and counts the verdicts.

    Dimensions claim, family, n. Variables: the number of comparisons with each verdict (``violated``, ``undecidable``,
    ``holds``, ``not_applicable``), ``tightness_median`` and ``tightness_best`` (lesser/greater side: 1 where a bound is attained;
    for equalities the difference over the margin), ``least_slack`` (in units of the margin: below −1 is a violation) and the
    ``block`` and ``cell`` it is at. With ``store`` it is kept as zarr there, and an interrupted run goes on.

    Args:
        verification: what to test.
        store: a path for the zarr store. If it holds this very verification already, that is read and returned.
        progress: called with (cells done, cells in all, what is being done).

    Raises:
        InputError: the store holds something else, or float64 is asked with JAX's x64 switched off.
        OSError: the store cannot be written; blocks done so far are kept beside it.

    >>> ds = verify(Verification(claims=("doeblin",), families=("uniform",), n=(4,), cells=1, stacks=0, dtype="float32"))
    >>> int(ds.undecidable.sum())  # attained
    1
    """
    needed = "float64" if verification.escalate else verification.dtype
    require_precision(needed)
    found, blocks = open_store(store, verification.digest)
    if found is not None:
        return found
    units = list(_units(verification))
    total, done, results = sum(unit.cells for unit in units), 0, []
    for unit in units:
        parts = []
        for block in range(unit.blocks()):
            if progress:
                progress(done, total, f"{unit.scope}, {unit.family}, n = {unit.n}")
            key = f"{unit.scope}-{unit.family}-{unit.n}-{block}"
            part = blocks.load(key) if blocks else None
            if part is None:
                part = _judge_block(verification, unit, block)
                if blocks:
                    blocks.save(key, part)
            parts.append(part)
            done += min(unit.block, unit.cells - block * unit.block)
        results.append(_merge(parts))
    if progress:
        progress(total, total, "done")
    dataset = _dataset(verification, units, results)
    if blocks:
        write_dataset(dataset, blocks.store)
        blocks.clear()
    return dataset


def outcome(ds: xr.Dataset) -> tuple[bool, list[str]]:
    """Whether every theorem holds and every refuted claim was refuted again (of mutants: each was caught), and what did not."""
    failures = []
    for claim in ds.claim.values:
        row = ds.sel(claim=claim)
        violated, judged = (
            int(row.violated.sum()),
            int((row.violated + row.undecidable + row.holds).sum()),
        )
        status = str(row.status.item())
        if status == "theorem" and violated:
            failures.append(
                f"{claim} is a theorem, and is violated {violated:,} times: a bug of ours until shown otherwise."
            )
        if status == "refuted" and judged and not violated:
            failures.append(
                f"{claim} is known to be false, and was not refuted here: give it more cells."
            )
        if status == "mutant" and not violated:
            failures.append(f"the mutant {claim} was not caught in {judged:,} comparisons.")
    return not failures, failures


def worst_cases(verification: Verification, ds: xr.Dataset) -> Iterator[tuple[str, int, Case]]:
    """(claim, n, case) of the worst cell of every claim and n at which one is violated: drawn again, not remembered."""
    by_key = {(unit.scope, unit.family, unit.n): unit for unit in _units(verification)}
    for name in ds.claim.values:
        for n in ds.n.values:
            rows = ds.sel(claim=name, n=n)
            violated = rows.violated.values > 0
            if not violated.any():
                continue
            at = int(np.where(violated, rows.least_slack.values, np.inf).argmin())
            family, scope = str(rows.family.values[at]), str(rows.scope.item())
            unit = by_key["matrix" if scope == "projection" else scope, family, int(n)]
            block, cell = int(rows.block.values[at]), int(rows.cell.values[at])
            arrays = {
                key: np.asarray(x[cell]) for key, x in _draw(verification, unit, block).items()
            }
            about = {"seed": verification.seed, "dtype": verification.dtype, "versions": versions()}
            yield str(name), int(n), Case(str(name), scope, family, arrays, about)


def replay(case: Case) -> dict[str, tuple[str, str, str, str]]:
    """precision -> (lesser side, greater side, margin, verdict) of a saved case; a small matrix in 50 digits too."""
    rows = {}
    claim = CLAIMS[case.claim]
    names = {value: name for name, value in VERDICTS.items()}
    for dtype in ("float32", "float64"):
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            continue
        batch = {key: np.asarray(x)[None] for key, x in case.arrays.items()}
        comparison, verdict, _ = judge_cells(
            case.scope, (claim,), batch, dtype, int(case.arrays.get("n", 0))
        )[claim.name]
        sides = [np.ravel(x) for x in comparison]
        at = int(np.argmin(np.ravel(verdict)))
        rows[dtype] = (
            *(f"{float(x[at]):.9g}" for x in sides[:3]),
            names[int(np.ravel(verdict)[at])],
        )
        case = up_to_comparison(case, comparison.lesser.shape[1:], at)
    found = in_many_digits(case)
    if found is not None:
        rows["50 digits"] = (*(str(x)[:24] for x in found), "0", names[decided(case.claim, *found)])
    return rows


def isolated_units(sizes: tuple[int, ...] = (4, 64, 1024)) -> list[tuple[int, float, float]]:
    """(n, H/(n log n), σ₂) of 1 ⊕ J_{n−1}: nearly all entropy, and detail that is kept for good. theory.md 2.2."""
    rows = []
    for n in sizes:
        matrix = isolated_unit(n)
        rows.append((n, float(entropy(matrix)) / (n * np.log(n)), float(spectrum.sigma2(matrix))))
    return rows


def _units(verification: Verification) -> Iterator[Unit]:
    claims = chosen_claims(verification.claims)
    scopes = {claim.scope for claim in claims}
    places = [
        (family, n)
        for family in verification._matrix_families()
        for n in verification.n
        if family.sizes(n)
        and (scopes - {"projection"} or family.draw(np.random.default_rng(0), n, 1).matrix is None)
    ]
    wanted = (
        ("matrix", {"matrix", "projection"}, verification.cells, 2**20, 1),
        ("stack", {"stack"}, verification.stacks, 2**21, verification.depth),
    )
    for scope, needs, total, entries, layers in wanted:
        if not (scopes & needs and total and places):
            continue
        constant = ("uniform", "identity")  # all cells are one: two do
        share = -(-total // max(1, sum(family.name not in constant for family, _ in places)))
        for n in verification.n:  # all of one n together: they share their compiled programs
            block = max(2, min(share, entries // (n * n * layers), 2**13))
            for family, size in places:
                if size == n:
                    count = min(share, 2) if family.name in constant else share
                    yield Unit(scope, family.name, n, count, block + block % 2)
    if (
        "noise" in scopes
        and verification.signals
        and (not verification.families or NOISE in verification.families)
    ):
        share = -(-verification.signals // len(NOISE_SIZES))
        for n in NOISE_SIZES:
            yield Unit("noise", NOISE, n, share, min(share, 16))


def _draw(verification: Verification, unit: Unit, block: int) -> dict[str, np.ndarray]:
    """The cells of a block, always whole ones: arrays [block, …], as exact as float64 whatever they are judged in.

    Rounded to float32, a matrix and its logits would no more be each other's: what rounding does is in the margins of the
    precision that rounds, and not in those of a finer one that judges again.
    """
    rng = np.random.default_rng(
        [verification.seed, zlib.crc32(f"{unit.scope} {unit.family}".encode()), unit.n, block]
    )
    size, n = unit.block, unit.n
    if unit.scope == "noise":
        return {
            "key": rng.integers(0, 2**31, size),
            "snr": np.exp(rng.uniform(np.log(1e-3), np.log(1e3), size)),
            "n": np.full(size, n),
        }
    half, depth = size // 2, verification.depth
    cells = FAMILIES[unit.family].draw(
        rng, n, size if unit.scope == "matrix" else half * depth + size - half
    )
    if unit.scope == "matrix":
        arrays = {"logits": cells.logits, "epsilon": cells.epsilon}
        return arrays if cells.matrix is None else {**arrays, "matrix": cells.matrix}
    matrices = cells.matrix
    if matrices is None:
        dtype = "float64" if verification.escalate else verification.dtype
        matrices = np.asarray(
            _project(cells.logits.astype(dtype), cells.epsilon.astype(dtype)), np.float64
        )
    independent = matrices[: half * depth].reshape(half, depth, n, n)
    shared = np.repeat(matrices[half * depth :, None], depth, 1)
    return {
        "matrices": np.concatenate([independent, shared]),
        "alpha": rng.uniform(0, 1, size),
        "probe": rng.standard_normal((size, n)),
    }


@jax.jit
@jax.vmap
def _project(logits, epsilon) -> jax.Array:
    return cast(jax.Array, sinkhorn(logits, epsilon).matrix)  # no factors here


_sigma2 = jax.jit(jax.vmap(spectrum.sigma2))
_lambda2 = jax.jit(jax.vmap(spectrum.lambda2))


@cache
def _judges(scope: str, claims: tuple[Claim, ...], n: int) -> Callable:
    """The compiled judge of these claims, on arrays with a leading axis of cells."""
    make: Callable[..., Any] = {
        "matrix": matrix_case,
        "projection": projection_case,
        "stack": depth_case,
        "noise": lambda key, snr: noise_case(jax.random.key(key), n, snr),
    }[scope]

    def judge(*arrays):
        case = make(*arrays)
        judged = {claim.name: claim.judge(case) for claim in claims}
        return {
            claim.name: (*judged[claim.name], tightness(claim, judged[claim.name][0]))
            for claim in claims
        }

    return jax.jit(jax.vmap(judge))


def judge_cells(
    scope: str, claims: tuple[Claim, ...], arrays: dict[str, np.ndarray], dtype: str, n: int = 0
) -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """claim -> (comparison, verdict, tightness), arrays [cells, …]; ``n`` for signals alone, which have no matrix.

    One chain of LAPACK calls to a program, as in a sweep.
    """
    typed = {key: jnp.asarray(x, dtype) for key, x in arrays.items() if key not in ("key", "n")}
    if scope == "noise":
        found = _judges(scope, claims, n)(jnp.asarray(arrays["key"]), typed["snr"])
    elif scope == "projection":
        found = _judges(scope, claims, 0)(typed["logits"], typed["epsilon"])
    elif scope == "stack":
        flat = typed["matrices"].reshape(-1, *typed["matrices"].shape[2:])
        spectra = [
            jax.block_until_ready(f(flat)).reshape(typed["matrices"].shape[:2])
            for f in (_sigma2, _lambda2)
        ]
        found = _judges(scope, claims, 0)(
            typed["matrices"], *spectra, typed["alpha"], typed["probe"]
        )
    else:
        matrix = (
            typed["matrix"]
            if "matrix" in typed
            else jax.block_until_ready(_project(typed["logits"], typed["epsilon"]))
        )
        spectra = [jax.block_until_ready(f(matrix)) for f in (_sigma2, _lambda2)]
        found = _judges(scope, claims, 0)(typed["logits"], typed["epsilon"], matrix, *spectra)
    return jax.device_get(jax.block_until_ready(found))


def _judge_block(verification: Verification, unit: Unit, block: int) -> dict[str, np.ndarray]:
    """Per claim of the unit: verdicts [4], tightness of every comparison, and the least slack and its cell."""
    cells = _draw(verification, unit, block)
    used = min(unit.block, unit.cells - block * unit.block)
    part: dict[str, np.ndarray] = {}
    for scope in ("matrix", "projection") if unit.scope == "matrix" else (unit.scope,):
        claims = _claims(verification, scope)
        if not claims or (scope == "projection" and "matrix" in cells):
            continue
        found = judge_cells(scope, claims, cells, verification.dtype, unit.n)
        if verification.escalate and verification.dtype == "float32" and scope != "noise":
            finer = judge_cells(scope, claims, cells, "float64", unit.n)
            found = {name: _sharper(found[name], finer[name]) for name in found}
        for claim in claims:
            comparison, verdict, tight = found[claim.name]
            sides = [np.asarray(x[:used], np.float64).reshape(used, -1) for x in comparison[:3]]
            verdict = np.array(verdict[:used]).reshape(used, -1)
            slack = (
                -abs(sides[0] - sides[1]) if claim.direction in ("=", "~") else sides[1] - sides[0]
            )
            with np.errstate(all="ignore"):
                relative = np.where(verdict == Verdict.NOT_APPLICABLE, np.inf, slack / sides[2])
            refereed = 0
            if (
                verification.escalate
                and unit.scope == "matrix"
                and not verification.mutants
                and unit.n <= REFEREED_SIZE
            ):
                for cell in np.flatnonzero(verdict[:, 0] == Verdict.UNDECIDABLE)[:REFEREED_CELLS]:
                    matrix = cells["matrix"][cell] if "matrix" in cells else None
                    sides_found = referee(
                        claim.name, cells["logits"][cell], float(cells["epsilon"][cell]), matrix
                    )
                    if sides_found is not None:
                        verdict[cell, 0] = decided(claim.name, *sides_found)
                        refereed += 1
            worst = np.nan_to_num(relative, nan=np.inf).min(1)
            part |= {
                f"{claim.name}/verdicts": np.array(
                    [(verdict == value).sum() for value in VERDICTS.values()]
                ),
                f"{claim.name}/tightness": np.clip(tight[:used], 0, 1e30)
                .astype(np.float32)
                .ravel(),
                f"{claim.name}/worst": np.array([worst.min(), block, worst.argmin(), refereed]),
            }
    return part


def _claims(verification: Verification, scope: str) -> tuple[Claim, ...]:
    return _claims_of(verification.claims, scope, verification.mutants)


@cache  # mutants are made anew at every call, and what is compiled goes by their identity
def _claims_of(names: tuple[str, ...], scope: str, mutants: bool) -> tuple[Claim, ...]:
    claims = [claim for claim in chosen_claims(names) if claim.scope == scope]
    if mutants:
        return tuple(
            mutant for claim in claims if claim.status != "refuted" for mutant in mutants_of(claim)
        )
    return tuple(claims)


def _sharper(coarse, fine):
    """``fine`` where ``coarse`` could not decide."""
    undecided = np.asarray(coarse[1]) == Verdict.UNDECIDABLE
    return jax.tree.map(lambda a, b: np.where(undecided, b, a), coarse, fine)


def _merge(parts: list[dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """claim -> what the Dataset has of it, over the blocks of a unit."""
    merged = {}
    for name in {key.rsplit("/", 1)[0] for key in parts[0]}:
        verdicts = np.sum([part[f"{name}/verdicts"] for part in parts], axis=0)
        tight = np.concatenate([part[f"{name}/tightness"] for part in parts])
        worst = min((part[f"{name}/worst"] for part in parts), key=lambda w: w[0])
        known = tight[np.isfinite(tight)]
        merged[name] = {
            **dict(zip(VERDICTS, verdicts, strict=True)),
            "tightness_median": np.median(known) if len(known) else np.nan,
            "tightness_best": known.max() if len(known) else np.nan,
            "least_slack": worst[0],
            "block": worst[1],
            "cell": worst[2],
            "refereed": sum(part[f"{name}/worst"][3] for part in parts),
        }
    return merged


_VARIABLES = {
    "violated": "comparisons found violated",
    "undecidable": "comparisons that cannot be told at this precision",
    "holds": "comparisons found to hold",
    "not_applicable": "comparisons whose assumptions are not met",
    "tightness_median": "lesser over greater side, median; of equalities the difference over the margin",
    "tightness_best": "the same, largest",
    "least_slack": "least slack, in units of the margin",
    "block": "block that the least slack is in",
    "cell": "cell of the block that has the least slack",
    "refereed": "comparisons decided in 50 digits",
}
_EMPTY = {
    "violated": 0,
    "undecidable": 0,
    "holds": 0,
    "not_applicable": 0,
    "refereed": 0,
    "block": -1,
    "cell": -1,
}


def _dataset(
    verification: Verification, units: list[Unit], results: list[dict[str, dict[str, float]]]
) -> xr.Dataset:
    scopes = ("projection", "matrix", "stack", "noise")
    claims = {claim.name: claim for scope in scopes for claim in _claims(verification, scope)}
    if not verification.mutants:
        claims = {
            claim.name: claim for claim in chosen_claims(verification.claims)
        }  # theory.md's order
    families = list(dict.fromkeys(unit.family for unit in units))
    sizes = sorted({unit.n for unit in units})
    shape = len(claims), len(families), len(sizes)
    data = {
        name: np.full(shape, _EMPTY[name]) if name in _EMPTY else np.full(shape, np.nan)
        for name in _VARIABLES
    }
    rows = {name: i for i, name in enumerate(claims)}
    for unit, result in zip(units, results, strict=True):
        for claim, values in result.items():
            for name, value in values.items():
                data[name][rows[claim], families.index(unit.family), sizes.index(unit.n)] = value
    coords = {
        "claim": ("claim", np.array(list(claims), object), {"long_name": "claim"}),
        "family": ("family", np.array(families, object), {"long_name": "family of cases"}),
        "n": ("n", sizes, {"long_name": "mixed units", "units": "1"}),
        **{
            field: ("claim", np.array([getattr(claim, field) for claim in claims.values()], object))
            for field in ("number", "statement", "latex", "source", "direction", "scope")
        },
        "status": (
            "claim",
            np.array(
                ["mutant" if verification.mutants else c.status for c in claims.values()], object
            ),
        ),
    }
    variables = {
        name: (("claim", "family", "n"), data[name], {"long_name": text})
        for name, text in _VARIABLES.items()
    }
    device = jax.devices()[0]
    attrs = {
        "title": "homojax verify" + (" --mutants" if verification.mutants else ""),
        "config": json.dumps(dataclasses.asdict(verification)),
        "config_hash": verification.digest,
        "versions": json.dumps(versions()),
        "dtype": verification.dtype,
        "device": f"{device.platform}: {device.device_kind}",
        "seed": verification.seed,
    }
    return xr.Dataset(variables, coords, attrs)
