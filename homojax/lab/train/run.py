"""Train networks, in groups side by side, and compare their mixing with the laws."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from homojax.lab.blocks import Blocks, resume
from homojax.lab.devices import on_all_devices
from homojax.lab.inputs import InputError, as_config, require_precision
from homojax.lab.places import making, path_of
from homojax.lab.progress import Progress, Steps, require_progress, silent
from homojax.lab.runs import own
from homojax.lab.train.checkpoints import Checkpoints, fingerprint_of
from homojax.lab.train.config import Group, Train
from homojax.lab.train.dataset import assemble
from homojax.lab.train.measures import measure
from homojax.lab.train.tasks import load_task
from homojax.networks.architecture import Architecture
from homojax.networks.mixing import tempered
from homojax.networks.run import Run
from homojax.networks.trainer import Trainer, side_by_side, trainer
from homojax.networks.training import Training


class Trained(NamedTuple):
    """Networks of one depth, to be measured in other ways than ``train`` does."""

    trainer: Trainer
    start: Run  # with a leading axis of runs: epsilon × alpha × noise × seed
    end: Run
    losses: np.ndarray  # [runs, reports], the mean training loss; NaN after a run has stopped


def train(
    config: Train | None = None,
    folder: str | Path | None = None,
    *,
    progress: Progress = silent,
    **fields: Any,
) -> xr.Dataset:
    """Train every network that is asked for, and measure it on held-out examples.

    Args:
        config: what to train; or give its fields as keywords, such as ``epsilon=(0.1, 1)``.
        folder: keeps checkpoints and ``train.zarr``. A folder that holds this very training is read
            and returned; an interrupted training continues, bit for bit.
        progress: called with (steps done, steps in all, what is being done).
        fields: fields of ``Train``.

    Returns:
        A Dataset of dimensions depth, epsilon, alpha, noise, seed, and report, layer, after or
        claim where a quantity varies with them. ``lab.train.dataset`` lists the variables. Names
        that end in ``_start`` were measured before training, those in ``_end`` after it.
        ``violated``, ``undecidable``, ``holds`` and ``not_applicable`` count comparisons of each
        claim by layer, over runs.

    Raises:
        InputError: there is no such task, the architecture cannot do it, the folder holds another
            run, or the networks do not fit in memory.
        OSError: the folder cannot be written.

    >>> still = Architecture("identity", depth=1, width=4)
    >>> short = Training(steps=2, batch=2)
    >>> ds = train(architecture=still, training=short, seeds=1, claims=False)
    >>> round(float(ds.sigma2_end.mean()), 6)
    1.0
    """
    require_progress(progress)
    config = as_config(Train, config, fields)
    trainer_of(config, min(config.all_depths))  # refuse what cannot be before anything is kept
    folder = path_of(folder)
    if folder is None:
        return _train(config, None, progress, Blocks(None))
    with making(folder):
        own(folder, config.identity)
    compute = partial(_train, config, folder, progress)
    return resume(folder / "train.zarr", config.digest, compute)


def _train(config: Train, folder: Path | None, progress: Progress, blocks: Blocks) -> xr.Dataset:
    loaded = ((depth, blocks.load(f"depth-{depth}")) for depth in config.all_depths)
    parts = {depth: part for depth, part in loaded if part is not None}
    left = [depth for depth in config.all_depths if depth not in parts]
    with Steps(_steps_of(config, left), progress) as steps:
        for depth, trained in _trained(config, left, folder, steps):
            steps.say(f"measuring {depth} layer{'s' * (depth > 1)}")
            parts[depth] = _measured(config, depth, trained)
            blocks.save(f"depth-{depth}", parts[depth])
    return assemble(config, [parts[depth] for depth in config.all_depths])


def _steps_of(config: Train, depths: list[int]) -> int:
    """Return how many steps the groups of these depths take, all together."""
    return config.training.steps * sum(len(config.groups(depth)) for depth in depths)


def _measured(config: Train, depth: int, trained: Trained) -> dict[str, np.ndarray]:
    """Return every variable of the Dataset for networks of one depth, [runs, …]."""
    noisy = max(config.noise) > 0
    with _memory(config, len(config.cells), depth):
        measured = measure(
            trained.trainer, trained.start, trained.end, noisy=noisy, claims=config.claims
        )
    return {"loss": trained.losses, **measured}


@contextmanager
def _memory(config: Train, networks: int, depth: int) -> Iterator[None]:
    """Raise InputError, in one sentence, where memory runs out."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"there is no memory for {_in_words(networks, depth)} with batches of "
            f"{config.training.batch}: try fewer values or seeds at a time, a smaller batch, or "
            "remat."
        ) from error


def _in_words(networks: int, depth: int) -> str:
    return f"{networks} network{'s' * (networks > 1)} of {depth} layer{'s' * (depth > 1)}"


# ---------------------------------------------------------------- training


