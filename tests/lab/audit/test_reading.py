"""Checkpoints written by the libraries that write them, sharded and not, and how little is read."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoint_writers import write_gguf, write_sharded, write_torch
from homojax.lab.audit import safetensors_files, tensors
from homojax.lab.audit.names import natural, unwrapped
from homojax.lab.audit.reading import checkpoint_of, open_checkpoint
from homojax.lab.audit.recognising import mixing_of, recognise
from homojax.lab.audit.tensors import read
from homojax.lab.inputs import InputError


def values(place):
    return {name: read(tensor) for name, tensor in open_checkpoint(place).tensors.items()}


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], np.asarray(x).astype(float))


ARRAYS = {
    "a": np.arange(6, dtype="f4").reshape(2, 3),
    "b.0": np.array(3.5),
    "b.1": np.arange(4, dtype="f2"),
}


def test_files_of_safetensors_and_numpy_are_read_as_they_were_written(tmp_path):
    save_file(ARRAYS, tmp_path / "m.safetensors")
    np.savez(tmp_path / "m.npz", **ARRAYS)
    np.savez_compressed(tmp_path / "c.npz", **ARRAYS)
    for name in ("m.safetensors", "m.npz", "c.npz"):
        equal(values(tmp_path / name), ARRAYS)
    for order in "CF":
        np.save(tmp_path / "x.npy", np.asarray(ARRAYS["a"], order=order))
        equal(values(tmp_path / "x.npy"), {"x": ARRAYS["a"]})
    np.save(tmp_path / "x.npy", np.zeros((0, 4)))
    assert values(tmp_path / "x.npy")["x"].shape == (0, 4)


def test_a_file_of_torch_is_read_without_torch_views_and_parameters_too(tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes this file")
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    state = {
        "view": base[1:, ::2],
        "turned": base.T,
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "bf16": torch.arange(5).to(torch.bfloat16),
        "fp8": torch.arange(5).to(torch.float32).to(torch.float8_e4m3fn),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2.5),
    }
    module = torch.nn.Linear(3, 2)
    more = {"model": module.state_dict(), "step": 7, "list": [{"x": base}], "none": None}
    torch.save({**state, **more}, tmp_path / "m.pt")
    expected = {name: x.detach().to(torch.float64).numpy() for name, x in state.items()}
    expected |= {f"model.{name}": x.numpy() for name, x in module.state_dict().items()}
    expected["list.0.x"] = base.numpy()
    equal(values(tmp_path / "m.pt"), expected)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"of before PyTorch 1\.6: save it again"):
        open_checkpoint(tmp_path / "old.pt")
    torch.save(module, tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"asks for torch\.nn\.modules\.linear\.Linear, which"):
        open_checkpoint(tmp_path / "module.pt")


def test_a_file_of_gguf_is_read_row_major(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the gguf package writes this file")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "deepseek4")
    writer.add_array("lists", [[1, 2], [3]])
    for name, x in (("a", ARRAYS["a"]), ("h", ARRAYS["b.1"])):
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    equal(values(tmp_path / "m.gguf"), {"a": ARRAYS["a"], "h": ARRAYS["b.1"]})
    assert open_checkpoint(tmp_path / "m.gguf").config["general.architecture"] == "deepseek4"


def test_a_split_gguf_model_is_read_by_any_of_its_parts(models, tmp_path):
    model = models["gguf"]
    names = sorted(model.tensors)
    for i, part in enumerate(np.array_split(np.array(names), 2)):
        tensors = {name: model.tensors[name] for name in part.tolist()}
        write_gguf(tmp_path / f"m-{i + 1:05d}-of-00002.gguf", tensors)
    for place in (tmp_path, tmp_path / "m-00002-of-00002.gguf"):
        assert len(mixing_of(place).layers) == 6
    (tmp_path / "m-00001-of-00002.gguf").unlink()
    with pytest.raises(InputError, match=r"m-00001-of-00002\.gguf is missing: a split model needs"):
        mixing_of(tmp_path)


@pytest.mark.parametrize("manager", [False, True])
def test_a_checkpoint_of_orbax_is_read_and_of_several_steps_the_newest(manager, models, tmp_path):
    import orbax.checkpoint as ocp

    def nested(flat):
        tree = {}
        for name, x in flat.items():
            *path, leaf = name.split(".")
            at = tree
            for part in path:
                at = at.setdefault(part, {})
            at[leaf] = x.astype(ml_dtypes.bfloat16)
        return tree

    model = models["maxtext, stacked"]
    tree = {"params": nested(model.tensors), "step": np.int32(4)}
    if manager:
        with ocp.CheckpointManager(tmp_path / "run") as steps:
            for step in (2, 10):
                scaled = {"params": tree["params"], "step": np.int32(step)}
                steps.save(step, args=ocp.args.StandardSave(scaled))
            steps.wait_until_finished()
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "run", tree)
    mixing = mixing_of(tmp_path / "run")
    assert [layer.number for layer in mixing.layers] == [0, 0, 1, 1, 2, 2]
    for layer, row in zip(mixing.layers, model.expected, strict=True):
        np.testing.assert_array_equal(layer.base, row.base.astype(ml_dtypes.bfloat16).astype(float))
        assert layer.base_precision.dtype == "bfloat16"
    if manager:
        assert read(
            open_checkpoint(tmp_path / "run").tensors["params.decoder.layers.mhc_mlp.res_beta"]
        ).shape == (4, 3, 4)


def test_arrays_in_memory_are_a_checkpoint_dictionaries_lists_and_nnx_state(models):
    from flax import nnx

    model = models["tokenbender"]
    tree = {"model": {"transformer": {"h": {}}}}
    for name, x in model.tensors.items():
        _, _, number, *rest = name.split(".")
        tree["model"]["transformer"]["h"].setdefault(number, {})[".".join(rest)] = x
    assert len(recognise(checkpoint_of(tree)).layers) == 6

    class Mixer(nnx.Module):
        def __init__(self):
            self.H_res_logits = nnx.Param(np.eye(4, dtype="f4"))

    class Stack(nnx.Module):
        def __init__(self):
            self.hc_attn, self.hc_mlp = Mixer(), Mixer()

    layers = recognise(checkpoint_of(nnx.state(Stack()))).layers
    assert [layer.name for layer in layers] == ["hc_attn", "hc_mlp"]
    with pytest.raises(InputError, match="int has no arrays: give a dict of arrays, or a path"):
        checkpoint_of(3)


# ---------------------------------------------------------------- folders and their index


def test_the_index_decides_a_stray_tensor_in_a_shard_is_not_read_and_said(models, tmp_path):
    model = models["deepseek-v4"]
    shards = write_sharded(tmp_path, model.tensors)
    name = "layers.2.hc_attn_base"
    other = next(x for x in sorted(set(shards.values())) if x != shards[name])
    content = {key: x for key, x in model.tensors.items() if shards[key] == other}
    stray = {name: np.full(24, 99, "f4"), "layers.7.hc_ffn_fn": np.ones((24, 24), "f4")}
    save_file({**content, **stray}, tmp_path / other)
    mixing = mixing_of(tmp_path)
    assert len(mixing.layers) == 6 and max(abs(x.base).max() for x in mixing.layers) < 10
    assert dict(mixing.skipped) == {
        name: f"it is in {other}, and the index gives it to {shards[name]}",
        "layers.7.hc_ffn_fn": f"it is in {other}, and the index has no such tensor",
    }
    equal_index = mixing_of(tmp_path / "model.safetensors.index.json")
    assert [x.name for x in equal_index.layers] == [x.name for x in mixing.layers]


def test_only_shards_with_mixing_are_opened_and_only_its_rows_are_read(
    models, tmp_path, monkeypatch
):
    tensors_of_model = dict(models["deepseek-v4"].tensors)
    write_sharded(tmp_path, tensors_of_model)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["experts.0.weight"] = "model-missing.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    mapped, sizes = np.memmap, []

    def memmap(path, dtype, mode, offset, shape):
        sizes.append(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return mapped(path, dtype, mode, offset, shape)

    monkeypatch.setattr(safetensors_files.np, "memmap", memmap)
    assert len(mixing_of(tmp_path).layers) == 6
    assert max(sizes) == 24 * 24 * 4 and len(sizes) == 18
    index["weight_map"]["layers.0.hc_ffn_fn"] = "model-missing.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model-missing\.safetensors is missing, and .* needs it"):
        mixing_of(tmp_path)


def test_shards_of_torch_are_read_by_their_index_and_of_two_indices_that_of_safetensors(
    models, tmp_path
):
    items = list(models["deepseek-v4"].tensors.items())
    shards = {"pytorch_model-1.bin": dict(items[:10]), "pytorch_model-2.bin": dict(items[10:])}
    for shard, part in shards.items():
        write_torch(tmp_path / shard, part)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert len(mixing_of(tmp_path).layers) == 6
    write_sharded(tmp_path, models["tokenbender"].tensors)
    assert {layer.layout for layer in mixing_of(tmp_path).layers} == {"tokenbender"}


def test_a_snapshot_of_a_hubs_cache_is_read_through_its_links(models, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file(models["deepseek-v4"].tensors, blobs / "123")
    (blobs / "456").write_text('{"hc_sinkhorn_iters": 9}')
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    (snapshot / "config.json").symlink_to("../../blobs/456")
    layers = mixing_of(snapshot).layers
    assert len(layers) == 6 and layers[0].preset.num_iters == 9


def test_files_of_a_folder_without_an_index_are_one_model_and_no_name_is_there_twice(
    models, tmp_path
):
    items = list(models["deepseek-v4"].tensors.items())
    save_file(dict(items[:9]), tmp_path / "a.safetensors")
    save_file(dict(items[9:]), tmp_path / "b.safetensors")
    assert len(mixing_of(tmp_path).layers) == 6
    save_file(dict(items[8:]), tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"b.safetensors has .*, as a.safetensors has: give"):
        mixing_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing", "there is no file or folder"),
        ("empty", "has no checkpoint"),
        ("x.zip", "is no checkpoint of a kind known here"),
        ("http://hub/x", "is a URL"),
        (None, "name a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(name, sentence, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.zip").write_bytes(b"x")
    place = name if name is None or "/" in name else tmp_path / name
    with pytest.raises(InputError, match=sentence) as caught:
        mixing_of(place)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- names and numbers


def test_names_are_in_the_order_of_their_numbers():
    names = ["layers.10.x", "layers.2.x", "mtp.0.x", "layers.2.a", "h", "9", "layers.x"]
    assert sorted(names, key=natural) == [
        *("9", "h", "layers.2.a", "layers.2.x", "layers.10.x", "layers.x", "mtp.0.x"),
    ]
    assert unwrapped("module._orig_mod.model.blk.0") == "blk.0"
    assert unwrapped("model_state_dict.state_dict.h.1") == "h.1" and unwrapped("models.h") == (
        "models.h"
    )


@pytest.mark.parametrize("name", sorted(tensors.FLOATS))
def test_every_number_of_a_narrow_type_is_widened_exactly(name, tmp_path):
    dtype = tensors.FLOATS[name]
    if dtype.itemsize > 2:
        stored = np.random.default_rng(0).normal(size=2**16).astype(dtype)
    else:
        stored = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
        with np.errstate(invalid="ignore"):
            stored = stored[np.isfinite(stored.astype("f8"))]
    code = next(code for code, known in safetensors_files._NAMES.items() if known == name)
    header = {"x": {"dtype": code, "shape": [len(stored)], "data_offsets": [0, stored.nbytes]}}
    head = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + stored.tobytes())
    wide = values(path)["x"]
    np.testing.assert_array_equal(wide.astype(dtype).astype("f8"), wide)
    np.testing.assert_array_equal(wide, [float(x) for x in stored])
