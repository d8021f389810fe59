"""Where logits and the tasks of networks come from, by name: random, real images, text, trained matrices, a user's own file."""

from __future__ import annotations

import inspect
import json
import zipfile
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from homojax.lab.inputs import InputError, nearest
from homojax.lab.sweep.config import Sweep
from homojax.networks.tasks import Task, classification, copying, language, recall


class Source(NamedTuple):
    """Stacks of logits. ``draw(n, seed, layers)`` is float64 [layers, n, n]; layers do not depend on how many follow."""

    description: str
    sizes: tuple[int, ...]  # the n to run
    seeds: int  # independent stacks
    layers: (
        int | None
    )  # distinct layers, None for as many as asked; fewer than asked are repeated in order
    draw: Callable[[int, int, int], np.ndarray]


def load_source(sweep: Sweep) -> Source:
    """The source that a sweep names, with its n and seeds settled.

    Raises:
        InputError: no such source, a file that cannot be read as finite [..., n, n] logits, or an n or seeds it does not have.
    """
    if sweep.source not in SOURCES:
        raise InputError(f'there is no source "{sweep.source}": {nearest(sweep.source, SOURCES)}')
    return SOURCES[sweep.source](sweep)


def _gaussian(sweep: Sweep) -> Source:
    def draw(n, seed, layers):
        return np.random.default_rng([sweep.seed, n, seed]).standard_normal((layers, n, n))

    return Source(
        "independent standard normal logits, new ones every layer",
        sweep.n or (4, 16),
        sweep.seeds or 8,
        None,
        draw,
    )


def _digits(sweep: Sweep) -> Source:
    """Whole images as tokens, not patches: n is then free from 2 to 1797, and no two tokens are equal, where the blank corner
    patches of these 8 × 8 images are and would put exact ties in every matrix."""
    images = _standardised_digits()
    sizes = sweep.n or (4, 16)
    if max(sizes) > len(images):
        raise InputError(
            f"n = {max(sizes)} is more than the {len(images)} images that source digits has."
        )

    def draw(n, seed, layers):
        rng = np.random.default_rng([sweep.seed, n, seed])
        chosen = images[
            np.stack([rng.choice(len(images), n, replace=False) for _ in range(layers)])
        ]
        return chosen @ chosen.swapaxes(1, 2) / np.sqrt(images.shape[1])

    text = "scaled dot products XXᵀ/√64 of n handwritten digits (scikit-learn, 8 × 8, standardised), new images every layer"
    return Source(text, sizes, sweep.seeds or 8, None, draw)


@cache
def _standardised_digits() -> np.ndarray:
    images, _ = digits()
    pixels = images.reshape(len(images), -1).astype(np.float64)
    pixels = pixels - pixels.mean(0)
    return pixels / pixels.std()


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1797 handwritten digits: float32 images [1797, 8, 8] of whole numbers 0 … 16, and int32 labels 0 … 9.

    Read-only: every caller gets the same two arrays. From the UCI repository's "Optical Recognition of Handwritten Digits"
    (Alpaydın and Kaynak, 1998), its test part; scikit-learn ships them.

    >>> images, labels = digits()
    >>> images.shape, images.max().item(), labels[:3].tolist()
    ((1797, 8, 8), 16.0, [0, 1, 2])
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8)
    labels = np.asarray(labels, np.int32)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


