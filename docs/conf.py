"""How Sphinx builds the site: its source is the whole repository, so links are those of GitHub."""

import ast
import inspect
import json
import re
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path

from docutils.nodes import SkipNode, image, paragraph
from docutils.utils.math.latex2mathml import tex2mathml

import homojax

project = "homojax"
author = "The homojax authors"
copyright = "2026, the homojax authors"
release = version = homojax.__version__

root_doc = "docs/index"
include_patterns = [
    *("docs/**.md", "notebooks/*.ipynb", "experiments/README.md"),
    *("CONTRIBUTING.md", "CHANGELOG.md"),
]
exclude_patterns = [
    *(".*", "homojax", "tests", "runs", "dist", "docs/_build", "experiments/benchmarks"),
]
extensions = [
    *("myst_nb", "sphinx_copybutton", "sphinx_design"),
    *("sphinx.ext.autodoc", "sphinx.ext.napoleon"),
]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks commit what they print; `make notebooks` executes them
nb_merge_streams = True

autodoc_typehints = "none"  # shapes are in the docstrings
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"homojax {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["site"]  # index.html, which opens the first page
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # browsers let no page that is opened from disk read another
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0072b2"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}


def _formula(as_block):
    """Return what writes a formula as MathML, which browsers draw by themselves."""

    def write(writer, node):
        writer.body.append(tex2mathml(node.astext(), as_block))
        raise SkipNode

    return write, None


def _escape_bars(app, what, name, obj, options, lines):
    """Keep |x| as it is: reStructuredText would look for a replacement of that name."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[number] = "".join(parts)


def _describe_fields(app, what, name, obj, options, lines):
    """List fields, or the values of an enum: what stands behind or below each in the source."""
    values = what == "class" and issubclass(obj, Enum)
    if what != "class" or not (values or hasattr(obj, "_fields") or is_dataclass(obj)):
        return
    source = inspect.getsource(obj)
    body, rows = ast.parse(source).body[0].body, source.splitlines()
    described = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign if values else ast.AnnAssign):
            text = rows[node.end_lineno - 1].partition("# ")[2]
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = " ".join(after.value.value.split())
            described[ast.unparse(node).split(":")[0]] = text
    lines += ["", f".. rubric:: {'Values' if values else 'Fields'}", ""]
    lines += [
        f"- **{field}**" + (f" – {text}" if text else "") for field, text in described.items()
    ]
    lines += [""]


def _skip_fields(app, what, name, obj, skip, options):
    """Leave out what is no method or property: the fields, which have a list of their own."""
    method = callable(obj) or isinstance(obj, (property, classmethod, staticmethod))
    return skip or (what == "class" and not method)


def _say_what_drew(app, doctree):
    """Put below each figure of figures.json when it was drawn, and the code that it holds for."""
    file = Path(app.srcdir) / "experiments" / "figures.json"
    figures = json.loads(file.read_text("utf-8"))
    for picture in list(doctree.findall(image)):
        about = figures.get(Path(picture["uri"]).name)
        if about:
            said = "homojax {version}, drawn at commit {drawn}, recorded for code {hash}"
            text = said.format(**about)
            caption = paragraph(text, text, classes=["drawn-by"])
            picture.parent.parent.insert(picture.parent.parent.index(picture.parent) + 1, caption)


def setup(app):
    """Add what only this site needs."""
    app.add_html_math_renderer("mathml", _formula(False), _formula(True))
    app.connect("autodoc-process-docstring", _describe_fields, priority=400)
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("doctree-read", _say_what_drew)
