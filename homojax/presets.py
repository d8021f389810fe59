"""How public hyper-connection codes make their residual mixing matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import softmax
from jax.typing import ArrayLike

from homojax.numerics import as_square
from homojax.parametrizations import PARAMETRIZATIONS, _scaled, _truncated

# ---------------------------------------------------------------- presets


class Preset(NamedTuple):
    """How a public code makes its residual mixing matrix: parameters as it stores them, matrix as it runs it, rows outputs.

    Alternations begin with a softmax over the side that is not ``last``, which is exp and the first normalisation in one, whether
    the code writes it so or not; constants come after. ``last`` and ``exact`` are of the matrix that is returned.

    >>> tokenbender = PRESETS["tokenbender"]
    >>> tokenbender.exact, tokenbender.initial(2).tolist()
    ('rows', [[0.0, -8.0], [-8.0, 0.0]])
    >>> tokenbender.matrix(jnp.zeros((2, 2))).round(4).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    name: str
    statement: str
    source: str  # repository, file and commit or pull request
    parametrization: str  # a key of PARAMETRIZATIONS
    initial: Callable[
        [int], jax.Array
    ]  # n -> where training starts; without the part that depends on the input
    orientation: Literal[
        "outputs-first", "inputs-first"
    ]  # whether the code mixes with its matrix or with the transpose
    epsilon: float = 1.0  # temperature
    num_iters: int | None = None  # alternations; None where there are none
    start: Literal["exp", "softmax"] = "softmax"  # as the code writes it
    last: Literal["rows", "columns"] = "rows"  # the side normalised last
    added_to_entries: float = 0.0  # to each, once, after the first normalisation
    added_to_sums: float = 0.0  # to each sum divided by, after the first
    least_sum: float = 0.0  # no sum divided by is taken for less
    assumed: str = ""  # what could not be found, and what is taken instead

    @property
    def exact(self) -> Literal["both", "rows", "columns"]:
        """The sums that are 1 for every parameter, up to rounding and ``added_to_sums``."""
        return "both" if self.num_iters is None else self.last

    def matrix(self, parameters: ArrayLike) -> jax.Array:
        """[n, n], from parameters of the shape of ``parametrization`` and in the code's own layout. Keeps the dtype.

        Raises:
            ValueError: a shape that no n has.
        """
        transposed = self.orientation == "inputs-first"
        if self.num_iters is None:
            matrix = PARAMETRIZATIONS[self.parametrization].matrix(parameters, self.epsilon)
            return matrix.T if transposed else matrix
        logits = as_square(parameters, "logits")
        logits = logits.T if transposed else logits
        if max(self.added_to_entries, self.added_to_sums, self.least_sum) == 0:
            return _truncated(logits, self.epsilon, num_iters=self.num_iters, last=self.last)
        return _alternate_with_constants(self, logits)


def _alternate_with_constants(preset: Preset, logits: jax.Array) -> jax.Array:
    """Plain divisions, no logarithms: with constants there is no diag(e^f) exp(S/ε) diag(e^g) to keep."""
    assert preset.num_iters
    first, last = (0, 1) if preset.last == "rows" else (1, 0)  # axes summed over: 1 normalises rows

    def normalise(matrix: jax.Array, axis: int) -> jax.Array:
        sums = matrix.sum(axis, keepdims=True)
        return matrix / (jnp.maximum(sums, preset.least_sum) + preset.added_to_sums)

    matrix = softmax(_scaled(logits, preset.epsilon), axis=first) + preset.added_to_entries
    matrix = normalise(matrix, last)
    return jax.lax.fori_loop(
        0, preset.num_iters - 1, lambda _, m: normalise(normalise(m, first), last), matrix
    )


def _zeros(n: int) -> jax.Array:
    return jnp.zeros(PARAMETRIZATIONS["truncated-sinkhorn"].shape(n))


def _eye(n: int) -> jax.Array:
    return jnp.eye(len(_zeros(n)))


def _presets() -> dict[str, Preset]:
    maxtext = Preset(
        "maxtext",
        "softmax plus 1e-6, then sums plus 1e-6: 20 times columns and rows, the first columns by the softmax",
        "github.com/AI-Hypercomputer/maxtext, src/maxtext/layers/mhc.py (sinkhorn, res_mapping) since #4337, July 2026; "
        "initializers.py (bias 0, gate 0.01)",
        "truncated-sinkhorn",
        _zeros,
        "inputs-first",
        num_iters=20,
        added_to_entries=1e-6,
        added_to_sums=1e-6,
    )
    rows = [
        Preset(
            "mhc-paper",
            "exp, then 20 times columns and rows, no constants",
            "arXiv 2512.24880, equations 7 to 9 (T_r(T_c(M))) and table 5 (t_max = 20)",
            "truncated-sinkhorn",
            _zeros,
            "outputs-first",
            num_iters=20,
            start="exp",
            assumed="the paper gives the initial gate of the input-dependent part (0.01) and not the bias: 0, as MaxText and "
            "Megatron-LM read it",
        ),
        maxtext,
        maxtext._replace(
            name="megatron",
            statement="as maxtext",
            source="github.com/NVIDIA/Megatron-LM, megatron/core/transformer/hyper_connection.py at 023f5cf "
            "(_sinkhorn_iterations_native, HyperConnectionModule), kernels of #4624",
        ),
        Preset(
            "lucidrains",
            "exp, then 20 times rows and columns, sums of at least 1e-12",
            "github.com/lucidrains/hyper-connections, hyper_connections/mHCv2.py at 7e681f9 (sinkhorn_knopps, static_alpha)",
            "truncated-sinkhorn",
            _eye,
            "inputs-first",
            num_iters=20,
            start="exp",
            last="columns",
            least_sum=1e-12,
        ),
        Preset(
            "tokenbender",
            "exp(S/0.05) in logarithms, 10 times columns and rows, no constants",
            "github.com/tokenbender/mHC-manifold-constrained-hyper-connections, hyper_connections/hyper_connections_mhc.py at "
            "f4d7acb (sinkhorn_log, H_res_logits)",
            "truncated-sinkhorn",
            lambda n: 8 * (_eye(n) - 1),
            "inputs-first",
            epsilon=0.05,
            num_iters=10,
            start="exp",
        ),
        Preset(
            "kromhc",
            "⊗ₖ [[p, q], [q, p]], (p, q) the softmax of two logits each",
            "github.com/wz1119/KromHC, hyper_conn/Kromhc.py at dd2910c (_build_kronecker_hres, init_alpha1); arXiv 2601.21579",
            "kronecker",
            lambda n: jnp.broadcast_to(
                jnp.array([0.0, -8.0]), PARAMETRIZATIONS["kronecker"].shape(n)
            ),
            "inputs-first",
        ),
        Preset(
            "mhc-lite",
            "Σ softmax(S)_π Π_π over all n! permutations",
            "arXiv 2601.05732; github.com/wz1119/KromHC, hyper_conn/mhc_lite.py at dd2910c (MHCLite, get_all_permutations)",
            "birkhoff",
            lambda n: jnp.full(PARAMETRIZATIONS["birkhoff"].shape(n), -8.0).at[0].set(0),
            "inputs-first",
            assumed="the authors' own repository, FFTYYY/mhc-lite, could not be read; KromHC's says its code is from there",
        ),
    ]
    return {row.name: row for row in rows}


PRESETS: dict[str, Preset] = _presets()
