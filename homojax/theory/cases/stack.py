"""A stack of matrices and residual weights, as the claims of theory.md §3 and §5 need them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax import spectrum
from homojax.arguments import as_stack
from homojax.birkhoff import birkhoff_distance, detail, marginal_errors
from homojax.decompositions.jacobi import singular_values
from homojax.depth import composite, detail_composite, lyapunov_exponents
from homojax.loops import scan
from homojax.numerics import matmul, rounding
from homojax.programs import compiled
from homojax.residual import residual_bound, residual_matrix
from homojax.theory.cases.turns import prenorm_layer, residual_layer, turned_angles

RETENTION = 0.5  # the share of detail of law 3.2 (effective depth)
CURVE_LAYERS = 8  # law 3.5 (Horn) is asked of so many layers at most: whole curves are long
_NEEDS = {  # measured field -> the arguments that it cannot be measured without
    "composites": (),
    "composite_sigma2": (),
    "distance": (),
    "curve": (),
    "layer_curves": (),
    "residual_sigma2": ("alpha",),
    "power_sigma2": (),
    "half_sigma2": ("lambda2",),
    "turned": ("alpha", "probe"),
    "prenorm_turned": ("alpha", "probe"),
    "exponent": (),
}
MEASURED = tuple(_NEEDS)  # fields of a case that are found by measuring the stack


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class StackCase:
    """A stack of L matrices, layer 1 first, with measurements after D numbers of layers.

    A field that was not measured is None; ``require`` says so.
    """

    depths: tuple[int, ...] = dataclasses.field(metadata={"static": True})  # the D numbers
    matrices: jax.Array  # [L, n, n]
    sigma2: jax.Array  # [L]
    row_error: jax.Array  # [L], max |row sum − 1|
    col_error: jax.Array  # [L], max |column sum − 1|
    lambda2: jax.Array | None = None  # [L]
    alpha: jax.Array | None = None  # [L], the residual weights
    composites: jax.Array | None = None  # [D, n, n], M_l ⋯ M_1
    composite_sigma2: jax.Array | None = None  # [D]
    distance: jax.Array | None = None  # [D], ‖composite − J‖₂
    curve: jax.Array | None = None  # [D, n − 1], the composites' singular values on V⊥
    layer_curves: jax.Array | None = None  # [min(L, 8), n − 1], those of the first layers
    residual_sigma2: jax.Array | None = None  # [D], σ₂ of the composites of R_α
    power_sigma2: jax.Array | None = None  # [D], σ₂(Aˡ), A = PM_1P/σ₂
    half_sigma2: jax.Array | None = None  # [3], σ₂ after ``layers_to_half`` layers
    turned: jax.Array | None = None  # [D], the angle by which the layers R_α turn a probe
    prenorm_turned: jax.Array | None = None  # [D], the same of layers with a normalised branch
    exponent: jax.Array | None = None  # the top Lyapunov exponent of the L layers
    margin: jax.Array | None = None  # [L], of σ₂ of the product of 1 … L layers against Π σ₂
    residual_margin: jax.Array | None = None  # [L], the same of R_α

    def require(self, field: str) -> jax.Array:
        """Return a field.

        Raises:
            ValueError: the case was built without it.
        """
        value = getattr(self, field)
        if value is None:
            raise ValueError(
                f"this claim needs {field}, and the case was built without it: see the arguments "
                "of stack_case"
            )
        return value

    @property
    def last(self) -> jax.Array:
        """The indices of the last layers, [D]."""
        return jnp.asarray(self.depths) - 1

    @property
    def rounding(self) -> float:
        """The absolute error of a norm or a sum of one matrix."""
        return rounding(self.matrices.shape[1], self.matrices.dtype)

    @property
    def distances(self) -> jax.Array:
        """Bounds on ‖M_l − M'‖ for some M' ∈ 𝔅ₙ, rounding included, [L]."""
        return birkhoff_distance(self.row_error, self.col_error) + self.rounding


def claim_depths(num_layers: int) -> tuple[int, ...]:
    """Return the depths at which claims are asked by default: the powers of 2 below L, and L.

    >>> claim_depths(12)
    (1, 2, 4, 8, 12)
    """
    return (*(2**i for i in range(num_layers.bit_length()) if 2**i < num_layers), num_layers)


@compiled("depths", "measured")
def stack_case(
    matrices: ArrayLike,
    *,
    sigma2: ArrayLike,
    lambda2: ArrayLike | None = None,
    alpha: ArrayLike | None = None,
    probe: ArrayLike | None = None,
    depths: Sequence[int] | None = None,
    measured: Sequence[str] = MEASURED,
    composite_sigma2: ArrayLike | None = None,
    residual_sigma2: ArrayLike | None = None,
) -> StackCase:
    """Return the case of a stack of (nearly) doubly stochastic matrices.

    Only what is in ``measured`` is computed, and compiled. Claims decompose nothing.

    Args:
        matrices: [L, n, n], layer 1 first, n ≥ 2.
        sigma2: σ₂ of each, [L].
        lambda2: λ₂ of each, [L].
        alpha: the residual weight in [0, 1], or one for each layer, [L].
        probe: a vector whose detail is followed through the layers, [n].
        depths: the numbers of layers to ask about, from 1 to L; default: ``claim_depths``.
        measured: fields of ``StackCase`` to fill.
        composite_sigma2: that field, [D], where it was found before.
        residual_sigma2: that field, [D], where it was found before.

    Raises:
        ValueError: a shape or a depth does not fit, or a field cannot be measured from these
            arguments.

    >>> matrices = [[[0.75, 0.25], [0.25, 0.75]]] * 3
    >>> case = stack_case(matrices, sigma2=[0.5] * 3, measured=("composite_sigma2",))
    >>> [round(kept, 6) for kept in case.composite_sigma2.tolist()]
    [0.5, 0.25, 0.125]
    """
    matrices = as_stack(matrices)
    dtype, num_layers = matrices.dtype, len(matrices)
    given = {"lambda2": lambda2, "alpha": alpha, "probe": probe}
    arrays = {key: jnp.asarray(x, dtype) for key, x in given.items() if x is not None}
    _require_arguments(measured, arrays)
    if "alpha" in arrays:
        arrays["alpha"] = _weights(arrays["alpha"], num_layers)
    row_error, col_error = jax.vmap(marginal_errors)(matrices)
    case = StackCase(
        depths=_checked(claim_depths(num_layers) if depths is None else depths, num_layers),
        matrices=matrices,
        sigma2=jnp.asarray(sigma2, dtype),
        row_error=row_error,
        col_error=col_error,
        lambda2=arrays.get("lambda2"),
        alpha=arrays.get("alpha"),
    )
    fields = _margins(case, measured)
    for field, layer in (("turned", residual_layer), ("prenorm_turned", prenorm_layer)):
        if field in measured:
            followed = arrays["alpha"], arrays["probe"], case.last
            fields[field] = turned_angles(layer, matrices, *followed)
    if "composites" in measured:
        fields["composites"] = composite(matrices)[case.last]
    if "exponent" in measured:
        fields["exponent"] = lyapunov_exponents(matrices)[0]
    found = {"composite_sigma2": composite_sigma2, "residual_sigma2": residual_sigma2}
    fields |= {name: jnp.asarray(x, dtype) for name, x in found.items() if x is not None}
    fields |= _singular_values(case, [name for name in measured if name not in fields])
    return dataclasses.replace(case, **fields)


def _require_arguments(measured: Sequence[str], arrays: dict[str, Any]) -> None:
    for field in measured:
        if field not in _NEEDS:
            raise ValueError(f"a stack has no {field} to measure; it has {', '.join(MEASURED)}")
        missing = [name for name in _NEEDS[field] if name not in arrays]
        if missing:
            raise ValueError(f"{field} cannot be measured without {' and '.join(missing)}")


def _weights(alpha: jax.Array, num_layers: int) -> jax.Array:
    """Return the residual weight of every layer, [L]."""
    if alpha.shape not in ((), (num_layers,)):
        raise ValueError(
            f"alpha must be a scalar or one a layer, [{num_layers}], got shape {list(alpha.shape)}"
        )
    return jnp.broadcast_to(alpha, num_layers)


def _checked(depths: Sequence[int], num_layers: int) -> tuple[int, ...]:
    depths = tuple(int(depth) for depth in depths)
    if not depths or not all(1 <= depth <= num_layers for depth in depths):
        raise ValueError(f"depths must be from 1 to {num_layers} layers, got {list(depths)}")
    return depths


# ---------------------------------------------------------------- singular values


def layers_to_half(sigma2: jax.Array, lambda2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return three numbers of layers, [3], and whether the stack has so many, [3].

    They are where Π σ₂ is first ≤ ½, one fewer, and where Π λ₂ is first ≤ ½.
    """

    def first(rates):
        below = jnp.cumprod(rates) <= RETENTION
        return jnp.argmax(below) + 1, below.any()

    (layers, reached), (wrong, wrong_reached) = first(sigma2), first(lambda2)
    return jnp.stack([layers, layers - 1, wrong]), jnp.stack([reached, reached, wrong_reached])


