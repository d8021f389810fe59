"""Where logits come from, by name: random, real images, trained matrices, a user's own file."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np

from homojax.lab.datasets import standardised_digits, trained_mhc
from homojax.lab.inputs import SEED, SEEDS, UNITS, Config, InputError
from homojax.registry import nearest


@dataclasses.dataclass(frozen=True)
class LogitSource(Config):
    """The part of a config that names a source of logits."""

    source: str = "gaussian"
    """Where the logits come from: gaussian, digits, trained-mhc or file."""
    path: Path | None = None
    """For source file: a .npy, .npz or .safetensors array [..., n, n].

    The last leading axis is the layer, others are seeds."""
    array: str | None = None
    """The array of an .npz or .safetensors file to take, where it holds several.

    A pattern (layers.*.mixing) stacks all that it fits as layers, in the order of their numbers."""
    orientation: Literal["outputs-first", "inputs-first"] = "outputs-first"
    """For source file: whether the first matrix axis is the output (y = M x) or the input."""
    n: Annotated[tuple[int, ...] | None, UNITS] = None
    """Numbers of mixed units (tokens or streams); default: what the source has, or 4 and 16."""
    seeds: Annotated[int | None, SEEDS] = None
    """Independent stacks for each n; default: what the source has, or 8."""
    seed: Annotated[int, SEED] = 0
    """Of all randomness."""

    def check(self) -> None:
        if self.source == "file" and self.path is None:
            raise InputError(
                "source file needs a path (--path) to a .npy, .npz or .safetensors file."
            )
        if self.source == "file":
            return
        for name in ("path", "array", "orientation"):
            if getattr(self, name) != getattr(LogitSource, name):
                raise InputError(
                    f'{name} is read only by source "file", and the source is "{self.source}".'
                )

    @property
    def digest(self) -> str:
        """A hash of everything that changes a result, the content of the user's file included."""
        if self.path is None:
            return super().digest
        try:
            content = self.path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot read {self.path}: {reason}.") from error
        return hashlib.sha256(super().digest.encode() + content).hexdigest()[:16]


class Source(NamedTuple):
    """Stacks of logits; layers do not depend on how many follow."""

    description: str
    sizes: tuple[int, ...]  # the n to run
    seeds: int  # independent stacks
    layers: int | None  # distinct layers; a stack that needs more repeats them. None: any number
    draw: Callable[[int, int, int], np.ndarray]  # (n, seed, layers) -> float64 [layers, n, n]


def load_source(config: LogitSource) -> Source:
    """Return the source that a config names, with its n and seeds settled.

    Raises:
        InputError: the source, its file, or the n or seeds asked of it do not exist.

    >>> load_source(LogitSource(n=(3,))).draw(3, 0, 2).shape
    (2, 3, 3)
    """
    if config.source not in SOURCES:
        raise InputError(f'there is no source "{config.source}": {nearest(config.source, SOURCES)}')
    return SOURCES[config.source](config)


def _gaussian(config: LogitSource) -> Source:
    def draw(n: int, seed: int, layers: int) -> np.ndarray:
        return np.random.default_rng([config.seed, n, seed]).standard_normal((layers, n, n))

    return Source(
        description="independent standard normal logits, new ones every layer",
        sizes=config.n or (4, 16),
        seeds=config.seeds or 8,
        layers=None,
        draw=draw,
    )


def _digits(config: LogitSource) -> Source:
    """Return logits of whole images as tokens.

    Not of patches: the blank corner patches of these 8 × 8 images are equal, and would put exact
    ties in every matrix.
    """
    images = standardised_digits()
    sizes = config.n or (4, 16)
    if max(sizes) > len(images):
        raise InputError(
            f"n = {max(sizes)} is more than the {len(images)} images that source digits has."
        )

    def draw(n: int, seed: int, layers: int) -> np.ndarray:
        rng = np.random.default_rng([config.seed, n, seed])
        rows = np.stack([rng.choice(len(images), n, replace=False) for _ in range(layers)])
        tokens = images[rows]
        return tokens @ tokens.swapaxes(1, 2) / np.sqrt(images.shape[1])

    return Source(
        description="scaled dot products XXᵀ/√64 of n handwritten digits (scikit-learn, 8 × 8, "
        "standardised), new images every layer",
        sizes=sizes,
        seeds=config.seeds or 8,
        layers=None,
        draw=draw,
    )


def _trained_mhc(config: LogitSource) -> Source:
    data = trained_mhc()
    logits = np.array([layer["logits"] for layer in data["layers"]])
    origin = data["source"].split(",")[0]
    text = f"twelve trained residual-mixing logits of an mHC language model ({origin})"
    return _fixed(config, logits[None], text)


def _file(config: LogitSource) -> Source:
    assert config.path is not None  # LogitSource.check saw to it
    logits = _read_logits(config.path, config.array)
    if config.orientation == "inputs-first":
        logits = logits.swapaxes(-1, -2)
    stacks = logits[None, None] if logits.ndim == 2 else logits.reshape(-1, *logits.shape[-3:])
    text = f"{config.path.name}, {list(logits.shape)}, {config.orientation}"
    return _fixed(config, stacks, text)


