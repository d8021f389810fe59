"""How public codes store their mixing: one declared row a code, above what reads its tensors.

Logits are base + scale · Φ rmsnorm(streams), and a preset makes the matrix of them. The rows called
V4 are [pre n | post n | res n²], and its scales [pre, post, res]. What each row was read in stands
in docs/parametrizations.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from homojax.lab.audit.layers import Projection
from homojax.lab.audit.layout import (
    LAYOUTS,
    Logits,
    Tensors,
    features,
    gates,
    given,
    layout,
    number,
    plane,
    refuse_unless,
    streams,
    vector,
)
from homojax.lab.audit.settings import Settings
from homojax.lab.audit.tensors import Tensor, part_of, read

__all__ = ["LAYOUTS"]


def _v4(
    preset: str, fn: Tensor, base: np.ndarray, scale: float, settings: Settings, **more: Any
) -> Logits:
    """Return the logits of rows [pre n | post n | res n²]; ``base`` has those of fn."""
    rows, width = plane(fn)[:: -1 if more.get("turned") else 1]
    n = streams(rows, settings)
    return Logits(
        preset=preset,
        base=base[2 * n :].reshape(n, n),
        **gates(base[:n], base[n : 2 * n]),
        n=n,
        features=features(width, n),
        scale=scale,
        projection=Projection(fn, slice(2 * n, rows), **more),
    )


def _joined(tensors: Tensors, roles: tuple[str, str, str], n: int) -> np.ndarray:
    """Return [pre n | post n | res n²] of three tensors."""
    sizes = (n, n, n * n)
    return np.concatenate([vector(tensors[x], size) for x, size in zip(roles, sizes, strict=True)])


# ---------------------------------------------------------------- released models


@layout(
    "deepseek-v4",
    statement="fn [n² + 2n, nC], base [n² + 2n], scale [3]; 2n rows and 2 scales have no mixing "
    "matrix; DeepSeek-V4, GLM-5.3-Flash, their GGUF files, transformers, vLLM",
    names=(
        r"hc_(?P<site>attn|ffn)_(?P<role>fn|base|scale)(?:\.weight)?",
        r"(?P<site>attn|ffn)_hc\.(?P<role>fn|base|scale)",
    ),
    needs=("fn", "base", "scale"),
)
def _deepseek_v4(tensors: Tensors, settings: Settings) -> Logits:
    fn, scale = tensors["fn"], tensors["scale"]
    rows, width = plane(fn)
    base = vector(tensors["base"], rows)
    n = settings.n or (rows // 2 if scale.size == 2 else 0)
    if rows == 2 * n and scale.size != 3:
        none = np.zeros((n, 0))
        return Logits("none", none, n, features(width, n), **gates(base[:n], base[n:]))
    return _v4("deepseek-v4", fn, base, number(scale, 3, 2), settings)


@layout(
    "openpangu",
    statement="phi.weight [n² + 2n, nC], branch_alpha [3] or _res [1], branch_beta [n² + 2n] or "
    "_res [n²], a gain norm_gamma [nC]; openPangu-2.0",
    names=(
        r"(?P<site>attn|mlp)_mhc_module\."
        r"(?P<role>phi\.weight|branch_(?:alpha|beta)(?:_pre|_post|_res)?|norm_gamma)",
    ),
    needs=("phi.weight",),
)
def _openpangu(tensors: Tensors, settings: Settings) -> Logits:
    phi = tensors["phi.weight"]
    rows, width = plane(phi)
    n = streams(rows, settings)
    if "branch_alpha" in tensors and "branch_beta" in tensors:
        scale, base = number(tensors["branch_alpha"], 3, 2), vector(tensors["branch_beta"], rows)
    else:
        parts = ("branch_beta_pre", "branch_beta_post", "branch_beta_res")
        missing = {"branch_alpha_res", *parts} - tensors.keys()
        refuse_unless(not missing, f"there is no {', '.join(sorted(missing))} beside it")
        scale = number(tensors["branch_alpha_res"])
        base = _joined(tensors, parts, n)
    gain = given(tensors, "norm_gamma", width)
    return _v4("openpangu", phi, base, scale, settings, gain=gain)


@layout(
    "magi-2",
    statement="phi_fused [nC, n² + 2n], alpha_res [1] over √(nC), bias_res [n, n], a gain 1 + "
    "mhc_norm.weight [nC a modality]; MAGI-2, Megatron's and SGLang's copies of it",
    names=(
        r"mhc_(?P<role>phi_fused|(?:alpha|bias)_(?:pre|post|res))_(?P<site>attn|mlp)",
        r"(?P<site>attention|attn|mlp)_mhc\.(?P<role>phi_fused|(?:alpha|bias)_(?:pre|post|res))",
        r"mhc_(?P<site>attn|mlp)\.(?P<role>phi_fused|(?:alpha|bias)_(?:pre|post|res))",
        r"(?P<role>mhc_norm\.weight)",
    ),
    needs=("phi_fused", "alpha_res", "bias_pre", "bias_post", "bias_res"),
)
def _magi_2(tensors: Tensors, settings: Settings) -> Logits:
    phi = tensors["phi_fused"]
    width, rows = plane(phi)
    n = streams(rows, settings)
    gain, several = None, False
    if "mhc_norm.weight" in tensors:
        norm = tensors["mhc_norm.weight"]
        refuse_unless(
            norm.size > 0 and norm.size % width == 0,
            f"{norm.name} has shape {list(norm.shape)}, and {width} columns have gains",
        )
        # A token has the gains of its modality. The ball under the largest of them has all others.
        gains = 1 + read(norm).reshape(-1, width)
        several = bool((gains != gains[0]).any())
        gain = abs(gains).max(0) if several else gains[0]
    scale = number(tensors["alpha_res"]) / math.sqrt(max(width, 1))
    base = _joined(tensors, ("bias_pre", "bias_post", "bias_res"), n)
    more = {"turned": True, "gain": gain, "gain_is_largest": several}
    return _v4("magi-2", phi, base, scale, settings, **more)


# ---------------------------------------------------------------- frameworks


@layout(
    "megatron",
    statement="mapping_proj.weight [n² + 2n, nC], bias [n² + 2n], alpha_res [1]; Megatron-LM",
    names=(
        r"(?P<site>\w+)_hyper_connection\."
        r"(?P<role>mapping_proj\.weight|bias|alpha_pre|alpha_post|alpha_res)",
    ),
    needs=("mapping_proj.weight", "bias", "alpha_res"),
)
def _megatron(tensors: Tensors, settings: Settings) -> Logits:
    fn = tensors["mapping_proj.weight"]
    base = vector(tensors["bias"], plane(fn)[0])
    return _v4("megatron", fn, base, number(tensors["alpha_res"]), settings)


@layout(
    "maxtext",
    statement="res_alpha [nC, n²], res_beta [n, n], res_alpha_scale [1], a gain mhc_norm.scale "
    "[nC]; n! for n² is mhc-lite; layers may be stacked along an axis; MaxText",
    names=(
        r"mhc_(?P<site>attention|mlp)\.(?P<role>(?:res|pre|post)_(?:alpha_scale|alpha|beta)|"
        r"mhc_norm\.scale)(?:\.value)?",
    ),
    needs=("res_alpha", "res_beta", "res_alpha_scale"),
)
def _maxtext(tensors: Tensors, settings: Settings) -> Logits:
    fn, beta = tensors["res_alpha"], tensors["res_beta"]
    width, rows = plane(fn)
    lite = len(beta.shape) == 1
    n = _root_of_factorial(rows) if lite else math.isqrt(rows)
    refuse_unless(
        beta.shape == ((rows,) if lite else (n, n)) and n >= 2 and (lite or n * n == rows),
        f"{beta.name} has shape {list(beta.shape)}, and {fn.name} has {rows} columns",
    )
    return Logits(
        preset="mhc-lite" if lite else "maxtext",
        base=read(beta),
        n=n,
        features=features(width, n),
        scale=number(tensors["res_alpha_scale"]),
        projection=Projection(
            fn, slice(0, rows), turned=True, gain=given(tensors, "mhc_norm.scale", width)
        ),
        **gates(given(tensors, "pre_beta", n), given(tensors, "post_beta", n)),
    )


def _root_of_factorial(count: int) -> int:
    return next((n for n in range(2, 9) if math.factorial(n) == count), 0)


# ---------------------------------------------------------------- lucidrains and its children


@layout(
    "lucidrains",
    statement="static_alpha [n, 1 + n], dynamic_alpha_fn [1, C, 1 + n], residual_scale [1], a gain "
    "1 + norm.gamma [C], streams normalised one by one; n + n! (mhc-lite) or n + 2 log₂ n (kromhc) "
    "numbers with one norm of nC; lucidrains/hyper-connections, KromHC",
    names=(
        r"(?P<site>)(?P<role>static_alpha|dynamic_alpha_fn|dynamic_alpha_scale|residual_scale|"
        r"pre_branch_scale|static_beta|dynamic_beta_fn|h_post_scale|norm\.gamma)",
    ),
    needs=("static_alpha",),
)
def _lucidrains(tensors: Tensors, settings: Settings) -> Logits:
    static = tensors["static_alpha"]
    dynamic = {"dynamic_alpha_fn", "residual_scale", "norm.gamma"}
    refuse_unless(
        dynamic <= tensors.keys(),
        f"there is no {', '.join(sorted(dynamic - tensors.keys()))} beside it: hyper-connections "
        "of before mHC have no projection",
    )
    scale, fn = number(tensors["residual_scale"]), tensors["dynamic_alpha_fn"]
    if len(static.shape) == 1:
        return _weights_of_permutations(tensors, fn, scale, settings)
    if len(fn.shape) == 3:
        refuse_unless(fn.shape[0] == 1, f"it is the mean of {fn.shape[0]} proposals")
        fn = part_of(fn, 0, 0)
    n, columns = plane(static)
    width, rows = plane(fn)
    refuse_unless(
        2 <= n < columns == rows,
        f"it has shape {list(static.shape)}, and {fn.name} {list(fn.shape)}",
    )
    views, numbers = columns - n, read(static)
    return Logits(
        preset="lucidrains",
        base=numbers[:, views:],
        **gates(numbers[:, 0] if views == 1 else None, given(tensors, "static_beta", n)),
        n=n,
        features=width,
        scale=scale,
        projection=Projection(
            fn,
            slice(views, rows),
            turned=True,
            gain=1 + vector(tensors["norm.gamma"], width),
            copies=n,
        ),
    )


def _weights_of_permutations(
    tensors: Tensors, fn: Tensor, scale: float, settings: Settings
) -> Logits:
    static, (width, rows) = read(tensors["static_alpha"]), plane(fn)
    sizes = {n + math.factorial(n): ("mhc-lite", n) for n in range(2, 9)}
    sizes |= {2**k + 2 * k: ("kromhc", 2**k) for k in range(1, 11)}
    preset, n = sizes.get(len(static), ("", 0))
    refuse_unless(
        n > 0 and rows == len(static),
        f"{len(static)} numbers are n + n! (mhc-lite) or n + 2 log₂ n (kromhc) for no n",
    )
    base = static[n:].reshape(-1, 2) if preset == "kromhc" else static[n:]
    gain = 1 + vector(tensors["norm.gamma"], width)
    projection = Projection(fn, slice(n, rows), turned=True, gain=gain)
    weights = gates(static[:n], given(tensors, "static_beta", n))
    return Logits(preset, base, n, features(width, n), scale, projection, **weights)


@layout(
    "tokenbender",
    statement="H_res_logits [n, n], static; tokenbender/mHC",
    names=(
        r"(?P<site>\w+)\.(?P<role>H_res_logits|H_res_alpha_logit|H_pre_logits|H_post_logits)",
        r"(?P<site>)(?P<role>H_res_logits)",
    ),
    needs=("H_res_logits",),
)
def _tokenbender(tensors: Tensors, settings: Settings) -> Logits:
    logits = tensors["H_res_logits"]
    refuse_unless(
        "H_res_alpha_logit" not in tensors,
        "a learned gate (H_res_alpha_logit) mixes the identity in, which no preset has",
    )
    n, columns = plane(logits)
    refuse_unless(n == columns >= 2, f"it has shape {list(logits.shape)}, not [n, n] with n ≥ 2")
    read_weights, write_weights = (
        _softmax(given(tensors, role, n)) for role in ("H_pre_logits", "H_post_logits")
    )
    return Logits("tokenbender", read(logits), n, None, read=read_weights, write=write_weights)


def _softmax(logits: np.ndarray | None) -> np.ndarray | None:
    if logits is None:
        return None
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()
