#!/usr/bin/env python3
"""Write the report of a study, one HTML file that stands alone, from its tables and the records beside them."""

import argparse
from pathlib import Path

from ceilings import records
from ceilings.files import write_text
from ceilings.program import main
from ceilings.report.render.page import page
from ceilings.report.tables.evidence import read_evidence
from ceilings.report.tables.frames import read_tables


def work(arguments: argparse.Namespace) -> None:
    report = page(
        records.read(arguments.plan, "plan"), read_tables(arguments.tables), read_evidence(arguments.evidence)
    )
    write_text(arguments.output, report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the study's plan.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder that collect_cells.py wrote")
    parser.add_argument(
        "--evidence",
        type=Path,
        nargs="*",
        default=[],
        help="JSON of weights, ONNX graphs, parity and measured limits, in the results tree",
    )
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
