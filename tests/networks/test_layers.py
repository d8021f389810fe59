"""Each layer is what its formula says, in NumPy; no later token leaks into a causal one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from homojax import PARAMETRIZATIONS, PRESETS
from homojax.networks.architecture import Architecture
from homojax.networks.layers.hyper_connection import HyperConnection
from homojax.networks.mixing import mixer
from homojax.networks.model import Model
from homojax.networks.tasks.images import classification
from homojax.networks.tasks.made import copying
from homojax.networks.tasks.text import language

TEXT = "the quick brown fox jumps over the lazy dog and goes home " * 20


def standardised(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def root_mean_squared(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def normed(parameters, normalise):
    """A norm with its learned scale, and shift where it has one."""
    return lambda x: normalise(x) * parameters["scale"] + parameters.get("bias", 0)


def soft(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attention(x, parameters, heads=2):
    """Textbook attention: the output, and the weights [heads, n, n]."""
    n, width = x.shape
    projected = (x @ parameters["project"]["kernel"]).reshape(n, 3, heads, -1)
    q, k, v = projected.transpose(1, 2, 0, 3)
    weights = soft(q @ k.transpose(0, 2, 1) / np.sqrt(width // heads))
    mixed = (weights @ v).transpose(1, 0, 2).reshape(n, width)
    return mixed @ parameters["out"]["kernel"], weights


def feed_forward(x, parameters):
    up, down = parameters["up"], parameters["down"]
    hidden = np.asarray(jax.nn.gelu(x @ up["kernel"] + up["bias"]))
    return hidden @ down["kernel"] + down["bias"]


def alternated(logits):
    """The limit of Sinkhorn's alternation."""
    matrix = np.exp(logits)
    for _ in range(1000):
        matrix /= matrix.sum(-1, keepdims=True)
        matrix /= matrix.sum(-2, keepdims=True)
    return matrix


# ---------------------------------------------------------------- what a layer does


FEW = ("sinkhorn", "truncated-sinkhorn", "kronecker", "identity", "tokenbender")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in FEW else pytest.mark.slow)
        for name in (*PARAMETRIZATIONS, *PRESETS)
    ],
)
def test_without_norm_and_branch_a_network_over_tokens_is_a_product_of_residual_matrices(
    name, traced, tokens
):
    epsilon = jnp.array([0.5, 1.0, 2.0], jnp.float32)
    network = traced(Architecture(name, depth=3, width=6, norm="none"), epsilon=epsilon, alpha=0.3)
    parameters = network.parameters["layers"]["mixing"]["parameters"]["values"]
    if name == "sinkhorn":
        matrices = alternated(parameters / np.asarray(epsilon)[:, None, None])
    else:
        matrices = jax.jit(jax.vmap(mixer(name, 4).matrix))(parameters.astype(np.float32), epsilon)
    np.testing.assert_allclose(network.trace.matrices, matrices, atol=2e-6)
    x, energy = network.embedded(tokens), []
    for matrix in np.asarray(matrices, np.float64):
        energy.append(((x - x.mean(0)) ** 2).sum())
        x = 0.7 * x + 0.3 * matrix @ x
    np.testing.assert_allclose(network.logits, network.read_out(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.trace.energy[:-1], energy, rtol=1e-4)
    assert network.trace.finite.all()


@pytest.mark.parametrize(("placement", "norm"), [("pre", "layer"), ("post", "rms")])
def test_norms_stand_before_a_branch_or_after_its_sum_with_the_residual(
    placement, norm, traced, tokens
):
    network = traced(
        Architecture("kronecker", depth=2, width=6, hidden=8, placement=placement, norm=norm),
        alpha=0.4,
    )
    normalise = {"layer": standardised, "rms": root_mean_squared}[norm]

    def before(x, module):
        return normed(module["norm"], normalise)(x) if placement == "pre" else x

    def after(x, module):
        return normed(module["norm"], normalise)(x) if placement == "post" else x

    x = network.embedded(tokens)
    for index in range(2):
        layer = network.layer(index)
        matrix = np.asarray(network.trace.matrices[index], np.float64)
        x = after(0.6 * x + 0.4 * matrix @ before(x, layer), layer)
        x = after(x + feed_forward(before(x, layer["branch"]), layer["branch"]), layer["branch"])
    expected = network.read_out(normed(network.parameters["norm"], normalise)(x))
    np.testing.assert_allclose(network.logits, expected, rtol=2e-4, atol=2e-5)


def test_after_hyper_connections_the_norm_is_that_of_every_stream_and_their_branch_has_none(
    traced, tokens
):
    network = traced(
        Architecture("softmax", "streams", depth=1, width=6, streams=2, hidden=8, placement="post"),
        alpha=1.0,
    )
    layer, x = network.layer(0), network.embedded(tokens)
    mixing = layer["mixing"]
    taken = sigmoid(mixing["read"]).sum() * x
    added, _ = attention(taken, mixing["inner"])
    added = added + feed_forward(taken + added, mixing["branch"])
    matrix = soft(mixing["parameters"]["values"])
    written = 2 * sigmoid(mixing["write"])[:, None, None] * added
    expected = normed(layer["norm"], standardised)(matrix.sum(1)[:, None, None] * x + written)
    np.testing.assert_allclose(network.trace.states[1], expected, rtol=1e-4, atol=1e-4)
    assert set(mixing["branch"]) == {"up", "down"}


def test_attention_by_softmax_is_the_textbooks(traced, tokens):
    network = traced(Architecture("softmax", "attention", depth=1, width=6), alpha=0.5)
    layer, x = network.layer(0), network.embedded(tokens)
    mixed, weights = attention(normed(layer["norm"], standardised)(x), layer["mixing"])
    np.testing.assert_allclose(network.trace.matrices[0], weights, atol=1e-6)
    last = normed(network.parameters["norm"], standardised)(0.5 * x + 0.5 * mixed)
    np.testing.assert_allclose(network.logits, network.read_out(last), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"mixer": "truncated-sinkhorn", "num_iters": 60}, marks=pytest.mark.slow),
    ],
)
def test_sinkhorn_attention_mixes_by_doubly_stochastic_matrices_of_the_same_logits(
    settings, traced, tokens
):
    """diag(e^f) exp(QKᵀ/(ε√d)) diag(e^g): in log M − QKᵀ/(ε√d) rows and columns do not interact."""
    network = traced(Architecture(over="attention", depth=1, width=6, **settings), epsilon=0.5)
    matrices = np.asarray(network.trace.matrices[0], np.float64)
    assert matrices.shape == (2, 4, 4)
    for axis in (-1, -2):
        np.testing.assert_allclose(matrices.sum(axis), 1, atol=1e-4)
    layer, x = network.layer(0), network.embedded(tokens)
    _, weights = attention(normed(layer["norm"], standardised)(x), layer["mixing"])
    scaled = np.log(matrices) - np.log(weights) / 0.5
    centred = scaled - scaled.mean(-1, keepdims=True)
    np.testing.assert_allclose(centred - centred.mean(-2, keepdims=True), 0, atol=1e-3)


