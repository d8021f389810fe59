"""Hundreds of damaged and hostile files: one sentence each, no code, no way out, little memory."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoint_writers import write_gguf, write_torch
from homojax.lab.audit.recognising import mixing_of
from homojax.lab.inputs import InputError


def opened(place):
    """Whether mixing is found; the only other end is one sentence."""
    try:
        return bool(mixing_of(place).layers)
    except InputError as error:
        assert "\n" not in str(error) and 20 < len(str(error)) < 700
        return False


@pytest.fixture
def files(models, tmp_path):
    """A sound file of each kind: suffix -> path."""
    tensors = models["deepseek-v4"].tensors
    paths = {kind: tmp_path / f"m.{kind}" for kind in ("safetensors", "npz", "npy", "gguf", "pt")}
    save_file(tensors, paths["safetensors"])
    np.savez(paths["npz"], **tensors)
    write_gguf(paths["gguf"], tensors, {"x.hyper_connection.count": 4, "general.name": "x"})
    write_torch(paths["pt"], tensors)
    np.save(paths["npy"], np.eye(4))
    return paths


@pytest.mark.parametrize("kind", ["safetensors", "npz", "gguf", "pt"])
@pytest.mark.parametrize("seed", range(60))
def test_whatever_byte_is_changed_cut_or_doubled_the_end_is_layers_or_one_sentence(
    kind, seed, files, tmp_path
):
    sound, rng = files[kind].read_bytes(), np.random.default_rng(seed)
    # Headers are where damage tells: at the start, and in a ZIP at the end too.
    spans = [(0, min(3000, len(sound))), (max(0, len(sound) - 2000), len(sound)), (0, len(sound))]
    start, stop = spans[seed % 3]
    content = bytearray(sound)
    if seed % 5 == 0:
        content = content[: int(rng.integers(start, stop))]
    elif seed % 5 == 1:
        at = int(rng.integers(start, stop))
        content[at : at + 8] = rng.choice([0, 255, 127]).astype(np.uint8).tobytes() * 8
    elif seed % 5 == 2:
        at, length = (int(x) for x in rng.integers(start, stop, 2))
        content[at:at] = content[length : length + 40]
    else:
        for at in rng.integers(start, stop, int(rng.integers(1, 20))):
            content[at] = rng.integers(256)
    damaged = tmp_path / f"damaged.{kind}"
    damaged.write_bytes(content)
    opened(damaged)


@pytest.mark.parametrize("kind", ["safetensors", "npz", "npy", "gguf", "pt"])
@pytest.mark.parametrize("share", [0, 0.0005, 0.01, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(refuse, kind, share, files):
    sound = files[kind].read_bytes()
    files[kind].write_bytes(sound[: int(share * len(sound))])
    refuse(files[kind])


# ---------------------------------------------------------------- safetensors


def safetensors(path, header, size=1 << 12, length=None):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(head) if length is None else length) + head + bytes(size)
    )
    return path


NAME = "h.0.hc_attn.H_res_logits"
F32 = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}
HOSTILE_HEADERS = {
    "a length beyond the file": ({NAME: F32}, "truncated", 2**60),
    "a length that is short": ({NAME: F32}, "no JSON object", 9),
    "a length of nothing": ({NAME: F32}, "is no .safetensors file", 0),
    "a list": ([1], "no JSON object"),
    "nested without end": (b"[" * 100_000, "no JSON object"),
    "no JSON": (b"\xff\xfe\x00{", "no JSON object"),
    "a name twice": (b'{"a": {}, "a": {}}', "twice"),
    "no row": ({NAME: 3}, "cannot be where it says"),
    "overlapping": ({NAME: F32, "b": F32}, "in the same bytes"),
    "offsets beyond the end": ({NAME: {**F32, "data_offsets": [2**40, 2**40 + 64]}}, "cannot be"),
    "offsets in reverse": ({NAME: {**F32, "data_offsets": [64, 0]}}, "cannot be"),
    "offsets below 0": ({NAME: {**F32, "data_offsets": [-64, 0]}}, "cannot be"),
    "offsets of words": ({NAME: {**F32, "data_offsets": ["0", "64"]}}, "cannot be"),
    "offsets of fractions": ({NAME: {**F32, "data_offsets": [0.0, 64.0]}}, "cannot be"),
    "one offset": ({NAME: {**F32, "data_offsets": [0]}}, "cannot be"),
    "a huge shape": ({NAME: {**F32, "shape": [2**40, 2**40]}}, r"in\s64 bytes, not"),
    "a shape below 0": ({NAME: {**F32, "shape": [-4, -4]}}, "cannot be"),
    "a shape of 5,000 axes": ({NAME: {**F32, "shape": [1] * 5000}}, "cannot be"),
    "a shape too large for its bytes": ({NAME: {**F32, "shape": [4, 5]}}, "64 bytes, not 80"),
    "integers": ({NAME: {**F32, "dtype": "I32"}}, "holds I32, no floating-point numbers"),
    "an unknown type": ({NAME: {**F32, "dtype": "Q9"}}, "holds Q9, no floating-point numbers"),
    "a type that is none": ({NAME: {**F32, "dtype": None}}, "cannot be"),
    "not square": ({NAME: {**F32, "shape": [2, 8]}}, r"not \[n, n\]"),
    "one axis": ({NAME: {**F32, "shape": [16]}}, "not two axes"),
    "no axes": ({NAME: {**F32, "shape": [], "data_offsets": [0, 4]}}, "not two axes"),
    "empty": ({NAME: {**F32, "shape": [0, 0], "data_offsets": [0, 0]}}, r"not \[n, n\]"),
    "metadata alone": ({"__metadata__": {"a": "b"}}, "no mixing matrix"),
}


@pytest.mark.parametrize("kind", HOSTILE_HEADERS)
def test_a_hostile_header_of_safetensors_is_refused(refuse, kind, tmp_path):
    header, sentence, *length = HOSTILE_HEADERS[kind]
    refuse(safetensors(tmp_path / "m.safetensors", header, length=(length or [None])[0]), sentence)


def test_a_tensor_too_large_to_be_mixing_is_not_read(refuse, tmp_path):
    row = {"dtype": "F32", "shape": [2**14, 2**14], "data_offsets": [0, 2**30]}
    path = safetensors(tmp_path / "m.safetensors", {NAME: row}, size=0)
    os.truncate(path, path.stat().st_size + 2**30)  # sparse
    refuse(path, "no mixing tensor has more than")


# ---------------------------------------------------------------- index and folder


@pytest.mark.parametrize(
    "shard",
    [
        *("../secret.safetensors", "/etc/passwd", "..", ".", "", "a/../../secret.safetensors"),
        *("sub/m.safetensors", "..\\secret.safetensors", "m\0.safetensors"),
    ],
)
def test_an_index_that_names_a_file_elsewhere_is_refused(refuse, shard, models, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(models["tokenbender"].tensors, tmp_path / "secret.safetensors")
    index = {"weight_map": dict.fromkeys(models["tokenbender"].tensors, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(folder, "shards lie beside their index")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(refuse, content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    refuse(tmp_path, "weight_map|no JSON object")


@pytest.mark.parametrize("name", ["m.safetensors", "config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("target", ["../secret", "absolute", "loop"])
def test_a_link_out_of_the_folder_is_not_followed(refuse, name, target, models, tmp_path):
    folder, secret = tmp_path / "model", tmp_path / "secret"
    folder.mkdir()
    save_file(models["tokenbender"].tensors, secret)
    if name != "m.safetensors":
        save_file(models["tokenbender"].tensors, folder / "x.safetensors")
        secret.write_text('{"weight_map": {}}')
    (folder / name).symlink_to({"absolute": secret, "loop": name}.get(target, target))
    refuse(
        folder, "leads nowhere|cannot read|no checkpoint" if target == "loop" else "leads out of"
    )


def test_a_link_out_that_is_no_part_of_the_model_is_let_be(models, tmp_path):
    (tmp_path / "model").mkdir()
    save_file(models["tokenbender"].tensors, tmp_path / "model" / "m.safetensors")
    (tmp_path / "model" / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    assert opened(tmp_path / "model")


def test_a_pipe_in_a_folder_is_not_waited_for(refuse, models, tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    refuse(tmp_path, "no checkpoint")
    refuse(tmp_path / "m.safetensors", "no file or folder")
