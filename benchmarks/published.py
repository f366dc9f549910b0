#!/usr/bin/env python3
"""Write the pages of a published study anew from what is published of it: study.yaml, tables/*.parquet, peaks.json.

Links to run records lead to the table of cells. Records of weights, graphs and parity are not published, so the pages
have no sections on these.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

from ceilings.files import read_json
from ceilings.report.render.notes import observations, summary_table
from ceilings.report.render.page import page
from ceilings.report.render.summary import summary
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables, read_tables
from ceilings.report.tables.keys import KEY
from ceilings.study.config import checked
from ceilings.study.sweeps import left_out

RUN_RECORDS = re.compile(r"\[\[1\]\(benchmarks/[^)]*\)(?:, \[\d+\]\(benchmarks/[^)]*\))*\]")
RANDOM = {"source": "random", "why": "the study asks for random weights"}


def plan(study: dict[str, Any], tables: Tables) -> dict[str, Any]:
    """As much of ``plan.json`` as the pages read."""
    cells = [{**row, "runs": []} for row in tables.cells[KEY].to_dict("records")]
    models = {name: {"weights": study["weights"]} for name in study["models"]}
    rest = {name: study[name] for name in ("study", "protocol", "traces", "price_per_hour", "targets", "baseline")}
    return {**rest, "devices": [], "models": models, "left_out": left_out(study), "cells": cells}


def write(folder: Path) -> None:
    """Write the four pages into a folder of ``docs/studies``."""
    study = checked(yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8")))
    tables = read_tables(folder / "tables")
    planned = plan(study, tables)
    evidence = Evidence(
        weights=dict.fromkeys(planned["models"], RANDOM) if study["weights"] == "random" else {},
        peaks={str(device): read_json(folder / "peaks.json") for device in tables.cells["device"].unique()},
    )
    pages = {
        "summary.md": summary(planned, tables, evidence, "plots"),
        "summary_table.md": summary_table(planned, tables),
        "engineering_observations.md": observations(planned, tables, evidence, "plots"),
        "report.html": page(planned, tables, evidence),
    }
    for name, text in pages.items():
        (folder / name).write_text(RUN_RECORDS.sub("[[cells](tables/cells.csv)]", text), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="such as docs/studies/nvidia-h200")
    write(parser.parse_args().folder)
