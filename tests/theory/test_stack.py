"""Claims about stacks: what they compare, never violated, attained, and their mutants caught."""

from functools import partial

import jax
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.theory.cases.stack import MEASURED, claim_depths, stack_case
from homojax.theory.claim import Verdict, mutants_of

N, LAYERS, COUNT = 4, 8, 24
DEPTHS = np.array(claim_depths(LAYERS))
CLAIMS = {name: claim for name, claim in hj.CLAIMS.items() if claim.scope == "stack"}
THEOREMS = {name: claim for name, claim in CLAIMS.items() if claim.status == "theorem"}
REFUTED = set(CLAIMS) - set(THEOREMS)
CENTRING = oracles.centring(N)
SILENT = (Verdict.UNDECIDABLE, Verdict.NOT_APPLICABLE)


def case_of(matrices, sigma2, lambda2, alpha, probe, **options):
    given = {"sigma2": sigma2, "lambda2": lambda2, "alpha": alpha, "probe": probe}
    return stack_case(matrices, **given, **options)


one_case, cases_of = jax.jit(case_of), jax.jit(jax.vmap(case_of))


def judge_all(case):
    return {name: claim.judge(case) for name, claim in CLAIMS.items()}


judge_each = jax.jit(jax.vmap(judge_all))


def judge(cases):
    """Claim -> (comparison, verdicts), as NumPy's arrays."""
    return jax.device_get(judge_each(cases))


@jax.jit
@jax.vmap
def judge_mutants(case):
    return {
        mutant.name: mutant.judge(case)[1]
        for claim in THEOREMS.values()
        for mutant in mutants_of(claim)
    }


# ---------------------------------------------------------------- stacks


def circulant(weights):
    n = weights.shape[-1]
    return weights[..., (np.arange(n)[:, None] - np.arange(n)) % n]


def rotations(sigma, phase):
    """Normal, [K, 4, 4]: rotate and scale the plane of (1, 0, −1, 0) and (0, 1, 0, −1).

    By ``phase``, and by ``sigma`` ≤ ½.
    """
    return circulant(
        (1 + 2 * sigma[:, None] * np.cos(phase[:, None] - np.pi * np.arange(4) / 2)) / 4
    )


def shared(matrices):
    return np.repeat(matrices[:, None], LAYERS, 1)


