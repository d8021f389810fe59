"""The matrices that trained networks mix by, as stacks of layers."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from homojax.networks.model import Trace
from homojax.networks.run import Run, residual_weights
from homojax.networks.trainer import Trainer, side_by_side

EXAMPLES = 2  # held out, whose matrices are measured where these differ by example


class Stacks(NamedTuple):
    """The matrices that runs mix by, in the precision that JAX computes in."""

    matrices: np.ndarray  # [runs, stacks, L, n, n]
    trace: Trace  # leading axes [runs, examples]
    alpha: np.ndarray  # [runs, L]


def stacks_of(trainer: Trainer, runs: Run) -> Stacks:
    """Return the mixing of every run on a few held-out examples.

    A matrix of parameters gives one stack. Matrices that depend on the example give one stack for
    each example and head, or for each example and token.
    """
    inputs = trainer.test[0][:EXAMPLES]
    inputs = jnp.broadcast_to(inputs, (len(runs.step), *inputs.shape))
    _, traces = side_by_side(trainer.trace, runs, inputs)
    dtype = np.float64 if jax.config.read("jax_enable_x64") else np.float32
    matrices = np.asarray(traces.matrices, dtype)  # [runs, examples, L, …, n, n]
    if matrices.ndim > 5:
        matrices = np.moveaxis(matrices, 3, 2)  # [runs, examples, heads or tokens, L, n, n]
        matrices = matrices.reshape(len(matrices), -1, *matrices.shape[3:])
    else:
        matrices = matrices[:, :1]
    return Stacks(matrices, traces, np.asarray(residual_weights(runs), dtype))
