"""Which figures of docs/ are older than the code that draws them.

    python experiments/manifest.py
    python experiments/manifest.py --record [FIGURE …]

figures.json has, for each figure, the files that draw it, a hash of their code and the version of
homojax. Comments, docstrings and blank lines are not code. Whoever changes the code draws the
figure again, or makes sure that it still says what is true, and then records the hash.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import tokenize
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
FIGURES = Path(__file__).with_name("figures.json")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def code_of(source: str) -> str:
    """Return the code of a Python file: no comments, docstrings or blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            document = node.body[0]
            for row in range(document.lineno, (document.end_lineno or document.lineno) + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def hash_of(files: list[str]) -> str:
    """Return the hash of what these files, named from the repository's root, do."""
    texts = ((ROOT / file).read_text("utf-8") for file in files)
    codes = [
        code_of(text) if file.endswith(".py") else text
        for file, text in zip(files, texts, strict=True)
    ]
    return hashlib.sha256("\n\n".join(codes).encode()).hexdigest()[:12]


def outdated(figures: dict[str, dict]) -> list[str]:
    """Return the names of the figures whose code is not the recorded one."""
    return [name for name, about in figures.items() if hash_of(about["code"]) != about["hash"]]


def main() -> None:
    """Print which figures are older than their code, or record that they are not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", nargs="*", metavar="FIGURE", help="up to date; none: all")
    figures = json.loads(FIGURES.read_text("utf-8"))
    asked = parser.parse_args().record
    asked = list(figures) if asked == [] else asked or []
    unknown = [name for name in asked if name not in figures]
    if unknown:
        parser.error(f"figures.json has no {unknown[0]}; it has {', '.join(figures)}")
    for name in asked:
        about = figures[name]
        about |= {"hash": hash_of(about["code"]), "version": version("homojax")}
    if asked:
        FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for name in outdated(figures):
        print(f"docs/{name} is older than {' or '.join(figures[name]['code'])}")


if __name__ == "__main__":
    main()
