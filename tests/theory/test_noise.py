"""Claims about noise hold, their mutants are caught, and chance is never called a violation."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import homojax as hj
import oracles
from homojax.layernorm import cosine_cdf, expected_cosine
from homojax.theory.cases.noise import LEVEL, POWER, noise_case
from homojax.theory.claim import Verdict, mutants_of, tightness
from homojax.theory.detection import CRITICAL_RATE
from homojax.theory.noise import COSINE_RATE, OVERLAP_RATE
from homojax.theory.sampling import distribution_margin, mean_margin

SNRS = np.logspace(-3, 3, 7)
SAMPLED = ("cosine_law", "expected_cosine", "overlap", "critical_power", "layers")
CLAIMS = {name: claim for name, claim in hj.CLAIMS.items() if claim.scope == "noise"}

# All claims and their mutants are judged in many dimensions. Those whose mutant is wrong, or whose
# bound is near, in few dimensions only are judged there, too.
IN_FEW = ("critical_power", "critical_limit", "unit_layer_norm_affine")
FEW, MANY = ("float64", 4, IN_FEW), ("float64", 64)
FURTHER = [("float64", 4), ("float32", 16)]


@cache
def judged(dtype, n, names=tuple(CLAIMS)):
    """Name -> (comparison, verdict) of claims, and name -> verdict of own mutants; each [snr].

    Own mutants are tried where the tests below ask for them alone.
    """

    @jax.jit
    @jax.vmap
    def judge(key, snr):
        case = noise_case(key, n, snr)
        claims = [CLAIMS[name] for name in names]
        wrong = {
            mutant.name: mutant.judge(case)[1]
            for claim in claims
            for mutant in mutants_of(claim)
            if is_own(claim, mutant) and (names is IN_FEW or (dtype, n) == MANY)
        }
        return {claim.name: claim.judge(case) for claim in claims}, wrong

    keys = jax.random.split(jax.random.key(n), len(SNRS))
    return jax.device_get(judge(keys, SNRS.astype(dtype)))


def is_own(claim, mutant):
    return mutant.name.removeprefix(f"{claim.name}: ") in claim.mutants


def where_judged(claim):
    return [FEW, MANY] if claim.name in IN_FEW else [MANY]


@cache
def mutant_verdicts(config):
    """Name -> verdicts; those of the general mutants follow from the claim's own comparison."""
    results, own = judged(*config)

    @jax.jit
    def judge(comparisons):
        verdicts = {}
        for name, comparison in comparisons.items():
            for mutant in mutants_of(CLAIMS[name]):
                if not is_own(CLAIMS[name], mutant):
                    make = mutant.compare.func  # of (the claim's own comparison, case)
                    compare = partial(make, lambda _, known=comparison: known)
                    general = dataclasses.replace(mutant, compare=compare, assumptions=())
                    verdicts[mutant.name] = general.judge(None)[1]
        return verdicts

    return own | jax.device_get(judge({name: sides for name, (sides, _) in results.items()}))


def test_claims_about_noise_have_assumptions_and_all_numbers_of_section_four():
    assert {claim.number for claim in CLAIMS.values()} == {f"4.{k}" for k in range(1, 8)}
    assert all(claim.assumptions for claim in CLAIMS.values())


# ---------------------------------------------------------------- they hold


@pytest.mark.parametrize(
    ("dtype", "n"), [MANY, *(pytest.param(*cell, marks=pytest.mark.slow) for cell in FURTHER)]
)
def test_no_claim_is_violated_and_each_holds_where_it_can(dtype, n):
    for name in CLAIMS:
        comparison, verdicts = judged(dtype, n)[0][name]
        assert (verdicts != Verdict.VIOLATED).all(), name
        assert np.asarray(comparison.margin).dtype == dtype and (comparison.margin > 0).all(), name
        assert (
            verdicts
            == (Verdict.NOT_APPLICABLE if name == "cosine_bound" and n < 6 else Verdict.HOLDS)
        ).any(), name


@pytest.mark.parametrize("n", [64, pytest.param(4, marks=pytest.mark.slow)])
def test_in_double_precision_only_sampling_leaves_a_claim_undecided(n):
    for name in CLAIMS:
        verdicts = judged("float64", n)[0][name][1]
        undecided = (verdicts == Verdict.UNDECIDABLE).any()
        assert not undecided or (n == 4 and name in SAMPLED), name
        assert n == 4 or np.isin(verdicts, (Verdict.HOLDS, Verdict.NOT_APPLICABLE)).all(), name


