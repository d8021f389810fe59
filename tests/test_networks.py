"""Networks: each layer is what its formula says, in NumPy; nothing later leaks into a causal token; runs are pure and resume."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import homojax as hj
from homojax.networks.architecture import Architecture
from homojax.networks.mixing import mixer
from homojax.networks.model import Model, Trace
from homojax.networks.tasks import classification, copying, language, recall
from homojax.networks.training import (
    Training,
    decayed,
    first_not_finite,
    learning_rate,
    optimiser,
    residual_weights,
    trainer,
)
from homojax.parametrizations import PARAMETRIZATIONS

TASK = copying(units=4, vocabulary=5, tests=64)
TOKENS = jnp.array([3, 0, 4, 1])
TEXT = "the quick brown fox jumps over the lazy dog and goes home " * 20


def made(architecture, task=TASK, seed=0, **values):
    model = Model(architecture, task, rngs=nnx.Rngs(seed))
    model.set(**values)
    return model


def layer_of(model, index):
    """The parameters of one layer as NumPy, by their path."""
    state = nnx.to_pure_dict(nnx.state(model.layers))
    return jax.tree.map(lambda x: np.asarray(x[index], np.float64), state)


def embedded(model, tokens=TOKENS):
    x = np.asarray(model.embedding.embedding[...], np.float64)[np.asarray(tokens)]
    return x if model.places is None else x + np.asarray(model.places[...], np.float64)


def read_out(model, x):
    return x @ np.asarray(model.readout.kernel[...], np.float64) + np.asarray(
        model.readout.bias[...], np.float64
    )


def standardised(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def scaled(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def soft(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def heads_of(x, kernel, out, heads):
    n, width = x.shape
    q, k, v = (x @ kernel).reshape(n, 3, heads, -1).transpose(1, 2, 0, 3)
    weights = soft(q @ k.transpose(0, 2, 1) / np.sqrt(width // heads))
    return (weights @ v).transpose(1, 0, 2).reshape(n, width) @ out, weights


# ---------------------------------------------------------------- what a layer does


FEW = ("sinkhorn", "truncated-sinkhorn", "kronecker", "identity", "tokenbender")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in FEW else pytest.mark.slow)
        for name in (*hj.PARAMETRIZATIONS, *hj.PRESETS)
    ],
)
def test_without_norm_and_branch_a_network_over_tokens_is_its_residual_matrices_one_after_the_other(
    name,
):
    model = made(
        Architecture(name, depth=3, width=6, norm="none"), epsilon=[0.5, 1.0, 2.0], alpha=0.3
    )
    logits, trace = model.trace(TOKENS)
    x, energy = embedded(model), []
    for index in range(3):
        energy.append(((x - x.mean(0)) ** 2).sum())
        parameters = model.layers.mixing.parameters.values[...][index]
        matrix = np.asarray(mixer(name, 4).matrix(parameters, [0.5, 1.0, 2.0][index]), np.float64)
        np.testing.assert_allclose(trace.matrices[index], matrix, atol=1e-6)
        x = 0.7 * x + 0.3 * matrix @ x
    np.testing.assert_allclose(logits, read_out(model, x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trace.energy[:-1], energy, rtol=1e-4)
    assert trace.finite.all()


@pytest.mark.parametrize(("placement", "norm"), [("pre", "layer"), ("post", "rms")])
def test_norms_stand_before_a_branch_or_after_its_sum_with_the_residual(placement, norm):
    model = made(
        Architecture(depth=2, width=6, hidden=8, placement=placement, norm=norm), alpha=0.4
    )
    x, normed = embedded(model), {"layer": standardised, "rms": scaled}[norm]
    before, after = (normed, lambda x: x) if placement == "pre" else (lambda x: x, normed)
    for index in range(2):
        state = layer_of(model, index)
        matrix = np.asarray(model.trace(TOKENS)[1].matrices[index], np.float64)
        x = after(0.6 * x + 0.4 * matrix @ before(x))
        up, down = state["branch"]["up"], state["branch"]["down"]
        hidden = np.asarray(jax.nn.gelu(before(x) @ up["kernel"] + up["bias"]))
        x = after(x + hidden @ down["kernel"] + down["bias"])
    np.testing.assert_allclose(model(TOKENS), read_out(model, normed(x)), rtol=2e-4, atol=2e-5)


def test_after_hyper_connections_the_norm_is_that_of_every_stream_and_their_branch_has_none():
    model = made(
        Architecture("softmax", "streams", depth=1, width=6, streams=2, hidden=8, placement="post"),
        alpha=1.0,
    )
    trace = model.trace(TOKENS)[1]
    np.testing.assert_allclose(
        trace.states[1], standardised(np.asarray(trace.states[1], np.float64)), atol=1e-4
    )
    state = layer_of(model, 0)
    x, mixing = embedded(model), state["mixing"]
    read, write = (1 / (1 + np.exp(-mixing[key])) for key in ("read", "write"))
    taken = read.sum() * x
    added, _ = heads_of(
        taken, mixing["inner"]["project"]["kernel"], mixing["inner"]["out"]["kernel"], 2
    )
    up, down = mixing["branch"]["up"], mixing["branch"]["down"]
    added = (
        added
        + np.asarray(jax.nn.gelu((taken + added) @ up["kernel"] + up["bias"])) @ down["kernel"]
        + down["bias"]
    )
    matrix = soft(mixing["parameters"]["values"])
    expected = standardised(matrix.sum(1)[:, None, None] * x + 2 * write[:, None, None] * added)
    np.testing.assert_allclose(trace.states[1], expected, atol=1e-4)
    assert set(mixing["branch"]) == {"up", "down"}


def test_attention_by_softmax_is_the_textbooks():
    model = made(Architecture("softmax", "attention", depth=1, width=6), alpha=0.5)
    state, x = layer_of(model, 0)["mixing"], embedded(model)
    mixed, weights = heads_of(
        standardised(x), state["project"]["kernel"], state["out"]["kernel"], 2
    )
    logits, trace = model.trace(TOKENS)
    np.testing.assert_allclose(trace.matrices[0], weights, atol=1e-6)
    np.testing.assert_allclose(
        logits, read_out(model, standardised(0.5 * x + 0.5 * mixed)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("settings", [{}, {"mixer": "truncated-sinkhorn", "num_iters": 60}])
def test_sinkhorn_attention_mixes_by_doubly_stochastic_matrices_of_the_same_logits(settings):
    model = made(Architecture(over="attention", depth=2, width=6, **settings), epsilon=0.5)
    matrices = model.trace(TOKENS)[1].matrices
    assert matrices.shape == (2, 2, 4, 4)
    for axis in (-1, -2):
        np.testing.assert_allclose(matrices.sum(axis), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dynamic"), [("softmax", False), ("softmax", True), ("lucidrains", True)]
)
def test_hyper_connections_mix_their_streams_read_them_and_write_to_all(name, dynamic):
    """Three layers: in the first all streams are equal. Rows or columns do not sum to 1, so that a transposed matrix is seen."""
    model = made(
        Architecture(name, "streams", depth=3, width=6, streams=3, hidden=8, dynamic=dynamic),
        alpha=0.3,
    )
    logits, trace = model.trace(TOKENS)
    x, matrix = np.broadcast_to(embedded(model), (3, 4, 6)), jax.jit(mixer(name, 3).matrix)
    for index in range(3):
        state = layer_of(model, index)["mixing"]
        reads = writes = np.zeros((3, 4))
        changes = np.zeros((4, 3, 3))
        if dynamic:
            token = x.transpose(1, 0, 2).reshape(4, -1)
            own = (
                token
                / np.sqrt((token**2).mean(-1, keepdims=True) + 1e-6)
                @ state["maps"]["kernel"]
                * 0.01
            )
            reads, writes, changes = own[:, :3].T, own[:, 3:6].T, own[:, 6:].reshape(4, 3, 3)
        logit = state["parameters"]["values"] + changes
        matrices = np.stack(
            [np.asarray(matrix(x.astype(np.float32), 1.0), np.float64) for x in logit]
        )
        np.testing.assert_allclose(
            trace.matrices[index], matrices if dynamic else matrices[0], atol=1e-5
        )
        read, write = (
            1 / (1 + np.exp(-(state[key][:, None] + own)))
            for key, own in (("read", reads), ("write", writes))
        )
        taken = (read[..., None] * x).sum(0)
        inner = state["inner"]
        added, _ = heads_of(
            standardised(taken), inner["project"]["kernel"], inner["out"]["kernel"], 2
        )
        up, down = state["branch"]["up"], state["branch"]["down"]
        hidden = np.asarray(jax.nn.gelu(standardised(taken + added) @ up["kernel"] + up["bias"]))
        added = added + hidden @ down["kernel"] + down["bias"]
        kept = np.stack([matrix @ x[:, token] for token, matrix in enumerate(matrices)], 1)
        x = 0.7 * x + 0.3 * kept + 2 * write[..., None] * added
        np.testing.assert_allclose(trace.states[index + 1], x, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        logits, read_out(model, standardised(x.mean(0))), rtol=1e-3, atol=1e-4
    )


def test_noise_is_what_was_asked_and_of_the_key():
    model = made(
        Architecture("identity", depth=1, width=6, norm="none", noisy=True), alpha=0.0, noise=0.5
    )
    keys = jax.random.split(jax.random.key(0), 4000)
    energy = jax.vmap(lambda key: model.trace(TOKENS, key)[1].energy[1])(keys)
    clean = model.trace(TOKENS)[1].energy[0]
    assert float(energy.mean()) == pytest.approx(
        float(clean + 0.25 * 3 * 6), rel=0.02
    )  # n − 1 directions of every feature
    assert bool((model(TOKENS, keys[0]) == model(TOKENS, keys[0])).all())


def test_a_turn_is_the_layers_own_and_not_that_of_its_noise():
    """The identity turns nothing, whatever noise is added after it."""
    model = made(
        Architecture("identity", depth=3, width=6, norm="none", noisy=True), alpha=1.0, noise=0.5
    )
    np.testing.assert_allclose(model.trace(TOKENS, jax.random.key(3))[1].turned, 0, atol=1e-3)
    turning = made(
        Architecture("orthogonal", depth=3, width=6, norm="none", noisy=True), alpha=1.0, noise=0.5
    )
    assert (turning.trace(TOKENS, jax.random.key(3))[1].turned > 0.01).all()


@pytest.mark.parametrize("over", ["tokens", "attention", "streams"])
def test_networks_are_float32_whatever_the_laws_are_computed_in(over):
    model = made(Architecture(over=over, depth=1, width=4, hidden=4, dynamic=over == "streams"))
    assert jax.config.read("jax_enable_x64")
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model, nnx.Param))} == {np.dtype("float32")}
    assert model(TOKENS).dtype == np.float32


def test_the_claims_of_depth_run_on_a_networks_matrices_as_on_any():
    from homojax.lab.verify.run import judge_cells
    from homojax.theory.stack import CLAIMS

    model = made(Architecture(depth=4, width=6), epsilon=0.5)
    cells = {
        "matrices": np.asarray(model.trace(TOKENS)[1].matrices, np.float64)[None],
        "alpha": np.array([0.5]),
    }
    found = judge_cells(
        "stack", CLAIMS, {**cells, "probe": np.ones((1, 4)) * [1, 2, 4, 0]}, "float64"
    )
    assert all(
        (verdict != -1).all()
        for name, (_, verdict, _) in found.items()
        if hj.CLAIMS[name].status == "theorem"
    )
    assert (found["product"][1] == 1).any()


# ---------------------------------------------------------------- what may be seen


@pytest.mark.parametrize("over", ["attention", "streams"])
def test_in_a_causal_task_no_token_sees_a_later_one(over):
    task = language(TEXT, units=8)
    model = made(
        Architecture(
            "softmax" if over == "attention" else "kromhc", over, depth=2, width=8, hidden=8
        ),
        task,
    )
    tokens = task.test[0][0]
    changed = tokens.at[5].set((tokens[5] + 1) % task.vocabulary)
    one, other = model(tokens), model(changed)
    np.testing.assert_array_equal(one[:5], other[:5])
    assert abs(one[5:] - other[5:]).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "over"), [("sinkhorn", "attention"), ("push-sum", "attention"), ("sinkhorn", "tokens")]
)
def test_a_causal_task_refuses_what_would_look_ahead(name, over):
    with pytest.raises(ValueError, match="causal"):
        made(Architecture(name, over, width=8), language(TEXT, units=8))


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        (Architecture("sinkhron"), "no mixer"),
        (Architecture("kronecker"), "power of two"),
        (Architecture("circulant", "attention"), "not a matrix of logits"),
        (Architecture("mhc-lite", "streams", streams=9), "n must be from 2 to 8"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(architecture, text):
    with pytest.raises(ValueError, match=text):
        made(architecture, copying(units=6))


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"streams": 1},
        {"norm": "batch"},
        {"over": "space"},
        {"logit_scale": float("nan")},
        {"mixing_dtype": "int8"},
    ],
)
def test_an_architecture_that_is_none_is_refused_with_its_field(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Architecture(**wrong)


def test_width_must_divide_into_heads():
    with pytest.raises(ValueError, match="heads"):
        Architecture(over="attention", width=7)


def test_low_precision_is_that_of_the_matrix_alone():
    model = made(Architecture("truncated-sinkhorn", depth=2, width=6, mixing_dtype="bfloat16"))
    logits, trace = model.trace(TOKENS)
    assert trace.matrices.dtype == jnp.bfloat16 and logits.dtype == jnp.float32
    missed = abs(trace.matrices.astype(jnp.float32).sum(-1) - 1).max()
    assert 1e-4 < missed < 0.05


# ---------------------------------------------------------------- training

QUICK = Training(steps=60, batch=16, warmup=5, learning_rate=1e-2)


@functools.cache
def compiled(**architecture):
    found = trainer(Architecture(depth=2, width=8, **architecture), TASK, QUICK)
    begin = jax.jit(jax.vmap(found.begin))
    advance = jax.jit(jax.vmap(found.advance, (0, None)), static_argnums=1)
    return found, begin, advance, jax.jit(jax.vmap(found.evaluate))


def runs_of(count=3, **values):
    _, begin, *_ = compiled()
    settings = {
        "epsilon": jnp.array([0.1, 1.0, 10.0])[:count],
        "alpha": jnp.full(count, 0.5),
        "noise": jnp.zeros(count),
    } | values
    return begin(jax.random.split(jax.random.key(7), count), *settings.values())


def test_copying_is_learned_where_detail_survives_and_where_it_does_not_only_the_most_frequent_token():
    _, begin, advance, evaluate = compiled(mixer="identity")
    kept, losses = advance(
        begin(jax.random.split(jax.random.key(7), 1), jnp.ones(1), jnp.ones(1), jnp.zeros(1)), 60
    )
    assert losses.shape == (1, 60) and np.isfinite(losses).all()
    assert evaluate(kept)[1][0] > 0.9
    _, _, advance, evaluate = compiled()
    mixed, _ = advance(runs_of(alpha=jnp.ones(3)), 60)  # without a residual; the last at ε = 10
    counts = np.stack([(np.asarray(TASK.test[0]) == token).sum(1) for token in range(5)])
    assert float(evaluate(mixed)[1][2]) == pytest.approx(counts.max(0).mean() / 4, abs=0.05)
    assert (np.asarray(mixed.step) == 60).all() and (np.asarray(mixed.failed) == -1).all()


@pytest.mark.parametrize(("alike", "least", "most"), [(False, 1e-4, np.inf), (True, 0, 1e-5)])
def test_streams_part_in_training_and_their_mixing_has_a_gradient_unless_all_are_read_alike(
    alike, least, most
):
    of = trainer(
        Architecture(over="streams", depth=3, width=6), TASK, Training(steps=20, batch=8, warmup=0)
    )
    run = of.begin(jax.random.key(1), 1.0, 1.0)
    if alike:
        for name in ("read", "write"):
            run.parameters["layers"]["mixing"][name][...] = jnp.zeros((3, 4), jnp.float32)
    run = jax.jit(of.advance, static_argnums=1)(run, 3)[0]

    def energy(parameters):
        return (of.trace(run._replace(parameters=parameters), TASK.test[0][:4])[0] ** 2).mean()

    slope = jax.jit(jax.grad(energy))(run.parameters)["layers"]["mixing"]["parameters"]["values"][
        ...
    ]
    assert least <= jnp.linalg.norm(slope[1]) <= most
    assert (
        max(jnp.linalg.norm(slope[i]) for i in (0, 2)) < 1e-5
    )  # streams all equal before, and averaged after


def test_a_run_that_goes_on_is_bit_for_bit_the_run_that_never_stopped():
    _, _, advance, _ = compiled()
    whole, losses = advance(runs_of(), 60)
    half = runs_of()
    seen = []
    for _ in range(2):
        half, found = advance(half, 30)
        half = jax.tree.map(lambda x: jnp.asarray(np.array(x)), half)  # out of the device and back
        seen.append(found)
    np.testing.assert_array_equal(np.concatenate(seen, 1), losses)
    jax.tree.map(np.testing.assert_array_equal, half, whole)


def test_runs_side_by_side_are_the_runs_one_by_one():
    _, begin, advance, _ = compiled()
    _, losses = advance(runs_of(), 30)
    keys = jax.random.split(jax.random.key(7), 3)
    _, lone = advance(begin(keys[1:2], jnp.array([1.0]), jnp.array([0.5]), jnp.zeros(1)), 30)
    np.testing.assert_allclose(lone[0], losses[1], rtol=1e-3)
    assert not np.allclose(losses[0], losses[1], rtol=1e-2)


def test_a_loss_that_is_not_finite_stops_its_run_alone_and_leaves_it_as_it_was():
    found, begin, advance, _ = compiled(noisy=True)
    noise = jnp.array([[0.0, 0.0], [0.0, jnp.inf]])
    runs = begin(
        jax.random.split(jax.random.key(7), 2), jnp.ones((2, 2)), jnp.full((2, 2), 0.5), noise
    )
    after, _ = advance(runs, 30)
    assert (
        after.failed.tolist() == [-1, 0]
        and after.step.tolist() == [30, 0]
        and after.stopped.tolist() == [False, True]
    )
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new[1], old[1]),
        after.parameters,
        runs.parameters,
    )
    broken = jax.tree.map(lambda x: x[1], after)
    assert first_not_finite(found.trace(broken, found.batch(broken)[0])[1]) == 2
    assert first_not_finite(Trace(None, None, None, jnp.ones((4, 3), bool), None)) is None


def test_where_the_gradient_underflows_decay_alone_moves_the_logits():
    """tokenbender's start in float32, theory.md 6.2: what the optimiser leaves is the schedule's product, and σ₂ of that."""
    training = dataclasses.replace(QUICK, mixing_decay=0.5, steps=20)
    architecture = Architecture("tokenbender", depth=1, width=8)
    found = trainer(architecture, TASK, training)
    start = found.begin(jax.random.key(0))
    after, _ = jax.jit(found.advance, static_argnums=1)(start, 20)
    before, end = (
        run.parameters["layers"]["mixing"]["parameters"]["values"][...][0] for run in (start, after)
    )
    np.testing.assert_allclose(end, before * decayed(training)[-1], rtol=1e-5)
    assert 0.5 < decayed(training)[-1] < 0.99
    rates = [float(learning_rate(training)(t)) for t in range(20)]
    assert float(decayed(training)[-1]) == pytest.approx(
        np.prod([1 - rate * 0.5 for rate in rates]), rel=1e-6
    )


def test_what_is_not_learned_stays():
    found = trainer(Architecture(depth=1, width=8, learned=False), TASK, QUICK)
    start = found.begin(jax.random.key(0))
    after, _ = jax.jit(found.advance, static_argnums=1)(start, 10)
    jax.tree.map(np.testing.assert_array_equal, after.settings, start.settings)
    assert start.settings["layers"]["mixing"]["parameters"]["values"][...].shape == (1, 4, 4)


def test_residual_weights_are_trained_where_asked_from_the_one_given_and_the_mixing_is_by_what_came_out():
    architecture = Architecture(depth=2, width=8, learned=False, learned_alpha=True, norm="none")
    found = trainer(architecture, TASK, QUICK)
    start = found.begin(jax.random.key(0), 1.0, jnp.array([0.2, 0.7]))
    after, _ = jax.jit(found.advance, static_argnums=1)(start, 30)
    np.testing.assert_allclose(residual_weights(start), [0.2, 0.7], rtol=1e-6)
    alpha = np.asarray(residual_weights(after), np.float64)
    assert (abs(alpha - [0.2, 0.7]) > 0.01).all() and ((alpha > 0) & (alpha < 1)).all()
    _, trace = found.trace(after, TASK.test[0][:2])
    for index in range(2):
        r = (1 - alpha[index]) * np.eye(4) + alpha[index] * np.asarray(
            trace.matrices[0, index], np.float64
        )
        np.testing.assert_allclose(
            trace.states[0, index + 1], r @ np.asarray(trace.states[0, index]), rtol=1e-4, atol=1e-5
        )
    fixed = trainer(Architecture(depth=2, width=8), TASK, QUICK).begin(jax.random.key(0), 1.0, 0.3)
    np.testing.assert_allclose(residual_weights(fixed), [0.3, 0.3], rtol=1e-6)


def test_decay_moves_all_parameters_but_residual_weights_and_those_of_mixing_by_its_own():
    training = dataclasses.replace(QUICK, warmup=0, weight_decay=0.5, mixing_decay=0.25)
    run = trainer(Architecture(depth=2, width=8, learned_alpha=True), TASK, training).begin(
        jax.random.key(0), 1.0, 0.2
    )
    of = optimiser(training)
    still = jax.tree.map(jnp.zeros_like, run.parameters)
    updates, _ = of.update(still, of.init(run.parameters), run.parameters)
    moved = jax.tree.map(
        lambda update, x: np.asarray(update / jnp.where(x == 0, 1, x)), updates, run.parameters
    )
    rate = training.learning_rate
    np.testing.assert_array_equal(moved["layers"]["alpha"][...], 0)
    np.testing.assert_allclose(
        moved["layers"]["mixing"]["parameters"]["values"][...], -rate * 0.25, rtol=1e-5
    )
    np.testing.assert_allclose(moved["readout"]["kernel"][...], -rate * 0.5, rtol=1e-5)


@pytest.mark.slow
def test_attention_learns_recall():
    task = recall(pairs=2, keys=4, values=4, tests=256)
    training = Training(steps=1200, batch=64, learning_rate=3e-3)
    for name in ("softmax", "sinkhorn"):
        found = trainer(
            Architecture(name, "attention", depth=2, width=32, hidden=64), task, training
        )
        run, _ = jax.jit(found.advance, static_argnums=1)(found.begin(jax.random.key(0)), 1200)
        assert jax.jit(found.evaluate)(run)[1] > 0.9


def test_pooled_tasks_have_one_answer_an_example():
    images = np.random.default_rng(0).normal(size=(20, 4, 4)).astype(np.float32)
    task = classification(images, [0, 1] * 10)
    assert made(Architecture(depth=1, width=6), task)(task.test[0][0]).shape == (2,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"mixing_decay": -1.0},
        {"clip": float("nan")},
    ],
)
def test_a_training_that_is_none_is_refused_with_its_field(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Training(**wrong)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_every_mixer_can_depend_on_the_token(name):
    of = trainer(Architecture(name, over="streams", depth=3, width=8, dynamic=True), TASK, QUICK)
    run = jax.eval_shape(of.begin, jax.random.key(0))
    _, trace = jax.eval_shape(of.trace, run, TASK.test[0][:2])
    assert trace.matrices.shape == (2, 3, TASK.units, 4, 4)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_every_mixer_has_a_matrix_in_low_precision(name):
    lowered = jax.jit(PARAMETRIZATIONS[name].matrix).lower(
        jax.ShapeDtypeStruct(PARAMETRIZATIONS[name].shape(4), jnp.bfloat16), 1.0
    )
    assert lowered.out_info.dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "name", ["orthogonal", "spectral-filter"]
)  # which solve, where LAPACK has float32 at least
def test_a_matrix_in_low_precision_is_near_the_exact_one(name, dtype):
    parameters = np.random.default_rng(5).normal(size=(4, 4)).astype(dtype)
    matrix = jax.jit(PARAMETRIZATIONS[name].matrix)
    found, exact = matrix(parameters), matrix(parameters.astype(np.float64))
    assert found.dtype == dtype and 0 < abs(found.astype(np.float64) - exact).max() < 30 * float(
        jnp.finfo(dtype).eps
    )


def test_layers_computed_again_have_the_gradient_of_those_that_are_kept():
    slopes = []
    for remat in (False, True):
        of = trainer(Architecture("identity", depth=3, width=8, hidden=8, remat=remat), TASK, QUICK)
        slopes.append(jax.tree.leaves(jax.jit(of.slope)(of.begin(jax.random.key(3)))))
    for kept, again in zip(*slopes, strict=True):
        np.testing.assert_allclose(kept, again, rtol=1e-5, atol=1e-7)
