#!/usr/bin/env python3
"""Write the summary of a study from its tables, plots and the records beside them."""

import argparse
import os
from pathlib import Path

from ceilings import records
from ceilings.errors import UserError
from ceilings.files import write_text
from ceilings.program import main
from ceilings.report.catalogue import PLOTS
from ceilings.report.render.summary import summary
from ceilings.report.tables.evidence import read_evidence
from ceilings.report.tables.frames import read_tables


def work(arguments: argparse.Namespace) -> None:
    for name in PLOTS:
        picture = arguments.plots / f"{name}.png"
        if not picture.exists():
            raise UserError(f"{picture} does not exist; draw it with draw_plot.py --plot {name}")
    plots = Path(os.path.relpath(arguments.plots, arguments.output.parent)).as_posix()
    page = summary(
        records.read(arguments.plan, "plan"),
        read_tables(arguments.tables),
        read_evidence(arguments.evidence),
        plots=plots,
    )
    write_text(arguments.output, page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the study's plan.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder that collect_cells.py wrote")
    parser.add_argument("--plots", type=Path, required=True, help="folder with a PNG and an SVG of every plot")
    parser.add_argument(
        "--evidence",
        type=Path,
        nargs="*",
        default=[],
        help="JSON of weights, ONNX graphs, parity and engines, in the results tree",
    )
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
