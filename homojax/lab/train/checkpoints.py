"""An interrupted training on disk: the newest state of its runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from homojax.lab.inputs import InputError
from homojax.networks.tasks import Batch


class Checkpoints:
    """The newest state of a group of runs, on disk; nothing is kept where ``folder`` is None."""

    def __init__(self, folder: Path | None, key: str, fingerprint: np.ndarray):
        """Name the place; it is made when the first state is kept.

        Args:
            folder: of the training.
            key: of the group.
            fingerprint: hash of what is trained, from ``fingerprint_of``.
        """
        self.place = folder and (folder / "checkpoints" / key).resolve()
        self.fingerprint = fingerprint
        self._manager: ocp.CheckpointManager | None = None

    def __enter__(self) -> Checkpoints:
        if self.place is not None and self.place.is_dir():
            self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def latest(self, like: dict[str, Any]) -> dict[str, Any] | None:
        """Return the newest state, of the structure and shapes of ``like``; None if there is none.

        Raises:
            InputError: the state is damaged, or of another training.
        """
        report = None if self._manager is None else self._manager.latest_step()
        if self._manager is None or report is None:
            return None
        leaves, structure = jax.tree.flatten({**like, "fingerprint": self.fingerprint})
        try:
            wanted = ocp.args.StandardRestore(_stored(leaves))
            stored = self._manager.restore(report, args=wanted)
        except Exception as error:  # orbax and tensorstore raise anything on a damaged checkpoint
            raise InputError(
                f"{self.place} has a damaged checkpoint: remove it to train anew."
            ) from error
        leaves = [stored.get(str(i), leaf) for i, leaf in enumerate(leaves)]
        state = jax.tree.unflatten(structure, leaves)
        if not np.array_equal(state.pop("fingerprint"), self.fingerprint):
            raise InputError(
                f"{self.place} has a checkpoint of another training: remove it to train anew."
            )
        return state

    def save(self, report: int, state: dict[str, Any]) -> None:
        """Keep the state after so many reports, in the place of the one before."""
        if self.place is None:
            return
        leaves = jax.tree.leaves({**state, "fingerprint": self.fingerprint})
        self._open().save(report, args=ocp.args.StandardSave(_stored(leaves)))

    def _open(self) -> ocp.CheckpointManager:
        """Return the manager of the place; make both where they are not there yet."""
        assert self.place is not None
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
            self.place.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.place, options=options)
        return self._manager


def fingerprint_of(digest: str, held_out: Batch) -> np.ndarray:
    """Return a hash, [32] bytes, of what is trained and of the examples held out.

    The examples may differ on another machine, such as those of the text of Python's documentation.
    """
    content = hashlib.sha256(digest.encode())
    for part in held_out:
        content.update(np.asarray(part).tobytes())
    return np.frombuffer(content.digest(), np.uint8)


def _stored(leaves: list[Any]) -> dict[str, np.ndarray]:
    """Return what orbax keeps: no array of size 0, such as the identity's parameters are."""
    return {str(i): array for i, array in enumerate(map(np.asarray, leaves)) if array.size}
