"""Probe by gradient: the matrices that bring a claim closest to equality, and those that break it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from homojax import spectrum
from homojax.birkhoff import detail_basis
from homojax.bounds import schatten_bounds
from homojax.lab import plots
from homojax.lab.cases import Case, up_to_comparison
from homojax.lab.inputs import InputError, require_precision
from homojax.lab.referee import decided, in_many_digits
from homojax.lab.runs import versions
from homojax.lab.verify.run import VERDICTS, chosen_claims, judge_cells
from homojax.projection.sinkhorn import sinkhorn
from homojax.theory.claim import Claim, Verdict
from homojax.theory.matrix import matrix_case
from homojax.theory.projection import projection_case
from homojax.theory.stack import depth_case

SMOOTH_POWER = (
    32  # of the Schatten bounds that stand in for σ₂ while the first-order steps pass ties
)
CHUNK = 20  # steps between two reports of progress
REFEREED_SIZE = 12  # n up to which many digits are asked: a finding is worth their seconds

Goal = Literal["tighten", "refute"]


@dataclasses.dataclass(frozen=True)
class Search:
    """Where to look for a matrix, and how long."""

    n: int = 4
    """Mixed units, at least 2."""
    epsilon: float | None = 1.0
    """Entropy weight; None: free."""
    bound: float = 6.0
    """Largest |logit|."""
    layers: int = 2
    """Of claims about stacks."""
    starts: int = 64
    """Random starts, climbed from side by side."""
    steps: int = 300
    """First-order steps (Adam), with a smooth σ₂."""
    polish: int = 40
    """Quasi-Newton steps (L-BFGS) from where those end, with σ₂ itself, whose kinks would mislead a Hessian."""
    seed: int = 0
    """Of the starts."""

    def __post_init__(self):
        for name, least in (
            ("n", 2),
            ("layers", 1),
            ("starts", 1),
            ("steps", 1),
            ("polish", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} = {getattr(self, name)} is not possible: it must be at least {least}."
                )
        for name, value in (
            ("epsilon", 1.0 if self.epsilon is None else self.epsilon),
            ("bound", self.bound),
        ):
            if not 0 < value < np.inf:
                raise InputError(f"{name} = {value} is not possible: it must be a positive number.")


class Finding(NamedTuple):
    """What a search came back with."""

    goal: Goal
    claim: Claim
    search: Search
    history: (
        np.ndarray
    )  # [steps + polish, starts], each start's best so far; NaN before its first finite one
    score: float  # of the best: lesser/greater to tighten, lesser − greater to refute (for = and ~ |difference| − margin)
    lesser: float
    greater: float
    margin: float
    verdict: str  # in float64
    exact: (
        tuple[Any, Any] | None
    )  # (lesser, greater) in 50 digits, where there is a referee for it (n ≤ 12)
    exact_verdict: str | None
    share: float  # of the starts that came within 1e-3 of the best, or broke the claim
    case: Case  # the best one
    reduced: Case | None  # the violation with the fewest digits that keep it
    digits: int | None  # of its entries behind the point

    @property
    def refuted(self) -> bool:
        """Whether a violation was found, and many digits did not take it back."""
        return self.verdict == "violated" and self.exact_verdict in (None, "violated")

    def plot(self) -> Figure:
        """The best of every start against the steps."""
        return plots.search_history(self)


Progress = Callable[[int, int, str], None]


def tighten(
    claim: str, search: Search | None = None, *, progress: Progress | None = None
) -> Finding:
    """Finds the logits that bring a bound closest to equality: largest lesser/greater side.

    Only cells count whose margin leaves two digits of the greater side: at J, say, both sides may vanish together.

    Args:
        claim: name, or a number of theory.md that only one claim has.
        search: where to look.
        progress: called with (steps done, steps in all, what is being done).

    Raises:
        InputError: no such claim, or one that this cannot be asked of; or every start's optimiser diverged.

    >>> tighten("hilbert", Search(n=2, starts=2, steps=5, polish=0)).score > 0.9999  # every 2 × 2 matrix attains it
    True
    """
    return _search("tighten", claim, search or Search(), progress)


def refute(
    claim: str, search: Search | None = None, *, progress: Progress | None = None
) -> Finding:
    """Hunts a violation: the logits with the largest lesser − greater side. What it takes and raises is as of ``tighten``.

    A violation is judged anew in float64 with its margins, then in 50 digits where n ≤ 12, and then given the fewest digits
    that keep it (``Finding.reduced``).

    >>> refute("doeblin", Search(n=2, starts=2, steps=5, polish=0)).refuted
    False
    """
    return _search("refute", claim, search or Search(), progress)


@threadpool_limits.wrap(limits=1, user_api="blas")
def _search(goal: Goal, name: str, search: Search, progress: Progress | None) -> Finding:
    claim = _one_claim(goal, name)
    require_precision("float64")
    lanes, history = _starts(claim, search), []
    for order, steps, before in (
        ("first-order", search.steps, 0),
        ("quasi-Newton", search.polish, search.steps),
    ):
        begin, advance = _climber(claim, goal, dataclasses.replace(search, seed=0, starts=1), order)
        climb = begin(lanes)
        for done in range(0, steps, CHUNK):
            if progress:
                progress(
                    before + done,
                    search.steps + search.polish,
                    f"{goal} {claim.name}, {order} steps",
                )
            climb, values = advance(climb, min(CHUNK, steps - done))
            history.append(np.asarray(values).T)
        lanes = climb.best
    if progress:
        progress(search.steps + search.polish, search.steps + search.polish, "judging")
    values = np.concatenate(history)
    history = np.fmax.accumulate(np.where(np.isfinite(values), values, np.nan))
    if np.isnan(history[-1]).all():
        raise InputError(
            f"no start of the search for {claim.name} came to a finite value at n = {search.n}: its assumptions are met nowhere, "
            "or the optimiser diverged; try more starts, a smaller bound or a larger epsilon."
        )
    cell = jax.jit(jax.vmap(lambda parameters: _cell(claim, search, parameters)))
    return _judged(
        goal, claim, search, {key: np.asarray(x) for key, x in cell(lanes).items()}, history
    )


def _one_claim(goal: Goal, name: str) -> Claim:
    claims = chosen_claims((name,))
    if len(claims) > 1:
        raise InputError(
            f"{name} is the number of several claims: {', '.join(claim.name for claim in claims)}; name one."
        )
    claim = claims[0]
    if claim.scope == "noise":
        raise InputError(f"{claim.name} is about signals in noise: there is no matrix to probe.")
    if goal == "tighten" and claim.direction in ("=", "~"):
        raise InputError(f"{claim.name} is an equality: there is nothing to tighten; refute it.")
    return claim


def _starts(claim: Claim, search: Search) -> dict[str, np.ndarray]:
    """Random parameters [starts, …]. Logits B X Bᵀ, B a basis of V⊥: row and column shifts, which change nothing, are out."""
    rng = np.random.default_rng(search.seed)
    d = search.n - 1
    shape = (search.layers, d, d) if claim.scope == "stack" else (d, d)
    size = np.exp(rng.uniform(np.log(0.1), np.log(search.bound), search.starts))
    start = {
        "logits": rng.standard_normal((search.starts, *shape))
        * size.reshape(-1, *(1,) * len(shape))
        / 2
    }
    if search.epsilon is None:
        start["log_epsilon"] = rng.uniform(-1, 1, search.starts)
    if claim.scope == "stack":
        start |= {
            "alpha": rng.standard_normal(search.starts) - 0.5,
            "probe": rng.standard_normal((search.starts, d)),
        }
    return start


def _cell(claim: Claim, search: Search, parameters: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What a case is made from: logits within the bound, ε; of a stack its matrices, residual weight and vector."""
    basis = detail_basis(search.n, parameters["logits"].dtype)
    logits = basis @ parameters["logits"] @ basis.T
    largest = abs(logits).max((-2, -1), keepdims=True)
    logits = logits * (search.bound / jnp.maximum(largest, search.bound))
    epsilon = (
        jnp.exp(parameters["log_epsilon"])
        if search.epsilon is None
        else jnp.asarray(search.epsilon, logits.dtype)
    )
    cell = {"logits": logits, "epsilon": epsilon}
    if claim.scope == "stack":
        matrices = _project_stacks(logits[None], epsilon[None])[0]
        cell |= {
            "matrices": matrices,
            "alpha": jax.nn.sigmoid(parameters["alpha"]),
            "probe": basis @ parameters["probe"],
        }
    return cell


