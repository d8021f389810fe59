"""A run on disk, once for every verb: its folder, its unfinished blocks, its zarr, its provenance.

A folder belongs to one run. It is filled under another name, can be taken up again after an
interrupt, and appears under its own name only once it is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from homojax.lab import accessor  # noqa: F401  (a Dataset of ours can draw itself)
from homojax.lab.inputs import Config, InputError

Progress = Callable[[int, int, str], None]  # (done, total, what is being done)


def silent(done: int, total: int, doing: str) -> None:
    """Report no progress."""


# ---------------------------------------------------------------- provenance


def versions() -> dict[str, str]:
    """Return the versions of what a result was made with.

    >>> versions()["homojax"]
    '0.1.0'
    """
    packages = ("homojax", "jax", "jaxlib", "numpy", "xarray", "zarr")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def provenance(verb: str, config: Config, *, dtype: str, title: str = "") -> dict[str, Any]:
    """Return the attrs of a verb's Dataset: all that is needed to run it again.

    Args:
        verb: the command, such as "sweep" or "probe frontier".
        config: what was asked.
        dtype: the precision of what was computed.
        title: a name for tables and figures; default: the command.
    """
    import jax

    device = jax.devices()[0]
    return {
        "title": title or f"homojax {verb}",
        "verb": verb,
        "config": json.dumps(config.as_dict()),
        "config_hash": config.digest,
        "versions": json.dumps(versions()),
        "dtype": dtype,
        "device": f"{device.platform}: {device.device_kind}",
    }


def config_of(ds: xr.Dataset) -> dict[str, Any]:
    """Return the config that a Dataset was made with, as plain values."""
    return json.loads(ds.attrs["config"])


# ---------------------------------------------------------------- zarr


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a zarr store that appears under ``path`` only once it is whole.

    Raises:
        OSError: it cannot be written; nothing is left under ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = dataset.assign_attrs(variables=sorted(map(str, dataset.data_vars)))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
        dataset.to_zarr(Path(part) / "store", mode="w", zarr_format=3, consolidated=False)
        (Path(part) / "store").rename(path)


def read_dataset(path: str | Path) -> xr.Dataset:
    """Return the Dataset of a finished run, in memory.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no run at {path}.")
    try:
        dataset = xr.load_dataset(path, engine="zarr", consolidated=False)
    except Exception as error:  # on a damaged store zarr raises anything, zlib's errors too
        raise InputError(f"{path} is not a whole zarr store: {type(error).__name__}.") from error
    missing = set(dataset.attrs.pop("variables", [])) - set(dataset.data_vars)
    if missing:
        names = ", ".join(sorted(missing))
        raise InputError(f"{path} is not a whole zarr store: {names} is missing.")
    return dataset


# ---------------------------------------------------------------- unfinished blocks


class Blocks:
    """The finished parts of an unfinished run; nothing is kept where ``folder`` is None."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def get(self, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the block of this name: as it was kept, or made now and kept."""
        if self.folder is None:
            return make()
        block = self._load(key)
        if block is None:
            block = make()
            self._save(key, block)
        return block

    def clear(self) -> None:
        """Remove every block."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _load(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the block; None if there is none, or only a damaged one."""
        try:
            content = (self.folder / f"{key}.npz").read_bytes()  # type: ignore[operator]
        except FileNotFoundError:
            return None
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() != digest:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def _save(self, key: str, block: dict[str, np.ndarray]) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **block)
        part = self.folder / f"{key}.part"
        part.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
        part.rename(self.folder / f"{key}.npz")


def resume(
    store: str | Path | None, digest: str, compute: Callable[[Blocks], xr.Dataset]
) -> xr.Dataset:
    """Return the Dataset that ``store`` holds, or compute it and keep it there.

    An interrupted computation leaves its blocks beside the store, and goes on from them.

    Args:
        store: path of a zarr store; None keeps nothing.
        digest: hash of what is asked.
        compute: makes the Dataset, through ``Blocks.get`` where a part takes long.

    Raises:
        InputError: the store holds something else than what is asked, or is damaged.
        OSError: the store cannot be written; blocks done so far are kept.
    """
    if store is None:
        return compute(Blocks(None))
    store = Path(store)
    if store.exists():
        dataset = read_dataset(store)
        if dataset.attrs.get("config_hash") != digest:
            raise InputError(
                f"{store} holds something else than what is asked; choose another place or "
                "remove it."
            )
        return dataset
    blocks = Blocks(store.with_name(f"{store.name}.blocks-{digest}"))
    dataset = compute(blocks)
    write_dataset(dataset, store)
    blocks.clear()
    return dataset


