"""Models of random parameters in every layout, and what is in them, by NumPy alone."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest

from homojax.lab.audit.recognising import mixing_of
from homojax.lab.inputs import InputError

N, C, NUMBERS = 4, 6, (0, 2, 10)


class Expected(NamedTuple):
    """One layer: logits = base + scale · phi u."""

    number: int
    site: str
    recipe: str  # a key of recipes.CODES
    base: np.ndarray
    scale: float = 0.0
    phi: np.ndarray | None = None
    read: np.ndarray | None = None  # logits of the weights
    write: np.ndarray | None = None


class Model(NamedTuple):
    tensors: dict[str, np.ndarray]
    expected: list[Expected]
    config: dict


SITES = {"attn": "attention", "ffn": "feed-forward", "mlp": "feed-forward"}
SITES |= {"attention": "attention", "self_attention": "attention"}


def draw(rng, *shape, scale=1.0):
    return (scale * rng.normal(size=shape)).astype(np.float32)


def v4(prefix, attention, feed_forward, fn, base, scale, recipe="deepseek-v4", config=None):
    """Rows [pre | post | res], names as given."""

    def build(rng):
        tensors, expected = {}, []
        for number, site in itertools.product(NUMBERS, (attention, feed_forward)):
            names = [f"{prefix}{number}.{x.format(site)}" for x in (fn, base, scale)]
            parts = draw(rng, N * N + 2 * N, N * C), draw(rng, N * N + 2 * N), draw(rng, 3)
            tensors |= dict(zip(names, parts, strict=True))
            phi, logits = parts[0][2 * N :], parts[1][2 * N :].reshape(N, N)
            kind = SITES[site.removesuffix("_hc")]
            row = Expected(number, kind, recipe, logits, float(parts[2][2]), phi)
            expected.append(row._replace(read=parts[1][:N], write=parts[1][N : 2 * N]))
        return Model(tensors, expected, config or {})

    return build


def openpangu(joined):
    def build(rng):
        tensors, expected = {}, []
        for number, site in itertools.product(NUMBERS, ("attn", "mlp")):
            at = f"model.layers.{number}.{site}_mhc_module."
            phi, gain = draw(rng, N * N + 2 * N, N * C), draw(rng, N * C)
            alpha, beta = draw(rng, 3), draw(rng, N * N + 2 * N)
            tensors |= {f"{at}phi.weight": phi, f"{at}norm_gamma": gain}
            if joined:
                tensors |= {f"{at}branch_alpha": alpha, f"{at}branch_beta": beta}
            else:
                cut = np.split(beta, [N, 2 * N])
                for i, part in enumerate(("pre", "post", "res")):
                    tensors[f"{at}branch_alpha_{part}"] = alpha[i : i + 1]
                    tensors[f"{at}branch_beta_{part}"] = cut[i]
            logits, folded = beta[2 * N :].reshape(N, N), (phi * gain.astype(float))[2 * N :]
            row = Expected(number, SITES[site], "openpangu", logits, float(alpha[2]), folded)
            expected.append(row._replace(read=beta[:N], write=beta[N : 2 * N]))
        return Model(tensors, expected, {"mhc_num_stream": N, "mhc_recur_norm": 20})

    return build


def magi_2(rng):
    tensors, expected = {}, []
    for number in NUMBERS:
        at = f"block.layers.{number}."
        modalities = 3 if number == 0 else 1
        norm = draw(rng, modalities * N * C, scale=0.3)
        tensors[f"{at}mhc_norm.weight"] = norm
        gain = abs(1 + norm.astype(float).reshape(modalities, -1)).max(0)
        for site in ("attn", "mlp"):
            phi, alpha = draw(rng, N * C, N * N + 2 * N), draw(rng, 1)
            logits = draw(rng, N, N)
            tensors |= {f"{at}mhc_phi_fused_{site}": phi, f"{at}mhc_alpha_res_{site}": alpha}
            pre, post = draw(rng, N), draw(rng, N)
            tensors[f"{at}mhc_bias_res_{site}"] = logits
            tensors |= {f"{at}mhc_bias_pre_{site}": pre, f"{at}mhc_bias_post_{site}": post}
            scale = float(alpha[0]) / math.sqrt(N * C)
            folded = (phi[:, 2 * N :].T * gain).astype(float)
            row = Expected(number, SITES[site], "magi-2", logits, scale, folded, pre, post)
            expected.append(row)
    return Model(tensors, expected, {})


def megatron(rng):
    tensors, expected = {}, []
    for number, site in itertools.product(NUMBERS, ("self_attention", "mlp")):
        at = f"decoder.layers.{number}.{site}_hyper_connection."
        fn, base, alpha = draw(rng, N * N + 2 * N, N * C), draw(rng, N * N + 2 * N), draw(rng, 1)
        tensors |= {f"{at}mapping_proj.weight": fn, f"{at}bias": base, f"{at}alpha_res": alpha}
        tensors |= {f"{at}alpha_pre": draw(rng, 1), f"{at}alpha_post": draw(rng, 1)}
        logits = base[2 * N :].reshape(N, N)
        row = Expected(number, SITES[site], "megatron", logits, float(alpha[0]), fn[2 * N :])
        expected.append(row._replace(read=base[:N], write=base[N : 2 * N]))
    return Model(tensors, expected, {})


def maxtext(lite=False, stacked=None):
    count = math.factorial(N) if lite else N * N
    shape = (count,) if lite else (N, N)

    def build(rng):
        tensors, expected = {}, []
        for site in ("attention", "mlp"):
            for number in range(3):
                at = "decoder.layers." if stacked is not None else f"decoder.layers.{number}."
                at += f"mhc_{site}."
                parts = {
                    "res_alpha": draw(rng, N * C, count),
                    "res_beta": draw(rng, *shape),
                    "res_alpha_scale": draw(rng, 1),
                    "mhc_norm.scale": draw(rng, N * C),
                    "pre_alpha": draw(rng, N * C, N),
                    "pre_beta": draw(rng, N),
                    "post_beta": draw(rng, N),
                }
                for role, part in parts.items():
                    tensors.setdefault(at + role, []).append(part)
                folded = parts["res_alpha"].T * parts["mhc_norm.scale"].astype(float)
                scale, recipe = (
                    float(parts["res_alpha_scale"][0]),
                    "mhc-lite" if lite else "maxtext",
                )
                row = Expected(number, SITES[site], recipe, parts["res_beta"], scale, folded)
                weights = {"read": parts["pre_beta"], "write": parts["post_beta"]}
                expected.append(row._replace(**weights))
        axis = stacked or 0
        tensors = {
            name: each[0] if stacked is None else np.stack(each, min(axis, each[0].ndim))
            for name, each in tensors.items()
        }
        expected.sort(key=lambda row: row.number)
        return Model(tensors, expected, {})

    return build


def lucidrains(rng):
    tensors, expected = {}, []
    for number in NUMBERS:
        at = f"layers.{number}.0."
        static, fn = draw(rng, N, N + 1), draw(rng, 1, C, N + 1)
        scale, norm = draw(rng, 1), draw(rng, C)
        tensors |= {f"{at}static_alpha": static, f"{at}dynamic_alpha_fn": fn}
        tensors |= {f"{at}residual_scale": scale, f"{at}norm.gamma": norm}
        beta = draw(rng, N, 1, 1)
        tensors |= {f"{at}static_beta": beta, f"{at}branch.norm.gamma": draw(rng, C)}
        rows = fn[0, :, 1:].T * (1 + norm.astype(float))
        phi = np.zeros((N, N, N, C))
        for stream in range(N):  # row s of the logits is made of stream s alone
            phi[stream, :, stream] = rows
        phi = phi.reshape(N * N, N * C)
        row = Expected(number, "other", "lucidrains", static[:, 1:], float(scale[0]), phi)
        expected.append(row._replace(read=static[:, 0], write=beta.ravel()))
    return Model(tensors, expected, {})


def permuted(recipe, count):
    def build(rng):
        tensors, expected = {}, []
        for number in NUMBERS:
            at = f"h.{number}.hc_attn."
            static, fn = draw(rng, N + count), draw(rng, N * C, N + count)
            scale, norm = draw(rng, 1), draw(rng, N * C)
            tensors |= {f"{at}static_alpha": static, f"{at}dynamic_alpha_fn": fn}
            tensors |= {f"{at}residual_scale": scale, f"{at}norm.gamma": norm}
            base = static[N:].reshape(-1, 2) if recipe == "kromhc" else static[N:]
            phi = fn[:, N:].T * (1 + norm.astype(float))
            row = Expected(number, "attention", recipe, base, float(scale[0]), phi)
            expected.append(row._replace(read=static[:N]))
        return Model(tensors, expected, {})

    return build


def tokenbender(rng):
    tensors, expected = {}, []
    for number, site in itertools.product(NUMBERS, ("attn", "mlp")):
        logits = draw(rng, N, N, scale=0.1)
        tensors[f"transformer.h.{number}.hc_{site}.H_res_logits"] = logits
        tensors[f"transformer.h.{number}.hc_{site}.H_pre_logits"] = np.zeros((1, N), np.float32)
        expected.append(Expected(number, SITES[site], "tokenbender", logits))
    return Model(tensors, expected, {})


def without_mixing(rng):
    tensors, expected = {}, []
    for number, site in itertools.product(NUMBERS, ("attn", "ffn")):
        at = f"layers.{number}.hc_{site}_"
        base = draw(rng, 2 * N)
        tensors |= {f"{at}fn": draw(rng, 2 * N, N * C), f"{at}base": base}
        tensors[f"{at}scale"] = draw(rng, 2)
        row = Expected(number, SITES[site], "none", np.zeros((N, 0)))
        expected.append(row._replace(read=base[:N], write=base[N:]))
    return Model(tensors, expected, {"hc_mult": N})


RAW = ("hc_{}_fn", "hc_{}_base", "hc_{}_scale")
HF = ("{}.fn", "{}.base", "{}.scale")
GGUF = ("hc_{}_fn.weight", "hc_{}_base.weight", "hc_{}_scale.weight")
MODELS = {
    "deepseek-v4": v4("layers.", "attn", "ffn", *RAW, config={"hc_mult": N, "hc_eps": 1e-6}),
    "transformers": v4("model.layers.", "attn_hc", "ffn_hc", *HF),
    "glm": v4("model.language_model.layers.", "attn", "ffn", *RAW),
    "gguf": v4("blk.", "attn", "ffn", *GGUF),
    "openpangu": openpangu(joined=True),
    "openpangu, apart": openpangu(joined=False),
    "magi-2": magi_2,
    "megatron": megatron,
    "maxtext": maxtext(),
    "maxtext, stacked": maxtext(stacked=1),
    "maxtext, lite": maxtext(lite=True),
    "lucidrains": lucidrains,
    "mhc-lite": permuted("mhc-lite", math.factorial(N)),
    "kromhc": permuted("kromhc", 2 * (N.bit_length() - 1)),
    "tokenbender": tokenbender,
    "no mixing matrix": without_mixing,
}


@pytest.fixture(scope="session")
def models():
    return {name: build(np.random.default_rng(7)) for name, build in MODELS.items()}


@pytest.fixture
def refuse():
    """Call it with a checkpoint: the only end is one sentence, in which a pattern is found."""

    def check(place, sentence="."):
        with pytest.raises(InputError, match=sentence) as caught:
            mixing_of(place)
        assert "\n" not in str(caught.value) and 20 < len(str(caught.value)) < 700

    return check
