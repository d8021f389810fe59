"""From the tensors of a checkpoint to its mixing layers, by the table of layouts."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from typing import Any

from homojax.lab.audit.by_hand import ByHand, layers_by_hand, streams_of
from homojax.lab.audit.layers import Layer, Mixing
from homojax.lab.audit.layout import Layout, Logits, MisfitError, Tensors, unstacked
from homojax.lab.audit.layouts import LAYOUTS
from homojax.lab.audit.names import (
    copied,
    has_word,
    joins_streams,
    looks_like_mixing,
    natural,
    number_in,
    site_of,
    unwrapped,
)
from homojax.lab.audit.reading import open_checkpoint
from homojax.lab.audit.settings import Settings, settings_of
from homojax.lab.audit.tensors import Checkpoint, Skipped
from homojax.lab.inputs import InputError
from homojax.presets import PRESETS, Preset

MOST_PARAMETERS = 5040  # that depend on the token: n = 7 of mhc-lite, n = 70 of the others
_SITES = ("attention", "other", "feed-forward")  # the order inside a layer


def mixing_of(place: Any, by_hand: ByHand | None = None) -> Mixing:
    """Return the mixing layers of a checkpoint, in order; only their tensors are read.

    Args:
        place: as of ``open_checkpoint``.
        by_hand: what replaces, or completes, what the layouts say.

    Raises:
        InputError: the checkpoint cannot be read, or has no mixing that is known.

    >>> import tempfile, numpy as np
    >>> file = f"{tempfile.mkdtemp()}/model.npz"
    >>> np.savez(file, **{"h.0.hc_attn.H_res_logits": np.eye(4)})
    >>> layer, = mixing_of(file).layers
    >>> layer.name, layer.site, layer.preset.name, layer.matrix().shape
    ('h.0.hc_attn', 'attention', 'tokenbender', (4, 4))
    """
    by_hand = by_hand or ByHand()
    return recognise(open_checkpoint(place, _wanted(by_hand)), by_hand)


def _told(skipped: Skipped) -> str:
    """Return the reason, with the name before it unless it begins so."""
    named = skipped.reason.startswith(skipped.name)
    return skipped.reason if named else f"{skipped.name}: {skipped.reason}"


def recognise(checkpoint: Checkpoint, by_hand: ByHand | None = None) -> Mixing:
    """Return the mixing layers among the tensors of a checkpoint.

    Raises:
        InputError: there are none, or one of their tensors cannot be read.
    """
    by_hand = by_hand or ByHand()
    if by_hand.pattern is not None:
        layers, skipped = layers_by_hand(checkpoint.tensors, by_hand)
        advice = f'no logits of matrices that fit the pattern "{by_hand.pattern}"'
    else:
        layers, skipped = _by_layouts(checkpoint, by_hand)
        if by_hand.preset is None:
            advice = (
                "no mixing matrix that is known; if it has one, name its logits by --pattern; if "
                "it is a recording, add --streams or --matrices before it"
            )
        else:
            advice = (
                f'no mixing matrix that fits the preset "{by_hand.preset}": leave out --preset, or '
                "name the logits by --pattern"
            )
    skipped = [*checkpoint.skipped, *skipped]
    if not layers:
        more = f"; and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        first = f" ({_told(skipped[0])}{more})" if skipped else ""
        raise InputError(f"{checkpoint.place} has {advice}{first}.")
    layers.sort(key=lambda layer: (natural(layer.name.rpartition(".")[0]), _rank(layer)))
    skipped.sort(key=lambda each: natural(each.name))
    return Mixing(tuple(layers), tuple(skipped))


def _rank(layer: Layer) -> tuple[int, list]:
    return _SITES.index(layer.site), natural(layer.name)


def _wanted(by_hand: ByHand) -> Callable[[str], bool]:
    """Return whether a tensor matters, by its name."""
    pattern = by_hand.pattern

    def wanted(name: str) -> bool:
        if pattern is not None:
            return any(fnmatch.fnmatchcase(x, pattern) for x in (name, unwrapped(name)))
        return looks_like_mixing(name) or next(_roles(name), None) is not None

    return wanted


# ---------------------------------------------------------------- by layouts


def _roles(name: str) -> Iterator[tuple[Layout, str, str | None, str]]:
    """Yield where a name fits: layout, what stands before the sublayer, sublayer, and role."""
    for layout in LAYOUTS.values() if has_word(name) else ():
        for pattern in layout.names:
            match = pattern.fullmatch(name)
            if match is not None:
                parts = match.groupdict()
                yield layout, parts["before"], parts.get("site"), parts["role"]
                break


def _by_layouts(checkpoint: Checkpoint, by_hand: ByHand) -> tuple[list[Layer], list[Skipped]]:
    settings = settings_of(checkpoint.config)
    layers: list[Layer] = []
    reasons: dict[str, str] = {}
    used: set[str] = set()
    for (code, before, site), tensors in _sublayers(checkpoint.tensors).items():
        used.update(tensor.name for tensor in tensors.values())
        try:
            _refuse_scaled(tensors, checkpoint.tensors)
            layers += list(_layers(LAYOUTS[code], before, site, tensors, settings, by_hand))
        except MisfitError as error:
            main = tensors.get(LAYOUTS[code].needs[0])
            named = [x.name for x in tensors.values() if x is main or looks_like_mixing(x.name)]
            reasons |= dict.fromkeys(named, str(error))
    for name in checkpoint.tensors.keys() - used:
        if copied(name) and looks_like_mixing(name):
            reasons[name] = f"it is {copied(name)}"
        elif joins_streams(name):
            reasons[name] = "it joins the streams at the end, and mixes none"
        elif looks_like_mixing(name):
            reasons[name] = "no layout that is known has it"
    return layers, [Skipped(name, reason) for name, reason in reasons.items()]


def _sublayers(tensors: Tensors) -> dict[tuple[str, str, str], Tensors]:
    """Return tensors by their roles, of each layout, what stands before a sublayer, and sublayer.

    What serves all sublayers of a layer is among those of each.
    """
    groups: dict[tuple[str, str, str], Tensors] = {}
    shared: dict[tuple[str, str], Tensors] = {}
    for name, tensor in tensors.items():
        for layout, before, site, role in _roles(name) if not copied(name) else ():
            if site is None:
                shared.setdefault((layout.code, before), {})[role] = tensor
            else:
                groups.setdefault((layout.code, before, site), {})[role] = tensor
    return {key: {**group, **shared.get(key[:2], {})} for key, group in groups.items()}


def _refuse_scaled(tensors: Tensors, all_tensors: Tensors) -> None:
    """Raise MisfitError where numbers are to be multiplied by others, block by block."""
    for tensor in tensors.values():
        for end in ("_scale_inv", "_scale"):
            if tensor.dtype.startswith("float8") and tensor.name + end in all_tensors:
                raise MisfitError(
                    f"{tensor.name} is {tensor.dtype} in units of {tensor.name}{end}: audit the "
                    "model before it was quantised"
                )


def _layers(
    layout: Layout,
    before: str,
    site: str,
    tensors: Tensors,
    settings: Settings,
    by_hand: ByHand,
) -> Iterator[Layer]:
    """Yield the layers of one sublayer's tensors: one, or as many as are stacked."""
    if layout.needs[0] not in tensors and not any(
        looks_like_mixing(x.name) for x in tensors.values()
    ):
        return  # norm.gamma, say, is a name of many modules
    missing = [role for role in layout.needs if role not in tensors]
    if missing:
        raise MisfitError(f"there is no {', '.join(missing)} beside it")
    name = unwrapped(f"{before}{site or ''}".rstrip(".") or layout.code)
    each = unstacked(tensors)
    for index, parts in enumerate(each):
        wrong = next((x for x in parts.values() if x.precision is None), None)
        if wrong is not None:
            raise MisfitError(f"{wrong.name} holds {wrong.dtype}, no floating-point numbers")
        logits = layout.make(parts, settings)
        shown = name if len(each) == 1 else f"{before}{index}.{site}"
        yield _layer(layout, unwrapped(shown), parts, logits, settings, by_hand)


