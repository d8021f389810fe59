"""What the name of a tensor says: its place, its sublayer, and whether it may be of mixing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

WRAPPERS = ("_orig_mod", "module", "model", "state_dict", "model_state_dict", "params")
_WRAPPED = re.compile(rf"^(?:{'|'.join(WRAPPERS)})\.")


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts names as people do, layer 2 before layer 10.

    >>> sorted(["h.10", "h.2"], key=natural)
    ['h.2', 'h.10']
    """
    parts = re.split(r"([0-9]{1,18})", name)
    return [(0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]


def unwrapped(name: str) -> str:
    """Return a name without what compilers, trainers and dictionaries in dictionaries add to it.

    >>> unwrapped("model._orig_mod.module.h.2._orig_mod.hc_attn.H_res_logits")
    'h.2.hc_attn.H_res_logits'
    """
    name = name.replace("._orig_mod.", ".")
    while (shorter := _WRAPPED.sub("", name)) != name:
        name = shorter
    return name


def number_in(name: str) -> int | None:
    """Return the first part of a name that is a number, as 3 of layers.3.hc_attn."""
    return next((int(part) for part in name.split(".") if re.fullmatch("[0-9]{1,9}", part)), None)


def site_of(name: str) -> Literal["attention", "feed-forward", "other"]:
    """Return what a name says of the sublayer.

    >>> site_of("layers.3.hc_ffn"), site_of("blocks.1.0")
    ('feed-forward', 'other')
    """
    words = set(re.split(r"[._]", name.lower()))
    if words & {"attn", "attention"}:
        return "attention"
    return "feed-forward" if words & {"mlp", "ffn", "ff", "feedforward", "moe"} else "other"


_SITES = re.compile(
    r"(?:self_?|cross_?)?(?:attention|attn)|feed_?forward|mlp|ffn|ff|moe", re.IGNORECASE
)


def stack_of(name: str) -> str:
    """Return what the names of a stack's layers share: what is before the number, but a sublayer.

    >>> stack_of("layers.3.self_attn"), stack_of("attn_3"), stack_of("ffn_3")
    ('layers.', '_', '_')
    """
    return _SITES.sub("", re.split(r"[0-9]", name)[0])


def gaps_in(names: Iterable[str]) -> list[str]:
    """Return the names that are missing in a row of layers, of which most numbers have one.

    >>> gaps_in([f"layers.{k}.attn" for k in (0, 1, 2, 4, 5)])
    ['layers.3.attn']
    """
    rows: dict[tuple[str, str], set[int]] = {}
    for parts in filter(None, (re.fullmatch(r"(\D*)([0-9]{1,9})(.*)", name) for name in names)):
        rows.setdefault((parts[1], parts[3]), set()).add(int(parts[2]))
    gaps = []
    for (before, after), there in rows.items():
        beside = set().union(*(own for (prefix, _), own in rows.items() if prefix == before))
        first, length = min(beside), max(beside) - min(beside) + 1
        if len(there) < length <= len(there) * 4 / 3:
            absent = sorted(set(range(first, first + length)) - there)
            gaps += [f"{before}{number}{after}" for number in absent]
    return gaps


# ---------------------------------------------------------------- of mixing, or not

HEADS = re.compile(
    r"(?:.*\.)?(?:hc_head[_.](?:hc_)?(?:fn|base|scale)|hc_(?:fn|base|scale)|output_hc_\w+|"
    r"merge_mhc_module\..*)(?:\.weight)?"
)
WORDS = (  # every name above and below has one of them; of a large model few names have
    *("hc", "hyper", "h_res", "h_p", "sinkhorn", "_alpha", "_beta", "phi_fused", "mixing"),
    *("residual_", "branch_scale", "post_scale", "norm.gamma"),
)
LOOKS_LIKE_MIXING = re.compile(
    r"(?:^|[._])(?:m?hc|hyper_?connections?|h_res|sinkhorn|(?:static|dynamic)_alpha|res_alpha|"
    r"phi_fused|residual_mix|mixing)(?:[._]|$)",
    re.IGNORECASE,
)
COPIES = {  # parts of a name -> why such a tensor is no part of the model
    **dict.fromkeys(("ema", "model_ema", "ema_model", "ema_params"), "an averaged copy"),
    **dict.fromkeys(
        ("optimizer", "opt_state", "optimizer_state", "exp_avg", "exp_avg_sq", "mu", "nu"),
        "of the optimiser",
    ),
}


def has_word(name: str) -> bool:
    """Return whether a name has any of ``WORDS``."""
    lower = name.lower()
    return any(word in lower for word in WORDS)


def looks_like_mixing(name: str) -> bool:
    """Return whether a name is such that people would take its tensor for mixing.

    >>> looks_like_mixing("h.0.hc_attn.H_res_logits"), looks_like_mixing("h.0.attn.wk")
    (True, False)
    """
    return has_word(name) and bool(LOOKS_LIKE_MIXING.search(name))


def joins_streams(name: str) -> bool:
    """Return whether a tensor joins the streams at the end, and mixes none."""
    return bool(HEADS.fullmatch(name))


def copied(name: str) -> str:
    """Return of what a tensor is a copy; empty for the model's own.

    >>> copied("opt_state.0.mu.layers.0.hc_ffn_fn")
    'of the optimiser'
    """
    return next((COPIES[part] for part in name.split(".") if part in COPIES), "")
