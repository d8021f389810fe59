"""Archives, pickles and stores of other formats that are hostile: one sentence, and no code."""

import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from homojax.lab.audit.recognising import mixing_of

NAME = "h.0.hc_attn.H_res_logits"


# ---------------------------------------------------------------- NumPy


def npz(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy(descr, shape, data=b"", version=b"\x01\x00"):
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(head)) + head.encode() + data


class Bomb:
    """Pickled, it would leave a file behind when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickles_in_files_of_numpy_are_not_opened(refuse, tmp_path):
    objects = np.array([Bomb(tmp_path / "ran")] * 4, dtype=object)
    np.savez(tmp_path / "m.npz", **{NAME: objects.reshape(2, 2)})
    refuse(tmp_path / "m.npz", "holds Python objects, which run code when read")
    np.save(tmp_path / "m.npy", objects)
    refuse(tmp_path / "m.npy", "holds Python objects, which run code when read")
    assert not (tmp_path / "ran").exists()


HOSTILE_ARRAYS = {
    "a huge shape": (npy("'<f8'", (2**40, 2**40)), "its header says"),
    "a shape below 0": (npy("'<f8'", (-4, -4)), "is no .npz file"),
    "a shape of words": (npy("'<f8'", ("4", 4)), "is no .npz file"),
    "code for a type": (npy("__import__('os').getcwd()", (4, 4)), "is no .npz file"),
    "code for a shape": (npy("'<f8'", "__import__('os').getcwd()"), "is no .npz file"),
    "brackets without end": (npy("(" * 100, (4, 4)), "is no .npz file"),
    "a later version": (npy("'<f8'", (4, 4), bytes(128), b"\x03\x00"), "is no .npz file"),
    "no header": (b"\x93NUMPY\x01\x00", "is no .npz file"),
    "nothing": (b"", "is no .npz file"),
    "words": (npy("'<U4'", (4, 4), bytes(256)), "no floating-point numbers"),
    "complex": (npy("'<c16'", (4, 4), bytes(256)), "no floating-point numbers"),
    "more than its header says": (npy("'<f8'", (4, 4), bytes(999)), "its header says 128"),
}


@pytest.mark.parametrize("kind", HOSTILE_ARRAYS)
def test_a_hostile_array_in_an_npz_is_refused(refuse, kind, tmp_path):
    content, sentence = HOSTILE_ARRAYS[kind]
    refuse(npz(tmp_path / "m.npz", [(f"{NAME}.npy", content)]), sentence)


def test_a_name_twice_in_an_npz_is_refused(refuse, tmp_path):
    content = npy("'<f8'", (4, 4), bytes(128))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = npz(tmp_path / "m.npz", [(f"{NAME}.npy", content)] * 2)
    refuse(path, "twice")


# ---------------------------------------------------------------- PyTorch and GGUF


class Code:
    """Pickled, it asks for this function."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def torch_zip(path, pickled, compression=zipfile.ZIP_STORED):
    return npz(path, [("m/data.pkl", pickled), ("m/data/0", bytes(64))], compression)


@pytest.mark.parametrize("function", [os.mkdir, eval, exec, getattr, pickle.loads, print])
def test_a_pickle_with_code_is_refused_and_not_run(refuse, function, tmp_path):
    for protocol in (0, 2, 4):
        pickled = pickle.dumps({"a": Code(function, str(tmp_path / "ran"))}, protocol)
        path = torch_zip(tmp_path / "m.pt", pickled)
        refuse(path, f"asks for .*{function.__name__}, which could run code")
    assert not (tmp_path / "ran").exists()


def rebuilt(offset=b"K\x00", shape=b"(K\x04K\x04t", strides=b"(K\x04K\x01t", kind=b"FloatStorage"):
    storage = b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000"
    storage += b"X\x03\x00\x00\x00cpuK\x10tQ"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + strides
    name = b"X" + struct.pack("<I", len(NAME)) + NAME.encode()
    return b"\x80\x02}" + name + view + b"\x89}tRs."


HOSTILE_PICKLES = {
    "an index of the memo beyond all": (b"\x80\x02}r\x00\x00\x80\x00.", "damaged"),  # 2^23
    "no end": (b"\x80\x02}", "damaged"),
    "a stack of nothing": (b"\x80\x02tR.", "damaged"),
    "a registered extension": (b"\x80\x02\x82\x01.", "damaged"),
    "a persistent word": (b"\x80\x02X\x01\x00\x00\x00aQ.", "damaged"),
    "a tensor beyond its storage": (rebuilt(offset=b"K\x01"), "has less than all of"),
    "strides beyond its storage": (rebuilt(strides=b"(J\xff\xff\xff\x7fK\x01t"), "less than all"),
    "strides below 0": (rebuilt(strides=b"(J\xfc\xff\xff\xffK\x01t"), "damaged"),
    "an offset below 0": (rebuilt(offset=b"J\xff\xff\xff\xff"), "damaged"),
    "a huge shape of one number": (
        rebuilt(shape=b"(J\x00\x00\x00\x40J\x00\x00\x00\x40t", strides=b"(K\x00K\x00t"),
        "no mixing tensor has more than",
    ),
    "fewer strides than axes": (rebuilt(strides=b"(K\x01t"), "damaged"),
    "integers": (rebuilt(kind=b"LongStorage"), "no floating-point numbers"),
    "itself inside": (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "no mixing matrix"),
}


