"""Runs are pure: they resume bit for bit, side by side as one by one; a broken one stops alone."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax.networks.architecture import Architecture
from homojax.networks.model import Trace
from homojax.networks.optimiser import decayed
from homojax.networks.run import first_not_finite, residual_weights
from homojax.networks.tasks.made import copying, recall
from homojax.networks.trainer import side_by_side, trainer
from homojax.networks.training import Training
from homojax.parametrizations import PARAMETRIZATIONS
from homojax.presets import PRESETS

TASK = copying(units=4, vocabulary=5, tests=64)
QUICK = Training(steps=120, batch=16, warmup=5, learning_rate=1e-2)
KEYS = jax.random.split(jax.random.key(7), 3)


@cache
def trainer_of(training=QUICK, **architecture):
    """One trainer for each architecture, so that what is compiled for it is found again."""
    return trainer(Architecture(**{"depth": 2, "width": 8} | architecture), TASK, training)


def three_runs(epsilon=(0.1, 1.0, 10.0), alpha=(0.5, 0.5, 0.5), noise=((0, 0),) * 3):
    """By one program, whatever the values are."""
    begin = trainer_of(mixer="kronecker", noisy=True).begin
    return side_by_side(begin, KEYS, *(jnp.float32(x) for x in (epsilon, alpha, noise)))


def drawn_run(made):
    """One run whose parameters are NumPy's normal draws: no initialisation is compiled."""
    rng = np.random.default_rng(20260102)
    shapes = jax.eval_shape(made.begin, jax.random.key(0))
    draw = partial(jax.tree.map, lambda x: jnp.asarray(0.6 * rng.normal(size=x.shape), x.dtype))
    run = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)  # ε = α = 1
    run = run._replace(
        parameters=draw(shapes.parameters),
        optimiser=jax.tree.map(jnp.zeros_like, run.optimiser),
        step=0 * run.step,
        stopped=~run.stopped,
    )
    return jax.tree.map(lambda x: x[None], run)


def advance(runs, steps=30):
    return side_by_side(trainer_of(mixer="kronecker", noisy=True).advance, runs, steps=steps)


def test_copying_is_learned_where_detail_survives_and_elsewhere_only_the_most_frequent_token():
    """At α = 0 a layer keeps all, and at α = 1, ε = 10 next to nothing."""
    made = trainer_of(mixer="kronecker", noisy=True)
    runs, seen = three_runs(epsilon=(10, 10, 10), alpha=(0, 1, 1)), []
    for _ in range(4):
        runs, losses = advance(runs)
        seen.append(losses)
    assert losses.shape == (3, 30) and np.isfinite(seen).all()
    _, (kept, *mixed) = side_by_side(made.evaluate, runs)
    counts = np.stack([(np.asarray(TASK.test[0]) == token).sum(1) for token in range(5)])
    assert kept > 0.9
    np.testing.assert_allclose(mixed, counts.max(0).mean() / 4, atol=0.05)
    assert (np.asarray(runs.step) == 120).all() and (np.asarray(runs.failed) == -1).all()


def test_a_network_that_mixes_by_a_converged_projection_learns():
    made = trainer_of(mixer="sinkhorn", depth=1, width=8)
    _, losses = side_by_side(made.advance, drawn_run(made), steps=30)
    assert np.isfinite(losses).all() and losses[0, -5:].mean() < losses[0, :5].mean()


@pytest.mark.parametrize(("alike", "least", "most"), [(False, 1e-4, np.inf), (True, 0, 1e-5)])
def test_streams_part_in_training_and_their_mixing_has_a_gradient_unless_all_are_read_alike(
    alike, least, most
):
    made = trainer_of(
        Training(steps=20, batch=8, warmup=0), mixer="kronecker", over="streams", depth=3
    )
    runs = drawn_run(made)
    if alike:
        for name in ("read", "write"):
            runs.parameters["layers"]["mixing"][name][...] = jnp.zeros((1, 3, 4), jnp.float32)
    runs, _ = side_by_side(made.advance, runs, steps=3)
    _, gradient = side_by_side(made.slope, runs)
    slope = gradient["layers"]["mixing"]["parameters"]["values"][...][0]
    assert least <= jnp.linalg.norm(slope[1]) <= most
    # Before the first layer all streams are equal, and after the last they are averaged.
    assert max(jnp.linalg.norm(slope[i]) for i in (0, 2)) < 1e-5


@pytest.mark.slow
def test_a_run_that_goes_on_is_bit_for_bit_the_run_that_never_stopped():
    """60 steps are compiled apart from 30."""
    whole, losses = advance(three_runs(), 60)
    half, seen = three_runs(), []
    for _ in range(2):
        half, losses_of_half = advance(half)
        half = jax.tree.map(lambda x: jnp.asarray(np.array(x)), half)  # out of the device and back
        seen.append(losses_of_half)
    np.testing.assert_array_equal(np.concatenate(seen, 1), losses)
    jax.tree.map(np.testing.assert_array_equal, half, whole)


def test_runs_side_by_side_are_the_runs_one_by_one():
    runs = three_runs()
    _, losses = advance(runs)
    _, lone = advance(jax.tree.map(lambda x: x[1:2], runs))
    np.testing.assert_allclose(lone[0], losses[1], rtol=1e-3)
    assert not np.allclose(losses[0], losses[1], rtol=1e-2)


