"""Results on disk: written whole or not at all, and blocks of an unfinished sweep kept until it is."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import xarray as xr

from homojax.lab.config import InputError


class BlockStore:
    """Finished blocks of a sweep, in a folder beside its store, so that an interrupted run goes on where it stopped."""

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


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Writes a zarr store that appears under ``path`` only once it is whole.

    Raises:
        OSError: it cannot be written; nothing is left under ``path``.
    """
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        dataset.to_zarr(part, mode="w", zarr_format=3, consolidated=False)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.rename(path)


def read_dataset(path: str | Path) -> xr.Dataset:
    """The Dataset of a finished sweep, in memory.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no sweep at {path}.")
    try:
        return xr.load_dataset(path, engine="zarr", consolidated=False)
    except Exception as error:  # zarr raises anything from KeyError to zlib's own on a damaged store
        raise InputError(f"{path} is not a whole zarr store: {type(error).__name__}.") from error


class RunFolder:
    """The folder of a run. Filled under another name beside it, and given its own only by ``finish``."""

    MANIFEST = "run.json"

    def __init__(self, out: Path, digests: list[str], *, overwrite: bool):
        """``digests`` tell runs apart: an interrupted one with the same digests is taken up again.

        Raises:
            InputError: ``out`` exists and may not be replaced.
        """
        if out.exists():
            if not overwrite:
                raise InputError(f"{out} exists already: choose another --out, or add --overwrite to replace it.")
            if not (out / self.MANIFEST).is_file():
                raise InputError(f"{out} is not a run of homojax and will not be overwritten: choose another --out.")
        self.out = out
        self.digests = digests
        run = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:8]
        self.part = out.with_name(f"{out.name}.part-{run}")
        self.part.mkdir(parents=True, exist_ok=True)

    def finish(self) -> None:
        """Writes the manifest and gives the folder its name, replacing the older run only now."""
        (self.part / self.MANIFEST).write_text(json.dumps({"config_hashes": self.digests}) + "\n")
        old = self.out.with_name(f"{self.out.name}.old")
        if self.out.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        self.part.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)
