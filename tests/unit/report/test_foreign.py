"""Names and messages from elsewhere stay text: in the summary, notes, page, comparison, CSV and pictures."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from ceilings import foreign
from ceilings.errors import CellFailure, UserError
from ceilings.report.analysis.comparison import compare
from ceilings.report.analysis.measured import Measured
from ceilings.report.render import comparison_page
from ceilings.report.render.notes import observations, summary_table
from ceilings.report.render.page import page
from ceilings.report.render.plots import style
from ceilings.report.render.summary import summary
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import read_evidence
from ceilings.report.tables.frames import KERNEL_COLUMNS, read_tables
from ceilings.report.tables.keys import KEY

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

CPU = planted.CPU
HARMLESS = "something happened"
HOSTILE = (
    "# all is well\n\n## Verified\n[click](https://evil.example/x) ![p](https://evil.example/p.png)",
    "<script>a()</script>",
    "<img src=x onerror=a()> </script><h1>x</h1><!-- ",
    "`code` *strong* **very** __so__ ~~not~~ | a | b | &lt;b&gt;$x_1$ \\[y\\](z)",
    "- item\n- item",
    "1. one",
    "123456789) one",
    "> quoted",
    "==== \n x\n----",
    "[1]: https://evil.example\n\n[1]",
    "<https://evil.example> https://evil.example www.evil.example",
    "| --- |\n|x|",
    "\x1b[31mred\x07\u202edcba\u200b\ufeff",
    "x" * 100_000,
    '=HYPERLINK("https://evil.example")',
)


def study(root: Path, text: str):
    """Plan, tables and evidence in which everything that comes from elsewhere is ``text``."""
    maker = planted.StudyMaker(root, runs=2)
    maker.measure(CPU, planted.CPU_CONFIGURATIONS, planted.SHAPES[:2])
    maker.repeat(CPU, "onnxruntime-cpu", "fp32", 1, 128)
    maker.unavailable("tensorrt", "fp16", 1, 128, text, text)
    maker.fail(maker.cells[2], 1, "crashed", text)
    recorded = json.loads(Path(maker.cells[0]["runs"][0]).read_text())
    provenance = recorded["provenance"] | {"packages": {"torch": text}, "python": text}
    for run in (1, 2):
        maker.change(maker.cells[0], run, flags=[text], provenance=provenance, host={"cpu": text}, log=text)
    plan = maker.plan()
    plan["devices"][0]["name"] = text
    plan["devices"][1]["driver"] = text
    tables = collect(plan)
    kernel = tables.cells.iloc[0][KEY].to_dict() | {"class": "gemm", "count": 6.0, "us": 14.4}
    kernels = pd.DataFrame([kernel | {"kernel": text, "name": text}], columns=KERNEL_COLUMNS)
    tables = dataclasses.replace(tables, kernels=kernels)
    evidence = read_evidence(planted.evidence(root))
    weights = {"source": "pretrained", "hub": text, "why": text, "random_ids": text, "sha256": "0" * 64}
    evidence.weights["distilbert"] = weights
    evidence.graphs["distilbert", "simplified"] = {"reason": text, text: text}
    evidence.parity["distilbert", "int8"] |= {"reason": text, "layers": [{"node": text, "sqnr_db": 3.0}]}
    peak = {"median": 1.0, "low": 1.0, "high": 1.0, "unit": text, "method": text}
    evidence.peaks[CPU] = {"peaks": {text: peak, f"other {text}": {"reason": text}}, "flags": [text]}
    return plan, tables, evidence


def structure(markdown: str) -> list[str]:
    """Headings, links, pictures, rules, quotes, lists and HTML of a page, in order, and the columns of its tables."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    kinds = []
    for token in parser.parse(markdown):
        for one in [token, *(token.children or [])]:
            if one.type not in ("text", "inline", "softbreak", "text_special", "code_inline"):
                kinds.append(f"{one.type} {one.attrs.get('href') or one.attrs.get('src') or ''}")
    return kinds


