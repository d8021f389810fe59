"""One table of every public core function, with what it is given."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles


def logits(rng, n=4):
    return rng.normal(size=(n, n))


def matrix(rng, n=4):
    return oracles.alternate(logits(rng, n), 0.7, 2)  # not quite doubly stochastic, no ties


def stack(rng):
    return np.array([matrix(rng) for _ in range(3)])


def vector(rng):
    return rng.normal(size=4)


def share(rng):
    return rng.uniform(0.2, 0.8)


KEY = jax.random.key(0)
BOUNDS = [name for name, claim in hj.CLAIMS.items() if claim.number == "2"]


def sides_of(names, case):
    """Lesser and greater sides of claims, as they are judged."""
    return [hj.CLAIMS[name].judge(case)[0][:2] for name in names]


def matrix_and_claims(scaled, epsilon, matrix):
    case = hj.theory.cases.matrix.matrix_case(scaled, epsilon, matrix)
    return case, sides_of(BOUNDS, case)


def stack_and_claims(matrices, alpha, probe):
    case = hj.theory.cases.stack.stack_case(
        matrices,
        sigma2=jax.vmap(hj.sigma2)(matrices),
        alpha=alpha / 4,
        probe=probe,
        depths=(1, 3),
        measured=("composite_sigma2", "residual_sigma2", "turned"),
    )
    margins = {"margin": None, "residual_margin": None}  # they are of the precision
    return replace(case, **margins), sides_of(("product", "residual", "turn"), case)


# name -> (function of arrays alone, one maker for each of them). Every argument is differentiated.
TABLE = {
    "balance": (hj.balance, logits),
    "birkhoff_distance": (hj.birkhoff.birkhoff_distance, share, share),
    "center": (hj.center, vector),
    "circulant": (hj.birkhoff.circulant, vector),
    "detail": (hj.birkhoff.detail, matrix),
    "entropy": (hj.entropy, matrix),
    "entropy_deficit": (hj.entropy_deficit, matrix),
    "excess": (hj.birkhoff.excess, share),
    "isolated_unit": (lambda t: hj.birkhoff.isolated_unit(4, t), share),
    "logit_spread": (hj.birkhoff.logit_spread, logits),
    "marginal_errors": (hj.marginal_errors, matrix),
    "projective_diameter": (hj.birkhoff.projective_diameter, logits),
    "dobrushin_bound": (hj.bounds.dobrushin_bound, matrix),
    "dobrushin_coefficient": (hj.bounds.dobrushin_coefficient, matrix),
    "doeblin_bound": (hj.bounds.doeblin_bound, matrix),
    "frobenius_bounds": (hj.bounds.frobenius_bounds, matrix),
    "hilbert_bound": (hj.bounds.hilbert_bound, logits, share),
    "isolated_unit_frontier": (lambda x: hj.bounds.isolated_unit_frontier(x, n=4), share),
    "logit_budget": (
        lambda r, depth: hj.bounds.logit_budget(retention=r, depth=9 * depth),
        share,
        share,
    ),
    "pinsker_bound": (hj.bounds.pinsker_bound, matrix),
    "row_entropy_bound": (hj.bounds.row_entropy_bound, matrix),
    "schatten_bounds": (lambda m: hj.bounds.schatten_bounds(m, 3), matrix),
    "matrix_case and CLAIMS of §2": (matrix_and_claims, logits, share, matrix),
    "stack_case and CLAIMS of §3 and §5": (stack_and_claims, stack, share, vector),
    "amax_gain": (hj.depth.amax_gain, matrix),
    "composite": (hj.composite, stack),
    "composite_doeblin_bound": (hj.depth.composite_doeblin_bound, stack),
    "detail_composite": (hj.depth.detail_composite, stack),
    "effective_depth": (lambda s, r: hj.effective_depth(s, retention=r), share, share),
    "lyapunov_exponents": (hj.lyapunov_exponents, stack),
    "lyapunov_spectrum": (lambda m: hj.depth.lyapunov_spectrum(m, num_blocks=2), stack),
    "transient_gain": (lambda m: hj.depth.transient_gain(m, 3), matrix),
    "mixing_metrics": (hj.mixing_metrics, stack),
    "measured_depth": (
        lambda x, r: hj.depth.measured_depth(jnp.array([0.9, 0.3, 0.01], x.dtype) * x, retention=r),
        share,
        share,
    ),
    "product_depth": (
        lambda x, r: hj.depth.product_depth(jnp.array([0.9, 0.3, 0.1], x.dtype) * x, retention=r),
        share,
        share,
    ),
    "suppression_ratios": (hj.depth.suppression_ratios, matrix),
    "asymptotic_cosine": (hj.layernorm.asymptotic_cosine, share),
    "cosine_bound": (
        lambda snr, d, u: hj.layernorm.cosine_bound(snr, d=50 * d, u=u),
        share,
        share,
        share,
    ),
    "cosine_cdf": (lambda t, snr: hj.layernorm.cosine_cdf(t, snr=snr, d=9), share, share),
    "cosine_range": (lambda snr, d: hj.layernorm.cosine_range(snr, d=9 * d), share, share),
    "critical_cosine": (lambda level: hj.layernorm.critical_cosine(9, level=level / 3), share),
    "critical_depth": (
        lambda snr, s, p: hj.layernorm.critical_depth(
            100 * snr, sigma2=s, d=50, level=0.1, power=p
        ),
        share,
        share,
        share,
    ),
    "critical_snr": (
        lambda level, power: hj.layernorm.critical_snr(9, level=level / 9, power=power),
        share,
        share,
    ),
    "expected_cosine": (lambda snr, d: hj.layernorm.expected_cosine(snr, d=9 * d), share, share),
    "normalise": (hj.layernorm.normalise, matrix),
    "token_detail_bound": (hj.layernorm.token_detail_bound, logits, share),
    "overlap": (lambda rho, snr: hj.layernorm.overlap(rho, snr=snr), share, share),
    "retained_cosine": (
        lambda s, nu, depth: hj.layernorm.retained_cosine(s, noise_std=nu, d=9, depth=depth),
        share,
        share,
        share,
    ),
    "sample_cosine": (
        lambda x, nu: hj.layernorm.sample_cosine(KEY, x, noise_std=nu, num_samples=5),
        vector,
        share,
    ),
    "signal_to_noise": (hj.layernorm.signal_to_noise, vector, share),
    "PARAMETRIZATIONS": (
        lambda epsilon, *parameters: [
            p.matrix(x, epsilon)
            for p, x in zip(hj.PARAMETRIZATIONS.values(), parameters, strict=True)
        ],
        share,
        *(lambda rng, p=p: rng.normal(size=p.shape(4)) for p in hj.PARAMETRIZATIONS.values()),
    ),
    "PARAMETRIZATIONS of one map": (
        lambda x, epsilon: hj.PARAMETRIZATIONS["softmax"].matrix(x, epsilon),
        logits,
        share,
    ),
    "PRESETS": (
        lambda *parameters: [
            preset.matrix(x) for preset, x in zip(hj.PRESETS.values(), parameters, strict=True)
        ],
        *(lambda rng, p=p: rng.normal(size=p.initial(4).shape) for p in hj.PRESETS.values()),
    ),
    "path_length_bound": (
        lambda rise, ratio: hj.bounds.path_length_bound(rise, log_ratio=ratio, n=4),
        share,
        share,
    ),
    "residual_bound": (lambda s, a: hj.residual.residual_bound(s, alpha=a), share, share),
    "residual_matrix": (hj.residual.residual_matrix, matrix, share),
    "turn_angle": (hj.residual.turn_angle, vector, vector),
    "turn_bound": (lambda s, a: hj.residual.turn_bound(s, alpha=a / 2), share, share),
    "sinkhorn": (hj.sinkhorn, logits, share),
    "sinkhorn alternating": (
        lambda s, e: hj.sinkhorn(s, 1 + e, method="alternating"),
        logits,
        share,
    ),
    "sinkhorn newton": (lambda s, e: hj.sinkhorn(s, 0.3 + e / 9, method="newton"), logits, share),
    "truncated_sinkhorn": (lambda s, e: hj.truncated_sinkhorn(s, e, 3), logits, share),
    "low_rank_logits": (hj.low_rank_logits, matrix, matrix),
    "point_cloud_logits": (hj.point_cloud_logits, matrix, matrix),
    "sinkhorn of factors": (
        lambda q, k, e: hj.sinkhorn(hj.low_rank_logits(q, k), e),
        matrix,
        matrix,
        share,
    ),
    "contraction_gap": (lambda m: hj.contraction_gap(jnp.log(m)), matrix),
    "log_contraction_gap": (lambda m: hj.spectrum.gap.log_contraction_gap(jnp.log(m)), matrix),
    "detail_singular_values": (hj.detail_singular_values, matrix),
    "distance_to_uniform": (hj.spectrum.distance_to_uniform, matrix),
    "lambda2": (hj.lambda2, matrix),
    "sigma2": (hj.sigma2, matrix),
}
# Whole searches, to a tolerance of their own: the tests of calibration have their dtypes, batches
# and derivatives.
SEARCHED = {
    "calibrate_epsilon": (lambda s: hj.calibrate_epsilon(s, 0.5), logits),
    "calibrate_depth": (lambda s: hj.calibrate_depth(s, 0.5, depth=2), logits),
    "epsilon_schedule": (lambda s: hj.epsilon_schedule(s[None], 0.5), logits),
    "sensitivity": (lambda s: hj.sensitivity(s, 0.5), logits),
    "trainable_band": (
        lambda x: hj.calibration.sensitivity.trainable_band(
            1 + jnp.cumsum(abs(x)), gradient_norms=abs(x)
        ),
        vector,
    ),
}
CALLED = {**TABLE, **SEARCHED}

# Of what a test of all functions compiles, these are four fifths. They are made of the others, or
# the tests of their rooms have them under the same transforms.
LONG = {
    "balance",
    "matrix_case and CLAIMS of §2",
    "stack_case and CLAIMS of §3 and §5",
    "schatten_bounds",
    "detail_composite",
    "lyapunov_exponents",
    "lyapunov_spectrum",
    "transient_gain",
    "suppression_ratios",
    "critical_cosine",
    "critical_depth",
    "critical_snr",
    "sample_cosine",
    "PARAMETRIZATIONS",
    "PRESETS",
    "sinkhorn alternating",
    "sinkhorn newton",
    "sinkhorn of factors",
    "contraction_gap",
    "log_contraction_gap",
    "lambda2",
    *(set(SEARCHED) - {"trainable_band"}),
}


def of_every_room(names):
    """Test parameters: each of ``names``, slow if it is long. Every room keeps fast ones."""
    return [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in names]
