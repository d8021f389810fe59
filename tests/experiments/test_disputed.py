"""What the experiments on disputed claims compute, beside NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import homojax as hj
from homojax.lab.experiment import run_experiment


def test_products_keep_their_digits_far_below_eps(load):
    rng = np.random.default_rng(0)
    matrices = rng.random((64, 5, 5)) + 20
    matrices /= matrices.sum(2, keepdims=True)
    rules = load("rules")
    kept, tokens = rules.products(jnp.asarray(matrices))
    centring = np.eye(5) - 1 / 5
    product, log_size = centring, 0.0
    for depth, matrix in enumerate(matrices, 1):
        product = centring @ matrix @ product  # a row-stochastic matrix leaks nothing back
        size = np.linalg.norm(product)
        product, log_size = product / size, log_size + np.log10(size)
        if depth not in rules.DEPTHS:
            continue
        at, two = rules.DEPTHS.index(depth), log_size + np.log10(np.linalg.norm(product, 2))
        assert float(kept[at]) == pytest.approx(two, abs=1e-6)
        assert float(tokens[at]) == pytest.approx(log_size - np.log10(2), abs=1e-9)
    assert float(kept[-1]) < -100


def test_tops_apart_moves_entries_within_rows_alone(load):
    logits = np.random.default_rng(1).standard_normal((3, 6, 6))
    apart = load("interventions").with_tops_apart(logits)
    assert (apart.argmax(2) == np.arange(6)).all()
    assert (np.sort(apart, 2) == np.sort(logits, 2)).all()


@pytest.mark.parametrize("count", [6, 9, 24])
def test_the_interval_holds_the_median_as_often_as_it_says(load, count):
    interval = load("collapse").interval
    rank = int(scipy.stats.binom.ppf(0.025, count, 0.5))  # of the first value inside, from 0
    rank -= scipy.stats.binom.cdf(rank, count, 0.5) > 0.025
    _, low, high = interval(np.arange(float(count)))
    assert low == rank and high == count - 1 - rank
    assert 1 - 2 * scipy.stats.binom.cdf(rank, count, 0.5) >= 0.95


def test_five_draws_say_nothing_at_95_percent(load):
    _, low, high = load("collapse").interval(np.arange(5.0))
    assert low == -np.inf and high == np.inf


def test_a_level_diagonal_changes_the_diagonal_alone(load):
    logits = np.random.default_rng(1).standard_normal((3, 6, 6))
    level = load("interventions").with_level_diagonal(logits)
    for i in range(6):
        others = np.delete(logits[:, i], i, axis=1)
        assert (np.delete(level[:, i], i, axis=1) == others).all()
        assert np.allclose(level[:, i, i], others.mean(1))


def test_with_columns_centred_both_rules_agree_to_second_order(load):
    logits = np.random.default_rng(2).standard_normal((1, 6, 6))
    centred = load("interventions").with_columns_centred(logits)
    centring = np.eye(6) - 1 / 6

    def apart(given, epsilon):
        by_softmax = scipy.special.softmax(given[0] / epsilon, axis=-1)
        by_projection = np.asarray(hj.sinkhorn(given[0], epsilon).matrix)
        return np.linalg.norm(centring @ (by_softmax - by_projection) @ centring)

    assert np.allclose(hj.sinkhorn(logits[0], 0.5).matrix, hj.sinkhorn(centred[0], 0.5).matrix)
    assert apart(logits, 100) / apart(logits, 200) == pytest.approx(2**2, rel=0.1)
    assert apart(centred, 100) / apart(centred, 200) == pytest.approx(2**3, rel=0.1)


def row_entropy(matrices):
    return scipy.stats.entropy(np.asarray(matrices), axis=-1).mean()


def detail_size(matrices):
    detail = np.asarray(matrices) - np.asarray(matrices).mean(1, keepdims=True)
    return np.log10(np.linalg.norm(detail, axis=(1, 2))).mean()


@pytest.mark.parametrize(("name", "of"), [("entropy", row_entropy), ("size", detail_size)])
def test_an_even_stack_has_what_the_other_has(load, name, of):
    interventions = load("interventions")
    logits = load("rules").draw("low rank", 6, 0, 16)
    mixed = scipy.special.softmax(logits / 0.6, axis=-1)
    project = jax.jit(jax.vmap(lambda s, e: hj.sinkhorn(s, e).matrix, (0, None)))
    epsilon = scipy.optimize.brentq(lambda e: of(project(logits, e)) - of(mixed), 0.1, 0.6)
    assert 0.1 < epsilon < 0.55
    kept = []
    for matrices in (mixed, np.asarray(project(logits, epsilon))):
        product = np.eye(6) - 1 / 6
        for matrix in matrices:
            product = matrix @ product
            product -= product.mean(0)
        kept.append(np.log10(np.linalg.norm(product, 2)))
    found = interventions.lead_at_even(name, "kept", logits, 0.6)
    assert found == pytest.approx(kept[0] - kept[1], abs=0.01)


@pytest.mark.slow  # with it run collapse, products, cooling and frequencies
def test_literature_runs_and_every_part_has_tables_and_a_figure(load, tmp_path):
    module, out = load("literature"), tmp_path / "out"
    with (tmp_path / "said.txt").open("w") as said:
        section = run_experiment(module.study, "smoke", out, Console(file=said, width=400))
    assert " 0 are violated" in section.text and len(section.tables[0].rows) >= 18
    page = (out / "report.html").read_text()
    for heading in module.PARTS:
        assert heading in page
        assert (out / f"{heading.split(':')[0].lower()}.png").read_bytes()[:4] == b"\x89PNG"


# ---------------------------------------------------------------- products


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(n=st.integers(2, 7), permutations=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_the_fate_is_that_of_the_eigenvalues(load, n, permutations, seed):
    fate = load("products").fate
    rng = np.random.default_rng(seed)
    matrix = np.mean([np.eye(n)[rng.permutation(n)] for _ in range(permutations)], 0)
    eigenvalues = np.linalg.eigvals(matrix)
    lasting = eigenvalues[abs(abs(eigenvalues) - 1) < 1e-9]
    turning = (abs(lasting - 1) > 1e-9).any()
    expected = "cycle" if turning else "J" if len(lasting) == 1 else "groups"
    assert fate(matrix[None])[0] == expected


def test_a_cycle_ends_where_the_period_says(load):
    products = load("products")
    turn = products.permutation(np.roll(np.arange(6), 1))
    assert products.cycle(turn[None]) == 6
    assert products.cycle(np.stack([turn, turn])) == 3
    walk = products.de_bruijn(8)
    assert (
        np.allclose(np.linalg.matrix_power(walk, 3), 1 / 8) and products.fate(walk[None])[0] == "J"
    )
    assert np.linalg.svd(walk, compute_uv=False)[1] == pytest.approx(1)


# ---------------------------------------------------------------- frequencies


def test_waves_are_those_of_the_discrete_cosine_transform(load):
    waves = load("frequencies").waves(8)
    assert np.allclose(waves, scipy.fft.dct(np.eye(8), norm="ortho", axis=0)[1:])


def test_a_kernel_of_one_frequency_keeps_that_frequency(load):
    frequencies = load("frequencies")
    n, k = 12, 5
    waves = frequencies.waves(n)
    logits = 3 * n * np.outer(waves[k - 1], waves[k - 1]) / 20
    gain = np.asarray(frequencies.gains(logits[None], np.ones(1), waves))[0, 0]
    assert gain.argmax() == k - 1
    thirds = np.tile([0.1, 0.5, 0.2], (20, 1))
    assert frequencies.kind(thirds) == "band-pass"
    thirds[:2] = 0.5, 0.1, 0.2  # 90 % are too few
    assert frequencies.kind(thirds) == "none"