class Elements(HTMLParser):
    """Every tag of a page with the names of its attributes, but for scripts' bodies."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append(f"{tag} {' '.join(sorted(name for name, _ in attrs))}")

    def handle_comment(self, data):
        self.seen.append("comment")


NOTES = (
    lambda *all_: summary(*all_, "plots"),
    lambda plan, tables, _: summary_table(plan, tables),
    lambda *all_: observations(*all_, "plots"),
)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    """What is made of a study with harmless names: the notes, and the page."""
    of = study(tmp_path_factory.mktemp("harmless"), HARMLESS)
    return [made(*of) for made in NOTES], page(*of)


OFTEN = 4
"""The first of them change the structure of HTML and of Markdown; a study of each takes seconds."""


@pytest.mark.parametrize(
    "text",
    [*HOSTILE[:OFTEN], *(pytest.param(text, marks=pytest.mark.slow) for text in HOSTILE[OFTEN:])],
    ids=range(len(HOSTILE)),
)
def test_pages_have_the_structure_that_harmless_names_give(harmless, tmp_path, text):
    plan, tables, evidence = study(tmp_path, text)
    notes, harmless_page = harmless
    # The order of rows that are sorted by a text is the text's; how many there are of each kind is not.
    for made, wanted in zip(NOTES, notes, strict=True):
        seen = made(plan, tables, evidence)
        assert sorted(structure(seen)) == sorted(structure(wanted))
        assert not re.search("[\ue000-\uf8ff\x00-\x08\x0b-\x1f\u200b\u202e\ufeff]", seen)
        assert len(seen) < len(wanted) + 600 * 60
    assert sorted(Elements(page(plan, tables, evidence)).seen) == sorted(Elements(harmless_page).seen)


def test_a_text_reads_on_the_page_as_it_was_written(tmp_path):
    """What is escaped for Markdown looks as before once it is read."""
    written = "a_b __c__ <D<1>> & [x](y) `z` | 5*3 https://e.example"
    plan, tables, evidence = study(tmp_path, written)
    rendered = MarkdownIt("commonmark").enable("table").render(observations(plan, tables, evidence, "plots"))
    shown = re.sub("<[^>]+>", "", rendered)
    shown = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert f"distilbert: pretrained, {written} ({written})" in shown
    data = json.loads(page(plan, tables, evidence).partition('id="data">')[2].partition("</script>")[0])
    assert data["cells"][0]["kernels"][0]["kernel"] == written
    assert written in data["cells"][0]["processes"][0]["flags"]


def test_comparisons(tmp_path):
    for number, text in enumerate(HOSTILE):
        sides = []
        for side in ("before", "after"):
            maker = planted.StudyMaker(tmp_path / f"{number}{side}", runs=2)
            maker.measure(CPU, planted.CPU_CONFIGURATIONS[:2], planted.SHAPES[:2])
            for cell in maker.cells:
                for run in (1, 2):
                    maker.change(cell, run, host={"cpu": f"{text}{side}"})
            if side == "after":
                maker.fail(maker.cells[0], 1, "crashed", text)
            sides.append(Measured(collect(maker.plan())))
        comparison = compare(*sides, margin=0.05)
        tokens = {kind.split()[0].rpartition("_")[0] for kind in structure(comparison_page.as_markdown(comparison))}
        assert tokens == {"heading", "paragraph", "table", "thead", "tbody", "tr", "th", "td"}
        tags = {element.split()[0] for element in Elements(comparison_page.as_html(comparison)).seen}
        assert tags == {
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "h1",
            "h2",
            "p",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        }


@pytest.mark.parametrize("first", ["=1+1", "+1+x", "-1+x", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1", "|calc"])
def test_no_cell_of_csv_is_a_formula_and_tables_round_trip(tmp_path, first):
    _, tables, _ = study(tmp_path, first)
    tables.write(tmp_path / "tables")
    cells = pd.read_csv(tmp_path / "tables/cells.csv")
    reasons = set(cells["reason"].dropna())
    assert any(reason.startswith("'") for reason in reasons)
    assert not any(
        re.match(r"\s*[=+\-@＝|]", str(value))
        for name in ("reason", "remedy", "flags")
        for value in cells[name].dropna()
    )
    pd.testing.assert_series_equal(cells["p50_ms"], tables.cells["p50_ms"])
    exact = read_tables(tmp_path / "tables").cells
    assert first in set(exact["reason"].dropna())


def test_numbers_in_csv_stay_numbers():
    assert [foreign.csv_cell(value) for value in (-1.5, "-1.5", "+3", "1e-5", "-inf", None, True)] == [
        -1.5,
        "-1.5",
        "+3",
        "1e-5",
        "-inf",
        None,
        True,
    ]


def test_pictures_take_dollars_as_text(tmp_path):
    figure = style.settled(lambda title: style.panels(1, 1, 1.0, title)[0])("a $\\frac{$ and $x_1$")
    style.save(figure, tmp_path / "a.svg", tmp_path / "a.png")


@pytest.mark.parametrize("kind", [UserError, lambda message: CellFailure("damaged", message)])
def test_messages_move_no_cursor(kind):
    assert str(kind("a\x1b[2Jb\u202ec\x00d")) == "a\\x1b[2Jb\\u202ec\\x00d"
    assert str(kind("two\nlines, naïve 数")) == "two\nlines, naïve 数"


def test_marks_of_somebody_else_are_no_marks():
    assert foreign.markdown(foreign.marked("\ue05b")) == "\\\\ue05b"
