"""How public hyper-connection codes make their residual mixing matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import softmax
from jax.typing import ArrayLike

from homojax.arguments import as_epsilon, as_square
from homojax.loops import repeat
from homojax.numerics import max_or_nan, scaled_logits
from homojax.parametrizations import PARAMETRIZATIONS
from homojax.programs import compiled
from homojax.registry import Registry


class Preset(NamedTuple):
    """How a public code makes its residual mixing matrix: its parameters, as it stores them.

    The matrix is the one that the code runs, with rows for outputs. Alternations begin with a
    softmax over the side that is not ``last``. That is exp and the first normalisation in one,
    whether the code writes it so or not; constants come after it, but where ``largest_of`` is
    "matrix". ``last`` and ``exact`` are of the matrix that is returned.

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
    # n -> the parameters that training starts from, without the part that depends on the input
    initial: Callable[[int], jax.Array]
    # whether the code mixes with its matrix, or with the transpose
    orientation: Literal["outputs-first", "inputs-first"]
    epsilon: float = 1.0  # temperature
    num_iters: int | None = None  # alternations; None where there are none
    start: Literal["exp", "softmax"] = "softmax"  # as the code writes it
    # Whose largest logit is subtracted before exp, where the constants count in the first sums too:
    # a matrix has sums that are small, the side normalised first has not.
    largest_of: Literal["side", "matrix"] = "side"
    last: Literal["rows", "columns"] = "rows"  # the side normalised last
    added_to_entries: float = 0.0  # to each entry, once, after the first normalisation
    added_to_sums: float = 0.0  # to each sum divided by, but for a softmax's
    least_sum: float = 0.0  # a smaller sum is replaced by it before the division
    assumed: str = ""  # a fact that could not be found, and the one that stands in for it

    @property
    def exact(self) -> Literal["both", "rows", "columns"]:
        """The sums that are 1 for all parameters, to rounding and ``added_to_sums``."""
        return "both" if self.num_iters is None else self.last

    def matrix(self, parameters: ArrayLike) -> jax.Array:
        """Return the matrix [n, n], in the dtype of the parameters.

        Args:
            parameters: of the shape of ``parametrization``, in the code's own layout.

        Raises:
            ValueError: no n has this shape.
        """
        return _matrix_of(self, parameters)


@compiled("preset")
def _matrix_of(preset: Preset, parameters: ArrayLike) -> jax.Array:
    transposed = preset.orientation == "inputs-first"
    make = PARAMETRIZATIONS[preset.parametrization].matrix
    if preset.num_iters is None:
        matrix = make(parameters, preset.epsilon)
        return matrix.T if transposed else matrix
    logits = as_square(parameters, "logits")
    logits = logits.T if transposed else logits
    if max(preset.added_to_entries, preset.added_to_sums, preset.least_sum) == 0:
        return make(logits, preset.epsilon, num_iters=preset.num_iters, last=preset.last)
    return _alternate_with_constants(preset, logits, preset.num_iters)


def _alternate_with_constants(preset: Preset, logits: jax.Array, num_iters: int) -> jax.Array:
    """Return the matrix [n, n] by plain divisions.

    With constants there is no diag(e^f) exp(S/ε) diag(e^g) that logarithms could keep.
    """
    first, last = (0, 1) if preset.last == "rows" else (1, 0)  # axes summed over: 1 normalises rows

    def normalise(matrix: jax.Array, axis: int) -> jax.Array:
        sums = matrix.sum(axis, keepdims=True)
        return matrix / (jnp.maximum(sums, preset.least_sum) + preset.added_to_sums)

    scaled = scaled_logits(logits, as_epsilon(preset.epsilon, logits.dtype))
    if preset.largest_of == "matrix":
        matrix = normalise(jnp.exp(scaled - max_or_nan(scaled)), first) + preset.added_to_entries
    else:
        matrix = softmax(scaled, axis=first) + preset.added_to_entries
    matrix = normalise(matrix, last)
    return repeat(num_iters - 1, lambda _, m: normalise(normalise(m, first), last), matrix)


PRESETS: Registry[Preset] = Registry("preset")


def _preset(name: str, **fields: Any) -> Callable[[Callable[[int], jax.Array]], Callable]:
    """Return a decorator that declares the code ``name``, above where its training starts.

    ``fields`` are the fields of ``Preset`` but ``initial``, which is the decorated function.
    """

    def declare(initial: Callable[[int], jax.Array]) -> Callable[[int], jax.Array]:
        PRESETS[name] = Preset(name=name, initial=initial, **fields)
        return initial

    return declare


def _filled(parametrization: str, n: int, value: float) -> jax.Array:
    """Return parameters of this parametrization that are all ``value``."""
    return jnp.full(PARAMETRIZATIONS[parametrization].shape(n), value)


# ---------------------------------------------------------------- alternations

_AS_MAXTEXT: dict[str, Any] = {
    "parametrization": "truncated-sinkhorn",
    "orientation": "inputs-first",
    "num_iters": 20,
    "added_to_entries": 1e-6,
    "added_to_sums": 1e-6,
}
_RELEASED = "released as weights, so that nothing says where training started: 0, as megatron"


