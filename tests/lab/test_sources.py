"""Logits from every source: what they are, and how a file that is none is refused."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from homojax.lab.datasets import trained_mhc
from homojax.lab.inputs import InputError
from homojax.lab.sources import LogitSource, load_source
from homojax.lab.sweep.config import Sweep


def file_source(path, **fields):
    return load_source(Sweep(source="file", path=Path(path), **fields))


def test_gaussian_layers_are_independent_reproducible_and_a_prefix_of_deeper_stacks():
    source = load_source(Sweep(n=(5,), seeds=2))
    deep, again, shallow, other = (
        source.draw(5, *args) for args in ((0, 400), (0, 400), (0, 3), (1, 400))
    )
    np.testing.assert_array_equal(deep, again)
    np.testing.assert_array_equal(deep[:3], shallow)
    assert not np.isclose(deep, other).any()
    assert abs(deep.mean()) < 0.05 and abs(deep.std() - 1) < 0.05
    assert abs(np.corrcoef(deep[:-1].ravel(), deep[1:].ravel())[0, 1]) < 0.05


def test_digits_are_scaled_dot_products_of_real_images():
    from sklearn.datasets import load_digits

    source = load_source(Sweep(source="digits", n=(6,)))
    logits = source.draw(6, 0, 4)
    assert logits.shape == (4, 6, 6) and np.allclose(logits, logits.swapaxes(1, 2))
    pixels = load_digits().data
    images = (pixels - pixels.mean(0)) / (pixels - pixels.mean(0)).std()
    norms = (images**2).sum(1) / np.sqrt(images.shape[1])
    diagonals = logits.diagonal(axis1=1, axis2=2)
    assert all(np.isclose(norms, d).any() for d in diagonals.ravel())
    assert np.linalg.matrix_rank(logits[0]) == 6


def test_trained_matrices_ship_with_their_source_and_are_those_of_the_published_file():
    data = trained_mhc()
    assert len(data["layers"]) == 12 and data["tau"] == 0.05 and data["num_iters"] == 10
    assert data["source"].startswith("pherber3/mHC")
    source = load_source(Sweep(source="trained-mhc"))
    assert (source.sizes, source.seeds, source.layers) == ((4,), 1, 12)
    stack = source.draw(4, 0, 14)
    np.testing.assert_array_equal(stack[12:], stack[:2])
    np.testing.assert_array_equal(stack[0, 0], [0.0171, -2.0157, -2.0065, -2.0174])


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
@pytest.mark.parametrize(
    ("shape", "seeds", "layers"), [((4, 4), 1, 1), ((3, 4, 4), 1, 3), ((2, 3, 4, 4), 2, 3)]
)
def test_a_users_array_is_read_in_every_format(tmp_path, kind, shape, seeds, layers):
    logits = np.random.default_rng(0).standard_normal(shape)
    path = tmp_path / f"logits.{kind}"
    if kind == "npy":
        np.save(path, logits)
    elif kind == "npz":
        np.savez(path, logits)
    else:
        save_file({"logits": logits}, path)
    source = file_source(path)
    assert (source.sizes, source.seeds, source.layers) == ((4,), seeds, layers)
    for seed in range(seeds):
        np.testing.assert_array_equal(
            source.draw(4, seed, layers), logits.reshape(seeds, layers, 4, 4)[seed]
        )
    flipped = file_source(path, orientation="inputs-first").draw(4, 0, 1)
    np.testing.assert_array_equal(flipped[0], logits.reshape(-1, 4, 4)[0].T)


def test_low_precision_weights_are_read_as_they_are(tmp_path):
    import ml_dtypes

    logits = np.random.default_rng(0).standard_normal((2, 3, 3)).astype(ml_dtypes.bfloat16)
    save_file({"logits": logits}, tmp_path / "bf16.safetensors")
    np.testing.assert_array_equal(
        file_source(tmp_path / "bf16.safetensors").draw(3, 0, 2), logits.astype(np.float64)
    )


def test_one_of_several_arrays_is_named(tmp_path):
    path = tmp_path / "two.npz"
    np.savez(path, first=np.eye(2), second=np.eye(3))
    assert file_source(path, array="second").sizes == (3,)
    with pytest.raises(InputError, match=r"holds 2 arrays \(first, second\): name one with array"):
        file_source(path)
    with pytest.raises(InputError, match='no array "secnd": did you mean "second"'):
        file_source(path, array="secnd")


def hostile_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2, 2)}
        )
        archive.writestr("logits.npy", header.getvalue())


def npy(array, allow_pickle=False):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=allow_pickle)
    return content.getvalue()


def test_an_array_is_not_named_in_a_file_that_holds_one(tmp_path):
    np.save(tmp_path / "one.npy", np.eye(3))
    with pytest.raises(InputError, match="holds one array without a name: leave array out"):
        file_source(tmp_path / "one.npy", array="w")


def test_a_logit_of_minus_infinity_is_read(tmp_path):
    logits = np.array([[0, 1, -np.inf], [2, 0, 1], [1, 1, 0]])
    np.save(tmp_path / "masked.npy", logits)
    source = file_source(tmp_path / "masked.npy", orientation="outputs-first")
    np.testing.assert_array_equal(source.draw(3, 0, 1)[0], logits)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.npy", None, "there is no file"),
        ("logits.txt", b"1 2", "not a .npy, .npz or .safetensors"),
        ("empty.npy", b"", "empty.npy is no .npy file: write it by numpy.save"),
        ("junk.npy", b"\x00\x01\x02" * 50, "is no .npy file: write it by numpy.save"),
        ("archive.npy", b"PK\x03\x04", "is an archive of arrays: give it the ending .npz"),
        ("short.npy", npy(np.eye(9))[:-8], "truncated or damaged"),
        ("objects.npy", npy(np.array([{}]), allow_pickle=True), "pickled"),
        ("raw.npy", pickle.dumps(np.eye(2)), "is no .npy file"),
        ("short.npz", b"PK\x03\x04", "truncated or damaged"),
        ("hostile.npz", hostile_zip, "truncated or damaged"),
        ("short.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{", "truncated or damaged"),
        ("huge.safetensors", b"\xff" * 16, "truncated or damaged"),
        ("flat.npy", npy(np.ones(4)), r"shape \[4\]: logits must be"),
        ("oblong.npy", npy(np.ones((2, 3))), r"shape \[2, 3\]"),
        ("none.npy ", None, "not a .npy"),
        ("empty2.npy", npy(np.ones((0, 4, 4))), "none empty"),
        ("one.npy", npy(np.ones((5, 1, 1))), "n at least 2"),
        ("complex.npy", npy(np.eye(2) * 1j), "must be real"),
        (
            "nan.npy",
            npy(np.array([[0, 1], [np.nan, 0]])),
            r"is nan at \[1, 0\]: logits must be finite",
        ),
        ("inf.npy", npy(np.array([[0, np.inf], [0, 0]])), r"is inf at \[0, 1\]"),
    ],
)
def test_a_file_that_holds_no_logits_is_refused_in_one_sentence(tmp_path, name, content, said):
    path = tmp_path / name
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        file_source(path)
    assert "\n" not in str(caught.value) and str(caught.value).count(". ") == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": "gausian"}, 'no source "gausian": did you mean "gaussian"'),
        ({"source": "zzz"}, "there are: digits, file, gaussian, trained-mhc"),
        (
            {"source": "trained-mhc", "n": (8,)},
            "n = 8 was asked, and source trained-mhc has n = 4 only",
        ),
        ({"source": "trained-mhc", "seeds": 2}, "2 seeds were asked"),
        ({"source": "digits", "n": (1798,)}, "more than the 1797 images"),
    ],
)
def test_what_a_source_does_not_have_is_said(fields, said):
    with pytest.raises(InputError, match=said):
        load_source(Sweep(**fields))


def test_a_pattern_stacks_what_it_fits_as_layers_in_the_order_of_their_numbers(tmp_path):
    layers = {f"block.{k}.mixing": np.full((4, 4), float(k)) for k in (10, 2, 1)}
    save_file({**layers, "embedding": np.zeros((3, 2))}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", embedding=np.zeros(3), **layers)
    for kind in ("safetensors", "npz"):
        path = tmp_path / f"a.{kind}"
        source = load_source(LogitSource(source="file", path=path, array="block.*.mixing"))
        drawn = source.draw(4, 0, 3)
        assert source.layers == 3 and drawn[:, 0, 0].tolist() == [1, 2, 10]
        with pytest.raises(InputError, match="no array like"):
            load_source(LogitSource(source="file", path=path, array="layer.*"))
        with pytest.raises(InputError, match="arrays of several shapes"):
            load_source(LogitSource(source="file", path=path, array="*"))


def test_heads_of_a_pattern_are_seeds(tmp_path):
    layers = {f"{k}.m": np.arange(2.0)[:, None, None] * np.ones((2, 3, 3)) + k for k in range(3)}
    np.savez(tmp_path / "a.npz", **layers)
    source = load_source(LogitSource(source="file", path=tmp_path / "a.npz", array="*.m"))
    assert (source.seeds, source.layers) == (2, 3)
    assert source.draw(3, 1, 3)[:, 0, 0].tolist() == [1, 2, 3]
