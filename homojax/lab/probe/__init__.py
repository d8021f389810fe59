"""``homojax probe``: search by gradient."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["calibrate", "frontier", "plots", "report", "run"]
)
