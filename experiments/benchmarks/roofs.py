"""The roofs of a machine, and how near to them its programs run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from problems import timed
from rich import box
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
WORDS = ("name", "batch", "roof")
COLUMNS = {
    "": ["name"],
    "batch": ["batch"],
    "s": ["seconds"],
    "compile, s": ["compile_seconds"],
    "cells/s": ["cells_per_second"],
    "error": ["worst_error"],
    "turns": ["turns"],
    "flops": ["flops"],
    "bytes": ["bytes"],
    "share of its roof": ["share", "roof"],
}


def measured_roofs(copied: int, product: int, repeats: int) -> Row:
    """Return the bytes a second of a copy, and the flops a second of a product in full float32.

    Args:
        copied: how many numbers are copied.
        product: n of the matrices that are multiplied.
        repeats: of the timing.
    """
    x = jnp.ones(copied, jnp.float32)
    copy = timed(jax.jit(jnp.negative), repeats, x).seconds
    a = jnp.full((product, product), 0.5, jnp.float32)
    multiply = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "bytes": 2 * x.nbytes / copy,
        "flops": 2 * product**3 / timed(multiply, repeats, a).seconds,
    }


def judge(row: Row, roofs: Row) -> Row:
    """Return a row with the roof that binds, and the share of it that was reached."""
    if "flops" not in row or not roofs:
        return row
    least = {kind: row[kind] / roofs[kind] for kind in ("bytes", "flops")}
    binding = max(least, key=lambda kind: least[kind])
    roof = {"bytes": "bandwidth", "flops": "arithmetic"}[binding]
    return row | {"roof": roof, "share": least[binding] / row["seconds"]}


def describe(roofs: Row) -> str:
    if not roofs:
        return "The roofs were not measured, so there are no shares of them."
    rates = f"{roofs['bytes'] / 1e9:.3g} GB/s by a copy, {roofs['flops'] / 1e9:.4g} Gflop/s"
    return f"{roofs['device']}, JAX {roofs['jax']}: {rates} by a product in float32"


def report(console: Console, part: str, rows: list[Row]) -> None:
    table = Table(title=f"{part}, float32", box=box.SIMPLE_HEAD, padding=(0, 1))
    for column, keys in COLUMNS.items():
        if any(key in row for row in rows for key in keys):
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            " ".join(f"{row[key]:.3g}" if key not in WORDS else str(row[key]) for key in keys)
            if all(key in row for key in keys)
            else "–"
            for keys in COLUMNS.values()
            if any(key in other for other in rows for key in keys)
        ]
        table.add_row(*cells)
    console.print(table)
