"""Execute notebooks in place, so that they hold nothing but sources and outputs.

python notebooks/execute.py [NOTEBOOK ...]

Without names, all beside this file, two at a time. No times, versions or paths are kept, so a
second run changes only outputs that the code changes. Compiled programs are kept, as commands keep
them.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from homojax.lab.compile_cache import keep_programs

HERE = Path(__file__).parent
QUIET = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures, whatever is set outside
    "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA tells where compiling is slow, which is about the machine
}


def execute(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs that its cells make, from top to bottom."""
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": HERE}},
    ).execute(env={**os.environ, **QUIET})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """Return outputs in which text that was printed in several pieces is one piece."""
    whole: list[Any] = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.get("name") == last.get("name") and "name" in output:
            last["text"] += output["text"]
        else:
            whole.append(output)
    return whole


def renew(path: Path) -> str:
    """Execute a notebook in place; return its name and how long it took."""
    start = time.perf_counter()
    nbformat.write(execute(path), path)
    return f"{path.name:50}{time.perf_counter() - start:6.1f} s"


if __name__ == "__main__":
    keep_programs()
    paths = [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb"))
    with ThreadPoolExecutor(2) as two:
        for line in two.map(renew, paths):
            print(line, flush=True)
