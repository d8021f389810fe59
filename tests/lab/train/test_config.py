"""A training is told which networks, on what, over which values; no sense is refused by name."""

import numpy as np
import pytest

from homojax.lab.inputs import InputError
from homojax.lab.train.config import Train
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"epsilon": (0.0,)}, "epsilon = 0.0"),
        ({"epsilon": (1e-300,)}, "epsilon = 1e-300"),  # 0 in float32
        ({"alpha": (1 - 1e-9,), "architecture": Architecture(learned_alpha=True)}, "alpha = 0.5"),
        ({"alpha": (1.5,)}, "alpha = 1.5"),
        ({"alpha": (1.0,), "architecture": Architecture(learned_alpha=True)}, "alpha = 0.5"),
        ({"noise": ()}, "noise is an empty grid"),
        ({"noise": (-1,)}, "noise = -1"),
        ({"depths": (2, 2)}, "twice"),
        ({"depths": (0,)}, "depths = 0"),
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds": 2.5}, "seeds must be int"),
        ({"depths": (2.5,)}, "depths must be int"),
        ({"epsilon": ("warm",)}, "warm"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"patience": -1}, "patience = -1"),
        ({"architecture": {"depth": 2}}, "must be a Architecture"),
    ],
)
def test_a_grid_that_is_none_is_refused_by_name(wrong, text):
    with pytest.raises(InputError, match=text):
        Train(**wrong)


def test_grids_may_be_single_numbers_or_arrays():
    asked = Train(epsilon=0.5, depths=np.array([1, 4]), alpha=np.float32(0.25))
    assert (asked.epsilon, asked.depths, asked.alpha) == ((0.5,), (1, 4), (0.25,)) and asked.digest
    numbers = Train(
        architecture=Architecture(depth=np.int64(2)),
        training=Training(learning_rate=1, clip=np.float32(2)),
    )
    same = Train(architecture=Architecture(depth=2), training=Training(learning_rate=1.0, clip=2.0))
    assert numbers.digest == same.digest


def test_the_architecture_is_of_one_depth_where_no_depths_are_compared():
    assert Train(architecture=Architecture(depth=3)).all_depths == (3,)
    assert Train(architecture=Architecture(depth=3), depths=(5, 2)).all_depths == (5, 2)


def test_runs_stand_side_by_side_with_the_seed_fastest():
    cells = Train(epsilon=(0.1, 1.0), alpha=(0.2,), noise=(0.0, 3.0), seeds=2).cells
    assert [cell.seed for cell in cells] == [0, 1] * 4
    assert [cell.noise for cell in cells] == [0, 0, 3, 3] * 2
    assert [cell.epsilon for cell in cells] == [0.1] * 4 + [1.0] * 4


@pytest.mark.parametrize(
    ("seeds", "sizes"),
    [(5, [5]), (16, [16]), (17, [8, 9]), (24, [12] * 2), (35, [7] * 5), (100, [10] * 10)],
)
def test_groups_have_at_most_sixteen_runs_and_one_size_where_that_can_be(seeds, sizes):
    config = Train(seeds=seeds)
    groups = config.groups(4)
    assert [len(group.cells) for group in groups] == sizes
    assert sum((group.cells for group in groups), ()) == config.cells
    assert len({group.key for group in (*groups, *config.groups(3))}) == 2 * len(sizes)


def test_reports_stand_at_every_twentieth_of_the_steps_rounded_up():
    fifty = (3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40, 43, 45, 48, 50)
    assert Train(training=Training(steps=50)).report_steps == fifty
