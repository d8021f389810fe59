"""Results on disk: written whole or not at all, and blocks of an unfinished sweep kept until it is."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from homojax.lab.inputs import InputError


class BlockStore:
    """Finished blocks of a run, in a folder beside its store, so that an interrupted run goes on where it stopped."""

    def __init__(self, store: Path, digest: str):
        self.store = store
        self.folder = store.with_name(f"{store.name}.blocks-{digest}")

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """The block as saved, or None if there is none, or only a damaged one."""
        try:
            content = (self.folder / f"{key}.npz").read_bytes()
            digest, content = content[:32], content[32:]
            if hashlib.sha256(content).digest() != digest:
                return None
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except FileNotFoundError:
            return None

    def save(self, key: str, block: dict[str, np.ndarray]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **block)
        part = self.folder / f"{key}.part"
        part.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
        part.rename(self.folder / f"{key}.npz")

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def open_store(
    store: str | Path | None, digest: str
) -> tuple[xr.Dataset | None, BlockStore | None]:
    """(the Dataset that ``store`` holds already, its blocks so far): one of the two, or neither where no store is wanted.

    Raises:
        InputError: what it holds was made with another configuration than that of ``digest``, or is damaged.
    """
    if store is None:
        return None, None
    store = Path(store)
    if not store.exists():
        return None, BlockStore(store, digest)
    found = read_dataset(store)
    if found.attrs.get("config_hash") != digest:
        raise InputError(
            f"{store} holds something else than what is asked; choose another place or remove it."
        )
    return found, None


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Writes a zarr store that appears under ``path`` only once it is whole.

    Raises:
        OSError: it cannot be written; nothing is left under ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = dataset.assign_attrs(variables=sorted(map(str, dataset.data_vars)))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
        dataset.to_zarr(Path(part) / "store", mode="w", zarr_format=3, consolidated=False)
        (Path(part) / "store").rename(path)


def read_dataset(path: str | Path) -> xr.Dataset:
    """The Dataset of a finished run, in memory.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no run at {path}.")
    try:
        found = xr.load_dataset(path, engine="zarr", consolidated=False)
    except (
        Exception
    ) as error:  # zarr raises anything from KeyError to zlib's own on a damaged store
        raise InputError(f"{path} is not a whole zarr store: {type(error).__name__}.") from error
    missing = set(found.attrs.pop("variables", [])) - set(found.data_vars)
    if missing:
        raise InputError(
            f"{path} is not a whole zarr store: {', '.join(sorted(missing))} is missing."
        )
    return found


def versions() -> dict[str, str]:
    """What a result was made with."""
    packages = ("homojax", "jax", "jaxlib", "numpy", "xarray", "zarr")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


class RunFolder:
    """The folder of a run. Filled under another name beside it, and given its own only by ``finish``."""

    MANIFEST = "run.json"

    def __init__(self, out: Path, runs: list[str], *, overwrite: bool):
        """``runs`` (label and digest of every sweep) tell runs apart: an interrupted one of the same is taken up again.

        Raises:
            InputError: ``out`` exists and may not be replaced, or cannot be made.
        """
        if out.is_symlink():
            raise InputError(f"{out} is a symbolic link: name the folder itself.")
        out = out.resolve()
        if out.exists():
            if not overwrite:
                raise InputError(
                    f"{out} exists already: choose another --out, or add --overwrite to replace it."
                )
            if not self._is_a_run(out):
                raise InputError(
                    f"{out} holds what homojax did not write, and will not be overwritten: choose another --out."
                )
        self.out = out
        self.runs = runs
        digest = hashlib.sha256("\n".join(runs).encode()).hexdigest()[:8]
        self.part = out.with_name(f"{out.name}.part-{digest}")
        try:
            self.part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {out}: {error.strerror or error}.") from error

    def finish(self) -> None:
        """Writes the manifest and gives the folder its name, replacing the older run only now."""
        files = sorted(path.name for path in self.part.iterdir() if path.name != self.MANIFEST)
        (self.part / self.MANIFEST).write_text(
            json.dumps({"homojax": version("homojax"), "runs": self.runs, "files": files}) + "\n"
        )
        with tempfile.TemporaryDirectory(
            dir=self.out.parent, prefix=f"{self.out.name}.old-"
        ) as old:
            if self.out.exists():
                self.out.rename(Path(old) / "run")
            self.part.rename(self.out)

    def _is_a_run(self, out: Path) -> bool:
        """Whether everything in ``out`` is what a finished run says it wrote."""
        try:
            manifest = json.loads((out / self.MANIFEST).read_text())
            return "homojax" in manifest and {path.name for path in out.iterdir()} <= {
                self.MANIFEST,
                *manifest["files"],
            }
        except (OSError, ValueError, KeyError, TypeError):
            return False
