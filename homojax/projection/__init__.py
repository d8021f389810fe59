"""From logits and an entropy weight ε to a doubly stochastic matrix; ``sinkhorn`` is the face."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "balance",
        "errors",
        "factored_solver",
        "factors",
        "iterations",
        "limit",
        "linear",
        "masks",
        "matching",
        "newton",
        "result",
        "shifts",
        "sinkhorn",
        "summary",
        "truncated",
    ],
)