def dynamic_parts(x, mixing):
    """A token's own part of the read map [s, n], the write map [s, n] and the logits [n, s, s]."""
    streams, n, _ = x.shape
    token = root_mean_squared(x.transpose(1, 0, 2).reshape(n, -1)) @ mixing["maps"]["kernel"]
    reads, writes, changes = np.split(token, [streams, 2 * streams], axis=1)
    gates = mixing["gate"]
    changes = gates[2] * changes.reshape(n, streams, streams)
    return gates[0] * reads.T, gates[1] * writes.T, changes


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        pytest.param("softmax", False, marks=pytest.mark.slow),
        ("softmax", True),
        ("lucidrains", True),
    ],
)
def test_hyper_connections_mix_their_streams_read_them_and_write_to_all(
    name, dynamic, traced, tokens
):
    """Rows or columns do not sum to 1, so that a transposed matrix is seen; three layers, because
    in the first all streams are equal."""
    network = traced(
        Architecture(name, "streams", depth=3, width=6, streams=3, hidden=8, dynamic=dynamic),
        alpha=0.3,
    )
    x = np.broadcast_to(network.embedded(tokens), (3, 4, 6))
    matrix_of = jax.jit(jax.vmap(mixer(name, 3).matrix, (0, None)))
    for index in range(3):
        layer = network.layer(index)
        mixing, norm = layer["mixing"], normed(layer["norm"], standardised)
        reads, writes, changes = (
            dynamic_parts(x, mixing)
            if dynamic
            else (np.zeros((3, 4)), np.zeros((3, 4)), np.zeros((4, 3, 3)))
        )
        logits = (mixing["parameters"]["values"] + changes).astype(np.float32)
        matrices = np.asarray(matrix_of(logits, 1.0), np.float64)
        traced_matrices = network.trace.matrices[index]
        np.testing.assert_allclose(traced_matrices, matrices if dynamic else matrices[0], atol=1e-5)
        read, write = sigmoid(mixing["read"][:, None] + reads), mixing["write"][:, None] + writes
        taken = (read[..., None] * x).sum(0)
        added, _ = attention(norm(taken), mixing["inner"])
        branch = mixing["branch"]
        inside = normed(branch["norm"], standardised)(taken + added)
        added = added + feed_forward(inside, branch)
        mixed = np.stack([matrix @ x[:, token] for token, matrix in enumerate(matrices)], 1)
        x = 0.7 * x + 0.3 * mixed + 2 * sigmoid(write)[..., None] * added
        np.testing.assert_allclose(network.trace.states[index + 1], x, rtol=1e-3, atol=1e-3)
    last = normed(network.parameters["norm"], standardised)(x.mean(0))
    np.testing.assert_allclose(network.logits, network.read_out(last), rtol=1e-3, atol=1e-3)


