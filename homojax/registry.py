"""Tables by name: claims, parametrizations, presets. A name that is missing gets the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

_LISTED = 24  # names that a sentence lists


class Registry(dict[str, T]):
    """A dict from names, which says what was meant instead of a missing one.

    >>> table = Registry("claim")
    >>> table["hilbert"] = 2
    >>> try:
    ...     table["hilbrt"]
    ... except KeyError as error:
    ...     print(error.args[0])
    there is no claim "hilbrt": did you mean "hilbert"?
    """

    def __init__(self, kind: str):
        """Make an empty table of things of this kind."""
        super().__init__()
        self._kind = kind

    def __missing__(self, name: str) -> T:
        """Raise KeyError with the nearest name."""
        raise KeyError(f'there is no {self._kind} "{name}": {nearest(str(name), self)}')


def nearest(word: str, known: Iterable[str]) -> str:
    """Return 'did you mean "…"?' where a known name is near, and the list of them otherwise.

    >>> nearest("hilbrt", ["hilbert", "doeblin"])
    'did you mean "hilbert"?'
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else enumerated(known)


def enumerated(known: Sequence[str]) -> str:
    """Return "there are: …", with 24 names at most.

    >>> enumerated(["hilbert", "doeblin"])
    'there are: hilbert, doeblin.'
    """
    if not known:
        return "there are none."
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"there are: {', '.join(known[:_LISTED])}{more}."
