"""How much detail a mixing matrix keeps: singular values and eigenvalues of P M P. theory.md §0."""

from homojax.spectrum.eigenvalue import lambda2
from homojax.spectrum.gap import contraction_gap, log_contraction_gap
from homojax.spectrum.singular_value import detail_singular_values, distance_to_uniform, sigma2

__all__ = [
    "contraction_gap",
    "detail_singular_values",
    "distance_to_uniform",
    "lambda2",
    "log_contraction_gap",
    "sigma2",
]
