"""``homojax sweep``: map the trap."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        *("as_run_plot", "boundaries", "boundary_tables", "command", "config", "dataset", "fill"),
        *("measure", "plan", "plots", "refine", "report", "run"),
    ],
)