def _fixed(config: LogitSource, stacks: np.ndarray, description: str) -> Source:
    """Return the source that is one array [seeds, layers, n, n]."""
    seeds, layers, n, _ = stacks.shape
    if config.n not in (None, (n,)):
        asked = ", ".join(map(str, config.n))
        raise InputError(
            f"n = {asked} was asked, and source {config.source} has n = {n} only; leave n out."
        )
    if config.seeds is not None and config.seeds > seeds:
        raise InputError(
            f"{config.seeds} seeds were asked, and source {config.source} has {seeds}; leave "
            "seeds out."
        )
    return Source(
        description=description,
        sizes=(n,),
        seeds=config.seeds or seeds,
        layers=layers,
        draw=lambda n, seed, wanted: stacks[seed, np.arange(wanted) % layers],
    )


# ---------------------------------------------------------------- files


def _read_logits(path: Path, name: str | None) -> np.ndarray:
    """Return the float64 logits [..., n, n] that a file holds, finite or −inf."""
    import ml_dtypes  # NumPy's own types know no bfloat16

    logits = _read_array(path, name)
    square = logits.ndim >= 2 and logits.shape[-1] == logits.shape[-2] >= 2
    if not square or logits.size == 0:
        raise InputError(
            f"{path} has shape {list(logits.shape)}: logits must be [..., n, n] with n at least 2 "
            "and none empty."
        )
    if logits.dtype.kind not in "fiu" and not hasattr(ml_dtypes, logits.dtype.name):
        hint = "; save bfloat16 as float32, or as .safetensors" if logits.dtype.kind == "V" else ""
        raise InputError(f"{path} holds {logits.dtype}: logits must be real numbers{hint}.")
    logits = np.asarray(logits, np.float64)
    wrong = ~(logits < np.inf)  # NaN, too
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{path} is {logits[index]} at {list(index)}: logits must be finite, or −inf where no "
            "mass may go."
        )
    return logits


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
    except _DAMAGE as error:
        if "pickle" in str(error).lower() or "Python objects" in str(error):
            raise InputError(
                f"{path} holds pickled Python objects, which can run code when read: save a plain "
                "array instead."
            ) from error
        raise InputError(
            f"{path} cannot be read as a {path.suffix} file: it is truncated or damaged, or of a "
            "type unknown here."
        ) from error


_DAMAGE = (
    *(OSError, ValueError, EOFError, MemoryError, KeyError, TypeError, AttributeError),
    zipfile.BadZipFile,
)


def _read_npy(path: Path, name: str | None) -> np.ndarray:
    if name is not None:
        raise InputError(f"{path} holds one array without a name: leave array out.")
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"PK":
        raise InputError(f"{path} is an archive of arrays: give it the ending .npz.")
    if start != b"\x93NUMPY":
        raise InputError(f"{path} is no .npy file: write it by numpy.save.")
    # A memory map checks the shape that is promised against the length of the file.
    return np.load(path, allow_pickle=False, mmap_mode="r")


def _read_npz(path: Path, name: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return _read_chosen(arrays.__getitem__, list(arrays.files), name, path)


def _read_safetensors(path: Path, name: str | None) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as arrays:
            return _read_chosen(arrays.get_tensor, list(arrays.keys()), name, path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_chosen(
    read: Callable[[str], np.ndarray], names: list[str], name: str | None, path: Path
) -> np.ndarray:
    """Return the array of this name, or those that a pattern fits, stacked as layers."""
    if name is None or not set(name) & set("*?["):
        return read(_choose(names, name, path))
    layers = {one: read(one) for one in sorted(fnmatch.filter(names, name), key=_by_numbers)}
    if not layers:
        raise InputError(f'{path} holds no array like "{name}": there are {_first_of(names)}.')
    shapes = {one: array.shape for one, array in layers.items()}
    first = next(iter(shapes))
    for one, shape in shapes.items():
        if shape != shapes[first]:
            raise InputError(
                f'{path}: "{name}" fits arrays of several shapes, such as {list(shapes[first])} '
                f"of {first} and {list(shape)} of {one}."
            )
    # The axis of layers is the last one before the matrix; others are seeds.
    return np.stack(list(layers.values()), axis=max(0, len(shapes[first]) - 2))


def _by_numbers(name: str) -> list[str | int]:
    """Return a key that sorts layer 2 before layer 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _first_of(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _choose(names: list[str], name: str | None, path: Path) -> str:
    if not names:
        raise InputError(f"{path} holds no arrays.")
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise InputError(
            f"{path} holds {len(names)} arrays ({_first_of(names)}): name one with array "
            "(--array), or a pattern that fits all layers."
        )
    if name not in names:
        raise InputError(f'{path} holds no array "{name}": {nearest(name, names)}')
    return name


SOURCES: dict[str, Callable[[LogitSource], Source]] = {
    "gaussian": _gaussian,
    "digits": _digits,
    "trained-mhc": _trained_mhc,
    "file": _file,
}
