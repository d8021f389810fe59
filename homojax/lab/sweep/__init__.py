"""``homojax sweep``: map the trap."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["command", "config", "dataset", "measure", "plan", "plots", "report", "run"],
)