def _score(
    claim: Claim, goal: Goal, search: Search, smooth: bool, parameters: dict[str, jax.Array]
) -> jax.Array:
    """The best of a case's comparisons that apply; −∞ where none does.

    If ``smooth``, σ₂ of the case's own matrices gives way to its Schatten bounds, which have no kinks at ties, and the score is
    the lower of theirs. What a case has besides (slopes, whole curves, residual layers) keeps its documented subgradients.
    """
    case = _judged_case(claim, _cell(claim, search, parameters))
    norms = [lambda m, i=i: schatten_bounds(m, SMOOTH_POWER)[i] for i in range(2)] if smooth else []
    cases = [_with_norm(claim, case, norm) for norm in norms] or [case]
    return jnp.stack(
        [_scores(claim, goal, claim.judge(case)[0], jnp).max() for case in cases]
    ).min()


def _judged_case(claim: Claim, cell: dict[str, jax.Array]) -> Any:
    if claim.scope == "projection":
        return projection_case(cell["logits"], cell["epsilon"])
    if claim.scope == "matrix":
        matrix = cast(jax.Array, sinkhorn(cell["logits"], cell["epsilon"]).matrix)
        return matrix_case(cell["logits"], cell["epsilon"], matrix)
    sigma2, lambda2 = (jax.vmap(f)(cell["matrices"]) for f in (spectrum.sigma2, spectrum.lambda2))
    return depth_case(cell["matrices"], sigma2, lambda2, cell["alpha"], cell["probe"])


