"""What a stack of matrices keeps of detail and how far residual layers turn it, with the error of each law. theory.md §3, §5."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.scipy.special import xlogy
from jax.typing import ArrayLike

from homojax import spectrum
from homojax.birkhoff import birkhoff_distance, center, detail, marginal_errors
from homojax.depth import (
    amax_gain,
    composite,
    composite_doeblin_bound,
    detail_composite,
    lyapunov_exponents,
)
from homojax.numerics import as_stack, matmul, rounding, sqrt
from homojax.residual import residual_bound, residual_matrix, turn_angle, turn_bound
from homojax.theory.claim import Claim, Comparison


class StackCase(NamedTuple):
    """A stack of matrices, layer 1 first, with what the laws of depth need of it."""

    matrices: jax.Array  # [L, n, n]
    sigma2: jax.Array  # [L]
    row_error: jax.Array  # [L]
    col_error: jax.Array  # [L]


def stack_case(matrices: ArrayLike) -> StackCase:
    """Collects what the laws of theory.md §3 and §5 compare, for a stack [L, n, n] of (nearly) doubly stochastic matrices.

    >>> stack_case([[[0.75, 0.25], [0.25, 0.75]]] * 3).sigma2.shape
    (3,)
    """
    matrices = as_stack(matrices)
    return StackCase(
        matrices, jax.vmap(spectrum.sigma2)(matrices), *jax.vmap(marginal_errors)(matrices)
    )


def product_comparison(case: StackCase, depths: ArrayLike) -> Comparison:
    """σ₂(M_l ⋯ M_1) ≤ Π σ₂(M_k) after each number of layers l in ``depths`` [D]; all fields [D]. theory.md 3.1.

    It does not apply at l = 1, where it says nothing.

    >>> comparison = product_comparison(stack_case([[[0.75, 0.25], [0.25, 0.75]]] * 2), [1, 2])
    >>> [round(bound, 6) for bound in comparison.greater.tolist()]
    [0.5, 0.25]
    """
    return residual_comparison(case, 1.0, depths)._replace(applies=jnp.asarray(depths) > 1)


def residual_comparison(case: StackCase, alpha: ArrayLike, depths: ArrayLike) -> Comparison:
    """σ₂ of the product of l layers R_α ≤ Π (1 − α + ασ₂(M_k)), l in ``depths`` [D]; all fields [D]. theory.md 5.1, 3.1.

    Of one residual weight α, or of one a layer, [L]. It does not apply while all are 0, where both sides are 1.

    >>> comparison = residual_comparison(stack_case([[[0.75, 0.25], [0.25, 0.75]]]), 0.5, [1])
    >>> [round(bound, 6) for bound in comparison.greater.tolist()]
    [0.75]
    """
    last = jnp.asarray(depths) - 1
    alpha = _weights(alpha, case.matrices)
    products = detail_composite(_residual_layers(case.matrices, alpha))[last]
    kept = jax.vmap(spectrum.sigma2)(products)
    factors = residual_bound(case.sigma2, alpha=alpha)
    margin = _product_margin(case, factors, alpha)
    return Comparison(kept, jnp.cumprod(factors)[last], margin[last], (jnp.cumsum(alpha) > 0)[last])


def _weights(alpha: ArrayLike, matrices: jax.Array) -> jax.Array:
    """The residual weight of every layer, [L]."""
    alpha = jnp.asarray(alpha, matrices.dtype)
    if alpha.shape not in ((), (len(matrices),)):
        raise ValueError(
            f"alpha must be a scalar or one a layer, [{len(matrices)}], got shape {list(alpha.shape)}"
        )
    return jnp.broadcast_to(alpha, len(matrices))


def _residual_layers(matrices: jax.Array, alpha: jax.Array) -> jax.Array:
    return jax.vmap(residual_matrix)(matrices, alpha)


def turn_comparison(
    case: StackCase, alpha: ArrayLike, probe: ArrayLike, depths: ArrayLike
) -> Comparison:
    """Angle by which l layers R_α turn the detail of ``probe`` [n] ≤ Σ arcsin(ασ₂/(1 − α)), l in ``depths`` [D]. theory.md 5.2.

    All fields [D], radians. Of one residual weight α, or of one a layer, [L]. The detail is re-centred at every layer. It applies
    while every layer has ασ₂ < 1 − α and the sum is below π, and not while all α are 0.

    >>> case = stack_case([[[0.75, 0.25], [0.25, 0.75]]])
    >>> round(float(turn_comparison(case, 0.25, [1.0, -1.0], [1]).greater[0]), 6)  # arcsin ⅙
    0.167448
    """
    last = jnp.asarray(depths) - 1
    alpha, probe = _weights(alpha, case.matrices), jnp.asarray(probe, case.matrices.dtype)
    return _turn_bound_on(
        _turned_by_residuals(case.matrices, alpha, probe)[last], case, alpha, last
    )


def _turn_bound_on(
    turned: jax.Array, case: StackCase | DepthCase, alpha: jax.Array, last: jax.Array
) -> Comparison:
    """``turned`` [D] ≤ the sums of arcsin(ασ₂/(1 − α)) up to the layers ``last`` [D]."""
    error = rounding(case.matrices.shape[1], case.matrices.dtype)
    per_layer = turn_bound(case.sigma2, alpha=alpha)
    shrunk = jnp.maximum(
        1 - alpha - alpha * case.sigma2, error
    )  # a layer may shrink the vector to this, and not its rounding
    margin = jnp.cumsum(turn_bound(case.sigma2 + error, alpha=alpha) - per_layer + error / shrunk)
    bound = jnp.cumsum(per_layer)
    return Comparison(
        turned, bound[last], margin[last], ((jnp.cumsum(alpha) > 0) & (bound < jnp.pi))[last]
    )


def _turned_by_residuals(matrices: jax.Array, alpha: jax.Array, probe: jax.Array) -> jax.Array:
    return _turned(
        lambda x, matrix, alpha: matmul(residual_matrix(matrix, alpha), x), matrices, alpha, probe
    )


def _turned(
    layer: Callable[..., jax.Array], matrices: jax.Array, alpha: jax.Array, probe: jax.Array
) -> jax.Array:
    """The angle between the details of ``probe`` and of what 1 … L layers x -> ``layer(x, matrix, α)`` make of it, [L]."""
    start = center(probe)

    def step(x, of):
        x = center(layer(x, *of))
        x = x / jnp.maximum(abs(x).max(), jnp.finfo(x.dtype).tiny)  # only its direction counts
        return x, turn_angle(start, x)

    return jax.lax.scan(step, start, (matrices, alpha))[1]


def _turned_by_branches(matrices: jax.Array, alpha: jax.Array, probe: jax.Array) -> jax.Array:
    """Of layers x -> (1 − α)x + αF(Mx), with F the rescaling to the norm of x.

    NaN from where the branch is less than √eps of x: next to nothing, it has no direction but that of rounding.
    """
    least = math.sqrt(float(jnp.finfo(matrices.dtype).eps))

    def layer(x, matrix, alpha):
        branch = center(matmul(matrix, x))
        ratio = jnp.linalg.norm(branch) / jnp.linalg.norm(x)
        return (1 - alpha) * x + alpha * branch / jnp.where(ratio > least, ratio, jnp.nan)

    return _turned(layer, matrices, alpha, probe)


def _product_margin(case: StackCase | DepthCase, factors: jax.Array, alpha: jax.Array) -> jax.Array:
    """How far σ₂ of a product of residual layers and Π factors can be off together, [L].

    The norms [[μ, c], [r, σ]] of the blocks of R_α between mean and detail bound those of the product by the product of these
    2 × 2 matrices; r and c are the marginal errors. Each side of the comparison gets this allowance, for the product is by no
    more than that off, in norm, the product of the blocks of detail.
    """
    error = rounding(case.matrices.shape[1], case.matrices.dtype)
    row, col = alpha * (case.row_error + error), alpha * (case.col_error + error)
    distance = alpha * birkhoff_distance(case.row_error, case.col_error) + error
    blocks = jnp.stack(
        [jnp.stack([1 + row, col], -1), jnp.stack([row, factors + distance], -1)], -2
    )

    def multiply(product, block):
        product = matmul(block, product)
        return product, product[1, 1]

    _, upper = jax.lax.scan(multiply, jnp.eye(2, dtype=factors.dtype), blocks)
    return 2 * (upper - jnp.cumprod(factors))


# ---------------------------------------------------------------- the claims of theory.md §3 and §5

_RETENTION = 0.5  # of 3.2
_CURVE_LAYERS = 8  # of 3.5: whole curves of singular values only so deep


class DepthCase(NamedTuple):
    """One stack with what the claims of theory.md §3 and §5 compare; D depths are those of ``claim_depths``."""

    matrices: jax.Array  # [L, n, n]
    sigma2: jax.Array  # [L]
    lambda2: jax.Array  # [L]
    row_error: jax.Array  # [L]
    col_error: jax.Array  # [L]
    alpha: jax.Array  # [L], the residual weights
    composites: jax.Array  # [D, n, n]
    distance: jax.Array  # [D], ‖composite − J‖₂
    curve: jax.Array  # [D, n − 1], the composites' singular values on V⊥
    layer_curves: jax.Array  # [min(L, 8), n − 1], the first layers' own
    residual_sigma2: jax.Array  # [D], σ₂ of the composites of R_α
    power_sigma2: jax.Array  # [D], σ₂(Aˡ), A = PM_1P/σ₂
    half_sigma2: (
        jax.Array
    )  # [3], σ₂ of the composites of as many layers as ``_layers_to_half`` says
    turned: jax.Array  # [D], the angle by which the layers R_α have turned a probe
    prenorm_turned: jax.Array  # [D], by which layers with a normalised branch have
    exponent: jax.Array  # the top Lyapunov exponent of the L layers
    margin: (
        jax.Array
    )  # [L], by how much σ₂ of the product of 1 … L layers and Π σ₂ can be off together
    residual_margin: jax.Array  # [L], the same of R_α


def claim_depths(num_layers: int) -> tuple[int, ...]:
    """The numbers of layers at which the claims about a stack are asked: the powers of 2 below L, and L.

    >>> claim_depths(12)
    (1, 2, 4, 8, 12)
    """
    return (*(2**i for i in range(num_layers.bit_length()) if 2**i < num_layers), num_layers)


def depth_case(
    matrices: ArrayLike, sigma2: ArrayLike, lambda2: ArrayLike, alpha: ArrayLike, probe: ArrayLike
) -> DepthCase:
    """Collects what the claims of theory.md §3 and §5 compare, for a stack of (nearly) doubly stochastic matrices.

    Everything that needs a decomposition is here, in one chain: L factorisations QR, then the singular values of all matrices
    at once. The claims decompose nothing.

    Args:
        matrices: [L, n, n], layer 1 first, n ≥ 2.
        sigma2: [L], σ₂ of each.
        lambda2: [L], λ₂ of each.
        alpha: the residual weight, in (0, 1), or one a layer, [L].
        probe: [n], a vector whose detail is followed through the layers.

    >>> depth_case([[[0.75, 0.25], [0.25, 0.75]]] * 3, [0.5] * 3, [0.5] * 3, 0.3, [1.0, -1.0]).curve.shape
    (3, 1)
    """
    matrices = as_stack(matrices)
    num_layers, n, _ = matrices.shape
    dtype = matrices.dtype
    sigma2, lambda2 = jnp.asarray(sigma2, dtype), jnp.asarray(lambda2, dtype)
    alpha, probe = _weights(alpha, matrices), jnp.asarray(probe, dtype)
    depths = claim_depths(num_layers)
    last = jnp.asarray(depths) - 1

    composites, details = composite(matrices)[last], detail_composite(matrices)
    shared = detail(matrices[0]) / jnp.where(sigma2[0] > 0, sigma2[0], 1)
    with jax.default_matmul_precision("highest"):
        powers = jnp.stack([jnp.linalg.matrix_power(shared, depth) for depth in depths])
    from_none = jnp.concatenate([detail(jnp.eye(n, dtype=dtype))[None], details])
    measured = (
        details[last],
        jax.vmap(detail)(matrices[:_CURVE_LAYERS]),
        composites - 1 / n,
        detail_composite(_residual_layers(matrices, alpha))[last],
        powers,
        from_none[_layers_to_half(sigma2, lambda2)[0]],
    )
    exponent = lyapunov_exponents(matrices)[0]
    # The singular values wait for the exponent: batched LAPACK calls that run side by side can wait for each other for good.
    together = jnp.where(jnp.isnan(exponent), jnp.nan, jnp.concatenate(measured))
    ends = [sum(map(len, measured[: i + 1])) for i in range(len(measured) - 1)]
    curve, layer_curves, distance, residual, power, half = jnp.split(
        jnp.linalg.svd(together, compute_uv=False), ends
    )

    sums = StackCase(matrices, sigma2, *jax.vmap(marginal_errors)(matrices))
    return DepthCase(
        *(matrices, sigma2, lambda2, sums.row_error, sums.col_error, alpha),
        composites=composites,
        distance=distance[:, 0],
        curve=curve[:, :-1],  # the last one belongs to the mean
        layer_curves=layer_curves[:, :-1],
        residual_sigma2=residual[:, 0],
        power_sigma2=power[:, 0],
        half_sigma2=half[:, 0],
        turned=_turned_by_residuals(matrices, alpha, probe)[last],
        prenorm_turned=_turned_by_branches(matrices, alpha, probe)[last],
        exponent=exponent,
        margin=_product_margin(sums, sigma2, jnp.ones((), dtype)),
        residual_margin=_product_margin(sums, residual_bound(sigma2, alpha=alpha), alpha),
    )


def _layers_to_half(sigma2: jax.Array, lambda2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Numbers of layers [3] and whether the stack has them [3]: where Π σ₂ is first ≤ ½, one fewer, and where Π λ₂ is."""

    def first(rates):
        below = jnp.cumprod(rates) <= _RETENTION
        return jnp.argmax(below) + 1, below.any()

    (layers, reached), (wrong, wrong_reached) = first(sigma2), first(lambda2)
    return jnp.stack([layers, layers - 1, wrong]), jnp.stack([reached, reached, wrong_reached])


