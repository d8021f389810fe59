"""Identity stagnation (laws 5.2, turn bound, and 5.3, pre-norm turn): what is kept and turned.

    python experiments/stagnation.py [--quick]

Networks copy tokens, with one matrix over tokens in each layer, at several residual weights α.
"linear" networks have no norm, and law 5.2 bounds their turn. "pre-norm" networks have a norm
before the mixing. "branch" networks have a feed-forward branch after it, of which law 5.2 knows
nothing. Law 5.2 says something of a layer where ασ₂ < 1 − α. Layers whose detail is so faint that
float32 has no direction of it left are not counted.
"""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import MEASURED, shades
from homojax.lab.page import Table
from homojax.lab.train.config import Train
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training
from homojax.residual import turn_bound

ALPHA = {
    "smoke": (0.1, 1.0),
    "quick": (0.05, 0.2, 0.5, 1.0),
    "full": (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0),
}
EPSILON = {"smoke": (1.0,), "quick": (0.2, 5.0), "full": (0.1, 0.5, 1.0, 5.0)}
STEPS = {"smoke": 10, "quick": 200, "full": 800}
SEEDS = {"smoke": 1, "quick": 2, "full": 3}
DEPTH = {"smoke": 4, "quick": 8, "full": 16}
FAINT = 1e-6  # of the energy that the detail began with
RESOLVED = 1e-3  # rad a layer, to which float32 has the direction of detail that is not faint
NETWORKS = {"linear": {"norm": "none"}, "pre-norm": {}, "branch": {"hidden": 32}}
CHOSEN = {"smoke": ("pre-norm",), "quick": tuple(NETWORKS), "full": tuple(NETWORKS)}
HEADER = ["network", "ε", "α", "kept", "turn", "bound", "accuracy", "±", "beyond"]
CAPTION = (
    "Medians over seeds, after training. Turn, and bound by law 5.2: rad; –: no bound; beyond: "
    "networks with a layer over it."
)


class Turns(NamedTuple):
    """What is read from one training, over epsilon × alpha × seed."""

    ds: xr.Dataset
    turned: xr.DataArray  # rad, over the layers with clear detail
    bound: xr.DataArray  # rad, by law 5.2; NaN where some layer has none
    over: xr.DataArray  # whether a layer turns detail more than its bound
    bounded: xr.DataArray  # whether a layer has a bound


def study(size: Size, bench: Bench) -> Study:
    """Return how much detail each network keeps, how far it turns it, and the bound of law 5.2."""
    trainings = {}
    for name in CHOSEN[size]:
        config = Train(
            architecture=Architecture(depth=DEPTH[size], **NETWORKS[name]),
            training=Training(steps=STEPS[size], batch=32),
            epsilon=EPSILON[size],
            alpha=ALPHA[size],
            seeds=SEEDS[size],
            claims=size == "full",
        )
        trainings[name] = read(bench.train(name, config).isel(depth=0, noise=0))
    beyond = (f"{k} {int(x.over.sum())} of {int(x.bounded.sum())}" for k, x in trainings.items())
    rows = [
        row(name, turns, epsilon, alpha)
        for name, turns in trainings.items()
        for epsilon in turns.ds.epsilon.values
        for alpha in turns.ds.alpha.values
    ]
    return Study(
        text="Networks with a layer that turns detail more than law 5.2 allows, of those with a "
        f"layer that it bounds: {', '.join(beyond)}.",
        tables=[Table(CAPTION, HEADER, rows)],
        figure=draw(trainings),
    )


def read(ds: xr.Dataset) -> Turns:
    """Return the turns of trained networks, and what law 5.2 says of them."""
    energy = ds.energy_end.transpose(..., "after").values
    least = np.minimum(energy[..., :-1], energy[..., 1:])
    clear = ds.turned_end.transpose(..., "layer").copy(data=least > FAINT * energy[..., :1])
    bounded = clear & (ds.alpha * ds.sigma2_end < 1 - ds.alpha)
    bounds = xr.apply_ufunc(
        lambda s, a: np.asarray(turn_bound(s, alpha=a)), ds.sigma2_end, ds.alpha
    )
    everywhere = (bounded == clear).all("layer")
    return Turns(
        ds=ds,
        turned=ds.turned_end.where(clear).sum("layer"),
        bound=bounds.where(bounded).sum("layer").where(everywhere),
        over=((ds.turned_end - bounds).where(bounded) > RESOLVED).any("layer"),
        bounded=bounded.any("layer"),
    )


def row(name: str, turns: Turns, epsilon: float, alpha: float) -> list[str]:
    """Return the row of one network at one ε and α, over its seeds."""
    place = {"epsilon": epsilon, "alpha": alpha}
    kept, turn, bound = (
        float(x.sel(place).median(skipna=False))
        for x in (turns.ds.kept_end, turns.turned, turns.bound)
    )
    accuracy = turns.ds.accuracy.sel(place)
    return [
        name,
        f"{epsilon:g}",
        f"{alpha:g}",
        *("–" if np.isnan(x) else f"{x:.3f}" for x in (kept, turn, bound)),
        f"{float(accuracy.mean()):.3f}",
        f"{float(accuracy.std()):.3f}",
        f"{int(turns.over.sel(place).sum())}",
    ]


def draw(trainings: dict[str, Turns]) -> Figure:
    """Draw what is kept over the turn, one panel for each network."""
    size = 4.3 * len(trainings), 4.2
    fig, axes = plt.subplots(
        1, len(trainings), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (name, turns) in zip(axes[0], trainings.items(), strict=True):
        draw_panel(ax, turns)
        ax.set(xlabel="turn of the detail, sum over layers (rad)", title=name)
    axes[0, 0].set_ylabel("kept: σ₂ of the composite")
    axes[0, 0].legend(title="size: accuracy")
    fig.suptitle(
        "Kept against turned: a line for each ε, from the smallest α (left) to the largest"
    )
    return fig


def draw_panel(ax: Axes, turns: Turns) -> None:
    """Draw a line for each ε over the residual weights, and the networks before training."""
    ds = turns.ds.median("seed")
    for epsilon, colour in zip(ds.epsilon.values, shades(ds.sizes["epsilon"]), strict=True):
        turned, runs = turns.turned.median("seed").sel(epsilon=epsilon), ds.sel(epsilon=epsilon)
        area = 10 + 120 * runs.accuracy**2
        ax.plot(turned, runs.kept_end, color=colour, lw=0.8)
        label = f"ε = {epsilon:g}"
        ax.scatter(turned, runs.kept_end, s=area, color=colour, label=label, zorder=3)
        ax.plot(runs.turned_start.sum("layer"), runs.kept_start, "x", ms=4, color=colour)
    ax.plot([], [], "x", color=MEASURED, label="before training")


if __name__ == "__main__":
    command(study)
