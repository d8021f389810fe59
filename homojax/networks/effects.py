"""Settings that would have no effect on a network are refused."""

from __future__ import annotations

import dataclasses

from homojax.networks.architecture import Architecture
from homojax.networks.training import Training
from homojax.presets import PRESETS

LEAST_STREAM_LAYERS = 3  # the first layer mixes equal streams, and the last one's are averaged


def require_effects(architecture: Architecture, training: Training) -> None:
    """Refuse a setting that has no effect on this network.

    Raises:
        ValueError: a field is set and has no effect; the sentence names it and what to try.

    >>> require_effects(Architecture(heads=4), Training())
    Traceback (most recent call last):
    ValueError: heads = 4 has no effect on a matrix over tokens: try over = attention or streams
    """
    values, defaults = {}, {}
    for config in (architecture, training):
        values |= dataclasses.asdict(config)
        defaults |= {field.name: field.default for field in dataclasses.fields(config)}
    for name, is_idle, subject, advice in _idle_settings(architecture):
        if is_idle and values[name] != defaults[name]:
            raise ValueError(f"{name} = {values[name]} has no effect on {subject}: {advice}")
    if architecture.over == "streams" and architecture.depth < LEAST_STREAM_LAYERS:
        raise ValueError(
            f"depth = {architecture.depth} leaves the matrices of hyper-connections without effect "
            "(the first layer mixes equal streams, and the last one's are averaged): "
            f"try depth = {LEAST_STREAM_LAYERS} or more"
        )


def _idle_settings(architecture: Architecture) -> tuple[tuple[str, bool, str, str], ...]:
    """Return rows (field, whether it is idle, the thing it does not act on, what to try)."""
    over, mixer = architecture.over, architecture.mixer
    attention = over == "attention"
    mixed = "attention" if attention else f"the mixing of {over}"
    unparametrized = "attention, which has no mixing parameters"
    return (
        ("num_iters", mixer != "truncated-sinkhorn", mixer, "try the mixer truncated-sinkhorn"),
        ("logit_scale", attention, unparametrized, "leave it out"),
        (
            "logit_scale",
            mixer in PRESETS,
            f"{mixer}, which starts as its code does",
            "leave it out",
        ),
        ("heads", over == "tokens", "a matrix over tokens", "try over = attention or streams"),
        ("streams", over != "streams", mixed, "try over = streams"),
        ("dynamic", over != "streams", mixed, "try over = streams"),
        ("learned", attention, unparametrized, "leave it out"),
        ("mixing_decay", attention, unparametrized, "try weight_decay"),
        (
            "mixing_decay",
            not architecture.learned,
            "mixing parameters that are not learned",
            "leave it out",
        ),
    )
