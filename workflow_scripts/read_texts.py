#!/usr/bin/env python3
"""Let the FP32 reference read the texts that a cell's processes generated, each different one once."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import host as hosts
from ceilings import records, turns
from ceilings.measure.text_judge import verdict
from ceilings.program import main
from ceilings.workload.shape import Shape


def work(arguments: argparse.Namespace) -> None:
    names = ("device", "runtime", "model", "precision")
    cell = {name: getattr(arguments, name) for name in names} | {"shape": str(Shape.parse(arguments.shape))}
    runs = [records.read(path, "run") for path in arguments.runs]
    task = {
        "spec": {"threads": arguments.threads},
        **{name: str(getattr(arguments, name)) for name in ("workload", "inputs")},
    }
    with turns.turn(hosts.detect({}).uuid("cuda"), timed=False):
        found = verdict(runs, task)
    records.write(arguments.output, "text-verdict", {"cell": cell, "log": arguments.log, **found})
    print(f"{arguments.output}: {found['status']}, {found['read']} texts read")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", required=True, help="slug of the device that generated them")
parser.add_argument("--runtime", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--precision", required=True)
parser.add_argument("--shape", required=True, help="such as b8-p128-g64")
parser.add_argument("--runs", type=Path, nargs="+", required=True, help="the records of the cell's processes")
parser.add_argument("--workload", type=Path, required=True, help="workload.json beside the weights")
parser.add_argument("--inputs", type=Path, required=True, help="the pool of prompts")
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--log", help="path of the log, for the record")
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
