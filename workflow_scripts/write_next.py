#!/usr/bin/env python3
"""Write what to measure next, with predictions that are recorded before anything is measured."""

import argparse
import datetime
import json
from pathlib import Path

from ceilings import SCHEMA_VERSION, records
from ceilings.files import sha256, write_json, write_text
from ceilings.program import main
from ceilings.report.analysis.advice import advise
from ceilings.report.analysis.machine import machine_of
from ceilings.report.analysis.measured import Measured
from ceilings.report.render.next_page import next_page, proposed, to_json, to_predict
from ceilings.report.render.shape_levers import shape_levers_json
from ceilings.report.tables.frames import read_tables
from ceilings.study import prediction_log
from ceilings.study.next_cells import next_study
from ceilings.study.paths import Paths


def work(arguments: argparse.Namespace) -> None:
    plan, measured = records.read(arguments.plan, "plan"), Measured(read_tables(arguments.tables))
    study = json.loads(arguments.study)
    advice = advise(measured, machine_of(plan))
    predictions = [one for one in to_predict(advice) if not begun(arguments.results, one)]
    if arguments.record:
        tables = {path.name: sha256(path) for path in sorted(arguments.tables.glob("*.parquet"))}
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        prediction_log.append(arguments.record, plan["study"], made, tables, predictions)
    page = next_page(plan, measured, advice, planned=bool(arguments.record))
    before = ["/".join(one.cell.key[1:]) for one in advice if one.to_measure]
    content = next_study(study, [*before, *proposed(advice)] or [row["cell"] for row in cells_of(plan)])
    advised = {"advice": to_json(advice), "changing": shape_levers_json(measured)}
    write_json(arguments.json, {"schema_version": SCHEMA_VERSION, "study": plan["study"], **advised})
    head = PROPOSED if proposed(advice) else NOTHING_PROPOSED
    import yaml

    write_text(arguments.yaml, head + yaml.safe_dump(content, sort_keys=False))
    write_text(arguments.output, page)


PROPOSED = """\
# The cells that results/next.md proposes, and those that they are compared with. Made by write_next.py.
# As a study, it makes a summary of these alone: snakemake results/summary.md --cores 1 --configfile results/next.yaml
"""

NOTHING_PROPOSED = """\
# results/next.md proposes no cell. These are the cells of the study as it is. Made by write_next.py.
"""


def begun(results: Path, prediction: dict[str, str]) -> bool:
    """Whether a process of a cell was recorded already, so that nothing of it can be predicted any more."""
    runtime, model, precision, shape = prediction["cell"].split("/")
    path = Paths(str(results)).run(prediction["device"], runtime, model, precision, shape, process=1)
    return Path(path).is_file()


def cells_of(plan: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    """The cells of the plan as a study names them: what the study holds where nothing is proposed."""
    names = ("runtime", "model", "precision", "shape")
    return [{"cell": "/".join(cell[name] for name in names)} for cell in plan["cells"] if not cell.get("aa_of")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the study's plan.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder that collect_cells.py wrote")
    parser.add_argument("--study", required=True, help="the study as JSON")
    parser.add_argument("--results", type=Path, required=True, help="the folder of all results")
    parser.add_argument("--record", type=Path, help="predictions.json to append to; without it nothing is recorded")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--yaml", type=Path, required=True, help="a study of the proposed cells")
    parser.add_argument("--output", type=Path, required=True, help="the page")
    main(work, parser)
