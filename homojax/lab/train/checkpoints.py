"""An interrupted training on disk: the state of its runs, and what it is a training of, so that no other is taken for it."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from homojax.lab.inputs import InputError
from homojax.networks.tasks import Batch


class Checkpoints:
    """The state of one depth's runs on disk, the newest only; nothing without a folder."""

    def __init__(self, folder: Path | None, depth: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self.manager = None
        if folder is not None:
            place = (folder / "checkpoints" / f"depth-{depth}").resolve()
            place.mkdir(
                parents=True, exist_ok=True
            )  # what is in the way is told before anything is trained
            self.manager = ocp.CheckpointManager(place, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        if self.manager is not None:
            self.manager.close()

    @property
    def done(self) -> int:
        """Reports that are kept."""
        return (self.manager.latest_step() or 0) if self.manager is not None else 0

    def latest(self, like: dict[str, Any]) -> dict[str, Any] | None:
        """The newest state, of the structure of ``like`` and with the same ``about``; None if there is none.

        Raises:
            InputError: it is damaged, or of another training.
        """
        if self.manager is None or not self.done:
            return None
        leaves, structure = jax.tree.flatten(like)
        try:
            found = self.manager.restore(self.done, args=ocp.args.StandardRestore(_stored(leaves)))
        except Exception as error:  # orbax and tensorstore raise anything on a damaged checkpoint
            raise InputError(
                f"{self.manager.directory} has a damaged checkpoint: remove it to train anew."
            ) from error
        state = jax.tree.unflatten(
            structure, [found.get(str(i), leaf) for i, leaf in enumerate(leaves)]
        )
        if not np.array_equal(state["about"], like["about"]):
            raise InputError(
                f"{self.manager.directory} has a checkpoint of another training: remove it to train anew."
            )
        return state

    def save(self, report: int, state: dict[str, Any]) -> None:
        """Keeps the state after so many reports, in the place of the one before."""
        if self.manager is not None:
            self.manager.save(report, args=ocp.args.StandardSave(_stored(jax.tree.leaves(state))))


def identity(digest: str, held_out: Batch) -> np.ndarray:
    """Hash of what is trained and of the data held out, [32] bytes."""
    content = hashlib.sha256(digest.encode())
    for part in held_out:
        content.update(np.asarray(part).tobytes())
    return np.frombuffer(content.digest(), np.uint8)


def _stored(leaves: list[Any]) -> dict[str, np.ndarray]:
    """What orbax keeps: all but arrays of no size, such as the identity's parameters are."""
    return {str(i): array for i, array in enumerate(map(np.asarray, leaves)) if array.size}


def require_same(config: dict[str, Any], folder: Path) -> None:
    """Keeps what is trained in this folder, or refuses one that holds something else.

    Raises:
        InputError: another training, with the differences; or checkpoints that nothing says of what they are.
    """
    path, asked = (
        folder / "train.json",
        json.loads(json.dumps({**config, "homojax": version("homojax")})),
    )
    something = (folder / "train.zarr").exists() or any((folder / "checkpoints").glob("*/[0-9]*"))
    if not path.exists() or not something:
        if something:
            raise InputError(
                f"{folder} has checkpoints and no {path.name} to say of what: remove it, or choose another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asked, indent=1) + "\n")
        return
    try:
        flat, kept = _flat(asked), _flat(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: it is not what was trained there.") from error
    changes = [
        f"{key} was {kept.get(key)} and is asked to be {flat.get(key)}"
        for key in flat | kept
        if kept.get(key) != flat.get(key)
    ]
    if changes:
        raise InputError(
            f"{folder} holds another training: {'; '.join(changes)}. Ask for the same, choose another folder, or remove this one."
        )


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    nested = {key: value for key, value in config.items() if isinstance(value, dict)}
    return {key: value for key, value in config.items() if key not in nested} | {
        k: v for x in nested.values() for k, v in x.items()
    }