def _layer(
    layout: Layout,
    name: str,
    tensors: Tensors,
    logits: Logits,
    settings: Settings,
    by_hand: ByHand,
) -> Layer:
    preset = _with_settings(PRESETS[by_hand.preset or logits.preset], settings)
    preset = by_hand.preset_for(preset)
    if streams_of(preset, logits.base.shape) != logits.n:
        raise MisfitError(
            f"its logits have shape {list(logits.base.shape)}, not those of {preset.name}"
        )
    projection = logits.projection
    dynamic = projection is not None and logits.scale != 0
    if dynamic and logits.base.size > MOST_PARAMETERS:
        raise MisfitError(
            f"{logits.base.size} logits depend on the token: more than {MOST_PARAMETERS} have a "
            "Gram matrix too large to keep"
        )
    fn = None if projection is None else projection.fn.precision
    base = next((x for role, x in tensors.items() if role in _BASES), None)
    base = base or next(iter(tensors.values()))
    assert base.precision is not None
    return Layer(
        name=name,
        number=number_in(name),
        site=site_of(name),
        layout=layout.code,
        preset=preset,
        base=logits.base,
        base_precision=base.precision,
        scale=logits.scale,
        gram=projection.gram() if dynamic and projection is not None else None,
        fn_precision=fn,
        n=logits.n,
        features=logits.features,
        read=logits.read,
        write=logits.write,
        projection=projection,
        tensors=tuple(tensor.name for tensor in tensors.values()),
    )


_BASES = (
    *("base", "branch_beta", "branch_beta_res", "bias_res", "bias", "res_beta"),
    *("static_alpha", "H_res_logits"),
)


def _with_settings(preset: Preset, settings: Settings) -> Preset:
    """Return a preset with what the model's own configuration says."""
    if preset.num_iters is None:
        return preset
    if settings.num_iters is not None:
        preset = preset._replace(num_iters=settings.num_iters)
    if settings.constant is not None and preset.added_to_entries:
        preset = preset._replace(
            added_to_entries=settings.constant, added_to_sums=settings.constant
        )
    return preset
