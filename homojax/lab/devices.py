"""What this machine can do: work on all its devices at once, and how much memory it has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

import jax

from homojax.lab.inputs import InputError

Block = TypeVar("Block")
Result = TypeVar("Result")


def on_all_devices(
    measure: Callable[[Block], Result], blocks: Iterable[Block]
) -> Iterator[tuple[Block, Result]]:
    """Yield each block with what is measured of it, as soon as it is.

    Each device has a block of its own at a time, and runs the very program that one device alone
    would run: a program for several rounds in other ways.

    >>> sorted(on_all_devices(lambda block: 2 * block, [1, 2]))
    [(1, 2), (2, 4)]
    """
    devices = jax.local_devices()
    if len(devices) == 1:
        yield from ((block, measure(block)) for block in blocks)
        return
    idle = SimpleQueue[jax.Device]()
    for device in devices:
        idle.put(device)

    def measure_where_idle(block: Block) -> tuple[Block, Result]:
        device = idle.get()
        try:
            with jax.default_device(device):
                return block, measure(block)
        finally:
            idle.put(device)

    pool, waiting = ThreadPoolExecutor(len(devices)), iter(blocks)
    try:
        running = {pool.submit(measure_where_idle, one) for one in islice(waiting, len(devices))}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(measure_where_idle, one) for one in islice(waiting, len(ended))}
            yield from (one.result() for one in ended)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def require_memory(need: float, what: str) -> None:
    """Return nothing where this machine has ``need`` bytes for ``what``.

    Raises:
        InputError: it has not.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > machine:
        raise InputError(
            f"{what} needs about {need / 1e9:.3g} GB, and this machine has {machine / 1e9:.3g}: "
            "ask for less."
        )


def matrices_in_memory(count: int, n: int) -> float:
    """Return how many bytes ``count`` matrices [n, n] take, with what is computed of them."""
    return 24.0 * 8 * count * n * n