def _with_norm(claim: Claim, case: Any, norm: Callable[[jax.Array], jax.Array]) -> Any:
    """The case with ``norm`` in place of σ₂ of its own matrices."""
    if claim.scope == "matrix":
        return case._replace(sigma2=norm(case.matrix))
    if claim.scope == "projection":
        return case._replace(sigma2=norm(case.matrix), hotter_sigma2=norm(case.hotter))
    sigma2, kept = (jax.vmap(norm)(matrices) for matrices in (case.matrices, case.composites))
    return case._replace(sigma2=sigma2, curve=case.curve.at[:, 0].set(kept))


def _scores(claim: Claim, goal: Goal, comparison: Any, xp: Any) -> Any:
    lesser, greater, margin, applies = comparison
    if goal == "refute":
        score = (
            abs(lesser - greater) - margin if claim.direction in ("=", "~") else lesser - greater
        )
    else:
        score = lesser / xp.where(greater > 0, greater, 1)
        applies = applies & (margin < 0.01 * greater)
    return xp.where(applies, score, -xp.inf)


class _Climb(NamedTuple):
    """A search under way, of one start."""

    parameters: Any
    state: Any  # the optimiser's
    best: Any  # the best parameters so far
    best_score: jax.Array


@cache
def _climber(claim: Claim, goal: Goal, search: Search, order: str) -> tuple[Callable, Callable]:
    """(parameters -> _Climb, (_Climb, steps) -> (_Climb, scores [starts, steps])), with a leading axis of starts, compiled."""

    def loss(parameters):
        return -_score(claim, goal, search, order == "first-order", parameters)

    value_and_grad = jax.value_and_grad(loss)
    if order == "first-order":
        rule = optax.with_extra_args_support(
            optax.adam(optax.cosine_decay_schedule(search.bound / 20, search.steps))
        )
    else:
        rule = optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(20))

    def step(climb: _Climb, _):
        value, slope = value_and_grad(climb.parameters)
        usable = jnp.isfinite(value) & _finite(slope)  # else this start stays where it is
        updates, state = rule.update(
            slope, climb.state, climb.parameters, value=value, grad=slope, value_fn=loss
        )
        usable &= _finite(updates)
        state, parameters = (
            jax.tree.map(lambda new, old: jnp.where(usable, new, old), *pair)
            for pair in (
                (state, climb.state),
                (optax.apply_updates(climb.parameters, updates), climb.parameters),
            )
        )
        better = -value > climb.best_score
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), climb.parameters, climb.best
        )
        return _Climb(parameters, state, best, jnp.where(better, -value, climb.best_score)), -value

    def begin(parameters):
        climb = _Climb(parameters, rule.init(parameters), parameters, jnp.asarray(-jnp.inf))
        return jax.tree.map(
            lambda x: jax.lax.convert_element_type(x, x.dtype), climb
        )  # no weak types: one program does

    def advance(climb, steps):
        return jax.vmap(lambda climb: jax.lax.scan(step, climb, length=steps))(climb)

    return jax.jit(jax.vmap(begin)), jax.jit(advance, static_argnums=1)


def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


# ---------------------------------------------------------------- what was found


