"""All families of cases: logits to be projected, and matrices of known spectrum.

Each draws any number of cells of one size at once. Where a family has a parameter, its draws reach
the edges: there bounds are attained, and there rounding decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from homojax.lab.inputs import InputError

# Importing declares families: this is their order.
from homojax.lab.verify import logit_families, matrix_families  # noqa: F401
from homojax.lab.verify.family import FAMILIES, Family
from homojax.registry import nearest


def choose_families(names: Sequence[str]) -> list[Family]:
    """Return the families of these names, in this order.

    Raises:
        InputError: there is none of a name; the nearest is offered.

    >>> [family.name for family in choose_families(["uniform", "de-bruijn"])]
    ['uniform', 'de-bruijn']
    """
    for name in names:
        if name not in FAMILIES:
            raise InputError(f'there is no family "{name}": {nearest(name, FAMILIES)}')
    return [FAMILIES[name] for name in names]
