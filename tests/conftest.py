"""Float64 for every test, one dtype fixture, hypothesis examples that never change, and a compilation cache."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before it is loaded: its threads wait for each other where cores are busy

import hypothesis
import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)

# Compiling is most of what these tests do: a second run need not do it again.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / f"homojax-test-cache-{os.getuid()}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

hypothesis.settings.register_profile("homojax", deadline=None, derandomize=True, database=None, max_examples=40)
hypothesis.settings.load_profile("homojax")


@pytest.fixture(params=["float64", "float32"], scope="session")
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(20260102)
