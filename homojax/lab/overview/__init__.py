"""``homojax runs``: what is in a folder of runs, and how far each is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["command", "report"])
