"""What touches the world: inputs, sources, runs on disk, pages, and a folder for each verb."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        *("accessor", "audit", "blocks", "cases", "compile_cache", "datasets", "devices"),
        *("experiment", "figure_style", "grid_store", "inputs", "interrupts", "judging"),
        *("options", "overview", "ownership", "page", "parsing", "places", "probe", "progress"),
        *("referee", "runs", "selections", "sources", "store", "sweep", "traces", "train"),
        "verify",
    ],
)