def _last(case: DepthCase) -> jax.Array:
    return jnp.asarray(claim_depths(len(case.matrices))) - 1


def _rounding(case: DepthCase) -> float:
    return rounding(case.matrices.shape[1], case.matrices.dtype)


def _distances(case: DepthCase) -> jax.Array:
    """‖M_l − M'‖ for some M' ∈ 𝔅ₙ is at most this, rounding included, [L]."""
    return birkhoff_distance(case.row_error, case.col_error) + _rounding(case)


def _product(case: DepthCase) -> Comparison:
    last = _last(case)
    return Comparison(case.curve[:, 0], jnp.cumprod(case.sigma2)[last], case.margin[last], last > 0)


def _half(which: int) -> Callable[[DepthCase], Comparison]:
    def compare(case: DepthCase) -> Comparison:
        layers, reached = (x[which] for x in _layers_to_half(case.sigma2, case.lambda2))
        kept = case.half_sigma2[which]
        return Comparison(
            kept, jnp.full_like(kept, _RETENTION), case.margin[jnp.maximum(layers, 1) - 1], reached
        )

    return compare


def _lyapunov(case: DepthCase) -> Comparison:
    # On the blocks of detail alone: a computed QR is exact for blocks within rounding, and no growth exceeds their norms.
    bound, most = (jnp.exp(jnp.log(case.sigma2 + off).mean()) for off in (0, 2 * _rounding(case)))
    return Comparison(jnp.exp(case.exponent), bound, most - bound + _rounding(case))