def stacks_of(rng):
    """name -> (matrices [K, L, n, n], residual weights [K, L], probes [K, n])."""

    def layers(draw):
        return np.array([[draw() for _ in range(LAYERS)] for _ in range(COUNT)])

    def gaussian(num_iters, epsilons):
        return lambda: oracles.alternate(rng.normal(size=(N, N)), rng.choice(epsilons), num_iters)

    def truncated():
        """Row errors from rounding to above 1, either side last."""
        epsilon, steps = rng.choice([0.02, 0.05, 0.2, 1.0]), rng.choice([1, 2, 5, 10, 20])
        last = rng.choice(["rows", "columns"])
        return oracles.alternate(rng.normal(size=(N, N)), epsilon, steps, last)

    def relabelled(matrix):
        p = oracles.permutation(rng, len(matrix))
        return p @ matrix @ p.T

    shares, kept = rng.uniform(0.1, 1, (COUNT, LAYERS)), rng.uniform(0.5, 1, (COUNT, LAYERS))
    two_by_two = np.array([[[[p, 1 - p], [1 - p, p]] for p in row] for row in kept])
    blocks = np.kron(two_by_two, np.full((2, 2), 0.5))  # as 2 × 2: one direction of detail
    word = np.arange(N)
    de_bruijn = 0.5 * (word // 2 == word[:, None] % (N // 2))
    alpha, sigma = rng.uniform(0.1, 0.45, COUNT), rng.uniform(0.3, 0.5, COUNT)
    stacks = {
        "gaussian": layers(gaussian(2000, [0.5, 1.0, 3.0, 20.0])),
        "mixtures": layers(lambda: oracles.permutation_mixture(rng, N, rng.integers(2, 9))),
        "truncated": layers(gaussian(6, [0.1, 0.3, 1.0])),
        "barely projected": layers(gaussian(1, [0.1, 0.3, 1.0])),
        "truncated at any step": layers(truncated),
        "permutations": layers(lambda: oracles.permutation(rng, N)),
        "lazy": np.array([[oracles.lazy_permutation(rng, N, t) for t in row] for row in shares]),
        "isolated": np.array([[oracles.isolated(N, t) for t in row] for row in shares]),
        "blocks": blocks,
        "blocks by quarter": shared(
            np.kron(circulant(np.array([[0.5 + 2**-1.25, 0.5 - 2**-1.25]])), np.full((2, 2), 0.5))
        ),
        "circulant": shared(circulant(rng.dirichlet(np.ones(N), COUNT))),
        "de Bruijn": layers(lambda: relabelled(de_bruijn)),
        "shared de Bruijn": shared(de_bruijn[None]),
        "rotations": shared(rotations(sigma, np.arccos(-alpha * sigma / (1 - alpha)))),
        "rotated branches": shared(rotations(sigma, np.arccos(-alpha / (1 - alpha)))),
        "uniform": shared(np.full((1, N, N), 1 / N)),
    }
    probes = rng.normal(size=(COUNT, N))
    planar = np.array([1, 0, -1, 0]) * np.ones((COUNT, 1))
    by_layer = dict.fromkeys(("gaussian", "mixtures"), rng.uniform(0.1, 0.45, (COUNT, LAYERS)))
    any_alpha = np.repeat(rng.choice([0.1, 0.4, 1.0], COUNT)[:, None], LAYERS, 1)
    by_layer |= dict.fromkeys(("truncated at any step", "permutations"), any_alpha)
    same = np.repeat(alpha[:, None], LAYERS, 1)
    return {
        name: (
            m,
            by_layer.get(name, same)[: len(m)],
            (planar if "rotat" in name else probes)[: len(m)],
        )
        for name, m in stacks.items()
        if (m >= 0).all()
    }


STACKS = stacks_of(np.random.default_rng(5))


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """In float32 where there is time: test_matrix.py has it in fast tests."""
    return np.dtype(request.param)


def arguments(name, dtype=np.float64, matrices=None):
    own, alpha, probe = STACKS[name]
    matrices = own if matrices is None else matrices
    lambda2 = abs(np.linalg.eigvals(CENTRING @ matrices @ CENTRING)).max(-1)
    padded = [
        np.resize(x, (COUNT, *x.shape[1:]))
        for x in (matrices, oracles.sigma2(matrices), lambda2, alpha, probe)
    ]
    return [x.astype(dtype) for x in padded]


def judged(name, dtype=np.float64, matrices=None):
    return judge(cases_of(*arguments(name, dtype, matrices)))


# ---------------------------------------------------------------- both sides


def in_numpy(name):
    """claim -> (lesser, greater), from the stacks alone."""
    stack, alpha, probe = STACKS[name]
    first, sigma2 = stack[:, 0], oracles.sigma2(stack)
    residual = (1 - alpha)[:, :, None, None] * np.eye(N) + alpha[:, :, None, None] * stack

    def products(layers):
        product, every = np.eye(N), []
        for layer in np.moveaxis(layers, 1, 0):
            product = layer @ product
            every.append(product)
        return np.stack(every, 1)[:, DEPTHS - 1]

    def turned(layer):
        x = start = probe @ CENTRING
        angles = []
        for matrix, share in zip(np.moveaxis(stack, 1, 0), alpha.T[..., None], strict=True):
            x = layer(x, (CENTRING @ matrix @ x[..., None])[..., 0], share)
            cosine = (
                (x * start).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(start, axis=-1)
            )
            angles.append(np.arccos(np.clip(cosine, -1, 1)))
        return np.stack(angles, 1)[:, DEPTHS - 1]

    def added(x, branch, share):
        return (1 - share) * x + share * branch

    def normalised(x, branch, share):
        return added(
            x,
            branch * (np.linalg.norm(x, axis=-1) / np.linalg.norm(branch, axis=-1))[:, None],
            share,
        )

    whole, doeblin = products(stack), np.cumprod(1 - N * stack.min((2, 3)), 1)[:, DEPTHS - 1]
    curve, layer_curves = oracles.singular_values(whole), oracles.singular_values(stack)
    horn = np.cumprod(np.cumprod(layer_curves, 1)[:, DEPTHS - 1], -1)
    power = np.stack(
        [
            oracles.sigma2(np.linalg.matrix_power(CENTRING @ first @ CENTRING, d)) ** (1 / d)
            for d in DEPTHS
        ],
        1,
    )
    lambda2 = abs(np.linalg.eigvals(CENTRING @ first @ CENTRING)).max(-1)[:, None]
    bound, ratio = np.cumprod(sigma2, 1), alpha * sigma2 / (1 - alpha)
    half = [
        np.linalg.multi_dot([np.eye(N), *s[: (b > 0.5).sum() + 1][::-1]])
        for s, b in zip(stack, bound, strict=True)
    ]
    turn = np.cumsum(np.arcsin(ratio), 1)[:, DEPTHS - 1]
    return {
        "product": (curve[..., 0], bound[:, DEPTHS - 1]),
        "effective_depth": (oracles.sigma2(np.array(half)), 0.5 + 0 * alpha[:, 0]),
        "lyapunov": (None, bound[:, -1] ** (1 / LAYERS)),
        "shared": (lambda2 + 0 * power, power),
        "shared_limit": (power - lambda2, None),
        "amax_gain": (np.stack([whole.sum(3).max(2), whole.sum(2).max(2)], -1), None),
        "horn": tuple(x ** (1 / np.arange(1, N)) for x in (np.cumprod(curve, -1), horn)),
        "doeblin_composed": (np.linalg.norm(whole - 1 / N, 2, axis=(2, 3)), doeblin),
        "doeblin_frobenius": (np.linalg.norm(whole - 1 / N, axis=(2, 3)), 3**0.5 * doeblin),
        "residual": (
            oracles.sigma2(products(residual)),
            np.cumprod(1 - alpha * (1 - sigma2), 1)[:, DEPTHS - 1],
        ),
        "turn": (turned(added), turn),
        "turn_prenorm": (turned(normalised), turn),
        "turn_prenorm_bound": (
            turned(normalised),
            np.cumsum(np.arcsin(alpha / (1 - alpha)), 1)[:, DEPTHS - 1],
        ),
    }


@pytest.mark.parametrize("name", ["gaussian", "mixtures"])
def test_claims_compare_what_numpy_finds_of_the_stack(name):
    results = judged(name)
    for claim, sides in in_numpy(name).items():
        (lesser, greater, *_), verdicts = results[claim]
        for expected, found in zip(sides, (lesser, greater), strict=True):
            if expected is not None:
                applies = np.asarray(verdicts) != Verdict.NOT_APPLICABLE
                expected, found = (
                    np.broadcast_to(x, verdicts.shape)[applies] for x in (expected, found)
                )
                np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9, err_msg=claim)


