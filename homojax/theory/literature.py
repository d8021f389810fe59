"""Claims that the literature disputes, about one matrix or a stack. theory.md §8."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.nn import softmax

from homojax import bounds
from homojax.birkhoff import center, detail, entropy_deficit
from homojax.numerics import norm, sqrt
from homojax.projection.errors import entropy_error
from homojax.spectrum.singular_value import spectral_norm
from homojax.theory.cases.matrix import MatrixCase
from homojax.theory.cases.stack import StackCase
from homojax.theory.claim import Comparison, claim, lambda_for_sigma, predicting, scaled
from homojax.theory.depth import IN_POLYTOPE as STACK_IN_POLYTOPE
from homojax.theory.depth import NON_NEGATIVE as STACK_NON_NEGATIVE
from homojax.theory.matrix import IN_POLYTOPE, PROJECTED, logit_rounding

# ---------------------------------------------------------------- 8.1: what entropy bounds


@claim(
    "8.1",
    name="row_entropy",
    scope="matrix",
    direction="≤",
    statement="‖M − J‖_F ≤ √(cₙΔH), cₙ = (n−2)/((n−1) log(n−1))",
    latex=r"\lVert M - J\rVert_F^2 \le \frac{n-2}{(n-1)\log(n-1)}\,\Delta H",
    source="Diaconis and Saloff-Coste (1996), of each row; theory.md 8.1",
    attained_by="mostly-kept",
    assumptions=(IN_POLYTOPE,),
    mutants={"n + 2 for n": scaled(lambda case: _row_share(case, 2) / _row_share(case, 0))},
)
def row_entropy(case: MatrixCase) -> Comparison:
    """Return law 8.1 (row entropy)."""
    n, deficit = case.matrix.shape[0], entropy_deficit(case.matrix)
    bound, share = bounds.row_entropy_bound(case.matrix), _row_share(case, 0)
    off = entropy_error(n, case.distance)
    least = share * sqrt(jnp.maximum(deficit - off, 0))
    most = share * sqrt(jnp.maximum(deficit, 0) + off)
    margin = jnp.maximum(bound - least, most - bound) + math.sqrt(n) * case.distance
    return Comparison(norm(detail(case.matrix)), bound, margin)


def _row_share(case: MatrixCase, more: int) -> float:
    """Return √c of n + ``more``."""
    n = case.matrix.shape[0] + more
    return math.sqrt((n - 2) / ((n - 1) * math.log(n - 1))) if n > 2 else 1.0


# ---------------------------------------------------------------- 8.2: softmax or Sinkhorn


def _of_softmax(case: MatrixCase) -> tuple[jax.Array, jax.Array]:
    """Return ‖P softmax(S/ε) P‖₂ of rows, and its error."""
    scaled_logits = case.logits / case.epsilon
    off = case.rounding + 4 * logit_rounding(case)
    return spectral_norm(detail(softmax(scaled_logits, axis=1))), off


@claim(
    "8.2",
    name="sinkhorn_forgets_more",
    scope="matrix",
    direction="≤",
    statement="σ₂(M_ε(S)) ≤ ‖P softmax(S/ε) P‖₂: doubly stochastic mixing filters more",
    latex=r"\sigma_2(M_\varepsilon(S)) \le \lVert P\,\mathrm{softmax}(S/\varepsilon)\,P\rVert_2",
    source="arXiv 2601.02080, of one layer at the same logits",
    assumptions=(IN_POLYTOPE, PROJECTED),
    status="refuted",
)
def sinkhorn_forgets_more(case: MatrixCase) -> Comparison:
    """Return law 8.2 (Sinkhorn forgets more), which is false."""
    softened, off = _of_softmax(case)
    return Comparison(case.sigma2, softened, off + 3 * case.distance)


@claim(
    "8.2",
    name="softmax_forgets_more",
    scope="matrix",
    direction="≤",
    statement="‖P softmax(S/ε) P‖₂ ≤ σ₂(M_ε(S)): softmax filters more",
    latex=r"\lVert P\,\mathrm{softmax}(S/\varepsilon)\,P\rVert_2 \le \sigma_2(M_\varepsilon(S))",
    source="arXiv 2604.07925 read of one layer at the same logits",
    assumptions=(IN_POLYTOPE, PROJECTED),
    status="refuted",
)
def softmax_forgets_more(case: MatrixCase) -> Comparison:
    """Return law 8.2 (softmax forgets more), which is false."""
    softened, off = _of_softmax(case)
    return Comparison(softened, case.sigma2, off + 3 * case.distance)


# ---------------------------------------------------------------- 8.3: a low-pass filter


def _wave(n: int, frequency: int, dtype) -> jax.Array:
    """Return a wave of the discrete cosine transform over positions, a unit vector [n]."""
    wave = jnp.cos(math.pi * frequency * (jnp.arange(n) + 0.5) / n).astype(dtype)
    return wave / norm(wave)


@claim(
    "8.3",
    name="low_pass",
    scope="matrix",
    direction="≤",
    statement="‖PM w_{n−1}‖ ≤ ‖PM w_1‖: the highest frequency is kept no better than the lowest",
    latex=r"\lVert P M w_{n-1}\rVert \le \lVert P M w_1\rVert",
    source="arXiv 2601.02080, with the frequencies of the discrete cosine transform",
    assumptions=(IN_POLYTOPE,),
    status="refuted",
)
def low_pass(case: MatrixCase) -> Comparison:
    """Return law 8.3 (low pass), which is false: a matrix knows of no positions."""
    n, dtype = case.matrix.shape[0], case.matrix.dtype
    highest, lowest = (norm(center(case.matrix @ _wave(n, k, dtype))) for k in (n - 1, 1))
    return Comparison(highest, lowest, 2 * case.distance + 4 * case.rounding)


# ---------------------------------------------------------------- 8.4: the identity start


def _steps(case: MatrixCase) -> jax.Array:
    """Return δ of logits that are δ on the diagonal and 0 off it, but for shifts, in units of ε."""
    n = case.logits.shape[0]
    centred = detail(case.logits)
    return jnp.trace(centred) / (n - 1) / case.epsilon


def _is_identity_start(case: MatrixCase) -> jax.Array:
    n, centred = case.logits.shape[0], detail(case.logits)
    meant = jnp.trace(centred) / (n - 1) * (jnp.eye(n, dtype=centred.dtype) - 1 / n)
    return abs(centred - meant).max() <= 8 * n * jnp.finfo(centred.dtype).eps * (
        abs(case.logits).max()
    )


def _kept_of_identity(delta: jax.Array, n: int) -> jax.Array:
    """Return |e^δ − 1|/(e^δ + n − 1), without overflow."""
    low = jnp.exp(-abs(delta))
    return jnp.where(delta > 0, (1 - low) / (1 + (n - 1) * low), (1 - low) / (low + n - 1))


@claim(
    "8.4",
    name="identity_start",
    scope="matrix",
    direction="=",
    statement="logits dI: σ₂ = |e^{d/ε} − 1|/(e^{d/ε} + n − 1)",
    latex=r"\sigma_2(M_\varepsilon(dI)) = "
    r"\frac{|e^{d/\varepsilon} - 1|}{e^{d/\varepsilon} + n - 1}",
    source="M = tI + (1 − t)J; theory.md 8.4",
    attained_by="identity-start",
    assumptions=(
        IN_POLYTOPE,
        PROJECTED,
        ("logits are dI, but for shifts of rows and columns", _is_identity_start),
    ),
    resolution=1e-3,
    mutants={
        "n for n − 1": predicting(
            lambda case, _: _kept_of_identity(_steps(case), case.matrix.shape[0] + 1)
        )
    },
)
def identity_start(case: MatrixCase) -> Comparison:
    """Return law 8.4 (identity start)."""
    n, delta = case.matrix.shape[0], _steps(case)
    off = 3 * case.distance + 4 * n * logit_rounding(case)
    return Comparison(case.sigma2, _kept_of_identity(delta, n), off)


# ---------------------------------------------------------------- 8.5: infinite products


def _gaps(case: StackCase) -> tuple[jax.Array, jax.Array]:
    """Return Σ (1 − σ₂) at every depth, and its error, [D]."""
    off = jnp.cumsum(case.distances)[case.last]
    return jnp.cumsum(1 - case.sigma2)[case.last], off


@claim(
    "8.5",
    name="gap_sum",
    scope="stack",
    direction="≤",
    statement="‖M_l⋯M_1 − J‖₂ ≤ exp(−Σ (1 − σ₂(M_k)))",
    latex=r"\lVert M_l \cdots M_1 - J\rVert_2 \le \exp\Bigl(-\sum_k (1 - \sigma_2(M_k))\Bigr)",
    source="arXiv 2606.24584; 3.1 with log x ≤ x − 1",
    attained_by="permutations",
    assumptions=(STACK_IN_POLYTOPE,),
    mutants={"λ₂ for σ₂": lambda_for_sigma},
)
def gap_sum(case: StackCase) -> Comparison:
    """Return law 8.5 (sum of gaps) at every depth, [D]: with Σ = ∞ a product tends to J."""
    gaps, off = _gaps(case)
    bound = jnp.exp(-gaps)
    return Comparison(case.require("distance"), bound, _moved(case) + bound * jnp.expm1(off))


def _moved(case: StackCase) -> jax.Array:
    """Return how far products may be from those of matrices in 𝔅ₙ, [D]."""
    return (jnp.cumprod(1 + case.distances) - 1)[case.last]


@claim(
    "8.5",
    name="gap_sum_needed",
    scope="stack",
    direction="≥",
    statement="1 − Σ (1 − σ₂(M_k)) ≤ ‖M_l⋯M_1 − J‖₂: only gaps that add up lead to J",
    latex=r"\lVert M_l \cdots M_1 - J\rVert_2 \ge 1 - \sum_k (1 - \sigma_2(M_k))",
    source="the converse of 8.5, as 'converges to J if and only if the gaps diverge'",
    assumptions=(STACK_IN_POLYTOPE,),
    status="refuted",
)
def gap_sum_needed(case: StackCase) -> Comparison:
    """Return law 8.5 (gaps are needed), [D], which is false: de Bruijn's walk has σ₂ = 1."""
    gaps, off = _gaps(case)
    return Comparison(1 - gaps, case.require("distance"), off + _moved(case))


# ---------------------------------------------------------------- 8.6: one marginal


def _rows_sum_to_one(case: StackCase) -> jax.Array:
    return jnp.cumsum(case.row_error)[case.last] <= 0.5


@claim(
    "8.6",
    name="one_marginal",
    scope="stack",
    direction="≤",
    statement="‖M_l⋯M_1‖₂ ≤ √n where rows sum to 1, whatever the columns",
    latex=r"\lVert M_l \cdots M_1\rVert_2 \le \sqrt n",
    source="‖A‖₂² ≤ ‖A‖₁‖A‖_∞, and no column of a product sums to more than n; theory.md 8.6",
    assumptions=(STACK_NON_NEGATIVE, ("rows sum to 1, nearly", _rows_sum_to_one)),
)
def one_marginal(case: StackCase) -> Comparison:
    """Return law 8.6 (one marginal) at every depth, [D]."""
    n = case.matrices.shape[1]
    grown = jnp.cumprod(1 + case.row_error + case.rounding)[case.last]
    bound = jnp.full_like(grown, math.sqrt(n))
    kept = jax.vmap(spectral_norm)(case.require("composites"))
    return Comparison(kept, bound, bound * (grown - 1) + 4 * n * case.rounding)
