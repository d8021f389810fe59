"""``homojax probe``: search by gradient."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "calibrate",
        "cells",
        "climb",
        "command",
        "config",
        "dataset_report",
        "equal_entropy",
        "finding",
        "finding_report",
        "frontier",
        "objective",
        "plots",
        "reduction",
        "report",
        "search",
        "sensitivity",
    ],
)
