"""Saved cases come back as they were, and no file that is none is taken for one."""

import numpy as np
import pytest

import oracles
from homojax.lab.cases import Case, load_case, save_case, up_to_comparison
from homojax.lab.inputs import InputError

MATRIX = oracles.isolated(4, 0.5)
CASE = Case(
    claim="normalised_entropy",
    scope="matrix",
    family="isolated-unit",
    arrays={"logits": np.log(np.maximum(MATRIX, 1e-9)), "epsilon": np.ones(()), "matrix": MATRIX},
    about={"seed": 3, "versions": {"homojax": "0.0.7"}},
)
STACK = Case(
    claim="product",
    scope="stack",
    family="probe",
    arrays={"matrices": np.array([MATRIX] * 12), "alpha": np.ones(()), "probe": np.ones(4)},
    about={},
)


@pytest.mark.parametrize("case", [CASE, STACK], ids=lambda case: case.scope)
def test_a_case_comes_back_as_it_was(case, tmp_path):
    save_case(case, tmp_path / "new folder" / "case.npz")
    loaded = load_case(tmp_path / "new folder" / "case.npz")
    assert loaded[:3] == case[:3] and case.about.items() <= loaded.about.items()
    for name, array in case.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)


def with_arrays(**arrays):
    return CASE._replace(arrays={**CASE.arrays, **arrays})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (CASE._replace(about={**CASE.about, "format": 0}), "by homojax 0.0.7 in another format"),
        (CASE._replace(claim="hilbrt"), 'did you mean "hilbert"'),
        (CASE._replace(scope="stack"), "has a case of scope stack"),
        (CASE._replace(arrays={"epsilon": np.ones(())}), "lacks logits"),
        (with_arrays(logits=np.ones((3, 4))), "do not fit each other"),
        (with_arrays(matrix=np.eye(3)), "do not fit each other"),
        (with_arrays(logits=np.array([["a"]])), r"must be numbers of shape \[n, n\]"),
    ],
)
def test_a_case_of_another_version_or_with_damaged_arrays_is_refused(case, message, tmp_path):
    save_case(case, tmp_path / "case.npz")
    with pytest.raises(InputError, match=message):
        load_case(tmp_path / "case.npz")


def test_a_file_that_is_missing_cut_short_or_foreign_is_refused(tmp_path):
    save_case(CASE, tmp_path / "case.npz")
    whole = (tmp_path / "case.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "foreign.npz", logits=np.eye(3))
    for name, message in [
        ("none", "there is no file"),
        ("cut", "is not a case"),
        ("foreign", "is not a case"),
    ]:
        with pytest.raises(InputError, match=message):
            load_case(tmp_path / f"{name}.npz")


def test_a_stack_is_cut_to_the_layers_that_a_comparison_is_about():
    """12 layers are asked about after 1, 2, 4, 8 and 12 of them."""
    assert len(up_to_comparison(STACK, (5,), 2).arrays["matrices"]) == 4
    assert len(up_to_comparison(STACK, (5, 3), 14).arrays["matrices"]) == 12
    assert up_to_comparison(STACK, (), 0) is STACK and up_to_comparison(CASE, (5,), 2) is CASE


def test_a_case_is_read_from_a_path_in_words_and_nothing_else(tmp_path):
    with pytest.raises(InputError, match=f"there is no file {tmp_path}/none.npz"):
        load_case(f"{tmp_path}/none.npz")
    with pytest.raises(InputError, match="expected a path or a URL, got 3"):
        load_case(3)
