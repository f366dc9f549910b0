#!/usr/bin/env python3
"""Write the lab note of a study: one table of all cells, and the observations with their evidence."""

import argparse
from pathlib import Path

from ceilings import records
from ceilings.files import write_text
from ceilings.program import main
from ceilings.report.render.notes import observations, summary_table
from ceilings.report.tables.evidence import read_evidence
from ceilings.report.tables.frames import read_tables


def work(arguments: argparse.Namespace) -> None:
    plan, tables = records.read(arguments.plan, "plan"), read_tables(arguments.tables)
    write_text(arguments.table, summary_table(plan, tables))
    write_text(arguments.observations, observations(plan, tables, read_evidence(arguments.evidence)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the study's plan.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder that collect_cells.py wrote")
    parser.add_argument("--evidence", type=Path, nargs="*", default=[], help="JSON of weights, graphs, parity, limits")
    parser.add_argument("--table", type=Path, required=True, help="Markdown file of the table")
    parser.add_argument("--observations", type=Path, required=True, help="Markdown file of the observations")
    main(work, parser)
