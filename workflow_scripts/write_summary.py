#!/usr/bin/env python3
"""Write the summary of a study, the table of all its cells and the lab note, from its tables, plots and records."""

import argparse
import os
from pathlib import Path

from ceilings import records
from ceilings.errors import UserError
from ceilings.files import write_text
from ceilings.program import main
from ceilings.report.render.notes import observations, summary_table
from ceilings.report.render.pictures import shown
from ceilings.report.render.summary import summary
from ceilings.report.tables.evidence import read_evidence
from ceilings.report.tables.frames import read_tables


def work(arguments: argparse.Namespace) -> None:
    plots = Path(os.path.relpath(arguments.plots, arguments.output_dir)).as_posix()
    plan, tables, evidence = (
        records.read(arguments.plan, "plan"),
        read_tables(arguments.tables),
        read_evidence(arguments.evidence),
    )
    for name in shown(tables):
        picture = arguments.plots / f"{name}.png"
        if not picture.exists():
            raise UserError(f"{picture} does not exist; draw it with draw_plot.py --plot {name}")
    write_text(arguments.output_dir / "summary_table.md", summary_table(plan, tables))
    write_text(arguments.output_dir / "engineering_observations.md", observations(plan, tables, evidence, plots))
    write_text(arguments.output_dir / "summary.md", summary(plan, tables, evidence, plots))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the study's plan.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder that collect_cells.py wrote")
    parser.add_argument(
        "--plots", type=Path, required=True, help="folder with a PNG and an SVG of every plot that shows anything"
    )
    parser.add_argument(
        "--evidence",
        type=Path,
        nargs="*",
        default=[],
        help="JSON of weights, ONNX graphs, parity, engines and measured limits, in the results tree",
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the three pages")
    main(work, parser)
