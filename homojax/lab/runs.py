"""The folder of a run, once for every verb.

A folder belongs to one run. It is filled under another name, can be taken up again after an
interrupt, and appears under its own name only once it is whole.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from homojax.lab.inputs import InputError, Output
from homojax.lab.interrupts import UNTOUCHED
from homojax.lab.ownership import files_in, is_passing, is_written
from homojax.lab.store import holds_nothing, is_of_a_run

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
    others = folder.is_dir() and any(path.name != MANIFEST for path in folder.iterdir())
    if not others and (not manifest.exists() or identity_in(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        # Whole at once, for whoever else looks.
        part = folder.with_name(f"{folder.name}-{MANIFEST}-{os.getpid()}")
        part.write_text(json.dumps(_asked(identity), indent=1) + "\n", "utf-8")
        part.replace(manifest)
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


_DAMAGED = "{} is damaged. hj.open_run may still read the data; remove {} to start anew."


def identity_in(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a folder says of its run.

    Raises:
        InputError: there is no manifest, it is damaged, or another program wrote it.
    """
    manifest = folder / MANIFEST
    try:
        identity = json.loads(manifest.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} is no run: it has no {MANIFEST}. homojax runs lists those of a folder."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(_DAMAGED.format(manifest, folder)) from error
    if not isinstance(identity, dict) or not {"homojax"} <= set(identity):
        raise InputError(f"{manifest} is of no homojax run: choose another folder.")
    if not isinstance(identity.get("files", []), list):
        raise InputError(_DAMAGED.format(manifest, folder))
    return identity


def _changes(folder: Path, identity: dict[str, Any]) -> list[str]:
    """Return the differences between the run in ``folder`` and the one that is asked."""
    before, after = _flat(identity_in(folder)), _flat(_asked(identity))
    changed = [key for key in after | before if before.get(key) != after.get(key)]
    changed = [key for key in changed if key[0] != "files"]
    told = [
        f"{_name(key, after)} was {before.get(key)} and is asked to be {after.get(key)}"
        for key in changed
        if key[-1] != "hash"
    ]
    # Where nothing else differs, it is what is in a file.
    files = [after.get((*key[:-1], "path")) for key in changed]
    return told or [f"the file {file} has changed since the run began" for file in files]


def _flat(nested: dict[str, Any], *path: str) -> dict[tuple[str, ...], Any]:
    """Return the values of nested dicts, by their path."""
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, *path, key) if isinstance(value, dict) else {(*path, key): value}
    return flat


def _name(key: tuple[str, ...], flat: dict[tuple[str, ...], Any]) -> str:
    """Return the innermost name of a value, with those above it where several have that name."""
    alike = sum(other[-1] == key[-1] for other in flat)
    return key[-1] if alike <= 1 else " ".join(key[1:])


def run_folder(command: Output, identity: dict[str, Any], *, shared: bool = False) -> RunFolder:
    """Return the folder that a command names; or the next free one of its verb, by number.

    Where one of the verb's folders holds this very run, interrupted, that is taken up.

    Args:
        command: with the folder, or none.
        identity: what the run is.
        shared: whether other processes fill the folder, too.

    Raises:
        InputError: as of ``RunFolder``.
    """
    if command.out is not None or command.overwrite:
        out = command.out or command.place
        return RunFolder(out, identity, overwrite=command.overwrite, shared=shared)
    numbered = (command.place.with_name(f"{command.place.name}-{k}") for k in itertools.count(2))
    for out in itertools.chain([command.place], numbered):
        part = _part_of(out)
        if _is_empty(out) and (_is_empty(part) or _holds(part, identity)):
            return RunFolder(out, identity)
    raise AssertionError  # there is always another number


def _part_of(out: Path) -> Path:
    """Return the folder that a run is in until it is whole."""
    return out.with_name(f"{out.name}.part")


def _holds(part: Path, identity: dict[str, Any]) -> bool:
    """Return whether a folder is this very run, interrupted."""
    try:
        return (part / MANIFEST).exists() and not _changes(part, identity)
    except InputError:  # damaged
        return False


