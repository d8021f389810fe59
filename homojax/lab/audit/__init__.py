"""``homojax audit``: is this model in the trap? So far: what a checkpoint stores of its mixing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        *("by_hand", "gguf_files", "layers", "layout", "layouts", "names", "numpy_files"),
        "orbax_folders",
        *("reading", "recognising", "safetensors_files", "settings", "snapshots", "tensors"),
        "torch_files",
    ],
)
