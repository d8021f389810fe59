"""homojax: a differentiable testbed for what doubly stochastic mixing does to detail in networks.

The flat names below are what a notebook uses daily; everything else is reached by its module, such
as ``hj.bounds.dobrushin_bound``. Names are loaded when they are first used: ``__init__.pyi`` is the
table of them.
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Return what is used for the first time."""
    if name != "__version__":
        try:
            return _load(name)
        except AttributeError as error:
            import difflib

            near = difflib.get_close_matches(name, __all__, n=1)
            hint = f': did you mean "{near[0]}"?' if near else ""
            raise AttributeError(f"homojax has no {name}{hint}") from error
    from importlib.metadata import version  # as slow to load as all else that a command needs first

    return version("homojax")
