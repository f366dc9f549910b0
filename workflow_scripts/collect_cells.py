#!/usr/bin/env python3
"""Collect the run records that a plan names into tables (CSV and Parquet)."""

import argparse
from pathlib import Path

from ceilings import records
from ceilings.program import main
from ceilings.report.tables.collect import collect


def work(arguments: argparse.Namespace) -> None:
    tables = collect(records.read(arguments.plan, "plan"))
    tables.write(arguments.output_dir)
    counts = tables.planned["status"].value_counts()
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{len(tables.planned)} cells ({statuses}), {len(tables.runs)} runs, {tables.iterations} iterations")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the study's plan.json; only runs it names are read")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for cells, runs and samples")
    main(work, parser)
