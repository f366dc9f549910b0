#!/usr/bin/env python3
"""Follow the latency of each cell over several results trees: per commit, driver or package, with change-points.

Exit status: 0 no cell became slower or stopped working with the last tree, 1 one did, 2 the trends could not be made.
"""

import argparse
import itertools
import re
from pathlib import Path

from ceilings import trees
from ceilings.errors import UserError
from ceilings.files import write_text
from ceilings.program import fraction, main
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.trends import trends
from ceilings.report.render.trends_page import as_html, as_markdown
from ceilings.report.tables.frames import read_tables

ARCHIVES = (".tar.gz", ".tgz")

REMEDY = "bring the tree again from where it was measured, or leave it out"
"""Of a tree's tables: nothing here can make them anew."""

HASH = re.compile(r"g?[0-9a-f]{7,40}")
"""How a name holds a commit."""


def measured(tree: Path) -> Measured:
    """Of a results tree with its tables, of an archive of one, or of a tables folder."""
    if (tree / "cells.parquet").is_file():
        return Measured(read_tables(tree, REMEDY))
    with trees.opened(tree) as results:
        if not (results / "tables").is_dir():
            raise UserError(f"{tree} has no tables; run `snakemake --cores 1 results/summary.md` where it was measured")
        return Measured(read_tables(results / "tables", REMEDY))


def is_tree(path: Path) -> bool:
    tables = (path / "cells.parquet", path / "tables", path / "results" / "tables")
    return path.name.endswith(ARCHIVES) or any(each.exists() for each in tables)


def expanded(path: Path) -> list[Path]:
    """A tree itself; of a folder of trees all of them by name, numbers by their size.

    Raises:
        UserError: Their names do not say their order.
    """
    if is_tree(path) or not path.is_dir():
        return [path]
    found = [entry for entry in path.iterdir() if not entry.name.startswith(".") and is_tree(entry)]
    found.sort(key=lambda entry: [int(one) if one.isdecimal() else one for one in re.split(r"(\d+)", entry.name)])
    for one, other in itertools.pairwise(entry.name for entry in found):
        if _is_hash_order(one, other):
            raise UserError(
                f"{path}: {one} and {other} differ in a commit's hash first, which says nothing of their order; "
                "put a time or a number before it, or name the trees one by one, the oldest first"
            )
    return found


def _is_hash_order(*names: str) -> bool:
    """Whether two names come in their order by a hash alone."""
    tokens = zip(*(re.split(r"[-_. ]", re.sub(r"\.(tar\.gz|tgz)$", "", name)) for name in names), strict=False)
    first = next((pair for pair in tokens if pair[0] != pair[1]), ("", ""))
    return all(HASH.fullmatch(token) for token in first) and not all(token.isdecimal() for token in first)


def named(given: list[Path]) -> dict[str, Path]:
    """Trees by their last names, or by their paths where two have one name."""
    found = [tree for path in given for tree in expanded(path)]
    if len(found) < 2:
        raise UserError(
            f"{' '.join(map(str, given))}: {len(found)} results trees; name two or more, or a folder of them"
        )
    short = [re.sub(r"\.(tar\.gz|tgz)$", "", tree.name) for tree in found]
    names = short if len(set(short)) == len(short) else list(map(str, found))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{twice} is named twice; name each tree once")
    return dict(zip(names, found, strict=True))


def work(arguments: argparse.Namespace) -> int:
    given = named(arguments.trees)
    found = trends([(name, measured(tree)) for name, tree in given.items()], margin=arguments.margin)
    if not found.steps and not found.broken and found.carried:
        raise UserError(
            f"{', '.join(given)}: no cell was measured twice, since later trees hold the samples of earlier ones; "
            "leave copies out, and name trees that were measured anew"
        )
    if not found.steps and not found.broken:
        raise UserError("no cell was measured in two of the trees under equal conditions; name trees of one study")
    page = as_markdown(found)
    if arguments.output:
        write_text(arguments.output, page)
    else:
        print(page)
    if arguments.html:
        write_text(arguments.html, as_html(found))
    return int(found.newest_is_worse and not arguments.report_only)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="+", help="results trees or folders of them, the oldest first")
    parser.add_argument("--margin", type=fraction, default=0.05, help="steps provably below are none (default 0.05)")
    parser.add_argument("--output", type=Path, help="Markdown file; without it the page is printed")
    parser.add_argument("--html", type=Path, help="HTML file with a picture of each cell")
    parser.add_argument(
        "--report-only", action="store_true", help="exit with 0 whatever became slower or stopped working"
    )
    main(work, parser, failed=2)
