"""Every verb's Dataset draws itself: each kind that it lists, whole, and on a given axis."""

import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import homojax as hj
from homojax.lab import accessor
from homojax.lab.figure_style import STYLE
from homojax.lab.inputs import InputError
from homojax.lab.sweep import report

TRAINED = {"source": "trained-mhc", "iterations": 10, "depth": tuple(range(1, 13)), "samples": 8}
# What is drawn -> how it is made, of fixtures or in shapes of tests/lab/sweep and tests/lab/verify.
MADE = {
    "a map": lambda fixture: fixture("two_sizes").ds,
    "one ε as run": lambda _: hj.sweep(epsilon=0.05, snr=1.0, alpha=1.0, **TRAINED),
    "one depth": lambda fixture: fixture("two_sizes").ds.isel(n=[1], depth=[1]),
    "one cell": lambda fixture: fixture("two_sizes").ds.isel(CELL),
    "a verification": lambda _: hj.verify(
        claims=("doeblin", "pinsker"), families=("permutations", "uniform"), n=(2, 4), cells=200
    ),
    "a frontier": lambda fixture: fixture("frontier_at_3"),
    "a calibration": lambda fixture: fixture("calibrated"),
    "a scan": lambda fixture: fixture("curves"),
}
CELL = {"n": [1], "depth": [1], "epsilon": [1], "seed": [0]}


@pytest.fixture(scope="module", params=MADE)
def made(request):
    return MADE[request.param](request.getfixturevalue)


def is_whole(figure):
    """Whether nothing that is drawn leaves the figure."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


def labels_are_apart(axis):
    """Whether no number at an axis runs into another one."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    labels = [
        x for tick in ticks if low <= tick.get_loc() <= high for x in (tick.label1, tick.label2)
    ]
    shown = [x for x in labels if x.get_visible() and x.get_text() and x.get_rotation() % 90 == 0]
    boxes = [x.get_window_extent() for x in shown]
    return not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_every_kind_is_drawn_whole(made):
    assert made.homojax.kinds and made.homojax.summary()
    with plt.rc_context(STYLE):
        for kind in made.homojax.kinds:
            figure = made.homojax.plot(kind)
            assert is_whole(figure), kind
            assert all(labels_are_apart(a) for ax in figure.axes for a in (ax.xaxis, ax.yaxis)), (
                kind
            )
    plt.close("all")


@pytest.mark.parametrize(("style", "apart"), [(STYLE, True), ({}, False)])
def test_numbers_of_a_short_logarithmic_axis_are_apart(style, apart):
    with plt.rc_context(style):
        figure, ax = plt.subplots(figsize=(5, 4))
        ax.set(xscale="log", xlim=(0.22, 8.9))
        figure.draw_without_rendering()
        assert labels_are_apart(ax.xaxis) == apart
    plt.close(figure)


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


def test_one_n_chosen_by_its_value_is_drawn_as_one_panel(two_sizes):
    assert len(two_sizes.ds.sel(n=4).homojax.plot("survival").axes) == 1
    plt.close("all")


@pytest.mark.parametrize("name", ["seed", "epsilon", "depth"])
def test_a_dimension_or_a_variable_that_was_left_out_is_named(name, two_sizes):
    for ds in (two_sizes.ds.isel({name: 0}), two_sizes.ds.mean(name, keep_attrs=True)):
        with pytest.raises(InputError, match=rf"no dimension {name} any more: .* as ds\.isel"):
            ds.homojax.plot()
    with pytest.raises(InputError, match="no composite_sigma2 any more: keep all variables"):
        two_sizes.ds.drop_vars("composite_sigma2").homojax.plot()
    with pytest.raises(InputError, match="no status any more: keep all variables"):
        two_sizes.ds.drop_vars("status").homojax.summary()


def test_a_selection_that_left_nothing_of_a_dimension_is_told(made):
    for name in set(made.sizes) & set(made.coords):
        for draw in (made.isel({name: []}).homojax.plot, made.isel({name: []}).homojax.summary):
            with pytest.raises(InputError, match=f"left nothing of the dimension {name}: choose"):
                draw()


