"""What the documents say runs: docstrings, README, CONTRIBUTING and the notebook."""

import importlib.util
import inspect
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import homojax
from homojax.theory import claim as claims
from homojax.theory import matrix as theory

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def python_blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "name", [name for name in homojax.__all__ if inspect.isfunction(getattr(homojax, name))]
)
def test_every_public_function_has_an_example_that_pytest_runs(name):
    doc = inspect.getdoc(getattr(homojax, name))
    assert doc and ">>> " in doc and "+SKIP" not in doc


@pytest.mark.parametrize("index", range(len(python_blocks("README.md"))))
def test_the_readme_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(python_blocks("README.md")[index], "README.md", "exec"), names)
    assert 0 < names["sigma2"] < 1 if "sigma2" in names else names["ds"].sizes["epsilon"] == 3


def test_the_example_of_a_networks_matrices_and_energies_runs_and_has_the_shapes_that_it_says():
    names = {}
    (block,) = python_blocks("docs/networks.md")
    exec(compile(block, "docs/networks.md", "exec"), names)
    for name, told in re.findall(r"^trace\.(\w+)\.shape  # (\(.*?\))", block, re.M):
        assert str(getattr(names["trace"], name).shape) == told
    assert bool(names["trace"].finite.all()) and names["logits"].shape == (8, 8)


def test_the_readme_counts_the_parametrizations_right():
    words = {15: "fifteen", 16: "sixteen", 17: "seventeen"}
    assert f"parameters to matrices in {words[len(homojax.PARAMETRIZATIONS)]} ways" in (
        ROOT / "README.md"
    ).read_text("utf-8")


def test_the_readme_pictures_and_links_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\((?!http)([^)]+)\)", text)
    assert len(targets) >= 4 and all((ROOT / target).exists() for target in targets)


def test_the_document_of_claims_has_them_all():
    spec = importlib.util.spec_from_file_location(
        "claims_table", ROOT / "experiments" / "claims.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.table() in (ROOT / "docs" / "claims.md").read_text("utf-8")
    assert script.table().count("\n") == 1 + len(homojax.CLAIMS)


def test_every_law_that_is_cited_is_in_the_document_of_laws_and_what_that_names_in_the_code_is_there():
    laws = (ROOT / "docs" / "theory.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "homojax").rglob("*.py"))
    cited = set(re.findall(r"theory\.md (§?\d(?:\.\d)?)", sources)) | {
        claim.number for claim in homojax.CLAIMS.values()
    }
    listed = set(re.findall(r"^- \*\*(\d\.\d)\b", laws, re.M)) | set(
        re.findall(r"^## (§\d) ", laws, re.M)
    )
    assert len(listed) > 30 and cited - {"2"} <= listed
    assert set(re.findall(r"theory\.md §2 (?!compare)([a-z]+)", sources)) <= set(
        re.findall(r"^\| ([a-z]+)", laws, re.M)
    )
    parameters = {"n", "logits", "epsilon", "matrix"}
    assert set(re.findall(r"`([A-Za-z_0-9]+)(?:\(n\))?`", laws)) - parameters <= set(
        homojax.__all__
    )


def test_the_worked_example_of_a_claim_holds_is_attained_and_its_mutants_are_caught():
    import jax
    import jax.numpy as jnp

    names = dict(vars(theory))
    (block,) = python_blocks("CONTRIBUTING.md")
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    trace = names["TRACE"]

    @jax.jit
    @jax.vmap
    def verdicts(logits, matrix):
        case = homojax.matrix_case(logits, 0.5, matrix)
        return trace.judge(case)[1], [mutant.judge(case)[1] for mutant in claims.mutants_of(trace)]

    logits = jax.random.normal(jax.random.key(0), (64, 5, 5))
    assert (
        verdicts(logits, jax.vmap(homojax.sinkhorn, (0, None))(logits, 0.5).matrix)[0]
        == claims.HOLDS
    ).all()
    lazy = 0.3 * jnp.eye(5) + 0.7 * homojax.uniform(5)
    attained, mutants = verdicts(jnp.log(lazy)[None], lazy[None])
    assert (
        attained == claims.UNDECIDABLE
        and len(mutants) == 3
        and sum(m == claims.VIOLATED for m in mutants) == 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_notebook_runs_and_its_outputs_are_committed(path):
    committed = nbformat.read(path, 4)
    outputs = [
        [output.output_type for output in cell.outputs]
        for cell in committed.cells
        if cell.cell_type == "code"
    ]
    assert sum(map(bool, outputs)) >= len(outputs) - 1  # all but the imports show something
    assert not any(kind == "error" for kinds in outputs for kind in kinds)
    executed = nbformat.read(path, 4)
    NotebookClient(
        executed, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    assert [cell.source for cell in executed.cells] == [cell.source for cell in committed.cells]