# ---------------------------------------------------------------- folders

MANIFEST = "run.json"  # in every folder: what the run is, and at its end the files that it wrote


def own(folder: Path, identity: dict[str, Any]) -> None:
    """Make ``folder`` the place of this run, or take it up where it is that already.

    Args:
        folder: made where it does not exist.
        identity: what the run is, as values that JSON has; the version of homojax is added.

    Raises:
        InputError: the folder holds another run (the differences are named), or other files.
    """
    manifest = folder / MANIFEST
    if not folder.is_dir() or not any(path.name != MANIFEST for path in folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps(_asked(identity), indent=1) + "\n", "utf-8")
        return
    if not manifest.exists():
        raise InputError(
            f"{folder} holds files and no {MANIFEST} to say of what: choose another folder, or "
            "remove it."
        )
    changes = _changes(folder, identity)
    if changes:
        raise InputError(
            f"{folder} holds another run: {'; '.join(changes)}. Ask for the same, choose another "
            "folder, or remove this one."
        )


def _asked(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity as JSON gives it back, with the version of homojax."""
    return json.loads(json.dumps({**identity, "homojax": version("homojax")}, default=str))


def _changes(folder: Path, identity: dict[str, Any]) -> list[str]:
    """Return the differences between the run in ``folder`` and the one that is asked."""
    try:
        before = _flat(json.loads((folder / MANIFEST).read_text("utf-8")))
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{folder / MANIFEST} is damaged: remove {folder} to start anew."
        ) from error
    before.pop("files", None)
    after = _flat(_asked(identity))
    return [
        f"{key} was {before.get(key)} and is asked to be {after.get(key)}"
        for key in after | before
        if before.get(key) != after.get(key)
    ]


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    """Return the values of nested dicts, by their innermost names."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


class RunFolder:
    """The folder of a run: filled as ``part`` beside ``out``, and given its name by ``finish``."""

    def __init__(self, out: Path, identity: dict[str, Any], *, overwrite: bool = False):
        """Make the folder, or take up an interrupted run of the same identity.

        Raises:
            InputError: ``out`` exists and may not be replaced, or cannot be made; or an interrupted
                run of another identity is in its way.
        """
        if out.is_symlink():
            raise InputError(f"{out} is a symbolic link: name the folder itself.")
        self.out = out.resolve()
        if self.out.exists():
            if not overwrite:
                raise InputError(
                    f"{out} exists already: choose another --out, or add --overwrite to replace it."
                )
            if not _is_a_run(self.out):
                raise InputError(
                    f"{out} holds what homojax did not write, and will not be overwritten: choose "
                    "another --out."
                )
        self.part = self.out.with_name(f"{self.out.name}.part")
        try:
            if overwrite and (self.part / MANIFEST).exists() and _changes(self.part, identity):
                shutil.rmtree(self.part)  # an interrupted run of something else
            own(self.part, identity)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot make the folder {out}: {reason}.") from error

    def finish(self) -> None:
        """List the files in the manifest, and replace an older run only now."""
        manifest = self.part / MANIFEST
        files = sorted(path.name for path in self.part.iterdir() if path != manifest)
        identity = json.loads(manifest.read_text("utf-8"))
        manifest.write_text(json.dumps({**identity, "files": files}, indent=1) + "\n", "utf-8")
        with tempfile.TemporaryDirectory(
            dir=self.out.parent, prefix=f"{self.out.name}.old-"
        ) as old:
            if self.out.exists():
                self.out.rename(Path(old) / "run")
            self.part.rename(self.out)


def _is_a_run(folder: Path) -> bool:
    """Return whether everything in ``folder`` is what a finished run says it wrote."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        written = {MANIFEST, *manifest["files"]}
        return "homojax" in manifest and {path.name for path in folder.iterdir()} <= written
    except (OSError, ValueError, KeyError, TypeError):
        return False