def test_the_rate_at_which_a_shared_layer_forgets_is_henricis_sum():
    """Against powers of a matrix with λ on its diagonal and Δ above it."""
    comparison = judged("gaussian")["shared_limit"][0]
    first = STACKS["gaussian"][0][:, 0]
    a = CENTRING @ first @ CENTRING
    radius = abs(np.linalg.eigvals(a)).max(-1)
    departure = (24 / 12) ** 0.25 * np.linalg.norm(
        a.swapaxes(1, 2) @ a - a @ a.swapaxes(1, 2), axis=(1, 2)
    ) ** 0.5
    for i, depth in enumerate(DEPTHS):
        shift = radius[:, None, None] * np.eye(3) + departure[:, None, None] * np.eye(3, k=1)
        words = np.linalg.matrix_power(shift, depth)[:, 0].sum(-1) ** (
            1 / depth
        )  # C(l, k) λ^{l−k} Δᵏ stand in its first row
        np.testing.assert_allclose(comparison.greater[:, i], words - radius, rtol=1e-9, atol=1e-9)


def test_a_half_is_kept_of_so_many_layers_at_most_where_the_bound_reaches_it():
    comparison, verdicts = judged("blocks by quarter")["effective_depth"]
    assert (verdicts == Verdict.UNDECIDABLE).all()  # σ₂⁴ = ½ exactly
    np.testing.assert_allclose(comparison.lesser, 0.5, atol=1e-14)
    assert (comparison.lesser - comparison.greater / 2 > comparison.margin).all()
    assert (judged("permutations")["effective_depth"][1] == Verdict.NOT_APPLICABLE).all()


