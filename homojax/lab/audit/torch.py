"""Record what a PyTorch model mixes while it runs, for an audit. Nothing here imports torch."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from homojax.lab.audit.names import unwrapped
from homojax.lab.audit.recorded import Kind
from homojax.lab.inputs import InputError
from homojax.lab.places import making
from homojax.registry import nearest

Pick = Callable[[tuple[Any, ...], Any], Any]


class MixingMonitor:
    """Record streams or mixing matrices of a PyTorch model, by forward hooks.

    No hook changes what the model computes, and none raises: what could not be recorded is said by
    ``save``. Leave the ``with`` block, or call ``remove``, to take the hooks off.

    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(named_modules=lambda: [])
    >>> MixingMonitor(model, "*.attn_hc")
    Traceback (most recent call last):
    homojax.lab.inputs.InputError: no module is called "*.attn_hc": the model has none.
    """

    def __init__(
        self,
        model: Any,
        modules: str,
        *,
        kind: Kind = "streams",
        pick: Pick | None = None,
        tokens: int = 1_000,
    ):
        """Put hooks on the modules that mix.

        Args:
            model: a ``torch.nn.Module``.
            modules: a pattern of their names, such as ``layers.*.attn_hc``.
            kind: "streams" records what a module is given, [..., n, C]; "matrices" records the
                last square tensor that it returns, [..., n, n].
            pick: takes what is recorded from (inputs, output), where it stands elsewhere. Inputs
                are a tuple, those by keyword last; of streams there is no output yet, but None.
            tokens: most tokens of each module that are kept; of a batch they are taken evenly, the
                same ones in all modules.

        Raises:
            InputError: no module has such a name.
        """
        if kind not in _PICKS:
            raise InputError(f'kind = "{kind}" is none: {nearest(str(kind), _PICKS)}')
        self.kind, self.pick, self.tokens = kind, pick or _PICKS[kind], tokens
        self.recorded: dict[str, list[np.ndarray]] = {}
        self.missed: dict[str, str] = {}
        named = dict(model.named_modules())
        fitting = {
            name: module
            for name, module in named.items()
            if any(fnmatch.fnmatchcase(x, modules) for x in (name, unwrapped(name)))
        }
        if not fitting:
            some = ", ".join([name for name in named if name][:8]) or "none"
            raise InputError(f'no module is called "{modules}": the model has {some}.')
        self._hooks = [
            # Streams are read before a module may change them in place.
            module.register_forward_pre_hook(self._before(unwrapped(name)), with_kwargs=True)
            if kind == "streams"
            else module.register_forward_hook(self._after(unwrapped(name)), with_kwargs=True)
            for name, module in fitting.items()
        ]

    def _before(self, name: str) -> Callable[..., None]:
        def record(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._try(name, (*args, *kwargs.values()), None)

        return record

    def _after(self, name: str) -> Callable[..., None]:
        def record(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._try(name, (*args, *kwargs.values()), output)

        return record

    def _try(self, name: str, inputs: tuple[Any, ...], output: Any) -> None:
        try:
            if not _is_recomputed():
                self._record(name, self.pick(inputs, output))
        except Exception as error:  # a training goes on, whatever its monitor meets
            self.missed[name] = f"{type(error).__name__}: {error}"

    def _record(self, name: str, tensor: Any) -> None:
        kept = self.recorded.setdefault(name, [])
        room = self.tokens - sum(map(len, kept))
        if room <= 0:
            return
        flat = tensor.detach().reshape(-1, *tensor.shape[-2:])
        which = np.unique(np.linspace(0, len(flat) - 1, min(room, len(flat))).astype(int))
        kept.append(flat[which.tolist()].float().cpu().numpy())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was recorded by name, as ``hj.audit`` takes it: [T, n, C] or [T, n, n].

        Raises:
            InputError: nothing was recorded, or a module's could not be.
        """
        if self.missed:
            name, reason = next(iter(self.missed.items()))
            raise InputError(f"{self.kind} of {name} could not be recorded: {reason}; give a pick.")
        if not any(self.recorded.values()):
            raise InputError("nothing was recorded: run the model first.")
        return {name: np.concatenate(parts) for name, parts in self.recorded.items() if parts}

    def save(self, path: str | Path) -> None:
        """Write what was recorded as an .npz file, for ``--streams`` or ``--matrices``.

        Raises:
            InputError: as of ``arrays``; or the file cannot be written.
        """
        path = Path(path).expanduser()
        if path.suffix != ".npz":
            raise InputError(f"{path} must end in .npz.")
        arrays = self.arrays()
        with making(path):
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def __enter__(self) -> MixingMonitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def _is_recomputed() -> bool:
    """Return whether a forward pass is made again for its gradients: checkpointing does that."""
    torch: Any = sys.modules.get("torch")
    task = getattr(getattr(torch, "_C", None), "_current_graph_task_id", lambda: -1)
    return task() != -1


def _last_square(inputs: tuple[Any, ...], output: Any) -> Any:
    found = [x for x in (output if isinstance(output, tuple | list) else (output,)) if _square(x)]
    if not found:
        raise ValueError("it returns no square tensor")
    return found[-1]


def _square(x: Any) -> bool:
    shape = getattr(x, "shape", ())
    return len(shape) >= 2 and shape[-1] == shape[-2] >= 2


_PICKS: dict[Kind, Pick] = {"streams": lambda inputs, _: inputs[0], "matrices": _last_square}
