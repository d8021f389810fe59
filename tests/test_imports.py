"""The import rule of the house, read from the source: nothing is imported to check it."""

import ast
from pathlib import Path

import pytest

import homojax

ROOT = Path(homojax.__file__).parent
STANDARD = {"__future__", "collections", "enum", "functools", "math", "typing"}
FACES = {
    "__init__",
    "__main__",
}  # the public names and the command: they sit in the core's folder and are not core
CORE = {path.stem for path in ROOT.glob("*.py")} - FACES | {"theory"}
CORE_FILES = [
    *sorted(path for path in ROOT.glob("*.py") if path.stem in CORE),
    *sorted(ROOT.glob("theory/*.py")),
]
LAYERS = {
    "core": (CORE_FILES, STANDARD | {"jax", "chex"}),
    "networks": (
        sorted(ROOT.glob("networks/**/*.py")),
        STANDARD | {"dataclasses", "jax", "chex", "flax", "optax"},
    ),
}


def imported_modules(tree):
    """Full names; ``from package import name`` gives package.name. A relative import gives a name that starts with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names
            )
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "__import__",
            "import_module",
        ):
            yield "a dynamic import"


def is_allowed(name, packages, own):
    parts = name.split(".")
    if parts[0] == "homojax":
        return len(parts) > 1 and (parts[1] in CORE or parts[1] in own)
    return parts[0] in packages


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        pytest.param(layer, path, id=f"{layer}/{path.name}")
        for layer in LAYERS
        for path in LAYERS[layer][0]
    ],
)
def test_layer_imports_only_what_it_may(layer, path):
    own = {"networks"} if layer == "networks" else set()
    names = list(imported_modules(ast.parse(path.read_text())))
    assert not [name for name in names if not is_allowed(name, LAYERS[layer][1], own)]


def test_only_the_main_module_imports_the_command_line():
    folders = (ROOT, ROOT.parent / "experiments")
    sources = {
        path: list(imported_modules(ast.parse(path.read_text())))
        for folder in folders
        for path in folder.rglob("*.py")
    }
    importers = [
        str(path.relative_to(ROOT.parent))
        for path in sources
        if any(n.startswith("homojax.lab.cli") for n in sources[path])
    ]
    assert len(sources) > 10 and set(importers) <= {"homojax/__main__.py"}


def test_the_face_re_exports_and_does_nothing_else():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    docstring, *statements = tree.body
    assert isinstance(docstring, ast.Expr)
    assert all(
        isinstance(node, ast.ImportFrom) or node.targets[0].id == "__all__" for node in statements
    )
    imported = [
        alias.name
        for node in statements
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(imported) == sorted(homojax.__all__)


def test_the_rule_finds_what_breaks_it():
    source = "import os, jax.numpy\nfrom homojax.lab import sweep\nfrom numpy import eye\nfrom . import birkhoff\n__import__('numpy')"
    broken = [
        name
        for name in imported_modules(ast.parse(source))
        if not is_allowed(name, LAYERS["core"][1], set())
    ]
    assert broken == ["os", "homojax.lab.sweep", "numpy.eye", "..birkhoff", "a dynamic import"]