@cache
def documentation() -> str:
    """The text of Python's own ``help()`` topics (``pydoc_data.topics``), about 460 kB: all of them, in order of their names.

    It differs between versions of Python: say which where a figure is reported.

    Raises:
        InputError: this Python was installed without it.

    >>> len(documentation()) > 100_000
    True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InputError(
            "this Python was installed without its help topics (pydoc_data): try another for task text."
        ) from error
    return "".join(topics[name] for name in sorted(topics))


def load_task(name: str, **options: Any) -> Task:
    """The task of this name, with options such as its ``units`` or ``seed`` (see ``homojax.networks.tasks``) set.

    Raises:
        InputError: no such task, an option that it does not have, or a value that it cannot have.

    >>> load_task("copying", units=4).units
    4
    """
    if name not in TASKS:
        raise InputError(f'there is no task "{name}": {nearest(name, TASKS)}')
    known = inspect.signature(TASKS[name]).parameters
    for option in options:
        if option not in known:
            raise InputError(f'task {name} has no option "{option}": {nearest(option, known)}')
    try:
        return TASKS[name](**options)
    except ValueError as error:
        raise InputError(f"task {name}: {error}.") from error


def _digits_task(patch: int = 2, held_out: float = 0.2, seed: int = 0) -> Task:
    return classification(*digits(), patch=patch, held_out=held_out, seed=seed, name="digits")


def _text_task(units: int = 64, held_out: float = 0.1, tests: int = 512) -> Task:
    return language(documentation(), units, held_out=held_out, tests=tests, name="text")


def trained_mhc() -> dict:
    """The twelve trained mHC logits that ship with the package: layers, tau, num_iters, published figures and their source."""
    return json.loads(
        resources.files("homojax").joinpath("data/trained_mhc_logits.json").read_text("utf-8")
    )


def _trained_mhc(sweep: Sweep) -> Source:
    data = trained_mhc()
    logits = np.array([layer["logits"] for layer in data["layers"]])
    return _fixed(
        sweep,
        logits[None],
        f"twelve trained residual-mixing logits of an mHC language model ({data['source'].split(',')[0]})",
    )


def _file(sweep: Sweep) -> Source:
    assert sweep.path is not None  # Sweep saw to it
    logits = _read_array(sweep.path, sweep.array)
    if (
        logits.ndim < 2
        or logits.shape[-1] != logits.shape[-2]
        or logits.size == 0
        or logits.shape[-1] < 2
    ):
        raise InputError(
            f"{sweep.path} has shape {list(logits.shape)}: logits must be [..., n, n] with n at least 2 and none empty."
        )
    if not (
        jnp.issubdtype(logits.dtype, jnp.floating) or jnp.issubdtype(logits.dtype, jnp.integer)
    ):  # bfloat16 is a float to jax
        raise InputError(f"{sweep.path} holds {logits.dtype}: logits must be real numbers.")
    logits = np.asarray(logits, np.float64)
    if not np.isfinite(logits).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(logits))[0])
        raise InputError(
            f"{sweep.path} is {logits[index]} at {list(index)}: logits must be finite."
        )
    if sweep.orientation == "inputs-first":
        logits = logits.swapaxes(-1, -2)
    stacks = logits[None, None] if logits.ndim == 2 else logits.reshape(-1, *logits.shape[-3:])
    return _fixed(sweep, stacks, f"{sweep.path.name}, {list(logits.shape)}, {sweep.orientation}")


def _fixed(sweep: Sweep, stacks: np.ndarray, description: str) -> Source:
    """A source that is one array [seeds, layers, n, n]."""
    seeds, layers, n, _ = stacks.shape
    if sweep.n not in (None, (n,)):
        raise InputError(
            f"n = {', '.join(map(str, sweep.n))} was asked, and source {sweep.source} has n = {n} only; leave n out."
        )
    if sweep.seeds is not None and sweep.seeds > seeds:
        raise InputError(
            f"{sweep.seeds} seeds were asked, and source {sweep.source} has {seeds}; leave seeds out."
        )
    return Source(
        description,
        (n,),
        sweep.seeds or seeds,
        layers,
        lambda n, seed, wanted: stacks[seed, np.arange(wanted) % layers],
    )


def _read_array(path: Path, name: str | None) -> np.ndarray:
    kinds = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in kinds:
        raise InputError(f"{path} is not a .npy, .npz or .safetensors file.")
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    try:
        return kinds[path.suffix](path, name)
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        MemoryError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        if "pickle" in str(error).lower() or "Python objects" in str(error):
            raise InputError(
                f"{path} holds pickled Python objects, which can run code when read: save a plain array instead."
            ) from error
        raise InputError(
            f"{path} cannot be read as a {path.suffix} file: it is truncated or damaged, or of a type unknown here."
        ) from error


def _read_npy(path: Path, name: str | None) -> np.ndarray:
    return np.load(
        path, allow_pickle=False, mmap_mode="r"
    )  # a memory map checks the promised shape against the file's length


def _read_npz(path: Path, name: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[_choose(list(arrays.files), name, path)]


def _read_safetensors(path: Path, name: str | None) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as arrays:
            return arrays.get_tensor(_choose(list(arrays.keys()), name, path))
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _choose(names: list[str], name: str | None, path: Path) -> str:
    if not names:
        raise InputError(f"{path} holds no arrays.")
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise InputError(
            f"{path} holds {len(names)} arrays ({', '.join(names[:8])}): name one with array."
        )
    if name not in names:
        raise InputError(f'{path} holds no array "{name}": {nearest(name, names)}')
    return name


SOURCES: dict[str, Callable[[Sweep], Source]] = {
    "gaussian": _gaussian,
    "digits": _digits,
    "trained-mhc": _trained_mhc,
    "file": _file,
}

TASKS: dict[str, Callable[..., Task]] = {
    "copying": copying,
    "recall": recall,
    "digits": _digits_task,
    "text": _text_task,
}
