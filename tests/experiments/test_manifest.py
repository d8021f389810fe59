"""The manifest has every script and figure, and no figure is older than its code."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "experiments" / "README.md").read_text("utf-8")
FIGURES = json.loads((ROOT / "experiments" / "figures.json").read_text("utf-8"))


def test_no_figure_is_older_than_the_code_that_draws_it(load):
    assert load("manifest").outdated(FIGURES) == []


def test_every_script_and_every_figure_is_in_the_manifest():
    scripts = {path.name for path in (ROOT / "experiments").glob("*.py")}
    assert set(re.findall(r"experiments/(\w+\.py)", TEXT)) == scripts
    pictures = {path.name for path in (ROOT / "docs").glob("*.png")}
    assert set(re.findall(r"\| ([\w-]+\.png) \|", TEXT)) == pictures == set(FIGURES)


def test_prose_is_no_code_and_a_changed_number_is(load):
    code_of = load("manifest").code_of
    source = 'def f(x):\n    """Say it."""\n    return x + 1\n'
    prose = 'def f(x):  # of x\n\n    """Say it\n    otherwise."""\n    return x + 1  # more\n'
    assert code_of(source) == code_of(prose) == "def f(x):\n    return x + 1"
    assert code_of(source) != code_of(source.replace("1", "2"))
