"""Every verb's Dataset draws itself: each kind that it lists, whole, and on a given axis."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import homojax as hj
from homojax.lab.figure_style import STYLE
from homojax.lab.inputs import InputError
from homojax.lab.probe.sensitivity import scan_sensitivity

# Their shapes are those of tests/lab/sweep and tests/lab/probe, to compile once for all.
GRID = {"samples": 200, "snr": (0.1, 10.0), "alpha": (0.0, 0.25, 1.0), "seeds": 4}
TRAINED = {"source": "trained-mhc", "iterations": 10, "depth": tuple(range(1, 13)), "samples": 8}


@cache
def a_map():
    return hj.sweep(
        n=(2, 4), epsilon=(0.2, 1.0, 5.0), depth=(1, 2, 4, 5), retention=0.3, memory_mb=1e-3, **GRID
    )


MADE = {  # what is drawn -> how it is made
    "a map": a_map,
    "one ε as run": lambda: hj.sweep(epsilon=0.05, snr=1.0, alpha=1.0, **TRAINED),
    "one depth": lambda: a_map().isel(n=[1], depth=[1]),
    "one cell": lambda: a_map().isel(n=[1], depth=[1], epsilon=[1], seed=[0]),
    "a verification": lambda: hj.verify(claims=("hilbert", "doeblin"), n=(3, 4), cells=60),
    "a frontier": lambda: hj.frontier(n=3, deficits=4, starts=6, steps=100),
    "a calibration": lambda: hj.calibrate(sigma2=0.5, n=3, seeds=2),
    "a scan": lambda: scan_sensitivity(epsilon=np.geomspace(0.05, 50, 13), cases={"a pair": PAIR}),
}
PAIR = (np.array([[0.0, -8.0], [-8.0, 0.0]]), 0.05)


@pytest.fixture(scope="module", params=MADE)
def made(request):
    return MADE[request.param]()


def is_whole(figure):
    """Whether nothing that is drawn leaves the figure."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


def test_every_kind_is_drawn_whole(made):
    assert made.homojax.kinds and made.homojax.summary()
    with plt.rc_context(STYLE):
        for kind in made.homojax.kinds:
            assert is_whole(made.homojax.plot(kind)), kind
    plt.close("all")


def test_one_panel_is_drawn_on_an_axis_and_several_are_refused(made):
    figure, ax = plt.subplots(figsize=(7, 5))
    for kind in made.homojax.kinds:
        ax.clear()
        if made.sizes.get("n", 1) > 1 and kind not in ("layernorm", "tightness"):
            with pytest.raises(InputError, match=r"2 panels, and one axis .* ds\.sel\(n=\[4\]\)"):
                made.homojax.plot(kind, ax=ax)
            continue
        assert made.homojax.plot(kind, ax=ax) is figure and ax.has_data()
    plt.close("all")


def test_one_n_chosen_by_its_value_is_drawn_as_one_panel():
    assert len(a_map().sel(n=4).homojax.plot("survival").axes) == 1
    plt.close("all")


def test_a_kind_or_a_dataset_that_there_is_not_is_told_in_one_sentence():
    ds = MADE["one cell"]()
    with pytest.raises(InputError, match='no figure "phrase": did you mean "phase"'):
        ds.homojax.plot("phrase")
    with pytest.raises(InputError, match="no homojax verb made it"):
        xr.Dataset({"x": ("i", np.ones(2))}).homojax.plot()
