"""Layer normalisation against noise: it restores the norm of a signal, never its direction.

Setting of theory.md §4: a signal s in V⊥ has dimension d, and every coordinate gets Gaussian noise
of standard deviation ν. Layer norm without affine part centres and projects on the unit sphere of
V⊥. SNR is ‖s‖²/(dν²), and θ is the angle between s and the normalised output.

``cosine`` has the law of cos θ, ``detection`` the SNR and the depth at which a test loses the
signal, ``normalisation`` the norms that networks use, ``kolmogorov`` the distance of simulated
cosines to their law, and ``noncentral_t`` the quadrature below.
"""

from __future__ import annotations

from homojax.layernorm.cosine import (
    asymptotic_cosine,
    cosine_bound,
    cosine_cdf,
    cosine_range,
    expected_cosine,
    overlap,
    retained_cosine,
    sample_cosine,
    signal_to_noise,
)
from homojax.layernorm.detection import critical_cosine, critical_depth, critical_snr
from homojax.layernorm.normalisation import normalise, token_detail_bound

__all__ = [
    "asymptotic_cosine",
    "cosine_bound",
    "cosine_cdf",
    "cosine_range",
    "critical_cosine",
    "critical_depth",
    "critical_snr",
    "expected_cosine",
    "normalise",
    "overlap",
    "retained_cosine",
    "sample_cosine",
    "signal_to_noise",
    "token_detail_bound",
]