# ---------------------------------------------------------------- depths, weights, measurements


def test_default_depths_are_the_powers_of_two_and_the_whole_stack():
    assert [claim_depths(layers) for layers in (1, 2, 3, 8)] == [
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 4, 8),
    ]
    for layers in (1, 12):
        shapes = [(2, layers, 3, 3), (2, layers), (2, layers), (2,), (2, 3)]
        arrays = [jax.ShapeDtypeStruct(shape, np.float64) for shape in shapes]
        results = jax.eval_shape(lambda *x: judge_each(cases_of(*x)), *arrays)
        assert results["product"][1].shape == (2, len(claim_depths(layers)))
        assert results["horn"][1].shape == (2, 1 if layers == 1 else 4, 2)


@pytest.mark.slow
def test_claims_are_asked_at_the_depths_that_are_given():
    arrays, whole = arguments("truncated"), judged("truncated")
    some = jax.jit(jax.vmap(lambda *x: case_of(*x, depths=(4, 2))))(*arrays)
    for name, (comparison, verdicts) in judge(some).items():
        (expected, known), by_depth = whole[name], whole[name][1].shape[1:2] == (len(DEPTHS),)
        at = (slice(None), [2, 1]) if by_depth else ()
        np.testing.assert_array_equal(verdicts, np.asarray(known)[at], err_msg=name)
        for field, other in zip(comparison[:3], expected[:3], strict=True):
            np.testing.assert_allclose(field, np.asarray(other)[at], rtol=1e-9, atol=1e-12)


def test_a_case_has_what_was_measured_and_says_what_it_lacks():
    arrays = arguments("gaussian")
    whole = cases_of(*arrays)
    assert all(getattr(whole, field) is not None for field in MEASURED)
    for field in ("composite_sigma2", "residual_sigma2", "turned"):
        some = jax.jit(jax.vmap(partial(case_of, measured=(field,))))(*arrays)
        np.testing.assert_allclose(some.require(field), whole.require(field), rtol=1e-9)
        assert all(getattr(some, other) is None for other in set(MEASURED) - {field})
    with pytest.raises(ValueError, match="needs curve, and the case was built without it"):
        some.require("curve")


def test_a_norm_that_was_found_before_is_taken_as_it_is_with_the_margin_of_a_measured_one():
    options = {"sigma2": [0.5, 0.5], "depths": (1, 2), "measured": ("composite_sigma2",)}
    matrices = [[[0.75, 0.25], [0.25, 0.75]]] * 2
    measured = stack_case(matrices, **options)
    found = stack_case(matrices, composite_sigma2=[0.5, 0.125], **options)
    assert found.composite_sigma2.tolist() == [0.5, 0.125]
    np.testing.assert_array_equal(found.margin, measured.margin)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": [0.1, 0.2]}, r"alpha must be a scalar or one a layer, \[8\], got shape \[2\]"),
        ({"depths": (1, 9)}, r"depths must be from 1 to 8 layers, got \[1, 9\]"),
        ({"depths": (0,)}, "depths must be from 1 to 8 layers"),
        ({"measured": ("turned",), "alpha": 0.5}, "turned cannot be measured without probe"),
        ({"measured": ("half_sigma2",)}, "half_sigma2 cannot be measured without lambda2"),
        ({"measured": ("curves",)}, "a stack has no curves to measure; it has composites"),
    ],
)
def test_a_case_that_cannot_be_is_refused(options, message):
    matrices, sigma2, *_ = (x[0] for x in arguments("gaussian"))
    with pytest.raises(ValueError, match=message):
        stack_case(matrices, **{"sigma2": sigma2, "measured": (), **options})


