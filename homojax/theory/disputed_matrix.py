"""Claims that the literature disputes, about one matrix. theory.md 8.1 to 8.4."""

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
from homojax.theory.claim import Comparison, claim, predicting, scaled
from homojax.theory.matrix import IN_POLYTOPE, PROJECTED, logit_rounding

# ---------------------------------------------------------------- 8.1: what entropy bounds


@claim(
    "8.1",
    name="row_entropy",
    scope="matrix",
    direction="≤",
    statement="‖M − J‖_F ≤ √(cₙΔH), cₙ = (n−2)/((n−1) log(n−1))",
    latex=r"\lVert M - J\rVert_F^2 \le \frac{n-2}{(n-1)\log(n-1)}\,\Delta H",
    source="Kearns and Saul (1998), of each row; theory.md 8.1",
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
    reverse = sinkhorn_forgets_more(case)
    return reverse._replace(lesser=reverse.greater, greater=reverse.lesser)


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
    statement="logits cI: σ₂ = |e^{c/ε} − 1|/(e^{c/ε} + n − 1)",
    latex=r"\sigma_2(M_\varepsilon(cI)) = "
    r"\frac{|e^{c/\varepsilon} - 1|}{e^{c/\varepsilon} + n - 1}",
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