def _lyapunov_of_fewer(case: DepthCase) -> Comparison:
    layers, comparison = len(case.matrices), _lyapunov(case)
    return comparison._replace(greater=comparison.greater ** (layers / max(layers - 1, 1)))


def _shared_rate(case: DepthCase) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(l, σ₂(Mˡ)^{1/l}, its error), [D] each, M the first layer. Of PMP, whose powers those are on 𝔅ₙ.

    Both the power and λ₂ are exact for some matrix within rounding of A = PMP/σ₂, of norm 1. The lth power of that is within
    (1 + e)ˡ − 1 of A's, e the rounding in units of σ₂.
    """
    kept, sigma2 = case.power_sigma2, case.sigma2[0]
    depth = (_last(case) + 1).astype(kept.dtype)
    error = jnp.expm1(depth * jnp.log1p(_relative_rounding(case)))
    most, least = (kept + error) ** (1 / depth), jnp.maximum(kept - error, 0) ** (1 / depth)
    return depth, sigma2 * kept ** (1 / depth), sigma2 * (most - least) + _rounding(case)


def _relative_rounding(case: DepthCase) -> jax.Array:
    sigma2 = case.sigma2[0]
    return _rounding(case) / jnp.where(sigma2 > 0, sigma2, 1)


def _shared(case: DepthCase) -> Comparison:
    _, rate, error = _shared_rate(case)
    return Comparison(jnp.full_like(rate, case.lambda2[0]), rate, error)


def _shared_of_fewer(case: DepthCase) -> Comparison:
    depth, rate, error = _shared_rate(case)
    return Comparison(case.lambda2[0] ** (1 - 1 / depth), rate, error)


def _shared_limit(case: DepthCase) -> Comparison:
    # In A = Q(Λ + N)Qᴴ (Schur), the lth power is the sum of all words in Λ and N; those with n − 1 or more N vanish, the others
    # are at most λ₂^{l−k}‖N‖ᵏ. Henrici bounds ‖N‖ by the commutator of A and Aᵀ, which an error of e in A moves by 6e√n.
    n, sigma2, lambda2 = case.matrices.shape[1], case.sigma2[0], case.lambda2[0]
    size = jnp.where(sigma2 > 0, sigma2, 1)
    a = detail(case.matrices[0]) / size
    norm = sqrt(((matmul(a.T, a) - matmul(a, a.T)) ** 2).sum())
    _, rate, error = _shared_rate(case)

    def bound(norm):
        departure = ((n - 1) * ((n - 1) ** 2 - 1) / 12) ** 0.25 * sqrt(norm)
        return sigma2 * _henrici_roots(
            lambda2 / size, departure, claim_depths(len(case.matrices)), n - 1
        )

    most, greater = bound(norm + 6 * math.sqrt(n) * _relative_rounding(case)), bound(norm)
    return Comparison(rate - lambda2, greater - lambda2, most - greater + error)


def _henrici_roots(
    radius: jax.Array, departure: jax.Array, depths: tuple[int, ...], dimension: int
) -> jax.Array:
    """(Σ_{k<d} C(l, k) r^{l−k} Δᵏ)^{1/l} at every depth l, in logarithms."""
    ks = range(min(max(depths), dimension - 1) + 1)
    log_words = [
        [math.log(math.comb(depth, k)) if k <= depth else -math.inf for k in ks] for depth in depths
    ]
    depth, k = jnp.asarray(depths, radius.dtype), jnp.arange(len(ks), dtype=radius.dtype)
    terms = (
        jnp.asarray(log_words, radius.dtype)
        + xlogy(jnp.maximum(depth[:, None] - k, 0), radius)
        + xlogy(k, departure)
    )
    return jnp.exp(logsumexp(terms, axis=1) / depth)


def _gain(case: DepthCase) -> Comparison:
    # Entries are not negative: the sums of a product lie between the products of the least and of the largest sums.
    gain = jnp.stack(jax.vmap(amax_gain)(case.composites), -1)
    off = (
        jnp.cumprod(1 + jnp.maximum(case.row_error, case.col_error) + _rounding(case))[_last(case)]
        - 1
    )
    return Comparison(gain, jnp.ones_like(gain), jnp.stack([off, off], -1))


def _gain_retains(case: DepthCase) -> Comparison:
    gain, kept, off = _gain(case), case.curve[:, 0], case.margin[_last(case)]
    return Comparison(gain.lesser, jnp.stack([kept, kept], -1), gain.margin + off[:, None])


def _horn(total: Callable[[jax.Array], jax.Array]) -> Callable[[DepthCase], Comparison]:
    """Compares exp of ``total`` of the logarithms of singular values, [..., n − 1] -> [..., n − 1]."""

    def compare(case: DepthCase) -> Comparison:
        last = jnp.asarray(
            [
                depth - 1
                for depth in claim_depths(len(case.matrices))
                if depth <= len(case.layer_curves)
            ]
        )
        off = case.margin[last][:, None]

        def kept(error):
            return jnp.exp(total(jnp.log(jnp.maximum(case.curve[: len(last)] + error, 0))))

        def bound(error):
            return jnp.exp(
                total(jnp.cumsum(jnp.log(jnp.maximum(case.layer_curves + error, 0)), 0)[last])
            )

        margin = kept(off) - kept(-off) + bound(_rounding(case)) - bound(-_rounding(case))
        return Comparison(kept(0), bound(0), margin, (last > 0)[:, None])

    return compare


def _of_first(logs: jax.Array) -> jax.Array:
    """The mean over the first 1 … n − 1."""
    return jnp.cumsum(logs, -1) / jnp.arange(1, logs.shape[-1] + 1)


def _doeblin(case: DepthCase) -> Comparison:
    # M'_l ∈ 𝔅ₙ within the distances: no entry moves by more than that, nor the product by more than Π (1 + distance) − 1.
    n, distances, last = case.matrices.shape[1], _distances(case), _last(case)
    bound = composite_doeblin_bound(case.matrices)
    factors = abs(1 - n * case.matrices.min((1, 2))) + n * distances
    margin = jnp.cumprod(factors) - bound + jnp.cumprod(1 + distances) - 1
    return Comparison(case.distance, bound[last], margin[last])


def _doeblin_of_more(case: DepthCase) -> Comparison:
    n = case.matrices.shape[1]
    return _doeblin(case)._replace(
        greater=jnp.cumprod(1 - (n + 1) * case.matrices.min((1, 2)))[_last(case)]
    )


def _doeblin_frobenius(less: int) -> Callable[[DepthCase], Comparison]:
    def compare(case: DepthCase) -> Comparison:
        n, (_, bound, margin, _) = case.matrices.shape[1], _doeblin(case)
        norm = sqrt(((case.composites - 1 / n) ** 2).sum((1, 2)))
        return Comparison(norm, math.sqrt(n - less) * bound, math.sqrt(n) * margin)

    return compare


def _residual(case: DepthCase) -> Comparison:
    last = _last(case)
    factors = residual_bound(case.sigma2, alpha=case.alpha)
    return Comparison(case.residual_sigma2, jnp.cumprod(factors)[last], case.residual_margin[last])


def _residual_exchanged(case: DepthCase) -> Comparison:
    factors = residual_bound(case.sigma2, alpha=1 - case.alpha)
    return _residual(case)._replace(greater=jnp.cumprod(factors)[_last(case)])


def _turn(case: DepthCase) -> Comparison:
    return _turn_bound_on(case.turned, case, case.alpha, _last(case))


def _turn_undivided(case: DepthCase) -> Comparison:
    return _turn(case)._replace(
        greater=jnp.cumsum(jnp.arcsin(jnp.clip(case.alpha * case.sigma2, 0, 1)))[_last(case)]
    )


def _turn_of_fewer(case: DepthCase) -> Comparison:
    sums = jnp.cumsum(turn_bound(case.sigma2, alpha=case.alpha))
    return _turn(case)._replace(
        greater=jnp.concatenate([jnp.zeros_like(sums[:1]), sums])[_last(case)]
    )


def _turn_prenorm(case: DepthCase) -> Comparison:
    # What is computed is exact for matrices within rounding: 5.2's margin is for that.
    return _turn_bound_on(case.prenorm_turned, case, case.alpha, _last(case))


def _turn_prenorm_bound(case: DepthCase) -> Comparison:
    # Any branch of the input's norm turns by this at most, as if σ₂ were 1.
    return _turn_prenorm(case._replace(sigma2=jnp.ones_like(case.sigma2)))


def _lambda_for_sigma(
    compare: Callable[[DepthCase], Comparison],
) -> tuple[str, Callable[[DepthCase], Comparison]]:
    return "λ₂ for σ₂", lambda case: compare(case._replace(sigma2=case.lambda2))


def _members(case: DepthCase) -> jax.Array:
    """No entry negative, and near enough to 𝔅ₙ for a margin to mean anything."""
    _, n, _ = case.matrices.shape
    return (_distances(case) < 0.5).all() & (
        case.matrices.min() >= -rounding(n, case.matrices.dtype)
    )


def _non_negative(case: DepthCase) -> jax.Array:
    return case.matrices.min() >= 0


_IN_POLYTOPE = ("every M_l ∈ 𝔅ₙ, but for its marginal errors", _members)
_NON_NEGATIVE = ("no entry is negative", _non_negative)
_OF_DETAIL = ("none: a fact about PMP", lambda case: True)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "3.1",
        "product",
        "σ₂(M_l⋯M_1) ≤ Π σ₂(M_k)",
        r"\sigma_2(M_l \cdots M_1) \le \prod_k \sigma_2(M_k)",
        "submultiplicativity; theory.md 3.1",
        "stack",
        "≤",
        _product,
        (_IN_POLYTOPE,),
        attained_by="two-by-two",
        mutants=(_lambda_for_sigma(_product),),
    ),
    Claim(
        "3.2",
        "effective_depth",
        "at the first l ≥ log ρ/log σ̄, σ̄ the geometric mean of σ₂, at most ρ = ½ is kept",
        r"l \ge \frac{\log\rho}{\log\bar\sigma_2} \implies \sigma_2(M_l \cdots M_1) \le \rho",
        "theory.md 3.2, from 3.1",
        "stack",
        "≤",
        _half(0),
        (_IN_POLYTOPE,),
        attained_by="two-by-two",
        mutants=(("one layer fewer", _half(1)), ("λ₂ for σ₂", _half(2))),
    ),
    Claim(
        "3.3",
        "lyapunov",
        "exp of the top Lyapunov exponent ≤ the geometric mean of σ₂, at every L",
        r"e^{\lambda_1} \le \Bigl(\prod_l \sigma_2(M_l)\Bigr)^{1/L}",
        "Furstenberg and Kesten (1960), Benettin et al. (1980); theory.md 3.3",
        "stack",
        "≤",
        _lyapunov,
        (_OF_DETAIL,),
        attained_by="two-by-two",
        mutants=(_lambda_for_sigma(_lyapunov), ("L − 1 for L", _lyapunov_of_fewer)),
    ),
    Claim(
        "3.3",
        "shared",
        "λ₂ ≤ σ₂(Mˡ)^{1/l}, one M in every layer",
        r"\lambda_2^{\,l} \le \sigma_2(M^l)",
        "Gelfand (1941); theory.md 3.3",
        "stack",
        "≥",
        _shared,
        (_OF_DETAIL,),
        attained_by="circulant",
        mutants=(
            ("σ₂ for λ₂", lambda case: _shared(case._replace(lambda2=case.sigma2))),
            ("l − 1 for l", _shared_of_fewer),
        ),
    ),
    Claim(
        "3.3",
        "shared_limit",
        "σ₂(Mˡ)^{1/l} − λ₂ → 0, as fast as (Σ_{k<n−1} C(l,k) λ₂^{l−k} Δᵏ)^{1/l} − λ₂, Δ the departure from normality",
        r"\sigma_2(M^l) \le \sum_{k<n-1} \binom{l}{k} \lambda_2^{\,l-k} \Delta^k,\quad "
        r"\Delta^4 = \tfrac{(n-1)^3-(n-1)}{12} \lVert A^\top A - A A^\top\rVert_F^2,\ A = PMP",
        "Henrici (Numer. Math. 4, 1962); Gelfand (1941)",
        "stack",
        "→",
        _shared_limit,
        (_OF_DETAIL,),
    ),
    Claim(
        "3.4",
        "amax_gain",
        "the composite's largest absolute row and column sums are 1",
        r"\lVert M_l \cdots M_1\rVert_\infty = \lVert M_l \cdots M_1\rVert_1 = 1",
        "theory.md 3.4; the gain is that of arXiv 2512.24880",
        "stack",
        "=",
        _gain,
        (_IN_POLYTOPE, _NON_NEGATIVE),
        attained_by="gaussian",
        resolution=1e-3,
    ),
    Claim(
        "3.4",
        "gain_retention",
        "amax gain ≤ σ₂ of the composite: a gain of 1 says that detail is kept",
        r"\lVert M_l \cdots M_1\rVert_\infty \le \sigma_2(M_l \cdots M_1)",
        "the gain read as a measure of collapse; theory.md 3.4",
        "stack",
        "≤",
        _gain_retains,
        (_IN_POLYTOPE, _NON_NEGATIVE),
        attained_by="permutations",
        status="refuted",
    ),
    Claim(
        "3.5",
        "horn",
        "Π_{i≤k} σ_i(M_l⋯M_1) ≤ Π_l Π_{i≤k} σ_i(M_l) on V⊥, k = 1 … n − 1; as geometric means",
        r"\prod_{i \le k} \sigma_{i+1}(M_l \cdots M_1) \le \prod_{m \le l} \prod_{i \le k} \sigma_{i+1}(M_m)",
        "Horn (1950)",
        "stack",
        "≤",
        _horn(_of_first),
        (_IN_POLYTOPE,),
        attained_by="lazy-permutation",
        mutants=(("each σ_k for the product of the first k", _horn(lambda logs: logs)),),
    ),
    Claim(
        "3.6",
        "doeblin_composed",
        "‖M_l⋯M_1 − J‖₂ ≤ Π (1 − n min M_k)",
        r"\lVert M_l \cdots M_1 - J\rVert_2 \le \prod_k (1 - n \min_{ij} M_{k,ij})",
        "Doeblin (1937); theory.md 3.6",
        "stack",
        "≤",
        _doeblin,
        (_IN_POLYTOPE,),
        attained_by="two-by-two",
        mutants=(("n + 1 for n", _doeblin_of_more),),
    ),
    Claim(
        "3.6",
        "doeblin_frobenius",
        "‖M_l⋯M_1 − J‖_F ≤ √(n−1) Π (1 − n min M_k)",
        r"\lVert M_l \cdots M_1 - J\rVert_F \le \sqrt{n-1} \prod_k (1 - n \min_{ij} M_{k,ij})",
        "Doeblin (1937); theory.md 3.6, where √n stands for √(n − 1)",
        "stack",
        "≤",
        _doeblin_frobenius(1),
        (_IN_POLYTOPE,),
        attained_by="permutations",
        mutants=(("n − 2 for n − 1", _doeblin_frobenius(2)),),
    ),
    Claim(
        "5.1",
        "residual",
        "σ₂ of l layers R_α = (1 − α)I + αM ≤ Π (1 − α + ασ₂(M_k))",
        r"\sigma_2(R_{\alpha,l} \cdots R_{\alpha,1}) \le \prod_k (1 - \alpha + \alpha\sigma_2(M_k))",
        "theory.md 5.1, 3.1",
        "stack",
        "≤",
        _residual,
        (_IN_POLYTOPE,),
        attained_by="hypercube",
        mutants=(_lambda_for_sigma(_residual), ("α and 1 − α exchanged", _residual_exchanged)),
    ),
    Claim(
        "5.2",
        "turn",
        "l layers R_α turn a detail vector by at most Σ arcsin(ασ₂/(1 − α))",
        r"\angle(x, R_{\alpha,l} \cdots R_{\alpha,1} x) \le \sum_k \arcsin\frac{\alpha\sigma_2(M_k)}{1-\alpha}",
        "theory.md 5.2",
        "stack",
        "≤",
        _turn,
        (_OF_DETAIL,),
        attained_by="cyclic",  # at n = 3, α = ⅓: any rotation of detail with cosine −ασ₂/(1 − α)
        mutants=(
            _lambda_for_sigma(_turn),
            ("arcsin(ασ₂) for arcsin(ασ₂/(1−α))", _turn_undivided),
            ("L − 1 for L", _turn_of_fewer),
        ),
    ),
    Claim(
        "5.3",
        "turn_prenorm",
        "5.2's bound survives a branch that is normalised: (1 − α)x + αF(Mx), F(y) = ‖x‖y/‖y‖",
        r"\angle(x, (1-\alpha)x + \alpha\lVert x\rVert Mx/\lVert Mx\rVert) \le \arcsin\frac{\alpha\sigma_2}{1-\alpha}",
        "5.2 carried over to pre-norm branches; theory.md 5.3",
        "stack",
        "≤",
        _turn_prenorm,
        (_OF_DETAIL,),
        attained_by="permutations",
        status="refuted",
    ),
    Claim(
        "5.3",
        "turn_prenorm_bound",
        "l layers (1 − α)x + αF(Mx), F(y) = ‖x‖y/‖y‖, turn a detail vector by at most l arcsin(α/(1 − α))",
        r"\angle(x, x_l) \le l \arcsin\frac{\alpha}{1-\alpha}",
        "theory.md 5.3: 5.2 with σ₂ = 1, whatever M is",
        "stack",
        "≤",
        _turn_prenorm_bound,
        (_OF_DETAIL,),
        attained_by="cyclic",
    ),
)