def test_hyper_connections_start_with_unequal_maps_near_the_mean_and_a_small_gate():
    architecture = Architecture("softmax", "streams", width=4, streams=64, dynamic=True)

    @jax.jit
    def start():
        made = HyperConnection(architecture, 4, False, rngs=nnx.Rngs(0))
        return made.gate[...], made.read[...], made.write[...]

    gate, read, write = start()
    np.testing.assert_allclose(gate, 0.01)
    assert float(read.mean()) == pytest.approx(-np.log(63), abs=0.5)
    assert float(write.mean()) == pytest.approx(0, abs=0.5)
    assert len(np.unique(read)) == len(np.unique(write)) == 64


def test_noise_has_the_size_that_was_asked_and_follows_its_key(drawn, traced, tokens):
    quiet = Architecture("identity", depth=1, width=6, norm="none", noisy=True)
    model = drawn(quiet, alpha=0.0, noise=0.5)
    energy_of = jax.jit(jax.vmap(lambda key: model.trace(tokens, key)[1].energy))
    energy = energy_of(jax.random.split(jax.random.key(0), 4000))
    added = 0.25 * 3 * 6  # n − 1 directions of every feature
    assert float(energy[:, 1].mean()) == pytest.approx(float(energy[0, 0]) + added, rel=0.02)
    one, again, other = (
        traced(quiet, key=jax.random.key(seed), alpha=0.0, noise=0.5).logits for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize(("name", "turns"), [("identity", False), ("orthogonal", True)])
def test_a_turn_is_the_layers_own_and_not_that_of_its_noise(name, turns, traced):
    """The identity turns nothing, whatever noise is added after it."""
    network = traced(
        Architecture(name, depth=3, width=6, norm="none", noisy=True),
        key=jax.random.key(3),
        alpha=1.0,
        noise=0.5,
    )
    if turns:
        assert (network.trace.turned > 0.01).all()
    else:
        np.testing.assert_allclose(network.trace.turned, 0, atol=1e-3)


@pytest.mark.parametrize("over", ["tokens", "attention", "streams"])
def test_networks_are_float32_whatever_the_laws_are_computed_in(over, task, tokens):
    architecture = Architecture(over=over, depth=3, width=4, hidden=4, dynamic=over == "streams")
    assert jax.config.read("jax_enable_x64")

    def run():
        model = Model(architecture, task, rngs=nnx.Rngs(0))
        return nnx.state(model, nnx.Param), model(tokens)

    parameters, logits = nnx.eval_shape(run)
    assert {x.dtype for x in jax.tree.leaves(parameters)} == {np.dtype("float32")}
    assert logits.dtype == np.float32


def test_low_precision_is_that_of_the_matrix_alone(traced):
    network = traced(Architecture("truncated-sinkhorn", depth=2, width=6, mixing_dtype="bfloat16"))
    matrices = network.trace.matrices
    assert matrices.dtype == jnp.bfloat16 and network.logits.dtype == jnp.float32
    missed = abs(matrices.astype(jnp.float32).sum(-1) - 1).max()
    assert 1e-4 < missed < 0.05


def test_pooled_tasks_have_one_answer_an_example():
    images = np.random.default_rng(0).normal(size=(20, 4, 4)).astype(np.float32)
    pooled = classification(images, [0, 1] * 10)
    inputs = pooled.test[0][0]
    logits = nnx.eval_shape(
        lambda: Model(Architecture(depth=1, width=6), pooled, rngs=nnx.Rngs(0))(inputs)
    )
    assert logits.shape == (2,)


# ---------------------------------------------------------------- what may be seen


@pytest.mark.parametrize(("over", "name"), [("attention", "softmax"), ("streams", "kromhc")])
def test_in_a_causal_task_no_token_sees_a_later_one(over, name, traced):
    task = language(TEXT, units=8)
    architecture = Architecture(name, over, depth=2, width=8, hidden=8)
    tokens = task.test[0][0]
    changed = tokens.at[5].set((tokens[5] + 1) % task.vocabulary)
    one, other = (traced(architecture, task, x).logits for x in (tokens, changed))
    np.testing.assert_array_equal(one[:5], other[:5])
    assert abs(one[5:] - other[5:]).max() > 1e-3


def build(architecture, task):
    return nnx.eval_shape(lambda: Model(architecture, task, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("name", "over", "advice"),
    [
        ("sinkhorn", "attention", "try the mixer softmax"),
        ("push-sum", "attention", "try the mixer softmax"),
        ("sinkhorn", "tokens", "try over = attention with the mixer softmax, or over = streams"),
    ],
)
def test_a_causal_task_refuses_a_network_that_would_look_ahead(name, over, advice):
    with pytest.raises(ValueError, match=f"causal.*{advice}"):
        build(Architecture(name, over, width=8), language(TEXT, units=8))


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        (Architecture("kronecker"), "power of two"),
        (Architecture("circulant", "attention"), "not a matrix of logits: try"),
        (Architecture("mhc-lite", "streams", streams=9), "n must be from 2 to 8"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_by_name(architecture, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(architecture, copying(units=6))
