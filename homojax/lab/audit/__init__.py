"""``homojax audit``: is this model in the trap?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        *(
            "advice",
            "alternations",
            "by_hand",
            "certificates",
            "charts",
            "command",
            "config",
            "connectivity",
        ),
        "dataset",
        *("ellipsoid", "gguf_files", "judgements", "layers", "layout", "layouts", "measures"),
        *("names", "numpy_files", "orbax_folders", "plots", "reading", "recognising", "recorded"),
        *(
            "report",
            "run",
            "safetensors_files",
            "settings",
            "snapshots",
            "tensors",
            "torch",
            "torch_files",
            "trajectory",
        ),
        *("verdict", "worst"),
    ],
)