def _singular_values(case: StackCase, measured: Sequence[str]) -> dict[str, jax.Array]:
    """Return the fields that are singular values, all from one decomposition."""
    parts = _to_decompose(case, measured)
    if not parts:
        return {}
    together = jnp.concatenate(list(parts.values()))
    whole = {"curve", "layer_curves", "distance"} & set(measured)
    if whole:
        values = jax.vmap(singular_values)(together)
    else:  # the largest on V⊥, which is cheaper to find
        values = jax.vmap(spectrum.sigma2)(together)[:, None]
    ends = [sum(map(len, list(parts.values())[: i + 1])) for i in range(len(parts) - 1)]
    found = dict(zip(parts, jnp.split(values, ends), strict=True))
    # Of whole curves the last value belongs to the mean.
    fields = {name: x[:, :-1] if "curve" in name else x[:, 0] for name, x in found.items()}
    if "curve" in fields:
        fields["composite_sigma2"] = fields["curve"][:, 0]
    return fields


def _to_decompose(case: StackCase, measured: Sequence[str]) -> dict[str, jax.Array]:
    """Return field -> the matrices [·, n, n] whose singular values it has."""
    matrices, last, parts = case.matrices, case.last, {}
    n, dtype = matrices.shape[1], matrices.dtype
    if {"curve", "composite_sigma2", "half_sigma2"} & set(measured):
        details = detail_composite(matrices)
        if "curve" in measured:
            parts["curve"] = details[last]
        elif "composite_sigma2" in measured:
            parts["composite_sigma2"] = details[last]
        if "half_sigma2" in measured:
            after_none = detail(jnp.eye(n, dtype=dtype))[None]
            layers, _ = layers_to_half(case.sigma2, case.require("lambda2"))
            chosen = jnp.concatenate([after_none, details])[layers]
            # Which layers they are is not known where one is not.
            parts["half_sigma2"] = jnp.where(jnp.isnan(matrices).any(), jnp.nan, chosen)
    if "layer_curves" in measured:
        parts["layer_curves"] = jax.vmap(detail)(matrices[:CURVE_LAYERS])
    if "distance" in measured:
        parts["distance"] = composite(matrices)[last] - 1 / n
    if "residual_sigma2" in measured:
        layers = jax.vmap(residual_matrix)(matrices, case.require("alpha"))
        parts["residual_sigma2"] = detail_composite(layers)[last]
    if "power_sigma2" in measured:
        shared = detail(matrices[0]) / jnp.where(case.sigma2[0] > 0, case.sigma2[0], 1)
        with jax.default_matmul_precision("highest"):
            powers = [jnp.linalg.matrix_power(shared, depth) for depth in case.depths]
        parts["power_sigma2"] = jnp.stack(powers)
    return parts


