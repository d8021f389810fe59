"""The notebooks are nine, whole, light, and what their sources print."""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FASTEST = ("07", "09")  # seconds each; the others compile for longer, and are slow tests
HEAVIEST = 300_000  # bytes of one notebook, or of what ships beside it
LONGEST = 6  # lines of a function: a longer one belongs in the library
ELSEWHERE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|opt|private)/|[A-Z]:\\\\")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed_by(notebook):
    """The outputs cell by cell: their kinds, and their words without numbers."""
    return [
        [
            (output.output_type, re.sub(r"[-+]?\b(\d[\d.,e+-]*|inf|nan)|\s+|—", " ", words).split())
            for output in cell.outputs
            for words in [output.get("text") or " ".join(sorted(output.get("data", ())))]
        ]
        for cell in code_of(notebook)
    ]


def test_there_are_nine_and_the_readme_has_a_line_for_each():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [path.name[:3] for path in PATHS] == [f"{k:02}-" for k in range(1, 10)]
    for path in PATHS:
        title = nbformat.read(path, 4).cells[0].source.splitlines()[0].partition("· ")[2]
        assert f"[{title}](notebooks/{path.name})" in readme


def test_what_ships_is_light():
    files = [path for path in (ROOT / "notebooks").iterdir() if path.is_file()]
    assert not [path.name for path in files if path.stat().st_size > HEAVIEST]


def test_it_is_executed_from_top_to_bottom_without_an_error_or_a_warning(notebook):
    nbformat.validate(notebook)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum(map(bool, (cell.outputs for cell in cells))) >= len(cells) - 1


def test_it_has_plain_outputs_and_nothing_of_the_machine_that_made_it(notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}
    for cell in notebook.cells:
        drawn = any("image/png" in output.get("data", ()) for output in cell.get("outputs", ()))
        said = cell.metadata.pop("mystnb", {}).get("image", {}).get("alt", "")
        assert drawn == (len(said) > 20) and not cell.metadata  # every picture has its words
    for cell in code_of(notebook):
        for output in cell.outputs:
            assert set(output.get("data", ())) <= {"image/png", "text/html", "text/plain"}
            assert not ELSEWHERE.search(output.get("text", "") + str(output.get("data", "")))
        assert not ELSEWHERE.search(cell.source)


def test_it_says_first_what_will_be_seen_and_last_an_exercise_with_its_answer(notebook):
    first = notebook.cells[0].source
    assert re.match(r"# \d · ", first) and "You will " in first
    headings = [
        (k, heading)
        for k, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown"
        for heading in re.findall(r"^## (.*)$", cell.source, re.MULTILINE)
    ]
    k, last = headings[-1]
    assert last == "Exercise"
    exercise = notebook.cells[k].source.partition("## Exercise")[2]
    assert "?" in exercise.partition("*Answer.*")[0] and "*Answer.*" in exercise
    assert any(cell.cell_type == "code" for cell in notebook.cells[k:])


def test_it_defines_nothing_that_belongs_in_the_library(notebook):
    for cell in code_of(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < LONGEST, node.name


def test_its_links_resolve(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!http)([^)#\s]+)", cell.source):
                assert (ROOT / "notebooks" / target).exists(), target
            for target in re.findall(r"`(docs/[^`]+)`", cell.source):
                assert (ROOT / target).exists(), target


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path, id=path.stem, marks=() if path.name.startswith(FASTEST) else pytest.mark.slow
        )
        for path in PATHS
    ],
)
def test_its_outputs_are_those_of_its_code(path):
    spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert printed_by(script.execute(path)) == printed_by(nbformat.read(path, 4))
