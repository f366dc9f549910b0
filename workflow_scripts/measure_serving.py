#!/usr/bin/env python3
"""Measure one deployment with one fresh server: its start, its answers against FP32, and every load that it gets."""

import argparse
from pathlib import Path

from ceilings import host as hosts
from ceilings import records, turns
from ceilings.artifacts import refuse_failed
from ceilings.errors import CellFailure, UserError
from ceilings.program import json_argument, main
from ceilings.serving import session

FILES = ("artifact", "inputs", "reference", "workload")


def work(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    host = hosts.having(arguments.device, arguments.output)
    files = {cell: dict(zip(FILES, paths, strict=True)) for cell, *paths in arguments.served}
    if missing := [cell for cell in spec["deployment"]["cells"] if cell not in files]:
        raise UserError(f"--spec serves {missing[0]}, and no --served names its files; add them")
    gpu = host.uuid(hosts.kind_of(arguments.device))
    task = {name: getattr(arguments, name) for name in ("deployment", "device", "run", "spec")}
    task |= {"files": files, "gpu": gpu}
    try:
        for one in files.values():
            refuse_failed(*(Path(one[name]) for name in FILES[:3]))
    except CellFailure as failure:
        measured = session.failed(failure.kind, str(failure))
    else:
        with turns.turn(gpu):
            measured = session.run(task)
    record = {
        **{name: task[name] for name in ("deployment", "device", "run")},
        "log": arguments.log,
        "settings": spec["deployment"],
        **measured,
        "protocol": spec["protocol"],
    }
    records.write(arguments.output, "serving", record, indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployment", required=True, help="name of the deployment in the study")
    parser.add_argument("--device", required=True, help="slug of the device that must run it")
    parser.add_argument("--run", type=int, default=1, help="number of this server among the deployment's")
    parser.add_argument(
        "--spec", type=json_argument, required=True, help="the deployment, its cells' runtimes, protocol and packages"
    )
    parser.add_argument(
        "--served",
        nargs=5,
        action="append",
        required=True,
        metavar=("CELL", "ARTIFACT", "INPUTS", "REFERENCE", "WORKLOAD"),
        help="a cell, as runtime/model/precision/shape, and its files; once a cell",
    )
    parser.add_argument("--log", help="path of the log, for the record")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