def test_a_value_that_a_selection_took_twice_is_told(made):
    for name in set(made.sizes) & set(made.coords):
        twice = made.isel({name: [0, 0]}).homojax
        for draw in (twice.plot, twice.summary):
            with pytest.raises(InputError, match=f"value of the dimension {name} twice: choose"):
                draw()


def test_what_is_drawn_has_the_dimensions_and_numbers_in_order_and_is_a_view(made, monkeypatch):
    monkeypatch.setattr(accessor, "_made", lambda make, ds, *_: ds)
    numbered = [name for name, index in made.indexes.items() if index.dtype.kind in "if"]
    mixed = made.transpose().isel(dict.fromkeys(numbered, slice(None, None, -1)))
    xr.testing.assert_identical(mixed.homojax.plot(), made)
    drawn = made.homojax.plot()
    assert all(np.shares_memory(x, drawn[name]) for name, x in made.data_vars.items())


def test_a_dimension_that_one_kind_alone_needs_is_named(two_sizes):
    for ds in (two_sizes.ds.isel(layer=0), two_sizes.ds.mean("layer", keep_attrs=True)):
        for draw in (lambda ds=ds: ds.homojax.plot("entropy"), ds.homojax.summary):
            with pytest.raises(InputError, match=r"no dimension layer any more: .* as ds\.isel"):
                draw()
        assert ds.isel(n=[0]).homojax.plot("survival")
    plt.close("all")


def test_what_is_no_axis_is_refused(made):
    for kind, ax in itertools.product(made.homojax.kinds, (np.array([1, 2]), "ax")):
        with pytest.raises(InputError, match=r"ax must be one matplotlib Axes, not (ndarray|str)"):
            made.homojax.plot(kind, ax=ax)


def test_only_a_missing_variable_of_the_dataset_is_told_as_left_out(two_sizes, monkeypatch):
    monkeypatch.setattr(report, "headline", lambda ds: np.ones(2).get_figure)
    with pytest.raises(AttributeError, match="get_figure"):
        two_sizes.ds.homojax.summary()


def test_cells_of_the_main_figure_meet_half_way_on_its_axes(two_sizes):
    page = two_sizes.ds.sel(n=[4]).homojax.plot()
    mesh = next(x for x in page.axes[0].collections if hasattr(x, "get_coordinates"))
    edges = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose(edges[1:-1], np.sqrt([0.2 * 1.0, 1.0 * 5.0]))
    plt.close("all")


def shown(ax):
    """The triangles at the lower edge of an axis."""
    return sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "v")


@pytest.mark.parametrize("kind", ["survival", "residual"])
def test_points_below_an_axis_are_marked_and_the_axis_says_so(kind, two_sizes):
    ds = two_sizes.ds.sel(n=[4])
    lost = ds.assign({n: ds[n] * 1e-9 for n in ("composite_sigma2", "residual_sigma2")})
    lost.residual_sigma2[{"alpha": 0}] = 0.0
    ax = lost.homojax.plot(kind).axes[0]
    count = ds.sizes["epsilon"] * ds.sizes["depth" if kind == "survival" else "alpha"]
    assert shown(ax) == count and "▼ below 0.0001" in ax.get_ylabel()
    high = ds.assign({n: ds[n].clip(0.5) for n in ("composite_sigma2", "residual_sigma2")})
    ax = high.homojax.plot(kind).axes[0]
    assert not shown(ax) and "▼" not in ax.get_ylabel()
    plt.close("all")


@pytest.mark.parametrize("kind", ["survival", "entropy", "residual"])
def test_what_truncated_matrices_amplify_is_within_the_axes(kind, two_sizes):
    names = ("sigma2", "composite_sigma2", "residual_sigma2")
    ds = two_sizes.ds.isel(n=[1])
    assert ds.homojax.plot(kind).axes[0].get_ylim()[1] == {"entropy": 1.05, "survival": 1.5}.get(
        kind, 1.6
    )
    grown = ds.assign({name: 3 * ds[name] / ds[name].max() for name in names})
    assert grown.homojax.plot(kind).axes[0].get_ylim()[1] > 3
    plt.close("all")