@pytest.mark.parametrize("kind", HOSTILE_PICKLES)
def test_a_hostile_pickle_is_refused(refuse, kind, tmp_path):
    pickled, sentence = HOSTILE_PICKLES[kind]
    refuse(torch_zip(tmp_path / "m.pt", pickled), sentence)


def test_the_pickle_that_hostile_ones_are_made_of_is_read(refuse, tmp_path):
    assert mixing_of(torch_zip(tmp_path / "m.pt", rebuilt())).layers
    refuse(torch_zip(tmp_path / "m.pt", rebuilt(), zipfile.ZIP_DEFLATED), "damaged")


def gguf(entries=0, tensors=1, body=b"", version=3):
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, entries) + body


def gguf_row(name=NAME, shape=(4, 4), kind=0, offset=0):
    raw = name.encode()
    sizes = b"".join(struct.pack("<Q", x) for x in shape)
    return (
        struct.pack("<Q", len(raw))
        + raw
        + struct.pack("<I", len(shape))
        + sizes
        + struct.pack("<IQ", kind, offset)
    )


KEY = struct.pack("<Q", 1) + b"k"
HOSTILE_GGUF = {
    "wild tensors": (gguf(tensors=2**62), "damaged"),
    "wild entries": (gguf(entries=2**62), "damaged"),
    "a wild string": (gguf(entries=1, body=struct.pack("<Q", 2**63)), "damaged"),
    "a wild list": (gguf(1, body=KEY + struct.pack("<IIQ", 9, 8, 2**61)), "damaged"),
    "a wild list of numbers": (gguf(1, body=KEY + struct.pack("<IIQ", 9, 4, 2**61)), "damaged"),
    "lists in lists": (
        gguf(1, body=KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9000),
        "damaged",
    ),
    "an unknown kind of value": (gguf(1, body=KEY + struct.pack("<I", 99)), "damaged"),
    "100 axes": (gguf(body=gguf_row(shape=(1,) * 100)), "damaged"),
    "a wild shape": (gguf(body=gguf_row(shape=(2**40, 2**40))), "less than all"),
    "a wild offset": (gguf(body=gguf_row(offset=2**62)), "less than all"),
    "an unknown type": (gguf(body=gguf_row(kind=77)), "no floating-point numbers"),
    "broken blocks": (gguf(body=gguf_row(kind=8)), "damaged"),
    "a name twice": (gguf(tensors=2, body=gguf_row() * 2), "twice"),
    "an alignment of 0": (
        gguf(
            1,
            body=struct.pack("<Q", 17)
            + b"general.alignment"
            + struct.pack("<II", 4, 0)
            + gguf_row(),
        ),
        "damaged",
    ),
    "version 1": (gguf(version=1), "version 1: 2 and 3 are known"),
    "another format": (b"GGML" + bytes(64), "no GGUF file"),
}


@pytest.mark.parametrize("kind", HOSTILE_GGUF)
def test_a_hostile_gguf_file_is_refused(refuse, kind, tmp_path):
    head, sentence = HOSTILE_GGUF[kind]
    (tmp_path / "m.gguf").write_bytes(head + bytes(256))
    refuse(tmp_path / "m.gguf", sentence)


# ---------------------------------------------------------------- orbax


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "{}", '{"tree_metadata": 3}', '{"tree_metadata": {"a": {"key_metadata": 3}}}'),
        '{"tree_metadata": {"a": {"key_metadata": [{"key": "a"}]}}}',
        '{"tree_metadata": {"a": {"key_metadata": [{"key": "../x"}]}}, "use_ocdbt": false}',
    ],
)
def test_a_damaged_checkpoint_of_orbax_is_refused(refuse, content, tmp_path):
    (tmp_path / "_METADATA").write_text(content)
    refuse(tmp_path)


def test_a_link_out_of_a_checkpoint_of_orbax_is_not_followed(refuse, tmp_path):
    secret, folder = tmp_path / "secret", tmp_path / "run" / "7" / "default"
    folder.mkdir(parents=True)
    secret.mkdir()
    key = {"key_metadata": [{"key": NAME}]}
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": {"a": key}, "use_ocdbt": False}))
    (folder / NAME).symlink_to(secret)
    refuse(tmp_path / "run", "leads out of")


# ---------------------------------------------------------------- memory


def test_bombs_take_little_memory(tmp_path, refuse):
    """134 MB of zeros in 130 kB, which would be half a gigabyte widened: they are not unpacked."""
    with zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (NAME, "other"):
            with archive.open(f"{name}.npy", "w") as member:
                member.write(npy("'<f2'", (8200, 8200)))
                for _ in range(8200):
                    member.write(bytes(2 * 8200))
    tracemalloc.start()
    refuse(tmp_path / "m.npz", "no mixing tensor has more than")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
