"""What a person sees of a run, once for every verb: tables in the terminal, one HTML page, PNGs."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from homojax.lab.figure_style import STYLE
from homojax.lab.inputs import as_started


class Table(NamedTuple):
    """A table, for the terminal, a page or a document."""

    caption: str  # above it on a page, below it in the terminal
    header: list[str]
    rows: list[list[str]]
    wrong: Sequence[bool] = ()  # rows to mark; none where it is empty


class Picture(NamedTuple):
    """A figure that is drawn."""

    file: str  # its path within the run's folder
    caption: str
    png: bytes


class Chart(NamedTuple):
    """A figure that the browser draws: one can hover over it, zoom, and choose what it shows."""

    caption: str
    choices: Mapping[str, list[dict[str, Any]]]  # what may be shown -> Plotly's traces
    layout: dict[str, Any]  # Plotly's
    choice: str = ""  # the label of the choices


INK = "ink"  # the colour of a trace that is black on white, and white on black


class Section(NamedTuple):
    """One part of a page. Fields are given by keyword."""

    heading: str
    text: str  # what was found, in a few sentences
    source: str = ""  # what it was found on
    as_expected: bool = True  # False: the text is shown as a warning
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[str] = ()  # to run next, such as a replay
    about: Mapping[str, Any] = MappingProxyType({})  # all that is needed to run it again


# ---------------------------------------------------------------- pictures


def draw(file: str, caption: str, make: Callable[..., Figure], *args: Any) -> Picture:
    """Return the picture that ``make(*args)`` draws, in the house's style."""
    png = io.BytesIO()
    try:
        with plt.rc_context(rc=STYLE), plt.ioff():
            make(*args).savefig(png, format="png")
    finally:
        plt.close("all")
    return Picture(file, caption, png.getvalue())


def draw_all(wanted: list[tuple]) -> list[Picture]:
    """Return the pictures of ``draw``'s arguments; one that fails is left out with a warning."""
    pictures = []
    for arguments in wanted:
        try:
            pictures.append(draw(*arguments))
        except Exception as error:  # the data, the tables and the other figures are worth having
            warnings.warn(f"the figure {arguments[0]} could not be drawn: {error}", stacklevel=2)
    return pictures


# ---------------------------------------------------------------- pages


def write_page(
    folder: Path, title: str, sections: list[Section], introduction: str = ""
) -> list[str]:
    """Write ``report.html`` and the sections' pictures into a folder; return these files.

    The page holds everything itself: it opens from disk, with nothing beside it.
    """
    for section in sections:
        for picture in section.pictures:
            (folder / picture.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / picture.file).write_bytes(picture.png)
    plotly = ""
    if any(section.charts for section in sections):
        from plotly.offline import get_plotlyjs

        plotly = get_plotlyjs()
    page = _template().render(
        title=title, introduction=introduction, sections=sections, plotly=plotly
    )
    (folder / "report.html").write_text(page, "utf-8")
    return ["report.html", *(picture.file for one in sections for picture in one.pictures)]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.filters["pretty"] = _pretty
    environment.tests["text_column"] = lambda name: name in TEXT_COLUMNS
    text = resources.files("homojax.lab").joinpath("page.html").read_text("utf-8")
    return environment.from_string(text)


def _pretty(about: Mapping[str, Any]) -> str:
    return json.dumps(dict(about), indent=1, ensure_ascii=False, default=str)


def about(attrs: dict[str, Any], file: str) -> dict[str, Any]:
    """Return what a page says of how to run it again: from a Dataset's attrs, kept in ``file``."""
    plain = {key: attrs[key] for key in ("command", "config_hash", "dtype", "device")}
    return {
        **plain,
        "data": file,
        "versions": json.loads(attrs["versions"]),
        "config": json.loads(attrs["config"]),
    }


# ---------------------------------------------------------------- terminal

SENTENCES = ("reason", "do", "what changes")  # columns that may take several lines
_SENTENCE = 60  # characters of a line of them, in a file
TEXT_COLUMNS = (
    *("law", "claim", "statement", "status", "worst case", "precision", "verdict"),
    *("mutant", "caught in", "logits", "run", "verb", "state"),
    *("name", "preset", "certainty"),
    *SENTENCES,
)


def show(section: Section, console: Console) -> None:
    """Print a section in the terminal: what was found, the tables, and what to run next."""
    console.print()
    if section.source:
        heading = Text(section.heading, style="bold")
        console.print(heading, Text(f"  {section.source}", style="dim"))
    style = "bold" if section.as_expected else "bold red"
    console.print(section.text, style=style, markup=False, highlight=False)
    for table in section.tables:
        print_table(table, console)
    if section.commands:
        console.print("To judge a saved case again:")
    for line in section.commands:
        console.print(as_started(line), markup=False, highlight=False, soft_wrap=True)


def show_place(out: Path, console: Console, *, figures: bool = True) -> None:
    """Print where a run is, and what to open."""
    kept = "Data, figures and report" if figures else "Data and report"
    text = f"\n{kept} are in {out}/; open {out / 'report.html'} in a browser."
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(table: Table, console: Console) -> None:
    """Print a table in the terminal: texts to the left, numbers to the right, wrong rows in red."""
    drawn = RichTable(
        caption=table.caption or None,
        caption_style="dim",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    for column in table.header:
        justify = "left" if column in TEXT_COLUMNS else "right"
        words = column.replace("/", " /").replace(" ", "\n")
        drawn.add_column(
            words,
            justify=justify,
            no_wrap=column not in SENTENCES,
            max_width=_SENTENCE if column in SENTENCES and not console.is_terminal else None,
        )
    for row, wrong in zip(table.rows, table.wrong or [False] * len(table.rows), strict=True):
        drawn.add_row(*(Text(cell) for cell in row), style="bold red" if wrong else None)
    needed = console.measure(drawn, options=console.options.update(width=500)).maximum
    if not console.is_terminal and needed > console.width:  # a file has no edge
        console = Console(file=console.file, width=needed)
    console.print(drawn, crop=False)


def markdown_table(header: list[str], *rows: list[str]) -> str:
    """Return a table in Markdown, for the documents.

    >>> print(markdown_table(["§", "σ₂"], ["1.4", "0.5"]))
    | § | σ₂ |
    |---|---|
    | 1.4 | 0.5 |
    """
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    head, *body = (f"| {' | '.join(row)} |" for row in escaped)
    return "\n".join([head, "|" + "---|" * len(header), *body])
