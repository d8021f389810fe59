"""Bounds on σ₂ of one matrix: never violated, undecidable where attained, caught where wrong."""

import itertools

import jax
import numpy as np
import pytest
from scipy import special

import homojax as hj
import oracles
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.claim import Verdict, mutants_of

N, BATCH = 4, 128
SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
RNG = np.random.default_rng(17)
BOUNDS = {name: claim for name, claim in hj.CLAIMS.items() if claim.number == "2"}
ABOUT_MEMBERS = [name for name, claim in BOUNDS.items() if claim.assumptions]
EIGHTH = next(mutant for mutant in mutants_of(BOUNDS["hilbert"]) if "Δ/8" in mutant.name)


@jax.jit
@jax.vmap
def judge(logits, epsilon, matrix):
    case = matrix_case(logits, epsilon, matrix)
    claims = {**BOUNDS, "Δ/8": EIGHTH}
    return {name: claim.judge(case) for name, claim in claims.items()}


def judged(logits, epsilon, matrix):
    """Claim -> (comparison, verdicts); in batches of one size, to compile once for each dtype."""
    count = len(matrix)
    rows = np.resize(np.arange(count), -(-count // BATCH) * BATCH).reshape(-1, BATCH)
    arrays = (logits, np.asarray(epsilon, logits.dtype), matrix)
    parts = [jax.device_get(judge(*(x[some] for x in arrays))) for some in rows]
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


def log_of(matrices):
    return np.log(np.maximum(matrices, 1e-30))


def truncated_cases(count=120):
    """Logits, ε and unconverged matrices: row errors from rounding to above 1, both sides last."""
    logits, epsilons = RNG.normal(size=(count, N, N)), RNG.choice([0.02, 0.05, 0.2, 1.0], count)
    steps, last = RNG.choice([1, 2, 5, 10, 20], count), ["columns", "rows"] * (count // 2)
    runs = zip(logits, epsilons, steps, last, strict=True)
    return logits, epsilons, np.array([oracles.alternate(*run) for run in runs])


def converged_cases(count=60):
    logits, epsilons = RNG.normal(size=(count, N, N)), RNG.uniform(0.3, 5, count)
    runs = zip(logits, epsilons, strict=True)
    return logits, epsilons, np.array([oracles.alternate(s, e, 2000) for s, e in runs])


def polytope_cases():
    family = oracles.birkhoff_family(RNG, N)
    return log_of(family), np.ones(len(family)), family


CASES = {
    "converged": converged_cases(),
    "truncated": truncated_cases(),
    "polytope": polytope_cases(),
}


# ---------------------------------------------------------------- cases


def test_a_case_takes_the_moduli_that_are_known_already():
    matrix = np.full((N, N), 0.25)
    given = matrix_case(matrix, 1.0, matrix, sigma2=0.5, lambda2=0.25)
    assert (given.sigma2, given.lambda2) == (0.5, 0.25)
    found = matrix_case(matrix, 1.0, matrix)
    assert max(found.sigma2, found.lambda2) < 1e-15


def test_a_matrix_with_a_nan_gets_no_verdict():
    bad, fine = np.full((1, N, N), np.nan), np.full((1, N, N), 0.25)
    one_bad = np.where(np.arange(N * N).reshape(1, N, N) == 6, np.nan, fine)
    silent = (Verdict.UNDECIDABLE, Verdict.NOT_APPLICABLE)
    for logits, broken in itertools.product((bad, fine), (bad, one_bad)):
        results = judged(logits, [1.0], broken)
        assert all(np.isin(verdicts, silent).all() for _, verdicts in results.values())
    assert judged(bad, [1.0], fine)["hilbert"][1] == Verdict.NOT_APPLICABLE
    assert judged(fine, [np.nan], fine)["hilbert"][1] == Verdict.UNDECIDABLE


# ---------------------------------------------------------------- no false verdict


@pytest.mark.parametrize("family", CASES)
def test_no_bound_is_ever_called_violated(family, dtype):
    results = judged(*(x.astype(dtype) for x in CASES[family]))
    for name in BOUNDS:
        comparison, verdicts = results[name]
        assert (verdicts != Verdict.VIOLATED).all(), name
        assert family == "truncated" or (verdicts == Verdict.HOLDS).any(), name
        assert comparison.margin.dtype == dtype and (comparison.margin > 0).all()


def test_no_bound_on_members_applies_where_sums_are_missed_by_half(dtype):
    logits, epsilons, matrices = (x.astype(dtype) for x in CASES["truncated"])
    missed = np.maximum(abs(matrices.sum(1) - 1).max(1), abs(matrices.sum(2) - 1).max(1)) > 0.5
    results = judged(logits, epsilons, matrices)
    assert missed.sum() > 10 and set(ABOUT_MEMBERS) == {
        "hilbert",
        "dobrushin",
        "doeblin",
        "pinsker",
    }
    for name in ABOUT_MEMBERS:
        assert (results[name][1][missed] == Verdict.NOT_APPLICABLE).all()


def test_margins_cover_the_way_to_the_polytope():
    """Rounding a truncated matrix into 𝔅ₙ moves the slack of each law by less than its margin."""
    logits, epsilons, matrices = CASES["truncated"]
    rounded = np.array([oracles.round_to_birkhoff(m) for m in matrices])
    before, after = judged(logits, epsilons, matrices), judged(logits, epsilons, rounded)
    for name in ABOUT_MEMBERS:
        old, new = before[name][0], after[name][0]
        moved = abs((old.greater - old.lesser) - (new.greater - new.lesser))
        assert (moved <= old.margin).all() and moved.max() > 1e-3, name


def test_the_margin_of_dobrushin_covers_a_bound_that_moves_faster_than_its_matrix():
    """J + u(e₁ − e₂)ᵀ/n with rows that miss their sums: √(δ(M) δ(Mᵀ)) is steep in δ(M).

    δ(Mᵀ) = 32 δ(M).
    """
    n = 64
    signs = np.resize([-1.0, 1.0], n)
    matrix = (1 + np.outer(signs, np.eye(n)[0] - np.eye(n)[1] + 0.05 * np.eye(n)[2])) / n
    both = np.array([matrix, oracles.round_to_birkhoff(matrix)])
    kept = oracles.sigma2(both)

    def compare(logits, matrix, sigma2):
        case = matrix_case(logits, 1.0, matrix, sigma2=sigma2, lambda2=sigma2)
        return BOUNDS["dobrushin"].compare(case)

    comparison = jax.jit(jax.vmap(compare))(log_of(both), both, kept)
    moved = abs(np.diff(comparison.greater - comparison.lesser))[0]
    distance = hj.birkhoff.birkhoff_distance(*hj.marginal_errors(matrix))
    assert 1.2 * distance < moved <= comparison.margin[0]


# ---------------------------------------------------------------- attained, caught


def twofold(matrices):
    """[K, 2, 2] -> [K, 4, 4]: every unit twice. σ₂, Δ and Doeblin's bound stay as they are."""
    return np.kron(matrices, np.full((2, 2), 0.5))


def attained(name, dtype):
    """[K] cases at which the law is an equality, in exact arithmetic."""
    rng = np.random.default_rng(23)
    if name == "hilbert":
        epsilons = np.geomspace(0.05, 20, 300).astype(dtype)
        logits = rng.normal(size=(300, 2, 2)) * rng.choice([0.1, 1, 10], (300, 1, 1))
        # Shifts of columns do not matter, but for the rounding of S/ε.
        logits[::2] += epsilons[::2, None, None] * rng.normal(size=(150, 1, 2)) * 1e3
        logits = logits.astype(dtype)
        across = (logits.astype(float) * [[1, -1], [-1, 1]]).sum((1, 2))
        stay = special.expit(across / (2 * epsilons.astype(float)))
        matrices = stay[:, None, None] * np.eye(2) + (1 - stay)[:, None, None] * SWAP
        return np.kron(logits, np.ones((2, 2), dtype)), epsilons, twofold(matrices).astype(dtype)
    shares, shifts = rng.uniform(0.01, 1, 40), np.subtract.outer(range(N), range(N)) % N
    matrices = {
        "dobrushin": [oracles.permutation(rng, N) for _ in range(20)],
        "doeblin": twofold([[[1 + t, 1 - t], [1 - t, 1 + t]] for t in shares]) / 2,
        "lower": [oracles.lazy_permutation(rng, N, t) for t in shares],
        "upper": [oracles.isolated(N, t) for t in shares],
        "eigenvalue": [weights[shifts] for weights in rng.dirichlet(np.ones(N), 500)],
        "pinsker": [np.full((N, N), 1 / N)],
    }[name.split("_")[-1]]
    logits, epsilons = log_of(matrices), np.ones(len(matrices))
    return logits.astype(dtype), epsilons.astype(dtype), np.array(matrices).astype(dtype)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_that_is_attained_is_undecidable_and_violated_when_halved(name, dtype):
    comparison, verdicts = judged(*attained(name, dtype))[name]
    assert (verdicts == Verdict.UNDECIDABLE).all()
    clear = np.maximum(comparison.lesser, comparison.greater) > 0.1
    violated = comparison.lesser - comparison.greater / 2 > comparison.margin
    assert violated[clear].all() and (clear.sum() >= 10 or name == "pinsker")


def test_every_bound_but_the_lower_ones_is_an_equality_at_uniform(dtype):
    uniform = np.full((1, N, N), 1 / N, dtype)
    results = judged(np.zeros((1, N, N), dtype), np.ones(1), uniform)
    assert all((verdicts == Verdict.UNDECIDABLE).all() for _, verdicts in results.values())


def test_a_hilbert_bound_with_half_its_diameter_is_found_out(dtype):
    comparison, verdicts = judged(*attained("hilbert", dtype))["Δ/8"]
    clear = (comparison.lesser > 0.1) & (comparison.lesser < 0.9)
    assert clear.sum() > 20 and (verdicts[clear] == Verdict.VIOLATED).all()


def test_margins_at_uniform_have_finite_gradients():
    uniform = np.full((N, N), 0.25)

    def margins(matrix):
        case = matrix_case(uniform, 1.0, matrix, sigma2=0.0, lambda2=0.0)
        return [BOUNDS[name].compare(case).margin for name in ("dobrushin", "pinsker")]

    gradients = jax.jit(jax.jacobian(margins))(uniform)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
