"""Networks whose layers mix by a matrix, in Flax nnx; they own no mathematics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "architecture",
        "effects",
        "fields",
        "layers",
        "mixing",
        "model",
        "optimiser",
        "run",
        "tasks",
        "trainer",
        "training",
    ],
)