class RunFolder:
    """The folder of a run: filled as ``part`` beside ``out``, and given its name by ``finish``."""

    def __init__(
        self, out: Path, identity: dict[str, Any], *, overwrite: bool = False, shared: bool = False
    ):
        """Make the folder, or take up an interrupted run of the same identity.

        One that is ``shared`` with other processes stays where this one is stopped.

        Raises:
            InputError: ``out`` exists and may not be replaced, or cannot be made; or an interrupted
                run of another identity is in its way.
        """
        out = out.expanduser()
        if out.name.endswith(".part"):
            raise InputError(f"{out} has the name of an unfinished run: leave .part out.")
        if out.is_symlink():
            raise InputError(f"{out} is a symbolic link: name the folder itself.")
        self.name = out  # as it is told
        self.out = out.resolve()
        self._require_ours()
        if not overwrite and not _is_empty(self.out):
            raise InputError(
                f"{out} exists already: choose another --out, or add --overwrite to replace it."
            )
        self.part = _part_of(self.out)
        self._made = [path for path in self.out.parents if not path.exists()]
        try:
            if overwrite and (self.part / MANIFEST).exists() and _changes(self.part, identity):
                _remove_unfinished(self.part)  # of something else
            own(self.part, identity)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot make the folder {out}: {reason}.") from error
        finished.clear()  # what another command of this process has made
        if not shared:
            _unfinished.append(self)

    def _require_ours(self) -> None:
        """Raise InputError where something is in the place of the run that is no run of ours."""
        if not _is_empty(self.out) and not _is_a_run(self.out):
            holds = "holds what" if self.out.is_dir() else "is a file that"
            raise InputError(f"{self.name} {holds} homojax did not write: choose another --out.")

    def discard_if_empty(self) -> bool:
        """Remove the folder if nothing was kept in it; return whether it is gone."""
        with suppress(OSError):  # of a disk that turned read-only
            return self._discard_if_empty()
        return False

    def _discard_if_empty(self) -> bool:
        if _kept_in(self.part):
            return False
        aside = self.part.with_name(f"{self.part.name}-{os.getpid()}")
        self.part.rename(aside)  # so that nothing comes into it meanwhile
        if _kept_in(aside):
            aside.rename(self.part)
            return False
        shutil.rmtree(aside)
        for folder in self._made:
            if not any(folder.iterdir()):
                folder.rmdir()
        return True

    def finish(self, *written: str) -> None:
        """List in the manifest what the run wrote, and replace an older run only now.

        Files that somebody else put into the folder stay in it, and are in no list.

        Args:
            written: the files that the run wrote, by their path in its folder; of a store, or of
                checkpoints, the folder.

        Raises:
            InputError: meanwhile somebody put files into the run that is to be replaced.
        """
        self._require_ours()
        manifest = self.part / MANIFEST
        files = sorted(
            file
            for file in files_in(self.part)
            if file in written
            or is_passing(file)
            or (file.split("/")[0] in written and is_written(file))
        )
        identity = identity_in(self.part)
        manifest.write_text(json.dumps({**identity, "files": files}, indent=1) + "\n", "utf-8")
        with (
            UNTOUCHED,
            tempfile.TemporaryDirectory(dir=self.out.parent, prefix=f"{self.out.name}.old-") as old,
        ):
            if self.out.exists():
                self.out.rename(Path(old) / "run")
            self.part.rename(self.out)
        if self in _unfinished:
            _unfinished.remove(self)
        finished.append(self.name)


_unfinished: list[RunFolder] = []  # of this process
finished: list[Path] = []  # by this process


def holds_finished(out: Path, identity: dict[str, Any]) -> bool:
    """Return whether a folder is this very run, finished."""
    return _is_a_run(out) and not _changes(out, identity)


def discard_empty() -> bool:
    """Remove the folders of unfinished runs that kept nothing; return whether one kept something.

    A run that is stopped, or that fails, leaves nothing to tidy up.
    """
    gone = [folder.discard_if_empty() for folder in _unfinished if folder.part.exists()]
    _unfinished.clear()
    return not all(gone)


def _is_empty(folder: Path) -> bool:
    """Return whether there is nothing of this name, or an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _kept_in(folder: Path) -> bool:
    """Return whether an unfinished run has anything that would have to be made again."""
    unfilled = {store.name for store in folder.glob("*.zarr") if holds_nothing(store)}
    return any(
        not is_passing(file) and not (file.split("/")[0] in unfilled and is_written(file))
        for file in files_in(folder) - {MANIFEST}
    )


def _remove_unfinished(part: Path) -> None:
    """Remove an interrupted run.

    Raises:
        InputError: somebody put a file of his own into it.
    """
    foreign = {store.name for store in part.glob("*.zarr") if not is_of_a_run(store)}
    others = sorted(
        file
        for file in files_in(part) - {MANIFEST}
        if not is_written(file) or file.split("/")[0] in foreign
    )
    if others:
        raise InputError(
            f"{part} is an interrupted run, and holds {others[0]}, which homojax did not write: "
            "move that away, or choose another --out."
        )
    shutil.rmtree(part)


def _is_a_run(folder: Path) -> bool:
    """Return whether everything in ``folder`` is what a finished run says it wrote."""
    try:
        files = identity_in(folder).get("files")
        return files is not None and files_in(folder) <= {MANIFEST, *map(str, files)}
    except InputError:
        return False
