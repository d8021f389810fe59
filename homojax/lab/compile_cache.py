"""Compiled programs, kept from one command to the next: compiling is most of a short run."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

LARGEST = 2**30  # bytes; what was not used for longest goes first
SHORTEST = 0.05  # seconds of compiling that are worth a file

# Whether this process is a command's own. Then the code is as its files say, and traces of it may
# be kept. A user's process may have changed it.
commands_own = False


def keep_programs() -> None:
    """Have JAX keep compiled programs in the user's cache folder; before JAX is imported.

    Where JAX_COMPILATION_CACHE_DIR is set, nothing is changed; where it is empty, nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = Path(platformdirs.user_cache_dir("homojax")) / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that is read-only or full: the run goes without
        return
    if not os.access(folder, os.W_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(LARGEST)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(SHORTEST)