def test_claims_do_not_apply_where_they_say_nothing():
    matrices, sigma2, lambda2, _, probe = arguments("gaussian")
    shape = (COUNT, LAYERS)
    weights = {"none": np.zeros(shape), "much": np.full(shape, 0.9)}
    weights["last none"] = np.broadcast_to(np.linspace(0.3, 0, LAYERS), shape)
    results = {
        kind: judge(cases_of(matrices, sigma2, lambda2, alpha, probe))
        for kind, alpha in weights.items()
    }
    product = np.asarray(results["none"]["product"][0].applies)
    np.testing.assert_array_equal(product, np.broadcast_to(DEPTHS > 1, product.shape))
    for name in ("residual", "turn"):
        assert not results["none"][name][0].applies.any()
        assert results["last none"][name][0].applies.all()
    fails = (np.cumsum(0.9 * sigma2 >= 0.1, axis=1) > 0)[:, DEPTHS - 1]
    assert fails.any() and not results["much"]["turn"][0].applies[fails].any()


def test_a_layer_far_from_the_polytope_silences_claims_about_members_from_there_on():
    matrices, *rest = arguments("gaussian")
    far = matrices.copy()
    far[:, 3] = arguments("barely projected")[0][:, 3] + np.eye(N)
    before, after = judged("gaussian"), judge(cases_of(far, *rest))
    for name in ("product", "residual", "horn", "doeblin_composed", "amax_gain", "gain_retention"):
        known, verdicts = np.asarray(before[name][1]), np.asarray(after[name][1])
        np.testing.assert_array_equal(verdicts[:, :2], known[:, :2])
        assert (verdicts[:, 2:] == Verdict.NOT_APPLICABLE).all()


# ---------------------------------------------------------------- no false verdict


@pytest.mark.parametrize("name", STACKS)
def test_no_theorem_about_stacks_is_ever_called_violated(name, dtype):
    for claim, (comparison, verdicts) in judged(name, dtype).items():
        assert claim in REFUTED or (np.asarray(verdicts) != Verdict.VIOLATED).all(), claim
        assert verdicts.dtype == np.int8 and all(x.dtype == dtype for x in comparison[:3]), claim
        assert all(x.shape == verdicts.shape for x in comparison[:3]), claim


def test_every_theorem_about_stacks_is_found_to_hold_on_ordinary_stacks():
    for claim, (_, verdicts) in judged("gaussian").items():
        applies = np.asarray(verdicts) != Verdict.NOT_APPLICABLE
        assert claim in REFUTED or (np.asarray(verdicts)[applies] == Verdict.HOLDS).mean() > 0.5, (
            claim
        )


def test_claims_about_the_polytope_say_nothing_of_a_stack_that_is_far_from_it():
    results = judged("barely projected")
    for name, claim in THEOREMS.items():
        verdicts = np.asarray(results[name][1])
        about_detail = claim.assumptions[0][0].startswith("none")
        assert about_detail or (verdicts == Verdict.NOT_APPLICABLE).mean() > 0.5, name


def test_claims_about_the_polytope_say_nothing_of_a_stack_with_negative_entries():
    signed = 1.3 * np.eye(N) - 0.3 / N + np.zeros((1, LAYERS, N, N))  # sums of 1
    for name, (_, verdicts) in judge(cases_of(*arguments("gaussian", matrices=signed))).items():
        if name in THEOREMS and not THEOREMS[name].assumptions[0][0].startswith("none"):
            assert (np.asarray(verdicts) == Verdict.NOT_APPLICABLE).all(), name


