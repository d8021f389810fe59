"""The rules of the house, read from the source: who imports whom, and what the face shows."""

import ast
import pydoc
import statistics
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import homojax

ROOT = Path(homojax.__file__).parent
STANDARD = {
    *("__future__", "collections", "contextlib", "dataclasses", "difflib", "enum", "functools"),
    *("inspect", "math", "operator", "typing"),
}
MAY_IMPORT = {  # floor -> packages, beside homojax
    "below": STANDARD | {"jax", "chex", "lazy_loader"},
    "networks": STANDARD | {"jax", "chex", "flax", "optax", "lazy_loader"},
}
VERBS = {"sweep", "verify", "probe", "train", "audit"}
LONGEST_FILE, LONGEST_FUNCTION = 400, 70
DYNAMIC_CALLS = ("__import__", "import_module")
FACES = {"homojax", "homojax.__main__"}  # the public names and the command


def name_of(path):
    parts = ["homojax", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def floor_of(name):
    room = name.split(".")[1] if "." in name else ""
    return room if room in ("lab", "networks") else "below"


def imports_of(tree):
    """Names that are imported; ``from package import name`` gives package.name.

    A relative import gives a name that starts with a dot.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in DYNAMIC_CALLS:
            yield "a dynamic import"


def module_of(name):
    """The module of homojax that an imported name is, or is in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def is_allowed(name, floor):
    if floor == "lab":
        return name != "a dynamic import" and module_of(name) != "homojax.lab.cli"
    if name.split(".")[0] == "homojax":
        room = floor_of(module_of(name))
        return module_of(name) != "homojax" and room in {"below", floor}
    return name.split(".")[0] in MAY_IMPORT[floor]


DYNAMIC = {"homojax.lab.cli", "homojax.lab.accessor"}  # tables of rooms that load what is asked for


@pytest.mark.parametrize("name", sorted(set(MODULES) - FACES - DYNAMIC))
def test_a_module_imports_only_what_its_floor_may(name):
    wrong = [used for used in imports_of(TREES[name]) if not is_allowed(used, floor_of(name))]
    assert not wrong


def test_the_rule_sees_what_breaks_it():
    source = (
        "import os, jax.numpy\nfrom homojax.lab import runs\nfrom numpy import eye\n"
        "from . import birkhoff\n__import__('numpy')\nfrom homojax import lab, bounds"
    )
    broken = [name for name in imports_of(ast.parse(source)) if not is_allowed(name, "below")]
    expected = ["os", "homojax.lab.runs", "numpy.eye", "..birkhoff", "homojax.lab"]
    assert set(broken) == {*expected, "a dynamic import"}


def test_a_verb_imports_no_other_verb():
    for name, tree in TREES.items():
        parts = name.split(".")
        if parts[:2] != ["homojax", "lab"] or len(parts) < 3 or parts[2] not in VERBS:
            continue
        used = {
            module_of(used).split(".")[2]
            for used in imports_of(tree)
            if used.count(".") > 2 and module_of(used).startswith("homojax.lab.")
        }
        assert not used & (VERBS - {parts[2]}), name


def room_of(name):
    """The folder of homojax that a module is in, or the module itself; a verb's folder in lab."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[1:2] == ["lab"] else parts[:2])


def graph_of(rooms):
    """Module -> modules that it imports; folders as one where ``rooms``."""
    graph = {}
    for name in set(TREES) - FACES - DYNAMIC:
        used = {module_of(used) for used in imports_of(TREES[name]) if used.startswith("homojax")}
        used = {room_of(other) for other in used} if rooms else used
        place = room_of(name) if rooms else name
        graph.setdefault(place, set()).update(used - FACES - DYNAMIC - {place})
    return graph


@pytest.mark.parametrize("rooms", [False, True], ids=["modules", "folders"])
def test_nothing_imports_itself_by_a_detour(rooms):
    assert list(TopologicalSorter(graph_of(rooms)).static_order())  # raises CycleError


def test_only_the_main_module_imports_the_command_line():
    folders = (ROOT, ROOT.parent / "experiments")
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    importers = [
        path
        for path in sources
        if any(n.startswith("homojax.lab.cli") for n in imports_of(ast.parse(path.read_text())))
    ]
    assert len(sources) > 60 and [path.name for path in importers] == ["__main__.py"]


# ---------------------------------------------------------------- the face


def test_importing_homojax_loads_nothing_and_the_core_no_verb():
    code = (
        "import sys, homojax as hj\nassert 'jax' not in sys.modules\n"
        "hj.sinkhorn, hj.theory.CLAIMS, hj.PRESETS, hj.calibrate_depth\n"
        "heavy = {'flax', 'orbax', 'xarray', 'matplotlib', 'optax', 'zarr'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_verb_is_there_after_an_array_was_shown_at_the_prompt():
    """Python keeps it in ``builtins``, where tyro, which reads flags, hashes all that it finds."""
    code = (
        "import builtins, jax.numpy as jnp, homojax as hj\nbuiltins._ = jnp.eye(2)\n"
        "[getattr(hj, name) for name in hj.__all__]\n"
        "from homojax.lab import sweep, verify, probe, train\n"
        "[getattr(verb, 'config') for verb in (sweep, verify, probe, train)]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dir_help_completion_and_the_table_of_names_agree():
    stub = ast.parse((ROOT / "__init__.pyi").read_text("utf-8"))
    names = [
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    declared = next(node.value for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(names) == sorted(ast.literal_eval(declared)) == sorted(homojax.__all__)
    assert set(names) <= set(dir(homojax)) and len(names) == len(set(names))
    assert all(getattr(homojax, name) is not None for name in names)
    text = pydoc.plain(pydoc.render_doc(homojax))
    assert all(name in text for name in names)


def test_a_name_that_there_is_not_has_a_near_one_named():
    with pytest.raises(AttributeError, match='homojax has no sinkorn: did you mean "sinkhorn"'):
        _ = homojax.sinkorn


def test_flat_names_are_about_forty_and_have_one_spelling():
    modules = {name for name in homojax.__all__ if f"homojax.{name}" in MODULES}
    flat = set(homojax.__all__) - modules
    assert 25 <= len(flat) <= 45
    places = {id(getattr(homojax, name)) for name in flat}
    assert len(places) == len(flat)


def test_every_module_is_reached_by_attributes():
    for name in set(MODULES) - FACES - {"homojax.lab.cli"}:
        place = homojax
        for part in name.split(".")[1:]:
            # in a lazy room, and not only because something has imported it
            assert floor_of(name) == "below" or part in dir(place), name
            place = getattr(place, part)
        assert place is sys.modules[name], name


# ---------------------------------------------------------------- sizes


def test_files_and_functions_are_short():
    lines = {name: path.read_text("utf-8").count("\n") for name, path in MODULES.items()}
    assert not {name for name, count in lines.items() if count > LONGEST_FILE}
    assert statistics.median(count for count in lines.values() if count > 20) <= 150
    functions = [
        node
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    lengths = [lines_of_code(node) for node in functions]
    assert statistics.quantiles(lengths, n=10)[-1] <= 30 and max(lengths) <= LONGEST_FUNCTION


def lines_of_code(node):
    """The lines of a function but its docstring's."""
    documented = len((ast.get_docstring(node, clean=False) or "").split("\n"))
    return node.end_lineno - node.lineno + 1 - documented