@_preset(
    "mhc-paper",
    statement="exp, then 20 times columns and rows, no constants",
    source="arXiv 2512.24880, equations 7 to 9 (T_r(T_c(M))) and table 5 (t_max = 20)",
    parametrization="truncated-sinkhorn",
    orientation="outputs-first",
    num_iters=20,
    start="exp",
    assumed="the paper gives the initial gate of the input-dependent part (0.01) and not the bias: "
    "0, as MaxText and Megatron-LM read it",
)
def _mhc_paper(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, 0.0)


@_preset(
    "maxtext",
    statement="softmax plus 1e-6, then sums plus 1e-6: 20 times columns and rows, the first "
    "columns by the softmax",
    source="github.com/AI-Hypercomputer/maxtext, src/maxtext/layers/mhc.py (sinkhorn, res_mapping) "
    "since #4337, July 2026; initializers.py (bias 0, gate 0.01)",
    **_AS_MAXTEXT,
)
def _maxtext(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, 0.0)


@_preset(
    "megatron",
    statement="as maxtext",
    source="github.com/NVIDIA/Megatron-LM, megatron/core/transformer/hyper_connection.py at "
    "023f5cf (_sinkhorn_iterations_native, HyperConnectionModule), kernels of #4624",
    **_AS_MAXTEXT,
)
def _megatron(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, 0.0)


@_preset(
    "deepseek-v4",
    statement="as maxtext; K and the constant are in the model's config.json (hc_sinkhorn_iters, "
    "hc_eps)",
    source="DeepSeek-V4's inference/kernel.py (hc_split_sinkhorn), read in the rewriting of "
    "github.com/Nicooo-Wang/DeepSeek-V4-Pro-code at 0ec3a03; the transpose (hc_post) in an excerpt",
    **_AS_MAXTEXT,
    assumed=_RELEASED,
)
def _deepseek_v4(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, 0.0)


@_preset(
    "openpangu",
    statement="as deepseek-v4; K is mhc_recur_norm of config.json",
    source="openPangu-2.0's modeling_openpangu_v2.py (mHCModule: sinkhorn_knopps, hc_post), read "
    "in public copies",
    **_AS_MAXTEXT,
    assumed=_RELEASED,
)
def _openpangu(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, 0.0)


@_preset(
    "magi-2",
    statement="exp(S − the largest of S), then 20 times columns and rows, sums plus 1e-12",
    source="inference/model/magi2_preview.py of github.com/SandAI-org/MAGI-2-preview "
    "(sinkhorn_knopp, MHCHandler), read in the port of github.com/vllm-project/vllm-omni, "
    "vllm_omni/diffusion/models/magi2/layers.py at c7d214d",
    parametrization="truncated-sinkhorn",
    orientation="outputs-first",
    num_iters=20,
    start="exp",
    largest_of="matrix",
    added_to_sums=1e-12,
)
def _magi_2(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, 0.0)


@_preset(
    "lucidrains",
    statement="exp, then 20 times rows and columns, sums of at least 1e-12",
    source="github.com/lucidrains/hyper-connections, hyper_connections/mHCv2.py at 7e681f9 "
    "(sinkhorn_knopps, static_alpha)",
    parametrization="truncated-sinkhorn",
    orientation="inputs-first",
    num_iters=20,
    start="exp",
    last="columns",
    least_sum=1e-12,
)
def _lucidrains(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, 0.0) + jnp.eye(n)


@_preset(
    "tokenbender",
    statement="exp(S/0.05) in logarithms, 10 times columns and rows, no constants",
    source="github.com/tokenbender/mHC-manifold-constrained-hyper-connections, "
    "hyper_connections/hyper_connections_mhc.py at f4d7acb (sinkhorn_log, H_res_logits)",
    parametrization="truncated-sinkhorn",
    orientation="inputs-first",
    epsilon=0.05,
    num_iters=10,
    start="exp",
)
def _tokenbender(n: int) -> jax.Array:
    return _filled("truncated-sinkhorn", n, -8.0) + 8 * jnp.eye(n)


# ---------------------------------------------------------------- weights of permutations


@_preset(
    "kromhc",
    statement="⊗ₖ [[p, q], [q, p]], (p, q) the softmax of two logits each",
    source="github.com/wz1119/KromHC, hyper_conn/Kromhc.py at dd2910c (_build_kronecker_hres, "
    "init_alpha1); arXiv 2601.21579",
    parametrization="kronecker",
    orientation="inputs-first",
)
def _kromhc(n: int) -> jax.Array:
    return _filled("kronecker", n, -8.0).at[:, 0].set(0)


@_preset(
    "mhc-lite",
    statement="Σ softmax(S)_π Π_π over all n! permutations",
    source="arXiv 2601.05732; github.com/wz1119/KromHC, hyper_conn/mhc_lite.py at dd2910c "
    "(MHCLite, get_all_permutations)",
    parametrization="birkhoff",
    orientation="inputs-first",
    assumed="the authors' own repository, FFTYYY/mhc-lite, could not be read; KromHC's says its "
    "code is from there",
)
def _mhc_lite(n: int) -> jax.Array:
    return _filled("birkhoff", n, -8.0).at[0].set(0)


# ---------------------------------------------------------------- no mixing matrix


@_preset(
    "none",
    statement="I: streams are read and written, and never mixed",
    source="hyper-connections with read and write weights only: 2n rows of fn in the layout of "
    "deepseek-v4",
    parametrization="identity",
    orientation="outputs-first",
)
def _none(n: int) -> jax.Array:
    return _filled("identity", n, 0.0)
