"""What is proved of every token: no token crosses it, and near the edge there are tokens."""

import itertools

import numpy as np
import pytest

import recipes
from homojax.lab.audit.certificates import bounded, certify
from homojax.lab.audit.ellipsoid import cuts, cycles, ellipsoid_of, rectangles
from homojax.lab.audit.layers import Layer
from homojax.lab.audit.tensors import Precision
from homojax.lab.audit.worst import largest_sum_errors, smallest_gaps
from homojax.presets import PRESETS

SLOW = pytest.mark.slow
EXACT = Precision("float64", 0.0)
ALTERNATING = ["deepseek-v4", "magi-2", "mhc-paper", "tokenbender", "lucidrains"]


def drawn(rng, preset, n=4, reach=None):
    """A layer with random parameters, and its Φ [p, nC]; ``reach`` is how far logits may go."""
    features = int(rng.integers(2, 9))
    shape = {"kromhc": (int(np.log2(n)), 2), "mhc-lite": (24,)}.get(preset, (n, n))
    size = int(np.prod(shape))
    epsilon = PRESETS[preset].epsilon
    phi = rng.normal(size=(size, n * features)) * rng.choice([1.0, 0.2], (size, 1))
    radius = (n * features) ** 0.5
    reach = 10 ** rng.uniform(-2, 1.3) if reach is None else reach
    scale = epsilon * reach / radius / np.sqrt((phi**2).sum(1)).max()
    base = epsilon * rng.uniform(0, 3) * rng.normal(size=shape)
    if shape == (n, n):
        base += epsilon * rng.uniform(0, 6) * np.eye(n)[rng.permutation(n)]
    layer = Layer(
        name="h.0.attn",
        number=0,
        site="attention",
        layout="by hand",
        preset=PRESETS[preset],
        base=base,
        base_precision=EXACT,
        scale=scale,
        gram=phi @ phi.T,
        fn_precision=EXACT,
        n=n,
        features=features,
    )
    return layer, phi


def tokens(rng, layer, phi, count):
    """Parameters of tokens: in the ball, on its edge, and where single directions are farthest."""
    u = rng.normal(size=(count, phi.shape[1]))
    u[::3] = (rng.choice([-1, 1], (len(u[::3]), len(phi))) * rng.random((1, len(phi))) ** 4) @ phi
    norms = np.sqrt((u**2).sum(1, keepdims=True))
    lengths = np.where(np.arange(count) % 4 == 1, rng.random(count), 1.0)
    u = u / norms * layer.radius * lengths[:, None]
    return layer.base.reshape(-1) + layer.scale * u @ phi.T


def as_run(layer, parameters):
    """The matrices that a code makes of parameters [tokens, p], by NumPy alone."""
    make = recipes.CODES[layer.preset.name]
    parameters = parameters.reshape(-1, *layer.base.shape)
    if layer.preset.num_iters is not None:
        return make(parameters)
    return np.stack([make(one) for one in parameters])


def converged(layer, parameters):
    """The limits of the alternations, [tokens, n, n], and which of them were reached."""
    n = layer.n
    s = parameters.reshape(-1, n, n) / layer.preset.epsilon
    s = s.swapaxes(1, 2) if layer.preset.orientation == "inputs-first" else s
    for _ in range(600):
        s = s - np.logaddexp.reduce(s, 1, keepdims=True)
        s = s - np.logaddexp.reduce(s, 2, keepdims=True)
    m = np.exp(s)
    return m, abs(m.sum(1) - 1).max(1) < 1e-12


def sigma2(matrices):
    centred = matrices - matrices.mean(1, keepdims=True)
    centred = centred - centred.mean(2, keepdims=True)
    return np.linalg.svd(centred, compute_uv=False)[:, 0]


def sum_errors(matrices):
    return np.maximum(abs(matrices.sum(1) - 1).max(1), abs(matrices.sum(2) - 1).max(1))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("preset", ALTERNATING)
