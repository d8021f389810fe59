"""What the documents say runs: docstrings, README, CONTRIBUTING and the notebook."""

import inspect
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import homojax
from homojax import claims

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def python_blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("name", [name for name in homojax.__all__ if inspect.isfunction(getattr(homojax, name))])
def test_every_public_function_has_an_example_that_pytest_runs(name):
    doc = inspect.getdoc(getattr(homojax, name))
    assert doc and ">>> " in doc


@pytest.mark.parametrize("index", range(len(python_blocks("README.md"))))
def test_the_readme_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(python_blocks("README.md")[index], "README.md", "exec"), names)
    assert 0 < names["sigma2"] < 1 if "sigma2" in names else names["ds"].sizes["epsilon"] == 3


def test_the_readme_pictures_and_links_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\((?!http)([^)]+)\)", text)
    assert len(targets) >= 4 and all((ROOT / target).exists() for target in targets)


def test_the_worked_example_of_a_claim_holds_and_is_attained(monkeypatch):
    import jax
    import jax.numpy as jnp

    monkeypatch.setattr(claims, "MATRIX_LAWS", dict(claims.MATRIX_LAWS))
    (block,) = python_blocks("CONTRIBUTING.md")
    exec(compile(block, "CONTRIBUTING.md", "exec"), vars(claims))
    _, compare = claims.MATRIX_LAWS["trace"]

    def judge(logits):
        return claims.verdict(compare(claims.matrix_case(logits, 0.5, homojax.sinkhorn(logits, 0.5).matrix)))

    verdicts = jax.vmap(judge)(jax.random.normal(jax.random.key(0), (64, 5, 5)))
    assert (verdicts == claims.HOLDS).all()
    lazy = 0.3 * jnp.eye(5) + 0.7 * homojax.uniform(5)
    attained = compare(claims.matrix_case(jnp.log(lazy), 1.0, lazy))
    assert abs(attained.lesser - attained.greater) < 1e-12 and claims.verdict(attained) == claims.UNDECIDABLE
    monkeypatch.delattr(claims, "_trace")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_notebook_runs_and_its_outputs_are_committed(path):
    committed = nbformat.read(path, 4)
    outputs = [[output.output_type for output in cell.outputs] for cell in committed.cells if cell.cell_type == "code"]
    assert sum(map(bool, outputs)) >= len(outputs) - 1  # all but the imports show something
    assert not any(kind == "error" for kinds in outputs for kind in kinds)
    executed = nbformat.read(path, 4)
    NotebookClient(executed, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}).execute()
    assert [cell.source for cell in executed.cells] == [cell.source for cell in committed.cells]
