#!/usr/bin/env python3
"""Draw one plot from the tables, as SVG and as PNG."""

import argparse
from pathlib import Path

from ceilings import foreign
from ceilings.program import main
from ceilings.report.catalogue import PLOTS
from ceilings.report.render.plots import draw, style
from ceilings.report.tables.frames import read_tables


def work(arguments: argparse.Namespace) -> None:
    tables = read_tables(arguments.tables).with_texts(foreign.one_line)
    style.save(draw(arguments.plot, tables), arguments.output_svg, arguments.output_png)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", required=True, help=f"one of {', '.join(PLOTS)}")
    parser.add_argument("--tables", type=Path, required=True, help="folder that collect_cells.py wrote")
    parser.add_argument("--output-svg", type=Path, required=True)
    parser.add_argument("--output-png", type=Path, required=True)
    main(work, parser)