@pytest.mark.parametrize("name", ["truncated", "gaussian"])
def test_margins_cover_the_way_of_a_stack_to_the_polytope(name):
    """Rounding every layer into 𝔅ₙ moves the slack of a claim by less than its margin."""
    matrices = STACKS[name][0]
    rounded = np.array([[oracles.round_to_birkhoff(m) for m in stack] for stack in matrices])
    before, after = judged(name), judged(name, matrices=rounded)
    for claim in (
        "product",
        "horn",
        "doeblin_composed",
        "doeblin_frobenius",
        "residual",
        "amax_gain",
    ):
        (old, verdicts), new = before[claim], after[claim][0]
        moved = abs((new.greater - new.lesser) - (old.greater - old.lesser))
        about = np.asarray(verdicts) != Verdict.NOT_APPLICABLE
        assert about.any() and (moved <= old.margin)[about].all(), claim
        assert name != "truncated" or moved[about].max() > 1e-3, claim


def test_margins_on_the_polytope_are_of_the_order_of_rounding():
    for claim, (comparison, _) in judged("mixtures").items():
        roots = ("shared", "shared_limit", "horn")  # roots of small numbers
        assert np.quantile(comparison.margin, 0.5 if claim in roots else 1.0) < (
            1e-6 if claim in roots else 1e-10
        ), claim


def test_the_curve_of_a_deep_stack_does_not_underflow():
    """Squares of what 60 layers keep of the detail are no float32."""
    n, kept = 4, np.float32(0.25)
    layer = kept * np.eye(n, dtype="float32") + (1 - kept) / np.float32(n)
    case = stack_case(
        np.stack([layer] * 60), sigma2=np.full(60, kept), depths=(1, 60), measured=("curve",)
    )
    np.testing.assert_allclose(case.curve, [[0.25] * 3, [0.25**60] * 3], rtol=1e-4)


def test_a_nan_layer_leaves_a_stack_without_a_verdict():
    matrices, *rest = arguments("gaussian")
    matrices[:, 2] = np.nan
    for claim, (_, verdicts) in judge(cases_of(matrices, *rest)).items():
        verdicts = np.asarray(verdicts)
        late = verdicts[:, 2:] if verdicts.ndim > 1 and not claim.startswith("shared") else verdicts
        assert (
            claim.startswith("shared")
            or np.isin(late, (Verdict.UNDECIDABLE, Verdict.NOT_APPLICABLE)).all()
        ), claim
        assert (verdicts != Verdict.VIOLATED).all() or claim in REFUTED, claim


# ---------------------------------------------------------------- attained, refuted, caught


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("product", "blocks"),
        ("product", "permutations"),
        ("lyapunov", "permutations"),
        ("lyapunov", "lazy"),
        ("shared", "circulant"),
        ("shared", "blocks"),
        ("horn", "lazy"),
        ("rank_composed", "lazy"),
        ("doeblin_composed", "blocks"),
        ("doeblin_frobenius", "permutations"),
        ("residual", "isolated"),
        ("residual", "blocks"),
    ],
)
def test_a_bound_on_stacks_is_attained_then_undecidable_and_violated_when_halved(
    claim, name, dtype
):
    comparison, verdicts = jax.tree.map(np.asarray, judged(name, dtype)[claim])
    applies = verdicts != Verdict.NOT_APPLICABLE
    assert applies.any() and (verdicts[applies] == Verdict.UNDECIDABLE).all()
    apart = abs(comparison.greater - comparison.lesser)[applies].max()
    assert apart < (1e-10 if dtype == np.float64 else 1e-4)
    clear = applies & (comparison.lesser > 0.1)
    violated = comparison.lesser - comparison.greater / 2 > comparison.margin
    assert clear.any() and violated[clear].all()


