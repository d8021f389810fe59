"""Checkpoints as other libraries write them, without those libraries."""

import json
import struct
import zipfile

import numpy as np


def write_torch(path, tensors, prefix="model/"):
    """A file as torch.save writes a state_dict: a pickle of protocol 2 by hand, and storages."""
    kinds = {"float32": "FloatStorage", "float64": "DoubleStorage", "bfloat16": "BFloat16Storage"}

    def text(word):
        raw = word.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw

    def counts(numbers):
        return b"(" + b"".join(b"J" + struct.pack("<i", x) for x in numbers) + b"t"

    items = b""
    for i, (name, x) in enumerate(tensors.items()):
        strides = [step // x.itemsize for step in np.ascontiguousarray(x).strides]
        kind = kinds[x.dtype.name].encode()
        storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(str(i)) + text("cpu")
        storage += b"J" + struct.pack("<i", x.size) + b"tQ"
        view = storage + b"K\x00" + counts(x.shape) + counts(strides)
        empty = b"ccollections\nOrderedDict\n)R"
        items += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        items += view + b"\x89" + empty + b"tR"
    pickled = b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{prefix}data.pkl", pickled)
        archive.writestr(f"{prefix}byteorder", "little")
        for i, x in enumerate(tensors.values()):
            archive.writestr(f"{prefix}data/{i}", np.ascontiguousarray(x).tobytes())


def write_gguf(path, tensors, metadata=None, kind=0):
    """A GGUF file of version 3: strings and 32-bit numbers in its metadata, tensors in float32."""

    def text(word):
        raw = word.encode()
        return struct.pack("<Q", len(raw)) + raw

    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata or {}))
    for key, value in (metadata or {}).items():
        head += text(key)
        head += struct.pack("<II", 4, value) if isinstance(value, int) else b""
        head += struct.pack("<If", 6, value) if isinstance(value, float) else b""
        head += struct.pack("<I", 8) + text(value) if isinstance(value, str) else b""
    offset, body = 0, b""
    for name, x in tensors.items():
        raw = np.ascontiguousarray(x, np.float32).tobytes()
        head += text(name) + struct.pack("<I", x.ndim)
        head += b"".join(struct.pack("<Q", size) for size in reversed(x.shape))
        head += struct.pack("<IQ", kind, offset)
        body += raw + bytes(-len(raw) % 32)
        offset = len(body)
    path.write_bytes(head + bytes(-len(head) % 32) + body)


def write_sharded(folder, tensors, count=3):
    """A folder of shards with their index, as the hub has them."""
    from safetensors.numpy import save_file

    shards = {
        name: f"model-{i % count + 1:05d}-of-{count:05d}.safetensors"
        for i, name in enumerate(tensors)
    }
    for shard in set(shards.values()):
        part = {name: tensors[name] for name, other in shards.items() if other == shard}
        save_file(part, folder / shard)
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return shards