def test_numbers_above_and_below_a_short_phase_diagram_are_apart_in_any_style(two_sizes):
    ds = two_sizes.ds.assign_coords(epsilon=[0.11, 0.3, 0.8])
    with plt.style.context("default"):
        figure = ds.homojax.plot("phase")
        figure.draw_without_rendering()
        panels = [panel for ax in figure.axes[:2] for panel in (ax, *ax.child_axes)]
        assert len(panels) == 4 and all(labels_are_apart(panel.xaxis) for panel in panels)
    plt.close("all")


def test_the_words_at_a_critical_ratio_are_beside_its_line(two_sizes):
    figure = two_sizes.ds.homojax.plot("layernorm")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    words = [text for text in ax.texts if "critical" in text.get_text()]
    for text in words:
        assert ax.transData.transform((text.xy[0], 0))[0] - text.get_window_extent().x1 > 2
    assert words
    plt.close("all")


def test_no_cosine_is_cut_off_and_points_without_signal_are_counted(two_sizes):
    ds = two_sizes.ds.copy(deep=True)
    ds.cosine_mean[{"n": 0, "epsilon": 0, "seed": 0, "snr": 0}] = -0.9
    ds.output_snr[{"n": 0, "epsilon": 1}] = 0.0
    ax = ds.homojax.plot("layernorm").axes[0]
    assert ax.get_ylim()[0] < -0.9 and ax.get_ylim()[1] > 1
    assert "; 8 points at 0 are not shown" in ax.get_xlabel()
    plt.close("all")


def test_the_legend_has_what_is_drawn_of_a_half_done_sweep(two_sizes):
    ds = two_sizes.ds.copy(deep=True)
    for name in ("composite_sigma2", "product_sigma2", "residual_sigma2"):
        ds[name][{"n": 0}] = np.nan  # of the first panel nothing is there
        ds[name][{"n": 1, "epsilon": 2}] = np.nan
    for kind in ("survival", "residual"):
        (legend,) = ds.homojax.plot(kind).legends
        labels = [text.get_text() for text in legend.get_texts() if "ε" in text.get_text()]
        assert labels == ["ε = 0.2", "ε = 1"]
    plt.close("all")


def test_the_first_table_counts_what_the_headline_counts(two_sizes):
    section = report.describe(two_sizes.ds)
    first, laws = section.tables
    for word, column in (
        ("comparisons hold", "holds"),
        ("are undecidable", "undec."),
        ("violated", "viol."),
    ):
        told = re.search(rf"([\d,]+) {word}", section.text)[1]
        for table in (first, laws):
            at = table.header.index(column)
            total = sum(int(row[at].replace(",", "").replace("–", "0")) for row in table.rows)
            assert f"{total:,}" == told, column


def test_one_epsilon_needs_no_colour_bar(two_sizes):
    figure = two_sizes.ds.isel(epsilon=[1]).homojax.plot("entropy")
    assert len(figure.axes) == 2 and figure.get_suptitle().endswith("at ε = 1")
    assert len(two_sizes.ds.homojax.plot("entropy").axes) == 3
    plt.close("all")


def test_a_kind_or_a_dataset_that_there_is_not_is_told_in_one_sentence(two_sizes):
    ds = two_sizes.ds.isel(CELL)
    with pytest.raises(InputError, match='no figure "phrase": did you mean "phase"'):
        ds.homojax.plot("phrase")
    for odd in ("nope", 3):
        with pytest.raises(InputError, match=r"no figure .*: there are: entropy, layernorm, phase"):
            ds.homojax.plot(odd)
    with pytest.raises(InputError, match="no homojax verb made it"):
        xr.Dataset({"x": ("i", np.ones(2))}).homojax.plot()
    for verb in ("sweep", ["sweep"]):  # without a config
        with pytest.raises(InputError, match="no homojax verb made it"):
            _ = xr.Dataset(attrs={"verb": verb}).homojax.kinds
