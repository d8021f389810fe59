"""The ranges of a configuration's fields: declared beside each field, checked in one place.

Nothing here imports JAX, so that the command line can print its help without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import (
    Annotated,
    Any,
    Literal,
    SupportsFloat,
    SupportsIndex,
    get_args,
    get_origin,
    get_type_hints,
)

Check = Callable[[str, Any], Any]  # (field's name, value) -> the value as its type, or ValueError


def at_least(least: int) -> Check:
    """Return a check that a field is a whole number of at least ``least``.

    >>> at_least(1)("depth", 8)
    8
    """

    def check(name: str, value: Any) -> int:
        if not isinstance(value, SupportsIndex) or int(value) < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        return int(value)

    return check


def not_negative(name: str, value: Any) -> float:
    """Return ``value`` as a float, or refuse it where it is negative or not finite.

    >>> not_negative("weight_decay", 0)
    0.0
    """
    if not isinstance(value, SupportsFloat) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return ``value`` as a float, or refuse it where it is not above 0 or not finite.

    >>> positive("clip", 1)
    1.0
    """
    if not isinstance(value, SupportsFloat) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def check_fields(config: Any) -> None:
    """Check each field of a frozen dataclass by its annotation, and store it as the declared type.

    ``Annotated[int, at_least(1)]`` is checked by its check, ``Literal`` by its choices.

    Raises:
        ValueError: a field is out of its range; the sentence names the field and the range.
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if get_origin(hint) is Annotated:
            object.__setattr__(config, name, hint.__metadata__[0](name, value))
        elif get_origin(hint) is Literal and value not in get_args(hint):
            raise ValueError(f'{name} must be one of {", ".join(get_args(hint))}, not "{value}"')
