"""What the documents say is so: examples, commands, links, names, laws and counts."""

import contextlib
import importlib.util
import inspect
import io
import json
import re
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import homojax
import oracles
from homojax.lab import cli
from homojax.theory.claim import Verdict, mutants_of
from pages import PAGES, ROOT, TEXTS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def printed_by(code, name):
    names, output = {}, io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, name, "exec"), names)
    return output.getvalue(), names


# ---------------------------------------------------------------- examples


def test_every_public_function_has_an_example_that_pytest_runs():
    functions = [name for name in homojax.__all__ if inspect.isfunction(getattr(homojax, name))]
    docs = {name: inspect.getdoc(getattr(homojax, name)) or "" for name in functions}
    assert len(docs) > 20
    assert not [name for name, doc in docs.items() if ">>> " not in doc or "+SKIP" in doc]


def test_the_readme_prints_what_it_says():
    (code,), (said,) = (blocks(TEXTS["README.md"], language) for language in ("python", "text"))
    assert printed_by(code, "README.md")[0] == said
    assert len([line for line in code.splitlines() if line]) == 10


EXAMPLES = {
    f"{page}-{number}": example
    for page, text in TEXTS.items()
    if page.startswith("docs/") and page not in ("docs/networks.md", "docs/tutorial.md")
    for number, example in enumerate(
        re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)
    )
}


WHOLE_RUNS = (  # README's sweep is fast
    *("docs/sweep.md-0", "docs/sweep.md-1", "docs/probe.md-0"),
    *("docs/add-a-claim.md-0", "docs/add-a-claim.md-1"),
)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param(*example, id=name, marks=pytest.mark.slow if name in WHOLE_RUNS else ())
        for name, example in EXAMPLES.items()
    ],
)
def test_the_examples_of_the_pages_run(code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = set(homojax.PARAMETRIZATIONS)
    output, _ = printed_by(code, "docs")
    assert ("print(" in code) == bool(output) and "nan" not in output.lower()
    assert not said or output == said
    for name in set(homojax.PARAMETRIZATIONS) - known:
        del homojax.PARAMETRIZATIONS[name]


@pytest.mark.slow
def test_the_tutorial_prints_what_it_says_from_its_first_block_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, names = TEXTS["docs/tutorial.md"], {}
    steps = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(steps) == text.count("```python") > 5
    for code, said in steps:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, "tutorial", "exec"), names)
        assert output.getvalue() == said


@pytest.mark.slow
def test_the_example_of_a_network_has_the_shapes_that_it_says():
    (code,) = blocks(TEXTS["docs/networks.md"], "python")
    _, names = printed_by(code, "docs/networks.md")
    shapes = re.findall(r"^trace\.(\w+)\.shape  # (\(.*?\))", code, re.MULTILINE)
    assert {name for name, _ in shapes} == {"matrices", "energy"}
    for name, said in shapes:
        assert str(getattr(names["trace"], name).shape) == said
    assert bool(names["trace"].finite.all()) and names["logits"].shape == (8, 8)


def test_the_worked_claim_holds_is_attained_and_its_mutants_are_caught():
    import jax

    known = set(homojax.CLAIMS)
    code = blocks(TEXTS["CONTRIBUTING.md"], "python")[0]
    exec(compile(code, "CONTRIBUTING.md", "exec"), dict(vars(homojax.theory.matrix)))
    (name,) = set(homojax.CLAIMS) - known
    trace = homojax.CLAIMS.pop(name)

    @jax.jit
    @jax.vmap
    def verdicts(logits, matrix):
        case = homojax.theory.cases.matrix.matrix_case(logits, 0.5, matrix)
        return trace.judge(case)[1], [mutant.judge(case)[1] for mutant in mutants_of(trace)]

    logits = np.random.default_rng(0).normal(size=(64, 5, 5))
    projected = np.array([oracles.alternate(s, 0.5, 2000) for s in logits])
    lazy = 0.3 * np.eye(5) + 0.7 / 5
    of_all, of_mutants = verdicts(
        np.concatenate([logits, np.log(lazy)[None]]), np.concatenate([projected, lazy[None]])
    )
    assert (of_all[:-1] == Verdict.HOLDS).all() and of_all[-1] == Verdict.UNDECIDABLE
    assert len(of_mutants) == 3 and sum(m[-1] == Verdict.VIOLATED for m in of_mutants) == 2


# ---------------------------------------------------------------- the readme


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].split()) <= 1100


def test_the_commands_of_the_readme_can_be_pasted_in_order_and_again():
    """Where no folder is named, each run has one of its own (tests/lab/test_runs.py)."""
    commands = [c for c in commands_of(TEXTS["README.md"]) if c[0].endswith("homojax")]
    assert [c[1] for c in commands] == ["sweep", "verify", "probe", "train", "audit"]
    assert not any("--out" in command for command in commands)