@pytest.mark.parametrize(
    ("claim", "mutant"),
    [pytest.param(claim, m, id=m.name) for claim in CLAIMS.values() for m in mutants_of(claim)],
)
def test_a_wrong_version_of_a_claim_is_caught(claim, mutant):
    assert any(
        (mutant_verdicts(config)[mutant.name] == Verdict.VIOLATED).any()
        for config in where_judged(claim)
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cosine_floor", 0.999),
        ("cosine_ceiling", 0.999),
        ("critical_limit", 0.999),
        ("unit_rms_norm", 0.99),
        ("unit_layer_norm_affine", 0.9),
        ("cosine_bound", 0.9),
        ("token_layer_norm", 0.8),
        ("token_rms_norm", 0.8),
        ("token_layer_norm_affine", 0.8),
        ("token_rms_norm_affine", 0.8),
        ("cosine_limit", 0.7),
        ("overlap_limit", 0.55),
        ("layers_limit", 0.55),
    ],
)
def test_cases_come_near_to_each_bound(name, near):
    reached = np.nanmax(
        [
            tightness(CLAIMS[name], judged(*config)[0][name][0])
            for config in where_judged(CLAIMS[name])
        ]
    )
    assert near < reached <= 1 + 1e-12


# ---------------------------------------------------------------- chance


@cache
def null(samples=256, count=1000, n=3):
    """Small samples of true laws, and comparisons and verdicts of the claims about samples."""

    @jax.jit
    @jax.vmap
    def judge(key, snr):
        case = noise_case(key, n, snr, num_samples=samples)
        return case, {name: CLAIMS[name].judge(case) for name in SAMPLED}

    snrs = np.append(np.resize([0.0, 0.05, 0.5, 5.0], count), [np.nan, -1.0, np.inf])
    return jax.device_get(judge(jax.random.split(jax.random.key(1), len(snrs)), snrs))


@pytest.mark.slow
def test_a_true_law_is_never_violated_by_chance_and_undecided_with_too_few_samples():
    for _, verdicts in null()[1].values():
        assert (verdicts[:-3] == Verdict.UNDECIDABLE).all()


def test_a_signal_that_is_none_gets_no_verdict():
    for name, (_, verdicts) in null()[1].items():
        assert (
            name == "critical_power"
            or np.isin(verdicts[-3:], (Verdict.UNDECIDABLE, Verdict.NOT_APPLICABLE)).all()
        ), name


@partial(jax.jit, static_argnums=(1, 2))
def margins_of(samples, width, rate):
    return jax.vmap(lambda x: mean_margin(x, width, rate))(samples)


@pytest.mark.parametrize("rate", [0.3, 0.05])
def test_margins_keep_the_false_alarm_rate_that_they_state(rate):
    """At rates that can be seen; and that of the distance is not idle."""
    case, results = null()
    alarms = {"cosine_law": results["cosine_law"][0].lesser > distribution_margin(256, rate)}
    for name, samples in [
        ("expected_cosine", case.cosines),
        ("overlap", case.overlaps),
        ("critical_power", (case.critical_cosines > case.threshold[:, None]).astype(float)),
        ("layers", case.layer_cosines),
    ]:
        comparison, width = results[name][0], 1 if name == "critical_power" else 2
        margin = margins_of(samples, width, rate)
        alarms[name] = abs(comparison.lesser - comparison.greater) > margin
    for name, alarm in alarms.items():
        assert alarm[:-3].sum() <= stats.binom.isf(1e-3, len(alarm) - 3, rate), name
    assert alarms["cosine_law"][:-3].mean() > rate / 10


def test_the_distance_at_a_few_points_is_below_the_supremum_and_near_it():
    case, results = null()
    found = results["cosine_law"][0].lesser
    law = jax.jit(jax.vmap(lambda t, snr, d: cosine_cdf(t, snr=snr, d=d), (0, None, None)))
    for i in range(8):
        exact = stats.kstest(
            case.cosines[i], lambda t, i=i: np.asarray(law(jnp.asarray(t), case.snr[i], 2))
        ).statistic
        assert exact / 2 < found[i] <= exact + 1e-9


