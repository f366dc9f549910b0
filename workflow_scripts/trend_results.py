#!/usr/bin/env python3
"""Follow the latency of each cell over several results trees: per commit, driver or package, with change-points.

Exit status: 0 no cell became slower with the last tree, 1 one did, 2 the trends could not be made.
"""

import argparse
import re
from pathlib import Path

from ceilings import trees
from ceilings.errors import UserError
from ceilings.files import write_text
from ceilings.program import main
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.trends import trends
from ceilings.report.render.trends_page import as_html, as_markdown
from ceilings.report.tables.frames import read_tables


def measured(tree: Path) -> Measured:
    """Of a results tree with its tables, of an archive of one, or of a tables folder."""
    if (tree / "tables.json").is_file() or (tree / "cells.parquet").is_file():
        return Measured(read_tables(tree))
    with trees.opened(tree) as results:
        if not (results / "tables").is_dir():
            raise UserError(f"{tree} has no tables; run `snakemake --cores 1 results/summary.md` where it was measured")
        return Measured(read_tables(results / "tables"))


def in_order(given: list[Path]) -> list[Path]:
    """The trees as they were given; of one folder its entries by name, numbers by their size."""
    if len(given) > 1:
        return given
    if not given[0].is_dir():
        raise UserError(f"{given[0]} is no folder; name a folder of results trees, or several trees")
    entries = [entry for entry in given[0].iterdir() if not entry.name.startswith(".")]
    found = [entry for entry in entries if entry.is_dir() or entry.name.endswith((".tar.gz", ".tgz"))]
    if len(found) < 2:
        raise UserError(
            f"{given[0]} holds {len(found)} results trees; trends take two or more, a folder or archive each"
        )
    return sorted(found, key=lambda entry: [int(part) if part.isdigit() else part for part in _parts(entry.name)])


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def work(arguments: argparse.Namespace) -> int:
    found = trends(
        [(tree.name.removesuffix(".gz").removesuffix(".tar"), measured(tree)) for tree in in_order(arguments.trees)],
        margin=arguments.margin,
    )
    if not found.steps:
        raise UserError("no cell was measured in two of the trees under equal conditions; name trees of one study")
    page = as_markdown(found)
    if arguments.output:
        write_text(arguments.output, page)
    else:
        print(page)
    if arguments.html:
        write_text(arguments.html, as_html(found))
    return int(found.newest_is_slower and not arguments.report_only)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="+", help="a folder of results trees, or trees, the oldest first")
    parser.add_argument("--margin", type=float, default=0.05, help="steps provably below are none (default 0.05)")
    parser.add_argument("--output", type=Path, help="Markdown file; without it the page is printed")
    parser.add_argument("--html", type=Path, help="HTML file with a picture of each cell")
    parser.add_argument("--report-only", action="store_true", help="exit with 0 whatever became slower")
    main(work, parser, failed=2)
