"""Words become configs, and a mistake becomes one sentence that names it."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

import homojax as hj
from homojax.lab.inputs import (
    FRACTION,
    Config,
    InputError,
    Range,
    as_config,
    at_least,
    parse_grid,
)
from homojax.lab.sweep.config import Sweep


@dataclasses.dataclass(frozen=True)
class Oven(Config):
    """A config of every kind of field."""

    cosmetic = ("label",)

    heat: Annotated[tuple[float, ...], Range(lambda x: x > 0, "greater than 0")] = (1.0,)
    trays: Annotated[tuple[int, ...], at_least(1, "tray"), Range(bool, "", True)] = ()
    share: Annotated[float, FRACTION] = 0.5
    guests: Annotated[int | None, at_least(2)] = None
    mode: Literal["fan", "grill"] = "fan"
    light: bool = False
    place: Path | None = None
    label: str = ""

    def check(self) -> None:
        if self.light and self.mode == "grill":
            raise InputError("the grill has no light: leave light out.")


def test_a_grid_is_numbers_or_a_geometric_range():
    assert parse_grid(["0.1:10:3", "20"]) == (0.1, 1.0, 10.0, 20.0)
    for bad in ("0:1:3", "1:2", "1:2:0", "1:2:1", "2:1:3", "x", "1:2:3:4"):
        with pytest.raises(InputError, match="neither a number nor a geometric grid"):
            parse_grid([bad])


def test_fields_are_brought_to_their_type_and_keep_every_digit():
    oven = Oven(heat=np.array([0.1, 2]), trays=[1, np.int64(2)], place="a/b", guests=np.int64(3))
    assert (oven.heat, oven.trays, oven.guests) == ((0.1, 2.0), (1, 2), 3)
    assert oven.place == Path("a/b") and hash(oven)
    assert Oven(heat=(0.12345678901234567,)).heat == (0.12345678901234567,)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"heat": ()}, "heat is an empty grid: give at least one value."),
        ({"heat": (1, 1)}, "heat has a value twice: 1.0, 1.0."),
        ({"heat": "warm"}, '"warm" is neither a number nor a geometric grid'),
        ({"heat": True}, "heat must be numbers, not True."),
        ({"heat": (-1,)}, "heat = -1.0 is not possible: it must be greater than 0."),
        ({"trays": (0,)}, "trays = 0 is not possible: it must be at least 1 tray."),
        ({"trays": (1.5,)}, "trays must be int, not 1.5."),
        ({"share": 1}, "share = 1.0 is not possible: it must be strictly between 0 and 1."),
        ({"share": 10**400}, "share is too large for a number."),
        ({"guests": 1}, "guests = 1 is not possible: it must be at least 2."),
        ({"guests": True}, "guests must be int, not True."),
        ({"mode": "fam"}, "mode must be one of fan, grill, not 'fam'."),
        ({"light": 1}, "light must be bool, not 1."),
        ({"light": True, "mode": "grill"}, "the grill has no light: leave light out."),
    ],
)
def test_a_value_that_cannot_be_is_named_in_one_sentence(fields, said):
    with pytest.raises(InputError) as caught:
        Oven(**fields)
    assert str(caught.value).startswith(said)


def test_the_digest_follows_results_and_not_labels():
    assert Oven(label="a").digest == Oven(label="b").digest != Oven(share=0.25).digest


def test_a_config_is_given_whole_or_by_its_fields():
    oven = Oven(share=0.25)
    assert as_config(Oven, oven, {}) is oven and as_config(Oven, None, {"share": 0.25}) == oven
    with pytest.raises(InputError, match='no option "shar": did you mean "share"'):
        as_config(Oven, None, {"shar": 0.25})
    with pytest.raises(InputError, match="not both"):
        as_config(Oven, oven, {"share": 0.5})
    with pytest.raises(InputError, match="is not a Oven"):
        as_config(Oven, 3, {})


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: hj.sweep(seeds=10**12), "seeds = 1000000000000 is not possible"),
        (lambda: hj.train(seeds=10**12), "seeds = 1000000000000 is not possible"),
        (lambda: hj.verify(claims=None), "claims must be names, .*, not None"),
    ],
)
def test_what_nobody_can_run_is_refused_at_once(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def test_a_geometric_grid_is_asked_by_its_ends_and_its_count():
    grid = Sweep(epsilon="0.05:20:30", depth=(1, 2, 4))
    assert grid.flags == ["--epsilon", "0.05:20:30", "--depth", "1", "2", "4"]
    other = (*grid.epsilon[:-1], 21.0)  # near to one, and none
    assert Sweep(epsilon=other).flags == ["--epsilon", *map(str, other)]
    assert Sweep(epsilon=(0.1, 1.0)).flags == ["--epsilon", "0.1", "1.0"]