def test_the_simulation_is_what_its_fields_say():
    case = null()[0]
    for i in range(4):
        assert abs(case.input_overlap[i] - 0.8) < 1e-12
        assert case.cosines.shape == (1003, 256) and abs(case.cosines[:-3]).max() <= 1
        assert case.critical_snr[i] == pytest.approx(oracles.critical_snr(2, 0.05, 0.95), rel=1e-8)
        ratio = case.threshold[i] / np.sqrt(
            1 - case.threshold[i] ** 2
        )  # √(d − 1) of it is Student's, d − 1 = 1
        assert ratio == pytest.approx(stats.t.isf(0.05, 1), rel=1e-9)


# ---------------------------------------------------------------- constants found by search


def exact_cosine(snr, d):
    kappa = snr * d
    gammas = special.gammaln((d + 1) / 2) - special.gammaln(d / 2 + 1)
    return np.sqrt(kappa / 2) * np.exp(gammas) * special.hyp1f1(0.5, d / 2 + 1, -kappa / 2)


# Outside, ½ · 2 √s (1 + s)^−1.5 is below the constant by itself: it is the proved bound on
# d |E cos θ − limit| (``cosine_range``).
DENSE = np.geomspace(4e-3, 16, 1500)


def test_the_dense_grid_is_where_the_limit_is_not_proved():
    outside = np.concatenate([np.geomspace(1e-9, DENSE[0], 200), np.geomspace(DENSE[-1], 1e9, 200)])
    assert (np.sqrt(outside) / (1 + outside) ** 1.5).max() < COSINE_RATE
    for snr, d in [(4e-3, 2), (1.0, 7), (16.0, 63), (2.5, 1000)]:
        assert exact_cosine(snr, d) == pytest.approx(oracles.expected_cosine(snr, d), rel=1e-9)


def test_constants_of_the_cosine_limits_are_the_least_that_serve():
    limit = np.sqrt(DENSE / (1 + DENSE))
    one, two, layers = [], [], []
    for d in (*range(2, 40), 63, 127, 400):
        cosine = exact_cosine(DENSE, d)
        one.append(d * abs(cosine - limit).max())
        two.append(d * abs(cosine**2 - limit**2).max())
        some = slice(None, None, 10)
        layers.append(
            d * abs(np.outer(cosine[some], cosine[some]) - np.outer(limit[some], limit[some])).max()
        )
    assert 0.999 * COSINE_RATE < max(one) <= COSINE_RATE
    assert 0.999 * OVERLAP_RATE < max(two) <= OVERLAP_RATE
    assert max(layers) <= OVERLAP_RATE


def test_far_from_the_dense_grid_products_of_two_are_within_their_constant_too():
    """|ab − a'b'| ≤ |a − a'| + |b − b'| with one of the two deviations proved to be small."""
    outside = np.concatenate([np.geomspace(1e-6, DENSE[0], 60), np.geomspace(DENSE[-1], 1e6, 60)])
    for d in (2, 3, 4, 16, 63):
        everywhere = np.concatenate([outside, DENSE[::20]])
        cosine, limit = (
            jax.vmap(lambda snr, d=d: expected_cosine(snr, d=d))(everywhere),
            np.sqrt(everywhere / (1 + everywhere)),
        )
        assert d * abs(np.outer(cosine, cosine) - np.outer(limit, limit)).max() <= OVERLAP_RATE


def test_the_constant_of_the_critical_limit_is_that_at_three_dimensions():
    rule = (stats.norm.isf(LEVEL) + stats.norm.ppf(POWER)) ** 2
    scaled = [
        (d - 2) * abs(oracles.critical_snr(d, LEVEL, POWER) * d / rule - 1)
        for d in (*range(3, 40), 63, 200)
    ]
    assert scaled[0] == max(scaled) and 0.999 * CRITICAL_RATE < max(scaled) <= CRITICAL_RATE
    assert scaled[-1] == pytest.approx(stats.norm.isf(LEVEL) ** 2 / 2, rel=0.01)  # what it tends to


@pytest.mark.parametrize("u", [1.0, 2.0, 4.0])
def test_the_finite_bound_holds_by_the_oracle(u):
    for d in (7, 15, 63):
        radius = d - 1 - 2 * np.sqrt((d - 1) * u)
        for snr in (0.0, 1e-3, 0.1, 0.3):
            bound = (np.sqrt(d * snr) + np.sqrt(2 * u)) / np.sqrt(radius) if radius > 0 else np.inf
            assert bound >= 1 or oracles.cosine_cdf(bound, snr, d) >= 1 - 2 * np.exp(-u)
