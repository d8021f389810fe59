"""What a model's own configuration says of its mixing: streams, alternations, constant."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from homojax.lab.inputs import InputError

MOST_ALTERNATIONS = 100_000


class Settings(NamedTuple):
    """Facts of a configuration; None where it has none."""

    n: int | None = None  # streams
    num_iters: int | None = None  # alternations
    constant: float | None = None  # added to entries and sums


_KEYS = {
    "n": (
        *("hc_mult", "mhc_num_stream", "num_residual_streams", "mhc_expansion_rate"),
        "hyper_connection.count",
    ),
    "num_iters": (
        *("hc_sinkhorn_iters", "mhc_recur_norm", "mhc_sinkhorn_iterations", "sinkhorn_iterations"),
        "hyper_connection.sinkhorn_iterations",
    ),
    "constant": ("hc_eps", "hyper_connection.epsilon"),
}


def settings_of(config: dict[str, Any]) -> Settings:
    """Return the settings of a config.json or of a GGUF file's metadata.

    Raises:
        InputError: a setting is none.

    >>> settings_of({"text_config": {"hc_mult": 4, "hc_sinkhorn_iters": 20}})
    Settings(n=4, num_iters=20, constant=None)
    """
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            short = key.partition(".")[2] if key.endswith(_KEYS_OF_GGUF) else key
            for name, keys in _KEYS.items():
                if short in keys and value is not None and name not in found:
                    found[name] = _checked(name, key, value)
    return Settings(**found)


_KEYS_OF_GGUF = tuple(f".{keys[-1]}" for keys in _KEYS.values())


def _checked(name: str, key: str, value: Any) -> int | float:
    is_count = type(value) is int and 1 <= value <= MOST_ALTERNATIONS
    is_small = isinstance(value, int | float) and not isinstance(value, bool)
    is_small = is_small and math.isfinite(value) and 0 <= value < 1
    if not (is_small if name == "constant" else is_count):
        raise InputError(f"the model's configuration has {key} = {str(value)[:40]}: correct it.")
    return value
