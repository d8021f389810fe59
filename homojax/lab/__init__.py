"""What touches the world: sources of logits, runs, stores, figures, reports and the command line."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "cases",
        "experiment",
        "inputs",
        "probe",
        "referee",
        "runs",
        "sources",
        "sweep",
        "train",
        "verify",
    ],
)
