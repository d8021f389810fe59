"""A page opens alone, escapes what it is given, and a table fits where it is printed."""

import io
import json
import re

import matplotlib.pyplot as plt
import pytest
from rich.console import Console

from homojax.lab import page
from homojax.lab.page import Chart, Section, Table

ATTRS = {
    "command": "homojax sweep --n 4",
    "config_hash": "abc",
    "dtype": "float64",
    "device": "cpu",
    "versions": json.dumps({"homojax": "1"}),
    "config": json.dumps({"n": [4]}),
}


def picture(text="a caption"):
    def make():
        fig, ax = plt.subplots()
        ax.plot([0, 1])
        return fig

    return page.draw("figures/one.png", text, make)


def test_a_page_holds_everything_itself_and_escapes_what_it_is_given(tmp_path):
    section = Section(
        heading="a <b>",
        text="1 < 2 & 3",
        source="logits",
        as_expected=False,
        pictures=[picture('"quoted" <x>')],
        tables=[Table("the laws", ["law", "σ₂"], [["<i>", "0.5"], ["ok", "1"]], [True, False])],
        commands=["homojax verify --replay a&b"],
        about=page.about(ATTRS, "a.zarr"),
    )
    page.write_page(tmp_path, "Title", [section], "What it is.")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert (tmp_path / "figures" / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert "http:" not in text and "https:" not in text and 'src="data:image/png;base64,' in text
    for raw in ("a <b>", "1 < 2 & 3", "<x>", "<i>", "a&b"):
        assert raw not in text
    assert "a &lt;b&gt;" in text and 'class="verdict bad"' in text and "What it is." in text
    assert len(re.findall('<tr class="wrong">', text)) == 1
    assert "<pre>homojax sweep --n 4</pre>" in text and "config_hash" in text and "a.zarr" in text


def test_charts_have_their_numbers_in_the_page_and_plotly_once(tmp_path):
    trace = {"type": "scatter", "y": [0.5, None], "name": "</script> & <b>"}
    both = Chart("over layers", {"one": [trace], "two": [{**trace, "y": [1]}]}, {"x": 1}, "Layer")
    alone = Chart("alone", {"": [trace]}, {})
    sections = [Section(heading=str(k), text="", charts=[both, alone]) for k in range(2)]
    page.write_page(tmp_path, "Title", sections)
    text = (tmp_path / "report.html").read_text("utf-8")
    found = re.findall('<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert [json.loads(x) for x in found] == 2 * [
        {"choices": [[trace], [{**trace, "y": [1]}]], "layout": {"x": 1}},
        {"choices": [[trace]], "layout": {}},
    ]
    assert text.count("<select>") == 2 and text.count("<option>") == 4
    assert text.count("Content-Security-Policy") == 1 and "default-src 'none'" in text
    from plotly.offline import get_plotlyjs

    assert text.count(get_plotlyjs()) == 1 and "</script" not in get_plotlyjs()
    page.write_page(tmp_path, "Title", [Section(heading="", text="")])
    assert (tmp_path / "report.html").stat().st_size < 20_000


def test_a_figure_that_cannot_be_drawn_is_left_out_with_a_warning():
    def broken():
        raise ValueError("no ink")

    with pytest.warns(UserWarning, match=r"bad\.png could not be drawn: no ink"):
        drawn = page.draw_all([("bad.png", "", broken), ("good.png", "", plt.figure)])
    assert [one.file for one in drawn] == ["good.png"] and not plt.get_fignums()


def printed(section, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    page.show(section, console)
    return console.file.getvalue()


def test_a_section_in_the_terminal_loses_no_cell_where_there_is_no_terminal():
    row = ["a statement that is long [not markup]", "0.123456"]
    table = Table("caption", ["statement", "best value"], [row])
    text = printed(Section(heading="h", text="found [x]", source="s", tables=[table]), 40)
    assert "found [x]" in text and all(cell in text for cell in row) and "caption" in text
    assert "h  s" in text.replace("\n", " ") or "h   s" in text
