"""What a user says of a model that no layout has, or has otherwise."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np

from homojax.lab.audit.layers import Layer
from homojax.lab.audit.names import number_in, site_of, unwrapped
from homojax.lab.audit.settings import MOST_ALTERNATIONS
from homojax.lab.audit.tensors import Skipped, Tensor, read
from homojax.lab.inputs import NOT_NEGATIVE, POSITIVE, Config, InputError, Range
from homojax.parametrizations import PARAMETRIZATIONS
from homojax.presets import PRESETS, Preset
from homojax.registry import nearest

_ALTERNATIONS = Range(lambda k: 1 <= k <= MOST_ALTERNATIONS, f"from 1 to {MOST_ALTERNATIONS}")


@dataclasses.dataclass(frozen=True)
class ByHand(Config):
    """What replaces, or completes, what a layout says."""

    pattern: str | None = None
    """Names of the tensors of static logits [..., n, n], as layers.*.mixing; the logits of layouts
    are then not looked for."""
    preset: str | None = None
    """How the matrix is made of logits: a key of hj.PRESETS, such as maxtext or deepseek-v4."""
    iterations: Annotated[int | None, _ALTERNATIONS] = None
    """Alternations of row and column sums, in place of the preset's."""
    temperature: Annotated[float | None, POSITIVE] = None
    """What the logits are divided by, in place of the preset's."""
    constant: Annotated[float | None, NOT_NEGATIVE] = None
    """What is added to entries and to sums, in place of the preset's."""
    last: Literal["rows", "columns"] | None = None
    """Which sums the last alternation makes 1, of the matrix that is applied as y = M x."""
    orientation: Literal["outputs-first", "inputs-first"] | None = None
    """Whether the model mixes with its matrix, or with the transpose (y_t = Σ_s H_st x_s)."""

    def check(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise InputError(f'there is no preset "{self.preset}": {nearest(self.preset, PRESETS)}')
        if self.pattern is not None and self.preset is None and self.iterations is None:
            raise InputError(
                f'pattern "{self.pattern}" needs a preset (--preset) or a number of alternations '
                "(--iterations): logits alone do not say how their matrix is made."
            )

    def preset_for(self, default: Preset | None) -> Preset:
        """Return the preset that is meant: ``default``, if there is one, with what is given here.

        Raises:
            InputError: what is given is for alternations, and the preset has none.

        >>> ByHand(iterations=5).preset_for(PRESETS["maxtext"]).num_iters
        5
        """
        preset = default or (_PLAIN if self.preset is None else PRESETS[self.preset])
        given: dict[str, Any] = {
            "num_iters": self.iterations,
            "epsilon": self.temperature,
            "added_to_entries": self.constant,
            "added_to_sums": self.constant,
            "last": self.last,
            "orientation": self.orientation,
        }
        given = {key: value for key, value in given.items() if value is not None}
        if preset.num_iters is None and given.keys() - {"epsilon", "orientation"}:
            raise InputError(
                f"the preset {preset.name} has no alternations: leave iterations, constant and "
                "last out, or name another preset."
            )
        return preset._replace(**given)


_PLAIN = Preset(
    name="by hand",
    statement="exp, then alternations without constants",
    source="the user",
    parametrization="truncated-sinkhorn",
    initial=PRESETS["mhc-paper"].initial,
    orientation="outputs-first",
    num_iters=20,
    start="exp",
)


def streams_of(preset: Preset, shape: tuple[int, ...]) -> int | None:
    """Return the n whose parameters the last axes of ``shape`` are, or None.

    >>> streams_of(PRESETS["kromhc"], (12, 2, 2)), streams_of(PRESETS["maxtext"], (3, 4))
    (4, None)
    """
    row = PARAMETRIZATIONS[preset.parametrization]
    sizes = range(2, 1025) if row.shape(2) != (2, 2) or row.name == "kronecker" else shape[-1:]
    for n in sizes:
        if row.sizes(n) and shape[-len(row.shape(n)) :] == row.shape(n):
            return n
    return None


def layers_by_hand(
    tensors: dict[str, Tensor], by_hand: ByHand
) -> tuple[list[Layer], list[Skipped]]:
    """Return the layers that a pattern names, in file order; stacked ones one by one."""
    assert by_hand.pattern is not None
    preset, layers, skipped = by_hand.preset_for(None), [], []
    for name, tensor in tensors.items():
        if not any(fnmatch.fnmatchcase(x, by_hand.pattern) for x in (name, unwrapped(name))):
            continue
        n = streams_of(preset, tensor.shape)
        if n is None or tensor.precision is None:
            shape = list(PARAMETRIZATIONS[preset.parametrization].shape(4))
            reason = f"it has shape {list(tensor.shape)} and type {tensor.dtype}; logits are "
            reason += f"floating-point numbers, for 4 streams of shape {shape}"
            skipped.append(Skipped(name, reason))
        else:
            layers += list(_layers(name, tensor, preset, n))
    return layers, skipped


def _layers(name: str, tensor: Tensor, preset: Preset, n: int) -> Iterator[Layer]:
    shape = PARAMETRIZATIONS[preset.parametrization].shape(n)
    stacked = tensor.shape[: len(tensor.shape) - len(shape)]
    parameters = read(tensor).reshape(-1, *shape)
    for index, base in zip(np.ndindex(stacked), parameters, strict=True):
        shown = unwrapped(name) + (f"[{', '.join(map(str, index))}]" if index else "")
        assert tensor.precision is not None
        yield Layer(
            name=shown,
            number=index[-1] if index else number_in(shown),
            site=site_of(shown),
            layout="by hand",
            preset=preset,
            base=base,
            base_precision=tensor.precision,
            n=n,
            tensors=(name,),
        )
