"""One layer of a network: how it mixes, its residual weight, norms, branch and noise.

A layer sees one example. The mixed axis comes first: tokens [n, width], or the streams
[s, n, width] of hyper-connections.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["attention", "branch", "hyper_connection", "layer", "token_mixing"]
)
