"""The tasks that networks are trained on, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from homojax.lab.datasets import digits, documentation
from homojax.lab.inputs import InputError
from homojax.networks.tasks.images import classification
from homojax.networks.tasks.made import copying, recall
from homojax.networks.tasks.task import Task
from homojax.networks.tasks.text import language
from homojax.registry import nearest


def load_task(name: str, **options: Any) -> Task:
    """Return the task of this name, with options such as ``units`` or ``seed`` set.

    Raises:
        InputError: the task, an option or a value does not exist.

    >>> load_task("copying", units=4).units
    4
    """
    if name not in TASKS:
        raise InputError(f'there is no task "{name}": {nearest(name, TASKS)}')
    known = inspect.signature(TASKS[name]).parameters
    for option in options:
        if option not in known:
            raise InputError(f'task {name} has no option "{option}": {nearest(option, known)}')
    try:
        return TASKS[name](**options)
    except ValueError as error:
        raise InputError(f"task {name}: {error}.") from error


def _digits(patch: int = 2, held_out: float = 0.2, seed: int = 0) -> Task:
    return classification(*digits(), patch=patch, held_out=held_out, seed=seed, name="digits")


def _text(units: int = 64, held_out: float = 0.1, tests: int = 512) -> Task:
    return language(documentation(), units, held_out=held_out, tests=tests, name="text")


TASKS: dict[str, Callable[..., Task]] = {
    "copying": copying,
    "recall": recall,
    "digits": _digits,
    "text": _text,
}
