"""``homojax train``: check the laws in networks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "checkpoints",
        "command",
        "config",
        "dataset",
        "judgements",
        "measures",
        "plots",
        "report",
        "run",
        "stacks",
        "tasks",
    ],
)