# ---------------------------------------------------------------- margins


def _margins(case: StackCase, measured: Sequence[str]) -> dict[str, jax.Array]:
    """Return the margins of the fields that have one."""
    fields = {}
    if {"curve", "composite_sigma2", "half_sigma2"} & set(measured):
        fields["margin"] = _product_margin(case, case.sigma2, jnp.ones((), case.matrices.dtype))
    if "residual_sigma2" in measured:
        alpha = case.require("alpha")
        factors = residual_bound(case.sigma2, alpha=alpha)
        fields["residual_margin"] = _product_margin(case, factors, alpha)
    return fields


def _product_margin(case: StackCase, factors: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return how far σ₂ of a product of residual layers and Π factors can be off together, [L].

    The norms [[μ, c], [r, σ]] of the blocks of R_α between mean and detail bound those of the
    product, by the product of these 2 × 2 matrices; r and c are the marginal errors. Each side of
    the comparison gets this allowance, for it is no more than that away, in norm, from the product
    of the blocks of detail.
    """
    row, col = alpha * (case.row_error + case.rounding), alpha * (case.col_error + case.rounding)
    distance = alpha * birkhoff_distance(case.row_error, case.col_error) + case.rounding
    blocks = jnp.stack(
        [jnp.stack([1 + row, col], -1), jnp.stack([row, factors + distance], -1)], -2
    )

    def multiply(product, block):
        product = matmul(block, product)
        return product, product[1, 1]

    _, upper = scan(multiply, jnp.eye(2, dtype=factors.dtype), blocks)
    return 2 * (upper - jnp.cumprod(factors))
