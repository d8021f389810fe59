"""``homojax verify``: test the theory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "command",
        "config",
        "dataset",
        "draws",
        "families",
        "family",
        "logit_families",
        "matrix_families",
        "outcome",
        "plan",
        "plots",
        "report",
        "run",
    ],
)