def test_no_token_of_thousands_of_layers_crosses_what_is_certified(rng, preset):
    for _ in range(2_000):
        layer, phi = drawn(rng, preset)
        proved, run = certify(layer), as_run(layer, tokens(rng, layer, phi, 1_000))
        assert sigma2(run).max() <= proved.sigma2 + 1e-9
        assert run.min() >= proved.least_run - 1e-15
        assert sum_errors(run).max() <= proved.sum_error + 1e-12


@pytest.mark.parametrize("preset", [*ALTERNATING, "kromhc", "mhc-lite"])
def test_no_token_crosses_what_is_certified(rng, preset):
    for _ in range(12):
        layer, phi = drawn(rng, preset)
        proved, parameters = certify(layer), tokens(rng, layer, phi, 120)
        run = as_run(layer, parameters)
        assert sigma2(run).max() <= proved.sigma2 + 1e-9
        assert run.min() >= proved.least_run - 1e-15
        assert sum_errors(run).max() <= proved.sum_error + 1e-12
        if preset in ALTERNATING:
            limits, reached = converged(layer, parameters)
        else:
            limits, reached = run, np.ones(len(run), bool)
        limits = limits[reached]
        assert (limits >= proved.least - 1e-9).all() and (limits <= proved.largest + 1e-9).all()
        assert ((1 - sigma2(limits)) >= proved.gap - 1e-8).all()
        uniform = np.sqrt(((limits - 1 / layer.n) ** 2).sum((1, 2)))
        assert (uniform <= proved.dist_to_uniform + 1e-8).all()
        saturation = ((limits**2).sum((1, 2)) - 1) / (layer.n - 1)
        assert (saturation <= proved.saturation + 1e-8).all()


def rectangles_of(n):
    """Directions e_ik + e_jl − e_il − e_jk, [rectangles, n²]."""
    found = []
    for rows, columns in itertools.product(itertools.permutations(range(n), 2), repeat=2):
        a = np.zeros((n, n))
        a[rows, columns] = 1
        a[rows, columns[::-1]] = -1
        found.append(a.reshape(-1))
    return np.array(found)


@pytest.mark.parametrize("n", [2, 4, 5])
def test_largest_diameter_is_that_of_a_token(rng, n):
    for _ in range(10):
        layer, phi = drawn(rng, "mhc-paper", n)
        directions = rectangles_of(n)
        u = directions @ phi
        u = u / np.sqrt((u**2).sum(1, keepdims=True)) * layer.radius
        parameters = layer.base.reshape(-1) + abs(layer.scale) * u @ phi.T
        attained = (parameters @ directions.T).max()
        assert rectangles(ellipsoid_of(layer)).diameter == pytest.approx(attained, rel=1e-12)


@pytest.mark.parametrize("n", [2, 4])
def test_certified_entries_are_attained_where_all_rectangles_are_equal(n):
    """A matrix with p at one place, and the rest as even as sums allow."""
    for p in (1e-3, 0.3, 0.9):
        m = np.full((n, n), (1 - (1 - p) / (n - 1)) / (n - 1))
        m[0], m[:, 0], m[0, 0] = (1 - p) / (n - 1), (1 - p) / (n - 1), p
        layer = static(np.log(m))
        proved = certify(layer)
        assert proved.least[0, 0] == pytest.approx(p, rel=1e-6)
        assert proved.largest[0, 0] == pytest.approx(p, rel=1e-6)


def static(logits, precision=EXACT, preset="mhc-paper"):
    return Layer(
        name="h.0.attn",
        number=0,
        site="attention",
        layout="by hand",
        preset=PRESETS[preset],
        base=np.asarray(logits, float),
        base_precision=precision,
        n=len(logits),
    )


def test_certified_gap_of_one_token_is_its_gap(rng):
    for _ in range(20):
        m = recipes.CODES["mhc-paper"](rng.normal(size=(4, 4)))
        gap = 1 - sigma2(m[None])[0]
        proved = certify(static(np.log(m)))
        assert gap * (1 - 1e-6) <= proved.gap * (1 + 1e-6) <= gap * (1 + 1e-5)