@pytest.mark.parametrize(
    ("claim", "name"),
    [("turn", "rotations"), ("turn_prenorm_bound", "rotated branches"), ("amax_gain", "mixtures")],
)
def test_a_turn_and_a_gain_are_attained(claim, name):
    """One layer of rotations turns by just the bound, and so do all while the sum is below π."""
    comparison, verdicts = judged(name)[claim]
    apart = abs(comparison.greater - comparison.lesser)
    assert apart[:, :1].max() < 1e-10
    assert apart[np.asarray(verdicts) != Verdict.NOT_APPLICABLE].max() < 1e-9


def test_three_cycles_turn_by_the_bound_at_a_third(rng):
    matrices = np.broadcast_to(np.roll(np.eye(3), 1, 0), (2, 3, 3))
    case = one_case(matrices, np.ones(2), np.ones(2), 1 / 3, rng.normal(size=3))
    claims = [THEOREMS[name] for name in ("turn", "turn_prenorm_bound")]
    for lesser, greater, *_ in jax.jit(lambda case: [c.compare(case) for c in claims])(case):
        np.testing.assert_allclose(lesser, greater, rtol=1e-10)
        np.testing.assert_allclose(greater, np.arange(1, 3) * np.pi / 6, rtol=1e-10)


def test_henricis_rate_is_attained_by_one_layer_of_a_nilpotent_matrix():
    """J + b(detail without a second step in V⊥), n = 3: σ₂ = Δ and λ₂ = 0.

    A de Bruijn walk, n = 4, comes within a factor √2.
    """
    u, v = np.array([1, -1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5
    matrices = np.broadcast_to(1 / 3 + 0.5 * np.outer(u, v), (2, 3, 3))
    assert matrices.min() > 0
    case = one_case(matrices, np.array([0.5, 0.5]), np.zeros(2), 0.3, u)
    comparison = jax.jit(THEOREMS["shared_limit"].compare)(case)
    assert comparison.lesser[0] == pytest.approx(0.5, abs=1e-10) and comparison.greater[
        0
    ] == pytest.approx(0.5, abs=1e-10)
    walk = judged("shared de Bruijn")["shared_limit"][0]
    np.testing.assert_allclose(walk.greater[:, 0] / walk.lesser[:, 0], 2**0.5, rtol=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "mixtures", "lazy"])
def test_normalising_the_branch_breaks_the_bound_on_turns(name, dtype):
    results = judged(name, dtype)
    assert (np.asarray(results["turn_prenorm"][1]) == Verdict.VIOLATED).mean() > 0.05
    (turned, bound), comparison = in_numpy(name)["turn_prenorm"], results["turn_prenorm"][0]
    np.testing.assert_allclose(
        comparison.greater - comparison.lesser,
        bound - turned,
        atol=1e-2 if dtype == np.float32 else 1e-6,
    )


def test_a_branch_of_rounding_alone_refutes_nothing():
    for claim in ("turn_prenorm", "turn_prenorm_bound"):
        assert (np.asarray(judged("uniform")[claim][1]) == Verdict.UNDECIDABLE).all()


def test_a_gain_of_one_does_not_say_that_detail_is_kept():
    for name in ("gaussian", "mixtures", "lazy", "uniform"):
        results = judged(name)
        assert (np.asarray(results["gain_retention"][1])[:, -1] == Verdict.VIOLATED).all()
        assert (np.asarray(results["amax_gain"][1]) == Verdict.HOLDS).all()


@pytest.fixture(scope="module")
def verdicts_on_mutants():
    found = [judge_mutants(cases_of(*arguments(name))) for name in STACKS]
    return {
        mutant: np.concatenate([np.ravel(each[mutant]) for each in found]) for mutant in found[0]
    }


@pytest.mark.parametrize(
    "mutant", [mutant.name for claim in THEOREMS.values() for mutant in mutants_of(claim)]
)
def test_a_wrong_version_of_a_claim_about_stacks_is_found_violated(mutant, verdicts_on_mutants):
    assert (verdicts_on_mutants[mutant] == Verdict.VIOLATED).any()
