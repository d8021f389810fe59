"""The site: every public name has its place and an example, every picture its words."""

import importlib
import inspect
import re

import pytest

import homojax
from pages import ROOT, TEXTS


def named(dotted):
    """The object that a directive of a reference page names."""
    place = importlib.import_module("homojax")
    for part in dotted.split(".")[1:]:
        place = getattr(place, part)
    return place


def members(module):
    """What ``automodule`` shows of a module: its ``__all__``, or what it defines without a _."""
    shown = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    things = {f"{module.__name__}.{name}": getattr(module, name) for name in shown}
    return {name: x for name, x in things.items() if inspect.isfunction(x) or inspect.isclass(x)}


def in_the_reference():
    """Dotted name -> object, of everything on the pages of docs/reference."""
    shown = {}
    for page, text in TEXTS.items():
        if page.startswith("docs/reference/"):
            for kind, dotted in re.findall(r"^\.\. auto(\w+):: (\S+)", text, re.MULTILINE):
                one = {dotted: named(dotted)}
                shown |= members(named(dotted)) if kind == "module" else one
    return shown


REFERENCE = in_the_reference()


@pytest.mark.parametrize("name", REFERENCE)
def test_a_public_name_is_documented_with_an_example_that_runs(name):
    document = inspect.getdoc(REFERENCE[name]) or ""
    assert ">>> " in document and "+SKIP" not in document


def test_every_flat_name_is_in_the_reference():
    shown = set(map(id, REFERENCE.values()))
    kept_in_dicts = {"CLAIMS", "PARAMETRIZATIONS", "PRESETS"}  # the tables of docs/ have their rows
    flat = {
        name
        for name in homojax.__all__
        if not inspect.ismodule(getattr(homojax, name)) and name not in kept_in_dicts
    }
    assert len(flat) > 25 and not {n for n in flat if id(getattr(homojax, n)) not in shown}


def test_every_public_room_has_a_page_of_the_reference():
    pages = "".join(text for page, text in TEXTS.items() if page.startswith("docs/reference/"))
    rooms = {n for n in homojax.__all__ if inspect.ismodule(getattr(homojax, n))}
    assert not {room for room in rooms if f"homojax.{room}" not in pages}


@pytest.mark.parametrize("page", TEXTS)
def test_every_picture_has_words_that_say_what_it_shows(page):
    texts = re.findall(r"!\[([^\]]*)\]\(", TEXTS[page])
    assert all(len(text.split()) >= 5 for text in texts)
    assert "<img" not in TEXTS[page] and ":img-" not in TEXTS[page]


def test_the_gallery_has_every_picture():
    pictures = {path.name for path in (ROOT / "docs").glob("*.png")}
    shown = set(re.findall(r"\]\(([\w-]+\.png)\)", TEXTS["docs/gallery.md"]))
    assert shown == pictures


@pytest.mark.parametrize("page", TEXTS)
def test_every_path_of_the_repository_that_a_page_names_exists(page):
    start = r"(?<![\w/.])(?:docs|experiments|notebooks|tests|homojax)"
    paths = set(re.findall(rf"({start}/[\w./-]*\w)", TEXTS[page]))
    paths -= {"docs/_build/html"}  # made by ``make docs``
    assert not {path for path in paths if not (ROOT / path).exists()}