def test_cycles_and_cuts_are_all_that_there_are():
    """Of K₄,₄: 36 of 4 edges, 96 of 6 and 72 of 8, each in both directions."""
    lengths = abs(cycles(4)).sum(1)
    assert [int((lengths == k).sum()) for k in (4, 6, 8)] == [72, 192, 144]
    assert (cycles(4).reshape(-1, 4, 4).sum(1) == 0).all()
    assert (cycles(4).reshape(-1, 4, 4).sum(2) == 0).all()
    ways = [len(cut.directions()) for cut in cuts(4)]
    assert len(ways) == 4 * 4 + 6 * 6 and sum(ways) == 16 * 6 + 36 * 4


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
def test_numbers_that_were_rounded_are_within_what_is_certified(rng, stored):
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, stored, stored))
    for _ in range(10):
        exact = 3 * rng.normal(size=(4, 4))
        kept = exact.astype(dtype).astype(float)
        precision = Precision(stored, float(ml_dtypes.finfo(dtype).eps) / 2)
        proved = certify(static(kept, precision))
        m = recipes.CODES["mhc-paper"](exact)
        assert sigma2(m[None])[0] <= proved.sigma2 + 1e-12
        assert sum_errors(m[None])[0] <= proved.sum_error


@pytest.mark.parametrize("preset", ["deepseek-v4", "mhc-paper"])
@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_sums_are_proved_although_the_logits_are_stored_in_half_precision(rng, stored, preset):
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, stored, stored))
    unit = float(ml_dtypes.finfo(dtype).eps) / 2
    for _ in range(5):
        kept = (3 * np.eye(4) + 0.1 * rng.normal(size=(4, 4))).astype(dtype).astype(float)
        proved = certify(static(kept, Precision(stored, unit), preset)).sum_error
        corners = kept * (1 + unit * rng.choice([-1, 1], (500, 4, 4)))
        assert sum_errors(recipes.CODES[preset](corners)).max() <= proved < 0.01


# ---------------------------------------------------------------- tokens found by gradient


@pytest.mark.parametrize("preset", ["mhc-paper", pytest.param("deepseek-v4", marks=SLOW)])
def test_tokens_found_by_gradient_cross_nothing_and_are_what_they_say(rng, preset):
    drawn_layers = [drawn(rng, preset) for _ in range(30)]
    layers = [layer for layer, _ in drawn_layers]
    proved = [certify(layer) for layer in layers]
    for found, name in ((smallest_gaps(layers), "gap"), (largest_sum_errors(layers), "sum_error")):
        for (layer, phi), bound, worst in zip(drawn_layers, proved, found, strict=True):
            u = phi.T @ worst.direction
            assert np.linalg.norm(u) <= layer.radius * (1 + 1e-6)
            parameters = layer.base + layer.scale * (phi @ u).reshape(layer.base.shape)
            np.testing.assert_allclose(parameters, worst.parameters, atol=1e-6)
            if name == "gap":
                assert worst.value >= bound.gap * (1 - 1e-9)
            else:
                attained = sum_errors(recipes.CODES[preset](worst.parameters)[None])[0]
                assert worst.value == pytest.approx(attained, rel=1e-6, abs=1e-12)
                assert worst.value <= bound.sum_error


@pytest.mark.parametrize("reach", [0.03, pytest.param(100.0, marks=SLOW)])
def test_the_certified_gap_is_near_one_that_a_token_attains(rng, reach):
    """In half of the layers −log of the gap is within a fifth, where logits move little or far."""
    layers = [drawn(rng, "mhc-paper", reach=reach)[0] for _ in range(40)]
    proved = np.array([-np.log(certify(layer).gap) for layer in layers])
    attained = np.array([-np.log(worst.value) for worst in smallest_gaps(layers)])
    assert np.median(proved / attained) <= (1.2 if reach < 1 else 1.35)


def test_an_entry_that_underflowed_may_be_anything_once_logits_may_be_far_off():
    """Of e⁻⁸⁰⁰ float64 has 0; logits that are off by 800 make it anything up to 1."""
    least, largest = bounded(np.zeros((2, 2)), 801.0, 0.0)
    assert (least == 0).all() and (largest == 1).all()
    assert bounded(np.full((2, 2), 0.5), 0.0, 0.0)[1].max() == 0.5
