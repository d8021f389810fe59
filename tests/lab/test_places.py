"""What is given as a store is a place for one, or refused in one sentence."""

from pathlib import Path

import pytest

import homojax as hj
from homojax.lab.inputs import InputError
from homojax.lab.places import place_of

NO_STORES = {
    3: "expected a path or a URL, got 3",
    b"x": "expected a path or a URL, got b'x'",
    " ": "expected a path or a URL, got ' '",
    "nul\0": "expected a path or a URL",
    "/proc/x": "cannot make /proc/x: No such file or directory; choose another place",
    "/dev/null/x": "cannot make /dev/null/x: ",
    "a" * 300: "cannot make a{300}: File name too long",
    "~nobody-here/x": "~nobody-here/x: there is no user of that name",
    Path("s3://bucket/x"): "s3:/bucket/x looks like a URL: write s3://",
}
FORMS = {
    "sweep": lambda place: hj.sweep(store=place, epsilon=1.0, depth=1, n=4, seeds=1),
    "verify": lambda place: hj.verify(store=place, claims="doeblin", families="uniform", n=2),
    "train": lambda place: hj.train(folder=place, depths=2),
}


@pytest.mark.parametrize("verb", FORMS)
@pytest.mark.parametrize("place", NO_STORES)
def test_what_can_be_no_store_is_told_in_one_sentence(place, verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=NO_STORES[place]):
        FORMS[verb](place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("sweep", "cannot use foo://bar as a store: Protocol not known: foo"),
        ("verify", "foo://bar is a URL: only a sweep has its store elsewhere; give a path"),
        ("train", "foo://bar is a URL: only a sweep has its store elsewhere; give a path"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_in_one_sentence(verb, message):
    with pytest.raises(InputError, match=message):
        FORMS[verb]("foo://bar")


def test_a_path_is_what_people_write(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_of("~/a.zarr") == tmp_path / "a.zarr" == place_of(tmp_path / "a.zarr")
    assert place_of("file:///data/a.zarr") == Path("/data/a.zarr")
    assert place_of("memory://a") == "memory://a" and place_of(None) is None
