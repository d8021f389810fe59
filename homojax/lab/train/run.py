"""Train networks, all seeds and values side by side, and hold their mixing matrices against the laws."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from homojax.lab.inputs import InputError, require_precision, typed
from homojax.lab.runs import open_store, versions, write_dataset
from homojax.lab.sources import load_task
from homojax.lab.train.checkpoints import Checkpoints, identity, require_same
from homojax.lab.train.measures import (
    JUDGED,
    directions_of,
    expected_cosines,
    judgements_of,
    measures_of,
    stacks_of,
)
from homojax.lab.verify.run import VERDICTS
from homojax.networks.architecture import Architecture
from homojax.networks.mixing import tempered
from homojax.networks.run import Run, first_not_finite, last_not_finite
from homojax.networks.trainer import Trainer, side_by_side, trainer
from homojax.networks.training import Training

REPORTS = 20  # means of the loss, and chances to save and to stop, in a training
GRID = ("epsilon", "alpha", "noise", "seed")  # what is trained side by side


@dataclasses.dataclass(frozen=True)
class Train:
    """Which networks to train, on what, and over which values: every combination is trained."""

    task: str = "copying"
    """copying, recall, digits or text."""
    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    training: Training = dataclasses.field(default_factory=Training)
    depths: tuple[int, ...] = ()
    """Numbers of layers to compare; none: the architecture's depth alone."""
    epsilon: tuple[float, ...] = (1.0,)
    """Entropy weights of the mixing; a preset keeps to its own."""
    alpha: tuple[float, ...] = (0.5,)
    """Residual weights: x -> (1 − α)x + αMx; hyper-connections of public codes have 1."""
    noise: tuple[float, ...] = (0.0,)
    """Standard deviations of the noise on every entry after every layer."""
    seeds: int = 5
    """Initialisations, each with its own batches."""
    seed: int = 0
    """Of all randomness."""
    claims: bool = True
    """Judge the claims about matrices and stacks on the trained ones, too: half a minute of compiling for every depth."""
    patience: int = 0
    """Reports (a twentieth of the steps each) without a lower mean loss after which a run stops; 0: none does."""

    def __post_init__(self):
        hints = typing.get_type_hints(Train)
        for name in ("task", "depths", "epsilon", "alpha", "noise", "seeds", "seed", "patience"):
            object.__setattr__(self, name, typed(getattr(self, name), hints[name], name))
        for name in ("depths", "epsilon", "alpha", "noise"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"{name} has a value twice: {', '.join(map(str, values))}.")
        ranges = {
            "depths": (lambda x: x >= 1, "at least 1"),
            "epsilon": (
                lambda x: 0 < np.float32(x) < math.inf,
                "a positive number, in float32, too",
            ),
            "alpha": (lambda x: 0 <= x <= 1, "between 0 and 1"),
            "noise": (lambda x: 0 <= x < math.inf, "a finite number, not negative"),
        }
        for name, (allowed, text) in ranges.items():
            if not getattr(self, name) and name != "depths":
                raise InputError(f"{name} is an empty grid: give at least one value.")
            bad = next((x for x in getattr(self, name) if not allowed(x)), None)
            if bad is not None:
                raise InputError(f"{name} = {bad} is not possible: it must be {text}.")
        if self.architecture.learned_alpha and not all(0 < np.float32(x) < 1 for x in self.alpha):
            raise InputError(
                "a residual weight of 0 or 1 cannot be learned, for it could not move: try alpha = 0.5."
            )
        for name, least in (("seeds", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} = {getattr(self, name)} is not possible: it must be at least {least}."
                )
        if not 0 <= self.seed < 2**32:  # beyond, without x64, it would be another seed's
            raise InputError(
                f"seed = {self.seed} is not possible: it must be between 0 and 2³² − 1."
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The depths that are trained."""
        return self.depths or (self.architecture.depth,)

    @property
    def digest(self) -> str:
        """Hash of everything that changes a result."""
        return hashlib.sha256(
            json.dumps([dataclasses.asdict(self), version("homojax")]).encode()
        ).hexdigest()[:16]


class Trained(NamedTuple):
    """The networks of one depth: what ``train`` leaves behind them, and what else may be asked of them."""

    trainer: Trainer
    start: Run  # leading axis of runs: epsilon × alpha × noise × seed
    end: Run
    losses: np.ndarray  # [runs, reports]


Progress = Callable[[int, int, str], None]


@threadpool_limits.wrap(limits=1, user_api="blas")
def train(
    what: Train, folder: str | Path | None = None, *, progress: Progress | None = None
) -> xr.Dataset:
    """Trains every network asked for, and measures it before and after on held-out examples.

    Dimensions depth, epsilon, alpha, noise, seed, and report, layer, claim. Variables: ``loss`` (mean of the training loss since
    the last report), ``test_loss``, ``accuracy`` (both NaN for a network that gives no numbers); at the start and at the end
    (``_start``, ``_end``) ``alpha`` and ``sigma2`` of every layer, ``energy`` of detail after 0 … L layers, ``turned``
    (radians a layer), ``row_error`` and ``col_error`` (largest |sum − 1|), ``kept`` (σ₂ of the composite of the layers (1 −
    α)I + αM; ``kept_after`` 1 … L of them), what the laws say of these layer by layer (``kept_predicted``, the product of
    5.1's bounds; ``turned_predicted``, 5.2's, of tokens mixed by a matrix alone), where there is noise the ``cosine`` of the
    detail after each layer with that without noise, and ``cosine_predicted`` by 4.2 from their SNR; the effective depths at ρ
    = ½ by the bound and by the top Lyapunov exponent of these; the verdicts at the end of every claim about stacks, and of
    every claim about one matrix on that of each layer, counted over runs by layer; ``failed_step`` and ``failed_layer`` of a
    run whose loss or gradient was not finite (−1: none; 0 is the embedding, L + 1 what comes after the layers), and whether
    it was
    ``failed_backward``, in the gradient.

    With ``folder`` checkpoints and ``train.zarr`` are kept there: an interrupted training goes on where it was, bit for bit.

    Raises:
        InputError: there is no such task, the architecture cannot do it, ``folder`` holds another training, or memory is out.
        OSError: the folder cannot be written.

    >>> still = Architecture("identity", depth=1, width=4)
    >>> float(train(Train(architecture=still, training=Training(steps=2, batch=2), seeds=1, claims=False)).sigma2_end.mean())
    1.0
    """
    folder = None if folder is None else Path(folder)
    trainer_of(what, min(what.layers))  # what cannot be is told before anything is kept
    if folder is not None:
        require_same(dataclasses.asdict(what), folder)
    found, _ = open_store(None if folder is None else folder / "train.zarr", what.digest)
    if found is not None:
        return found
    parts = []
    for depth in what.layers:
        with _in_memory(what, depth):
            trained = train_depth(what, depth, folder, progress=progress)
            if progress:
                progress(len(parts) + 1, len(what.layers), f"measuring {depth} layers")
            parts.append(_measured(what, depth, trained))
    dataset = _dataset(what, parts)
    if folder is not None:
        write_dataset(dataset, folder / "train.zarr")
    return dataset


@contextmanager
def _in_memory(what: Train, depth: int) -> Iterator[None]:
    """Tells what does not fit in memory in one sentence."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        runs = math.prod(len(getattr(what, name)) for name in GRID[:3]) * what.seeds
        raise InputError(
            f"{runs} networks of {depth} layers with batches of {what.training.batch} do not fit in memory: try fewer values or "
            "seeds at a time, a smaller batch, or remat."
        ) from error


def trainer_of(what: Train, depth: int) -> Trainer:
    """What trains the networks of one depth.

    Raises:
        InputError: there is no such task or mixer, or it has no matrix of that size, or cannot do what the task asks.
    """
    noisy = what.architecture.noisy or max(what.noise) > 0
    architecture = dataclasses.replace(what.architecture, depth=depth, noisy=noisy)
    if architecture.mixing_dtype == "float64":
        require_precision("float64")
    try:
        found = _trainer(architecture, what.task, what.training)
    except ValueError as error:
        raise InputError(f"{error}.") from error
    if what.epsilon != Train.epsilon and not tempered(architecture.mixer):
        raise InputError(
            f"{architecture.mixer} does not depend on the ε that is given (a preset has its own): leave it out."
        )
    return found


@lru_cache(maxsize=16)  # the same functions, so that what is compiled for them is found again
def _trainer(architecture: Architecture, task: str, training: Training) -> Trainer:
    return trainer(architecture, load_task(task), training)


def train_depth(
    what: Train, depth: int, folder: Path | None = None, *, progress: Progress | None = None
) -> Trained:
    """The networks of one depth, trained, or as far as ``folder`` has them and then on."""
    of = trainer_of(what, depth)
    keys = [jax.random.fold_in(jax.random.key(what.seed), i) for i in range(what.seeds)]
    cells = list(itertools.product(what.epsilon, what.alpha, what.noise, range(what.seeds)))
    values = (jnp.asarray(x, jnp.float32) for x in list(zip(*cells, strict=True))[:3])
    start = side_by_side(of.begin, jnp.stack([keys[cell[3]] for cell in cells]), *values)

    steps, ends = what.training.steps, _report_steps(what.training)
    run, losses, best, waited = (
        start,
        np.zeros((len(cells), 0)),
        np.full(len(cells), np.inf),
        np.zeros(len(cells), int),
    )
    with Checkpoints(folder, depth) as checkpoints:
        about = identity(what.digest, of.test)
        kept = checkpoints.latest(
            {"run": run, "losses": np.zeros((len(cells), len(ends))), "done": 0, "about": about}
        )
        if kept is not None:
            run, losses = kept["run"], np.asarray(kept["losses"])[:, : int(kept["done"])]
        for report in range(len(ends)):
            if report < losses.shape[1]:
                found = losses[:, report]
            else:
                if progress:
                    progress(
                        ends[report - 1] if report else 0,
                        steps,
                        f"{len(cells)} networks of {depth} layers",
                    )
                stood = np.asarray(run.stopped)
                run, seen = side_by_side(
                    of.advance, run, steps=ends[report] - (ends[report - 1] if report else 0)
                )
                found = np.where(stood, np.nan, np.asarray(seen, np.float64).mean(1))
                losses = np.column_stack([losses, found])
            waited = np.where(found < best, 0, waited + 1)
            best = np.fmin(best, found)
            if what.patience:
                run = run._replace(stopped=run.stopped | jnp.asarray(waited >= what.patience))
            if report >= checkpoints.done:
                padded = np.pad(
                    losses, ((0, 0), (0, len(ends) - losses.shape[1])), constant_values=np.nan
                )
                checkpoints.save(
                    report + 1, {"run": run, "losses": padded, "done": report + 1, "about": about}
                )
            if bool(np.asarray(run.stopped).all()):
                break
    if progress:
        progress(steps, steps, f"{len(cells)} networks of {depth} layers")
    padded = np.pad(losses, ((0, 0), (0, len(ends) - losses.shape[1])), constant_values=np.nan)
    return Trained(of, start, run, padded)


def _report_steps(training: Training) -> list[int]:
    """The steps after which there is a report: every twentieth of the training, or every step of a shorter one."""
    return sorted({-(-training.steps * i // REPORTS) for i in range(1, REPORTS + 1)})


def _measured(what: Train, depth: int, trained: Trained) -> dict[str, np.ndarray]:
    """Every variable of the Dataset at this depth, [runs, …]."""
    found: dict[str, np.ndarray] = {"loss": trained.losses}
    loss, accuracy = side_by_side(trained.trainer.evaluate, trained.end)
    found |= {"test_loss": np.asarray(loss), "accuracy": np.asarray(accuracy)}
    for when, runs in (("start", trained.start), ("end", trained.end)):
        stacks = stacks_of(trained.trainer, runs)
        found |= {f"{name}_{when}": values for name, values in measures_of(stacks).items()}
        found[f"energy_{when}"] = np.asarray(stacks.trace.energy, np.float64).mean(1)
        found[f"turned_{when}"] = np.asarray(stacks.trace.turned, np.float64).mean(1)
        if max(what.noise) > 0:
            snr, cosine, d = directions_of(trained.trainer, runs)
            found[f"cosine_{when}"], found[f"cosine_predicted_{when}"] = (
                cosine,
                np.asarray(expected_cosines(snr, d)),
            )
    if what.claims:
        found |= judgements_of(stacks)
    failed = np.asarray(trained.end.failed)
    found["failed_step"], found["failed_layer"] = failed, np.full(len(failed), -1)
    found["failed_backward"] = np.zeros(len(failed), bool)
    broken = np.flatnonzero(failed >= 0)
    if len(broken):
        of, runs = trained.trainer, jax.tree.map(lambda x: x[broken], trained.end)
        _, traces = side_by_side(of.trace, runs, side_by_side(of.batch, runs)[0])
        _, slopes = side_by_side(of.slope, runs)
        for place, i in enumerate(broken):
            trace, slope = jax.tree.map(lambda x, place=place: x[place], (traces, slopes))
            layer = first_not_finite(trace)
            if layer is None:  # the forward pass was finite
                layer = last_not_finite(slope)
                found["failed_backward"][i] = layer is not None
            found["failed_layer"][i] = depth + 1 if layer is None else layer
    return found


_BY_LAYER = (
    "alpha",
    "sigma2",
    "kept_after",
    "kept_predicted",
    "turned",
    "turned_predicted",
    "cosine",
    "cosine_predicted",
)
_PER_LAYER = {"energy": "after"} | dict.fromkeys(_BY_LAYER, "layer")
_LONG = {
    "loss": "mean training loss since the last report; NaN once a run has stopped",
    "test_loss": "loss on held-out examples",
    "accuracy": "accuracy on held-out examples",
    "alpha": "residual weight of a layer",
    "sigma2": "σ₂ of a layer's mixing matrix",
    "energy": "energy of detail after so many layers",
    "turned": "angle by which a layer, but for its noise, turned the detail",
    "turned_predicted": "the largest such angle by 5.2, of tokens mixed by a matrix alone; π: no bound",
    "cosine": "cosine of the detail after a layer with that without noise",
    "cosine_predicted": "the same by 4.2, from the signal-to-noise ratio there",
    "row_error": "largest |row sum − 1| of any matrix",
    "col_error": "largest |column sum − 1| of any matrix",
    "kept": "σ₂ of the composite of the layers (1 − α)I + αM",
    "kept_after": "σ₂ of the composite of the first so many of them",
    "kept_predicted": "its bound by 3.1 and 5.1, Π(1 − α + ασ₂)",
    "depth_bound": "effective depth at ρ = ½ by 5.1 and 3.2; inf: σ₂ rounds to 1",
    "depth_typical": "effective depth at ρ = ½ by the top Lyapunov exponent; inf: what a layer loses is rounding",
    "failed_step": "step whose loss or gradient was not finite; −1: none",
    "failed_layer": "layer after which it was first not finite; 0: embedding; L + 1: after them all; −1: none",
    "failed_backward": "whether all was finite forward, and that layer is the first whose gradient was not",
    "violated": "comparisons found violated",
    "undecidable": "comparisons that cannot be told at this precision",
    "holds": "comparisons found to hold",
    "not_applicable": "comparisons whose assumptions are not met",
}


def _dataset(what: Train, parts: list[dict[str, np.ndarray]]) -> xr.Dataset:
    grid = (*(len(getattr(what, name)) for name in GRID[:3]), what.seeds)
    most = max(what.layers)
    variables = {}
    for name in parts[0]:
        base, _, when = name.rpartition("_")
        base = base if when in ("start", "end") else name
        if name in VERDICTS:
            layers = [
                np.pad(part[name], ((0, 0), (0, most - part[name].shape[1]))) for part in parts
            ]
            dims, values = ("depth", "claim", "layer"), np.stack(layers)
        else:
            extra = (
                ("report",) if name == "loss" else (_PER_LAYER[base],) if base in _PER_LAYER else ()
            )
            size = (
                {"layer": most, "after": most + 1, "report": len(_report_steps(what.training))}.get(
                    *extra, 0
                )
                if extra
                else 0
            )
            padded = [
                np.pad(x, ((0, 0), (0, size - x.shape[1])), constant_values=np.nan) if extra else x
                for x in (part[name] for part in parts)
            ]
            dims = ("depth", *GRID, *extra)
            values = np.stack([x.reshape(*grid, *x.shape[1:]) for x in padded])
        text = _LONG[base] + {"start": ", before training", "end": ", after training"}.get(
            when if base != name else "", ""
        )
        variables[name] = (
            dims,
            values,
            {"long_name": text, "units": "rad" if base.startswith("turned") else "1"},
        )
    coords = {
        "depth": ("depth", list(what.layers), {"long_name": "layers", "units": "1"}),
        "epsilon": ("epsilon", list(what.epsilon), {"long_name": "entropy weight ε", "units": "1"}),
        "alpha": ("alpha", list(what.alpha), {"long_name": "residual weight α", "units": "1"}),
        "noise": (
            "noise",
            list(what.noise),
            {"long_name": "standard deviation of the noise", "units": "1"},
        ),
        "seed": ("seed", np.arange(what.seeds), {"long_name": "seed"}),
        "report": ("report", _report_steps(what.training), {"long_name": "steps", "units": "1"}),
        "layer": ("layer", np.arange(1, most + 1), {"long_name": "layer"}),
        "after": ("after", np.arange(most + 1), {"long_name": "layers passed"}),
        "claim": (
            "claim",
            np.array([claim.name for claim in JUDGED], object),
            {"long_name": "claim"},
        ),
        "status": ("claim", np.array([claim.status for claim in JUDGED], object)),
    }
    task = load_task(what.task)
    device = jax.devices()[0]
    attrs = {
        "title": "homojax train",
        "config": json.dumps(dataclasses.asdict(what)),
        "config_hash": what.digest,
        "versions": json.dumps(versions()),
        "device": f"{device.platform}: {device.device_kind}",
        "statement": task.statement,
        "chance": task.chance,
        "seed": what.seed,
    }
    return xr.Dataset(variables, coords, attrs)