def trainer_of(config: Train, depth: int) -> Trainer:
    """Return what trains the networks of one depth.

    Raises:
        InputError: there is no such task or mixer; the mixer has no matrix of that size, or cannot
            do what the task asks; or a setting has no effect.
    """
    noisy = config.architecture.noisy or max(config.noise) > 0
    architecture = dataclasses.replace(config.architecture, depth=depth, noisy=noisy)
    if architecture.mixing_dtype == "float64":
        require_precision("float64")
    try:
        made = _trainer(architecture, config.task, config.training)
    except ValueError as error:
        raise InputError(f"{error}.") from error
    if config.epsilon != Train.epsilon and not tempered(architecture.mixer):
        raise InputError(
            f"{architecture.mixer} does not depend on the ε that is given (a preset has its own): "
            "leave it out."
        )
    return made


@lru_cache(maxsize=16)  # compiled programs are found again by the identity of the functions
def _trainer(architecture: Architecture, task: str, training: Training) -> Trainer:
    return trainer(architecture, load_task(task), training)


def train_depth(
    config: Train, depth: int, folder: Path | None = None, *, progress: Progress = silent
) -> Trained:
    """Return the trained networks of one depth; continue from the checkpoints in ``folder``.

    Raises:
        InputError: the networks cannot be made, or a checkpoint is damaged or of another training.
    """
    with Steps(_steps_of(config, [depth]), progress) as steps:
        [(_, trained)] = _trained(config, [depth], folder, steps)
    return trained


def _trained(
    config: Train, depths: list[int], folder: Path | None, steps: Steps
) -> Iterator[tuple[int, Trained]]:
    """Yield each depth with its trained networks. All devices train, each a group at a time."""
    groups = [group for depth in depths for group in config.groups(depth)]
    ended: dict[Group, Trained] = {}
    for group, trained in on_all_devices(partial(train_group, config, folder, steps), groups):
        ended[group] = trained
        of_depth = config.groups(group.depth)
        if all(one in ended for one in of_depth):
            yield group.depth, _joined([ended.pop(one) for one in of_depth])


def _joined(groups: list[Trained]) -> Trained:
    """Return the networks of all groups of one depth, on the default device."""

    def join(*parts: jax.Array) -> jax.Array:
        return jnp.concatenate(jax.device_get(parts))

    start, end = (
        jax.tree.map(join, *runs) for runs in zip(*((g.start, g.end) for g in groups), strict=True)
    )
    return Trained(groups[0].trainer, start, end, np.concatenate([g.losses for g in groups]))


def train_group(config: Train, folder: Path | None, steps: Steps, group: Group) -> Trained:
    """Return the trained networks of one group; continue from its checkpoint in ``folder``.

    Raises:
        InputError: the networks cannot be made or do not fit in memory, or the checkpoint is
            damaged or of another training.
    """
    networks, trainer = len(group.cells), trainer_of(config, group.depth)
    done, ends = 0, (0, *config.report_steps)
    losses = np.full((networks, len(config.report_steps)), np.nan)
    doing = _in_words(networks, group.depth)
    fingerprint = fingerprint_of(config.digest, trainer.test)
    with (
        _memory(config, networks, group.depth),
        Checkpoints(folder, group.key, fingerprint) as checkpoints,
    ):
        run = start = _begin(config, trainer, group)
        kept = checkpoints.latest({"run": run, "losses": losses, "done": done})
        if kept is not None:
            run, losses, done = kept["run"], np.array(kept["losses"]), int(kept["done"])
        steps.add(ends[done])
        while done < len(config.report_steps) and not np.asarray(run.stopped).all():
            steps.say(doing)
            # A run that had stopped before these steps has no loss to report.
            stood, more = np.asarray(run.stopped), ends[done + 1] - ends[done]
            run, seen = side_by_side(trainer.advance, run, steps=more)
            losses[:, done] = np.where(stood, np.nan, np.asarray(seen, np.float64).mean(1))
            done += 1
            steps.add(more)
            if config.patience:
                patient = reports_without_gain(losses[:, :done]) < config.patience
                run = run._replace(stopped=run.stopped | jnp.asarray(~patient))
            checkpoints.save(done, {"run": run, "losses": losses, "done": done})
    steps.add(config.training.steps - ends[done])
    return Trained(trainer, start, run, losses)


def _begin(config: Train, trainer: Trainer, group: Group) -> Run:
    """Return the runs of a group before training, in the order of its cells."""
    key = jax.random.key(config.seed)
    keys = [jax.random.fold_in(key, cell.seed) for cell in group.cells]
    values = (
        jnp.asarray(column, jnp.float32) for column in list(zip(*group.cells, strict=True))[:3]
    )
    return side_by_side(trainer.begin, jnp.stack(keys), *values)


def reports_without_gain(losses: np.ndarray) -> np.ndarray:
    """Return how many reports each run has made since its loss was last the lowest so far, [runs].

    >>> reports_without_gain(np.array([[3.0, 2.0, 2.5, np.nan], [3.0, 2.0, 2.5, 1.0]])).tolist()
    [2, 0]
    """
    lowest = np.fmin.accumulate(np.pad(losses, ((0, 0), (1, 0)), constant_values=np.inf), axis=1)
    gained = losses < lowest[:, :-1]
    since = np.argmax(gained[:, ::-1], axis=1)
    return np.where(gained.any(1), since, losses.shape[1])