def test_a_second_call_compiles_nothing_and_another_trainer_does():
    traced, counts = [], []

    def counted(key, batch):
        traced.append(batch)
        return TASK.train(key, batch)

    counting = TASK._replace(train=counted)
    first, second = (
        trainer(Architecture("identity", depth=1, width=4), counting, QUICK) for _ in range(2)
    )
    runs = drawn_run(first)
    for made in (first, first, second):
        side_by_side(made.advance, runs, steps=2)
        counts.append(len(traced))
    assert 0 < counts[0] == counts[1] and counts[2] == 2 * counts[0]


def test_a_loss_that_is_not_finite_stops_its_run_alone_and_leaves_it_as_it_was():
    made = trainer_of(mixer="kronecker", noisy=True)
    runs = three_runs(noise=((0, 0), (0, jnp.inf), (0, 0)))
    after, _ = advance(runs)
    assert after.failed.tolist() == [-1, 0, -1] and after.step.tolist() == [30, 0, 30]
    assert after.stopped.tolist() == [False, True, False]
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new[1], old[1]),
        after.parameters,
        runs.parameters,
    )
    batches = side_by_side(made.batch, after)
    _, traces = side_by_side(made.trace, after, batches[0])
    assert first_not_finite(jax.tree.map(lambda x: x[1], traces)) == 2
    assert first_not_finite(jax.tree.map(lambda x: x[0], traces)) is None
    assert first_not_finite(Trace(None, None, None, jnp.ones((4, 3), bool), None)) is None


@pytest.mark.slow
def test_where_the_gradient_underflows_decay_alone_moves_the_logits():
    """tokenbender's start in float32, theory.md 6.2: what is left is the schedule's product."""
    training = dataclasses.replace(QUICK, mixing_decay=0.5, steps=20)
    made = trainer_of(training, mixer="tokenbender", depth=1)
    start = side_by_side(made.begin, KEYS[:1])
    end, _ = side_by_side(made.advance, start, steps=20)
    before, after = (
        run.parameters["layers"]["mixing"]["parameters"]["values"][...][0, 0]
        for run in (start, end)
    )
    np.testing.assert_array_equal(before, PRESETS["tokenbender"].initial(4))
    np.testing.assert_allclose(after, before * decayed(training)[-1], rtol=1e-5)
    assert 0.5 < decayed(training)[-1] < 0.99


def test_residual_weights_are_trained_where_asked_and_parameters_that_are_not_learned_stay():
    made = trainer_of(mixer="kronecker", learned=False, learned_alpha=True, norm="none")
    runs = side_by_side(made.begin, KEYS[:1], jnp.ones(1), jnp.array([[0.2, 0.7]]))
    after, _ = side_by_side(made.advance, runs, steps=30)
    np.testing.assert_allclose(residual_weights(runs), [[0.2, 0.7]], rtol=1e-6)
    alpha = np.asarray(residual_weights(after)[0], np.float64)
    assert (abs(alpha - [0.2, 0.7]) > 0.01).all() and ((alpha > 0) & (alpha < 1)).all()
    # The mixing is by the α that came out.
    _, trace = side_by_side(made.trace, after, TASK.test[0][None, :2])
    for index in range(2):
        mixing = np.asarray(trace.matrices[0, 0, index], np.float64)
        residual = (1 - alpha[index]) * np.eye(4) + alpha[index] * mixing
        before, state = (np.asarray(trace.states[0, 0, index + i]) for i in (0, 1))
        np.testing.assert_allclose(state, residual @ before, rtol=1e-4, atol=1e-5)
    # Parameters that are not learned are settings.
    assert runs.settings["layers"]["mixing"]["parameters"]["values"][...].shape == (1, 2, 2, 2)
    jax.tree.map(np.testing.assert_array_equal, after.settings, runs.settings)


def test_residual_weights_that_are_not_trained_are_those_that_were_given():
    np.testing.assert_allclose(residual_weights(three_runs(alpha=(0.3, 0.3, 0.3))), 0.3, rtol=1e-6)


@pytest.mark.slow
def test_attention_learns_recall():
    task = recall(pairs=2, keys=4, values=4, tests=256)
    training = Training(steps=1200, batch=64, learning_rate=3e-3)
    for name in ("softmax", "sinkhorn"):
        made = trainer(
            Architecture(name, "attention", depth=2, width=32, hidden=64), task, training
        )
        run, _ = jax.jit(made.advance, static_argnums=1)(made.begin(jax.random.key(0)), 1200)
        assert jax.jit(made.evaluate)(run)[1] > 0.9


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_every_mixer_can_depend_on_the_token(name):
    made = trainer_of(mixer=name, over="streams", depth=3, dynamic=True)
    run = jax.eval_shape(made.begin, jax.random.key(0))
    _, trace = jax.eval_shape(made.trace, run, TASK.test[0][:2])
    assert trace.matrices.shape == (2, 3, TASK.units, 4, 4)


@pytest.mark.slow
def test_layers_computed_again_have_the_gradient_of_those_that_are_kept():
    slopes = []
    for remat in (False, True):
        made = trainer_of(mixer="identity", depth=3, hidden=8, remat=remat)
        slopes.append(jax.tree.leaves(side_by_side(made.slope, drawn_run(made))))
    for kept, again in zip(*slopes, strict=True):
        np.testing.assert_allclose(kept, again, rtol=1e-5, atol=1e-7)
