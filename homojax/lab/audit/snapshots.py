"""A folder of a model: which files belong to it, and which tensors its index gives to which file.

Everything is read from inside the folder. Links that lead out of it are refused, but for those of
a hub's cache, where a snapshot is links into the folder of blobs beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from homojax.lab.audit.safetensors_files import LONGEST_HEADER, parse_object
from homojax.lab.audit.tensors import Skipped, Tensor
from homojax.lab.inputs import InputError

MOST_FILES = 100_000
INDICES = (".safetensors.index.json", ".index.json")


class Snapshot:
    """The files of a folder that may be read."""

    def __init__(self, folder: Path):
        """Name the folder; nothing is read yet."""
        self.folder = folder
        self._roots = [folder.resolve()]
        if folder.resolve().parent.name == "snapshots":
            self._roots.append(folder.resolve().parent.parent / "blobs")

    def inside(self, path: Path) -> Path:
        """Return a path of the folder.

        Raises:
            InputError: it leads out of the folder.
        """
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError, ValueError):
            resolved = None
        if resolved is None or resolved.is_symlink():  # a circle of links, from Python 3.13 on
            raise InputError(f"{path} is a link that leads nowhere: fetch the model again.")
        if not any(resolved.is_relative_to(root) for root in self._roots):
            raise InputError(
                f"{path} leads out of {self.folder}, and nothing outside of a model's folder is "
                "read: put the file itself there."
            )
        return path

    def files(self, ending: str) -> list[Path]:
        """Return the files of the folder whose names end so, in order."""
        found = []
        for count, entry in enumerate(os.scandir(self.folder)):
            if count > MOST_FILES:
                raise InputError(f"{self.folder} has more than {MOST_FILES} files: name one.")
            path = self.folder / entry.name
            wanted = entry.name.endswith(ending) and not entry.name.startswith(".")
            if wanted and self.inside(path).is_file():
                found.append(path)
        return sorted(found)

    def refuse_links_out(self, folder: Path) -> None:
        """Raise InputError where any link below a folder leads out of the snapshot."""
        count = 0
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                count += 1
                if (Path(place) / name).is_symlink():
                    self.inside(Path(place) / name)
            if count > MOST_FILES * 10:
                raise InputError(f"{folder} has more than a million files: it is no checkpoint.")

    def config(self) -> dict[str, Any]:
        """Return config.json, or nothing where there is none."""
        path = self.folder / "config.json"
        return self._object(path) if path.is_file() or path.is_symlink() else {}

    def index(self) -> Path | None:
        """Return the index of shards, of safetensors rather than of others; None without any."""
        files = self.files(INDICES[-1])
        return next((x for end in INDICES for x in files if x.name.endswith(end)), None)

    def _object(self, path: Path) -> dict[str, Any]:
        if self.inside(path).stat().st_size > LONGEST_HEADER:
            raise InputError(f"{path} is too long to be what it is called.")
        return parse_object(path.read_bytes(), path)

    def weight_map(self, index: Path) -> dict[str, str]:
        """Return which tensor is in which file of the folder, as an index says.

        Raises:
            InputError: it is damaged, or names a file that is none of the folder's.
        """
        shards = self._object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(x, str) for x in shards.values()):
            raise InputError(f"{index} has no weight_map from names to files: fetch it again.")
        for shard in sorted(set(shards.values())):
            plain = Path(shard).name == shard and "\\" not in shard and "\0" not in shard
            if not plain or shard in ("", ".", ".."):
                raise InputError(
                    f'{index} names a file "{shard[:80]}", and shards lie beside their index: it '
                    "was tampered with."
                )
        return shards


def read_shards(
    snapshot: Snapshot,
    index: Path,
    read: Callable[[Path], dict[str, Tensor]],
    wanted: Callable[[str], bool],
) -> tuple[dict[str, Tensor], list[Skipped]]:
    """Return the wanted tensors that an index assigns to the shards they are in, and the others.

    A shard is opened, by ``read``, only if the index gives it a tensor that is ``wanted``.

    Raises:
        InputError: a shard with a wanted tensor is missing or damaged, or lacks it.
    """
    shards = snapshot.weight_map(index)
    names_of: dict[str, list[str]] = {}
    for name, shard in shards.items():
        if wanted(name):
            names_of.setdefault(shard, []).append(name)
    tensors: dict[str, Tensor] = {}
    skipped: list[Skipped] = []
    for shard, names in sorted(names_of.items()):
        path = snapshot.inside(snapshot.folder / shard)
        if not path.is_file():
            raise InputError(f"{path} is missing, and {index.name} needs it: fetch it again.")
        found = read(path)
        lacking = next((name for name in names if name not in found), None)
        if lacking is not None:
            raise InputError(f'{path} has no "{lacking[:80]}", and {index.name} says so.')
        tensors |= {name: found[name] for name in names}
        strays = (name for name in found if shards.get(name) != shard and wanted(name))
        skipped += [Skipped(name, _stray(shard, shards.get(name))) for name in strays]
    return tensors, skipped


def _stray(shard: str, other: str | None) -> str:
    where = f"gives it to {other}" if other else "has no such tensor"
    return f"it is in {shard}, and the index {where}"


_PART = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.gguf$")


def gguf_parts(path: Path) -> Iterator[Path]:
    """Yield the files of a split GGUF model that ``path`` is one of, or ``path`` alone.

    Raises:
        InputError: a part is missing.
    """
    match = _PART.search(path.name)
    if match is None:
        yield path
        return
    snapshot = Snapshot(path.parent)
    for number in range(1, int(match[2]) + 1):
        name = f"{path.name[: match.start()]}-{number:05d}-of-{match[2]}.gguf"
        part = snapshot.inside(path.parent / name)
        if not part.is_file():
            raise InputError(f"{part} is missing: a split model needs all its parts.")
        yield part
