from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
import oracles
from homojax.theory import claim as claims
from homojax.theory import matrix as matrix_laws
from homojax.theory.claim import Verdict

N = 4
RNG = np.random.default_rng(17)
POLYTOPE_LAWS = (
    "hilbert",
    "dobrushin",
    "doeblin",
    "pinsker",
)  # the others, on PMP, need no marginals


@jax.jit
@jax.vmap
def compare(logits, epsilon, matrix):
    case = hj.theory.matrix.matrix_case(logits, epsilon, matrix)
    return {
        name: claims.Comparison(*map(jnp.asarray, law(case)))
        for name, (_, law) in hj.theory.matrix.MATRIX_LAWS.items()
    }


verdict = jax.jit(hj.theory.claim.verdict)


def log_of(matrices):
    return np.log(np.maximum(matrices, 1e-30))


def truncated_cases(count=120):
    """Logits, ε and unconverged matrices, row errors from rounding to above 1, both sides last."""
    logits, epsilons = RNG.normal(size=(count, N, N)), RNG.choice([0.02, 0.05, 0.2, 1.0], count)
    runs = zip(
        logits,
        epsilons,
        RNG.choice([1, 2, 5, 10, 20], count),
        ["columns", "rows"] * (count // 2),
        strict=True,
    )
    return logits, epsilons, np.array([oracles.alternate(s, e, k, last) for s, e, k, last in runs])


def converged_cases(count=60):
    logits, epsilons = RNG.normal(size=(count, N, N)), RNG.uniform(0.3, 5, count)
    return (
        logits,
        epsilons,
        np.array([oracles.alternate(s, e, 2000) for s, e in zip(logits, epsilons, strict=True)]),
    )


def polytope_cases():
    family = oracles.birkhoff_family(RNG, N)
    return log_of(family), np.ones(len(family)), family


CASES = {
    "converged": converged_cases(),
    "truncated": truncated_cases(),
    "polytope": polytope_cases(),
}


# ---------------------------------------------------------------- verdicts


@given(
    *[st.one_of(st.floats(-2, 2), st.just(np.nan)) for _ in range(2)],
    st.one_of(st.floats(0, 1), st.just(np.nan)),
)
def test_a_verdict_is_given_only_where_the_slack_exceeds_the_margin(lesser, greater, margin):
    given_verdict = verdict(claims.Comparison(lesser, greater, margin))
    expected = (
        Verdict.HOLDS
        if greater - lesser > margin
        else Verdict.VIOLATED
        if greater - lesser < -margin
        else Verdict.UNDECIDABLE
    )
    assert given_verdict == expected and given_verdict.dtype == np.int8
    assert verdict(claims.Comparison(greater, lesser, margin)) == -expected
    assert verdict(claims.Comparison(lesser, greater, margin, False)) == Verdict.NOT_APPLICABLE


@pytest.mark.parametrize("slack", [0.25, -0.25, 0.0])
def test_a_slack_equal_to_the_margin_is_undecidable(slack):
    assert verdict(claims.Comparison(0.5, 0.5 + slack, abs(slack))) == Verdict.UNDECIDABLE


def test_a_matrix_with_a_nan_gets_no_verdict():
    bad = np.full((1, N, N), np.nan)
    fine = np.full((1, N, N), 0.25)
    for logits, epsilon, matrix in [(bad, [1.0], bad), (fine, [1.0], bad)]:
        assert all(
            verdict(c) == Verdict.UNDECIDABLE
            for c in compare(logits, np.array(epsilon), matrix).values()
        )
    for logits, epsilon in [(bad, [1.0]), (fine, [np.nan])]:
        assert verdict(compare(logits, np.array(epsilon), fine)["hilbert"]) == Verdict.UNDECIDABLE


def test_a_case_takes_the_moduli_that_are_known_already():
    matrix = np.full((N, N), 0.25)
    assert hj.theory.matrix.matrix_case(matrix, 1.0, matrix, 0.5, 0.25)[3:5] == (0.5, 0.25)
    assert max(hj.theory.matrix.matrix_case(matrix, 1.0, matrix)[3:5]) < 1e-15


# ---------------------------------------------------------------- laws of one matrix


@pytest.mark.parametrize("family", CASES)
def test_no_law_is_ever_called_violated(family, dtype):
    comparisons = compare(*(x.astype(dtype) for x in CASES[family]))
    for name, comparison in comparisons.items():
        verdicts = np.asarray(verdict(comparison))
        assert (verdicts != Verdict.VIOLATED).all(), name
        assert family == "truncated" or (verdicts == Verdict.HOLDS).any(), name
        assert np.asarray(comparison.margin).dtype == dtype and (comparison.margin > 0).all()


def test_no_law_of_the_polytope_gets_a_verdict_where_sums_are_missed_by_half(dtype):
    logits, epsilons, matrices = (x.astype(dtype) for x in CASES["truncated"])
    missed = np.maximum(abs(matrices.sum(1) - 1).max(1), abs(matrices.sum(2) - 1).max(1)) > 0.5
    comparisons = compare(logits, epsilons, matrices)
    assert missed.sum() > 10
    assert all(
        (verdict(comparisons[name])[missed] == Verdict.UNDECIDABLE).all() for name in POLYTOPE_LAWS
    )


def test_margins_cover_the_way_to_the_polytope():
    """Rounding a truncated matrix into 𝔅ₙ moves the slack of each law by less than the law's margin."""
    logits, epsilons, matrices = CASES["truncated"]
    rounded = np.array([oracles.round_to_birkhoff(m) for m in matrices])
    before, after = compare(logits, epsilons, matrices), compare(logits, epsilons, rounded)
    for name in POLYTOPE_LAWS:
        moved = abs(
            (before[name].greater - before[name].lesser)
            - (after[name].greater - after[name].lesser)
        )
        assert (moved <= before[name].margin).all() and moved.max() > 1e-3, name


def test_the_margin_of_dobrushin_covers_a_bound_that_moves_faster_than_its_matrix():
    """J + u(e₁ − e₂)ᵀ/n with rows that miss their sums: δ(Mᵀ) = 32 δ(M), and √(δ(M) δ(Mᵀ)) is steep in δ(M)."""
    n = 64
    signs = np.resize([-1.0, 1.0], n)
    matrix = (1 + np.outer(signs, np.eye(n)[0] - np.eye(n)[1] + 0.05 * np.eye(n)[2])) / n
    both = np.array([matrix, oracles.round_to_birkhoff(matrix)])
    comparison = compare(log_of(both), np.ones(2), both)["dobrushin"]
    moved = abs(np.diff(comparison.greater - comparison.lesser))[0]
    assert (
        1.2 * hj.birkhoff.birkhoff_distance(*hj.marginal_errors(matrix))
        < moved
        <= comparison.margin[0]
    )


def attained(name, dtype):
    """[K] cases at which the law is an equality, in exact arithmetic."""
    rng = np.random.default_rng(23)
    if name == "hilbert":
        epsilons = np.geomspace(0.05, 20, 300).astype(dtype)
        logits = rng.normal(size=(300, 2, 2)) * rng.choice([0.1, 1, 10], (300, 1, 1))
        logits[::2] += (
            epsilons[::2, None, None] * rng.normal(size=(150, 1, 2)) * 1e3
        )  # no matter, but for the rounding of S/ε
        logits = logits.astype(dtype)
        return logits, epsilons, jax.jit(jax.vmap(hj.sinkhorn))(logits, epsilons).matrix
    shares = rng.uniform(0.01, 1, 40)
    matrices = {
        "dobrushin": [oracles.permutation(rng, 6) for _ in range(20)],
        "doeblin": [[[(1 + t) / 2, (1 - t) / 2], [(1 - t) / 2, (1 + t) / 2]] for t in shares],
        "lower": [oracles.lazy_permutation(rng, 6, t) for t in shares],
        "upper": [oracles.isolated(6, t) for t in shares],
        "eigenvalue": [
            w[np.subtract.outer(range(4), range(4)) % 4] for w in rng.dirichlet(np.ones(4), 500)
        ],
        "pinsker": [np.full((6, 6), 1 / 6)],
    }[name.split("_")[-1]]
    return (
        log_of(matrices).astype(dtype),
        np.ones(len(matrices), dtype),
        np.array(matrices).astype(dtype),
    )


@pytest.mark.parametrize("name", hj.theory.matrix.MATRIX_LAWS)
def test_a_law_that_is_attained_is_undecidable_and_with_its_constant_halved_violated(name, dtype):
    comparison = compare(*attained(name, dtype))[name]
    assert (verdict(comparison) == Verdict.UNDECIDABLE).all()
    halved = verdict(comparison._replace(greater=comparison.greater / 2))
    clear = np.maximum(comparison.lesser, comparison.greater) > 0.1
    assert (halved[clear] == Verdict.VIOLATED).all() and (clear.sum() >= 10 or name == "pinsker")


def test_every_law_but_the_lower_ones_is_an_equality_at_uniform(dtype):
    uniform = np.full((1, 6, 6), 1 / 6, dtype)
    comparisons = compare(np.zeros((1, 6, 6), dtype), np.ones(1, dtype), uniform)
    assert all((verdict(c) == Verdict.UNDECIDABLE).all() for c in comparisons.values())


def test_a_hilbert_bound_with_half_its_diameter_is_found_out(monkeypatch, dtype):
    case = attained("hilbert", dtype)
    monkeypatch.setattr(
        matrix_laws,
        "projective_diameter",
        lambda logits: hj.birkhoff.projective_diameter(logits) / 2,
    )
    law = hj.theory.matrix.MATRIX_LAWS["hilbert"][1]
    comparison = jax.jit(
        jax.vmap(lambda *x: claims.Comparison(*law(hj.theory.matrix.matrix_case(*x))[:3]))
    )(*case)
    clear = (comparison.lesser > 0.1) & (comparison.lesser < 0.9)
    assert clear.sum() > 20 and (verdict(comparison)[clear] == Verdict.VIOLATED).all()


@pytest.mark.parametrize("name", ["dobrushin", "pinsker"])
def test_margins_at_uniform_have_finite_gradients(name):
    law, uniform = hj.theory.matrix.MATRIX_LAWS[name][1], np.full((N, N), 0.25)
    assert np.isfinite(
        jax.jit(jax.grad(lambda m: law(hj.theory.matrix.matrix_case(uniform, 1.0, m)).margin))(
            uniform
        )
    ).all()


# ---------------------------------------------------------------- laws of a stack


PROBE = np.array([1.0, -0.3, 0.1, 0.7])
DEPTHS = np.arange(1, 7)
SHARES = (0.1, 0.4, 1.0)


def stacks(kind, seed=0):
    """[20, 6, N, N] of random layers."""
    source = CASES[kind][2]
    return source[np.random.default_rng(seed).integers(0, len(source), (20, 6))]


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def compare_stack(layers, alpha):
    case = hj.theory.stack.stack_case(layers)
    return {
        "product": hj.theory.stack.product_comparison(case, DEPTHS),
        "residual": hj.theory.stack.residual_comparison(case, alpha, DEPTHS),
        "turn": hj.theory.stack.turn_comparison(case, alpha, PROBE[: layers.shape[-1]], DEPTHS),
    }


def measured(layers, alpha):
    """In NumPy: what the products of residual layers keep, and the angle by which re-centred layers turn the probe."""
    n = layers.shape[-1]
    p, start = oracles.centring(n), oracles.centring(n) @ PROBE[:n]
    product, x, kept, turned = np.eye(n), start, [], []
    for layer, share in zip(
        np.moveaxis(layers, 1, 0), np.broadcast_to(alpha, layers.shape[1]), strict=True
    ):
        r = (1 - share) * np.eye(n) + share * layer
        product, x = r @ product, (p @ r @ np.broadcast_to(x, (len(r), n))[..., None])[..., 0]
        kept.append(oracles.sigma2(product))
        turned.append(
            np.arccos(
                np.clip(x @ start / np.linalg.norm(x, axis=-1) / np.linalg.norm(start), -1, 1)
            )
        )
    return np.stack(kept, 1), np.stack(turned, 1)


@pytest.mark.parametrize(
    ("kind", "alpha"),
    [("converged", 0.2), ("truncated", 0.2), ("converged", np.linspace(0.3, 0, 6))],
)
def test_laws_of_a_stack_compare_products_and_sums_with_what_the_stack_does(kind, alpha):
    layers = stacks(kind)
    sigma2, comparisons = oracles.sigma2(layers), compare_stack(layers, alpha)
    kept, turned = measured(layers, alpha)
    for name, lesser, greater in [
        ("product", measured(layers, 1.0)[0], np.cumprod(sigma2, 1)),
        ("residual", kept, np.cumprod(1 - alpha + alpha * sigma2, 1)),
        ("turn", turned, np.cumsum(np.arcsin(alpha / (1 - alpha) * sigma2), 1)),
    ]:
        np.testing.assert_allclose(comparisons[name].greater, greater, rtol=1e-12)
        np.testing.assert_allclose(
            comparisons[name].lesser, lesser, atol=1e-7 if name == "turn" else 1e-12
        )  # arccos near 1
        assert np.asarray(comparisons[name].applies)[
            :, 1:
        ].all()  # and where a last layer has α = 0


def test_laws_of_a_stack_are_asked_at_the_depths_that_are_given():
    case, some = hj.theory.stack.stack_case(stacks("converged")[0]), np.array([5, 2])
    for law in (
        hj.theory.stack.product_comparison,
        partial(hj.theory.stack.residual_comparison, alpha=0.3),
        partial(hj.theory.stack.turn_comparison, alpha=0.3, probe=PROBE),
    ):
        for field, whole in zip(
            jax.jit(law)(case, depths=some), jax.jit(law)(case, depths=DEPTHS), strict=True
        ):
            np.testing.assert_allclose(field, whole[some - 1], rtol=1e-14)


@pytest.mark.parametrize("kind", ["converged", "truncated"])
@pytest.mark.parametrize("alpha", SHARES)
def test_no_law_of_a_stack_is_ever_called_violated(kind, alpha, dtype):
    for name, comparison in compare_stack(
        stacks(kind).astype(dtype), np.asarray(alpha, dtype)
    ).items():
        verdicts = np.asarray(verdict(comparison))
        assert (verdicts != Verdict.VIOLATED).all() and comparison.margin.dtype == dtype, name
        if kind == "truncated" and name == "product":
            assert (verdicts == Verdict.UNDECIDABLE).any()
        elif kind == "converged" and (name, alpha) != ("turn", 1.0):
            assert (verdicts == Verdict.HOLDS).any(), name


def test_laws_of_a_stack_that_are_attained_are_undecidable_and_violated_when_halved(dtype, rng):
    """Powers of a positive semidefinite matrix, and detail rotations that turn by just arcsin(ασ₂/(1 − α)) a layer."""
    psd = np.array([[oracles.symmetric_psd(rng, 3)] * 6 for _ in range(20)])
    alpha, sigmas = 0.3, rng.uniform(0.3, 0.6, 20)
    phases = np.arccos(-alpha * sigmas / (1 - alpha))
    weights = (1 + 2 * sigmas[:, None] * np.cos(phases[:, None] - 2 * np.pi * np.arange(3) / 3)) / 3
    rotations = np.array([[w[np.subtract.outer(range(3), range(3)) % 3]] * 6 for w in weights])
    assert rotations.min() >= 0
    for layers, names in [(psd, ("product", "residual")), (rotations, ("turn",))]:
        comparisons = compare_stack(layers.astype(dtype), np.asarray(alpha, dtype))
        for name in names:
            comparison = comparisons[name]
            verdicts = np.asarray(verdict(comparison))
            assert (
                np.isin(verdicts, (Verdict.UNDECIDABLE, Verdict.NOT_APPLICABLE)).all()
                and (verdicts == Verdict.UNDECIDABLE).mean() > 0.5
            ), name
            halved = np.asarray(verdict(comparison._replace(greater=comparison.greater / 2)))
            clear = (verdicts == Verdict.UNDECIDABLE) & (np.asarray(comparison.lesser) > 0.1)
            assert clear.any() and (halved[clear] == Verdict.VIOLATED).all(), name


def test_laws_of_a_stack_do_not_apply_where_they_say_nothing():
    layers = stacks("converged")
    none, much = (jax.tree.map(np.asarray, compare_stack(layers, alpha)) for alpha in (0.0, 0.9))
    product = np.asarray(verdict(none["product"]))
    assert (product[:, 0] == Verdict.NOT_APPLICABLE).all() and (
        product[:, 1:] != Verdict.NOT_APPLICABLE
    ).all()
    assert not none["residual"].applies.any() and not none["turn"].applies.any()
    premise_fails = np.cumsum(0.9 * oracles.sigma2(layers) >= 0.1, axis=1) > 0
    assert premise_fails.any() and not much["turn"].applies[premise_fails].any()


def test_weights_that_are_neither_one_nor_one_a_layer_are_refused():
    case = hj.theory.stack.stack_case(stacks("converged")[0])
    for law in (
        hj.theory.stack.residual_comparison,
        partial(hj.theory.stack.turn_comparison, probe=PROBE),
    ):
        with pytest.raises(
            ValueError, match=r"alpha must be a scalar or one a layer, \[6\], got shape \[2\]"
        ):
            law(case, alpha=[0.1, 0.2], depths=DEPTHS)


def test_a_nan_layer_leaves_the_rest_of_its_stack_without_a_verdict():
    layers = stacks("converged").copy()
    layers[:, 2] = np.nan
    for comparison in compare_stack(layers, 0.2).values():
        assert np.isin(
            verdict(comparison)[:, 2:], (Verdict.UNDECIDABLE, Verdict.NOT_APPLICABLE)
        ).all()
        assert not (np.asarray(verdict(comparison))[:, :2] == Verdict.VIOLATED).any()