def test_counts_are_those_of_the_code():
    claims, families = len(homojax.CLAIMS), len(homojax.lab.verify.families.FAMILIES)
    words = {11: "eleven", 15: "fifteen", 16: "sixteen", 17: "seventeen"}
    assert f"{claims} claims" in TEXTS["README.md"] and f"{claims} claims" in TEXTS["docs/index.md"]
    assert f"{claims} claims, {families} families" in TEXTS["docs/verify.md"]
    assert f"{families} families" in TEXTS["CHANGELOG.md"]
    maps, recipes = words[len(homojax.PARAMETRIZATIONS)], words[len(homojax.PRESETS)]
    assert f"in {maps} ways; {recipes} public mHC recipes" in TEXTS["docs/library.md"]
    assert f"{maps} maps" in TEXTS["CHANGELOG.md"] and f"{recipes} public" in TEXTS["CHANGELOG.md"]


# ---------------------------------------------------------------- commands


def commands_of(text):
    """The commands of a page's shell blocks, as lists of words, without comments."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


COMMANDS = {
    f"{page}: {' '.join(words)}": words
    for page, text in TEXTS.items()
    for words in commands_of(text)
}


def arguments_of(program):
    return {
        name: words[number + 1 :]
        for name, words in COMMANDS.items()
        for number, word in enumerate(words)
        if word == f".venv/bin/{program}"
    }


@pytest.mark.parametrize(
    "args", arguments_of("homojax").values(), ids=[name[:70] for name in arguments_of("homojax")]
)
def test_every_command_is_one_that_homojax_takes(args, monkeypatch):
    parsed = []
    stub = SimpleNamespace(run_command=lambda command, console: parsed.append(command) or True)
    monkeypatch.setitem(sys.modules, f"homojax.lab.{args[0]}.report", stub)
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    assert end.value.code == 0 and len(parsed) == 1


def test_every_script_that_a_command_names_exists():
    scripts = [args[0] for args in arguments_of("python").values()]
    assert len(scripts) > 5 and all((ROOT / script).exists() for script in scripts)


# ---------------------------------------------------------------- links and names


def anchors_of(text):
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_pictures_resolve(page):
    prose = re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)\s]+)\)", prose):
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors_of(path.read_text("utf-8")), target


def sources_of_notebook(path):
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_every_name_of_the_library_exists(path):
    text = sources_of_notebook(path) if path in NOTEBOOKS else path.read_text("utf-8")
    missing = []
    for dotted in sorted(set(re.findall(r"\bhj\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", text))):
        place = homojax
        for part in dotted.split("."):
            place = getattr(place, part, None)
        if place is None:
            missing.append(dotted)
    assert not missing


# ---------------------------------------------------------------- laws


def headings_of_laws():
    """Number -> names, from the headings of theory.md and the table of its §2."""
    text = TEXTS["docs/theory.md"]
    names = {
        number: {title.lower().removesuffix(": false")}
        for number, title in re.findall(r"^### (\d\.\d+) (.*)$", text, re.MULTILINE)
    }
    section = text.partition("## §2")[2].partition("### ")[0]
    return names | {"2": set(re.findall(r"^\| ([a-z]+)", section, re.MULTILINE)) - {"law"}}


def test_every_law_that_is_cited_is_in_the_document_under_that_number():
    laws = headings_of_laws()
    assert len(laws) == 43 and len(laws["2"]) == 7
    names = {number: set(titles) for number, titles in laws.items()}
    for claim in homojax.CLAIMS.values():
        assert claim.number in laws, claim.name
        names[claim.number] |= {claim.name, claim.name.replace("_", " ")}
    sections = {f"§{number}" for number in range(10)}
    known = set().union(*names.values())
    files = [*(ROOT / "homojax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py"), *PAGES]
    for path in files:
        text = " ".join(path.read_text("utf-8").split())
        for cited in re.findall(r"(?:theory\.md|\blaws?) (§?\d(?:\.\d+)?)\b", text):
            assert cited in laws or cited in sections, (path.name, cited)
        named = re.findall(r"\blaws? (\d(?:\.\d+)?)(?:, | \()([a-zA-Z][\w -]*?)[),;.:]", text)
        named += re.findall(r"\((\d\.\d+), ([a-zA-Z][\w -]*?)\)", text)
        for number, name in named:
            name = name.lower()
            assert name not in known or name in names[number], (path.name, number, name)


def test_the_document_of_claims_has_all_claims_and_families():
    spec = importlib.util.spec_from_file_location(
        "claims_table", ROOT / "experiments" / "claims.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.table() in TEXTS["docs/claims.md"]
    assert script.table().count("\n") == 1 + len(homojax.CLAIMS)
    assert script.families_table() in TEXTS["docs/claims.md"]
