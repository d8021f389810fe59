"""homojax: a differentiable testbed for what doubly stochastic mixing does to detail in networks.

The flat names below are what a notebook uses daily; everything else is reached by its module, such
as ``hj.bounds.dobrushin_bound``. Names are loaded when they are first used: ``__init__.pyi`` is the
table of them.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("homojax")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