def _judged(
    goal: Goal, claim: Claim, search: Search, cells: dict[str, np.ndarray], history: np.ndarray
) -> Finding:
    """The best of the cells, judged as ``homojax verify`` does, in many digits too; a violation made short."""
    comparison, verdicts, _ = judge_cells(claim.scope, (claim,), _arrays(cells), "float64")[
        claim.name
    ]
    starts = len(verdicts)
    scores = np.asarray(_scores(claim, goal, comparison, np)).reshape(starts, -1)
    broken = (
        (np.reshape(verdicts, (starts, -1)) == Verdict.VIOLATED)
        if goal == "refute"
        else np.zeros_like(scores, bool)
    )
    ranked = np.where(np.isnan(scores) | (broken.any() & ~broken), -np.inf, scores)
    start, at = np.unravel_index(int(ranked.argmax()), ranked.shape)
    best = float(ranked[start, at])
    share = (broken.any(1) if broken.any() else ranked.max(1) >= best - 1e-3 * abs(best)).mean()
    case = _case(
        claim,
        search,
        {key: x[start] for key, x in cells.items()},
        comparison.lesser.shape[1:],
        int(at),
    )
    sides = [float(np.reshape(x, (starts, -1))[start, at]) for x in comparison[:3]]
    exact = in_many_digits(case, REFEREED_SIZE)
    finding = Finding(
        *(goal, claim, search, history, best, *sides),
        verdict=_NAMES[int(np.reshape(verdicts, (starts, -1))[start, at])],
        exact=exact,
        exact_verdict=None if exact is None else _NAMES[decided(claim.name, *exact)],
        share=float(share),
        case=case,
        reduced=None,
        digits=None,
    )
    return (
        finding._replace(**_reduced(finding)) if goal == "refute" and finding.refuted else finding
    )


_NAMES = {value: name for name, value in VERDICTS.items()}


def _arrays(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a case is judged from: a stack has no use for the logits that its matrices came from."""
    return {
        key: x
        for key, x in cells.items()
        if "matrices" not in cells or key not in ("logits", "epsilon")
    }


def _case(
    claim: Claim, search: Search, cell: dict[str, np.ndarray], shape: tuple[int, ...], at: int
) -> Case:
    about = {"search": dataclasses.asdict(search), "versions": versions()}
    if claim.scope == "stack":
        about |= {"logits": cell["logits"].tolist(), "epsilon": float(cell["epsilon"])}
    return up_to_comparison(Case(claim.name, claim.scope, "probe", _arrays(cell), about), shape, at)


def _reduced(finding: Finding) -> dict[str, Any]:
    """The violation with the fewest digits behind the point that keep it, in float64 and in 50 digits, if any do."""
    claim, case = finding.claim, finding.case
    source = {
        **case.arrays,
        **{key: np.asarray(x) for key, x in case.about.items() if key in ("logits", "epsilon")},
    }
    depth = len(case.arrays.get("matrices", ()))
    candidates = []
    for digits in range(13):
        for logits in _gauges(source["logits"]):
            cell = {key: np.round(x, digits) for key, x in source.items() if key != "matrices"}
            cell |= {
                "logits": np.round(logits, digits) + 0.0,
                "epsilon": np.round(source["epsilon"], max(digits, 2)),
            }  # no −0
            candidates.append(cell)
    cells = {key: np.stack([cell[key] for cell in candidates]) for key in candidates[0]}
    if depth:
        cells["matrices"] = np.asarray(
            _project_stacks(cells["logits"][:, :depth], cells["epsilon"])
        )
    missing = finding.search.starts - len(
        candidates
    )  # as many as there were starts: that is compiled already
    padded = {
        key: np.concatenate([x, np.repeat(x[-1:], max(0, missing), 0)]) for key, x in cells.items()
    }
    comparison, verdicts, _ = judge_cells(claim.scope, (claim,), _arrays(padded), "float64")[
        claim.name
    ]
    for i in range(len(candidates)):
        violated = np.flatnonzero(np.ravel(verdicts[i]) == Verdict.VIOLATED)
        if len(violated):
            cell = {key: x[i] for key, x in cells.items()}
            short = _case(
                claim, finding.search, cell, comparison.lesser.shape[1:], int(violated[-1])
            )
            exact = in_many_digits(short, REFEREED_SIZE)
            if exact is None or decided(claim.name, *exact) == Verdict.VIOLATED:
                return {"reduced": short, "digits": i // 2}
    return {}


def _gauges(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [..., n, n] of the same projection: with a first row and column of 0, and as they are."""
    corner = logits[..., :1, :1]
    return logits - logits[..., :1, :] - logits[..., :, :1] + corner, logits


@jax.jit
@jax.vmap
def _project_stacks(logits, epsilon):
    return jax.vmap(lambda s: cast(jax.Array, sinkhorn(s, epsilon).matrix))(logits)
