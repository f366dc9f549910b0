#!/usr/bin/env python3
"""Measure a co-location in fresh processes: every instance alone and all of them at once, in turn, on one device."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import gpu as gpus
from ceilings import host as hosts
from ceilings import records, turns
from ceilings.artifacts import refuse_failed
from ceilings.errors import CellFailure, UserError
from ceilings.measure.colocation import CARDS, NAMES, Sharing, company, placed
from ceilings.measure.supervisor import failed, supervise
from ceilings.program import json_argument, main
from ceilings.workload.shape import Shape

WORKER = "ceilings.measure.colocation_worker"
FILES = ("artifact", "inputs", "reference", "workload")

FAILED = ("status", "failure", "flags")
MEASURED = (*FAILED, "instances", "windows", "physical_cores", "neighbours", "gpu", "provenance")
"""What a record has of what was measured; of a failed run."""


def work(arguments: argparse.Namespace) -> None:
    spec, sharing = arguments.spec, Sharing.parse(arguments.how)
    host = hosts.having(arguments.device, arguments.output)
    files = {cell: dict(zip(FILES, paths, strict=True)) for cell, *paths in arguments.member}
    if missing := [cell for cell in spec["cells"] if cell not in files]:
        raise UserError(f"--spec has instances of {missing[0]}, and no --member names its files; add them")
    gpu = host.uuid(hosts.kind_of(arguments.device))
    try:
        for one in files.values():
            refuse_failed(*(Path(one[name]) for name in FILES[:3]))
        task = task_of(arguments.device, gpu, spec, sharing, files)
    except CellFailure as failure:
        measured = failed(failure.kind, str(failure))
    else:
        with turns.turn(task["cards"] or gpu):
            measured = supervise(task, WORKER)
    content = {
        **{name: getattr(arguments, name) for name in ("device", "group", "run", "log")},
        "how": sharing.how,
        "cores": sharing.cores,
        "cells": spec["cells"],
        "protocol": spec["protocol"],
    }
    kept = MEASURED if measured["status"] == "ok" else FAILED
    records.write(arguments.output, "colocation", content | {name: measured[name] for name in kept}, indent=None)


def task_of(
    device: str, gpu: str | None, spec: dict[str, Any], sharing: Sharing, files: dict[str, Any]
) -> dict[str, Any]:
    """What the process that leads gets.

    Raises:
        CellFailure: The machine has fewer cores than the group has members to split them among, or fewer cards.
    """
    cards = cards_of(device, len(spec["cells"])) if sharing.how == CARDS else None
    machine = hosts.physical_cores()
    try:
        instances = placed(spec["cells"], sharing.cores, spec["threads"], machine)
    except ValueError as error:
        raise CellFailure("unsupported", str(error)) from None
    tasks = []
    for one in instances:
        runtime, model, precision, shape = one.cell.split("/")
        paths = dict(files[one.cell])
        if Path(paths["artifact"]).suffix == ".safetensors":
            paths["artifact"] = str(Path(paths["artifact"]).parent)
        tasks.append(
            {
                "cell": {"device": device, "runtime": runtime, "model": model, "precision": precision, "shape": shape},
                "spec": {**spec["executions"][one.cell], "threads": one.threads},
                "processors": list(one.processors),
                "member": one.member,
                "batch": Shape.parse(shape).batch,
                **paths,
            }
        )
    # Each of them may take as long as a process that measures it alone.
    limit = spec["protocol"]["time_limit_seconds"] * len(tasks)
    return {
        "device": device,
        "gpu": gpu,
        "cards": cards,
        "how": sharing.how,
        "instances": tasks,
        "company": company(instances),
        "physical_cores": len(machine),
        "protocol": spec["protocol"],
        "spec": {
            "threads": spec["threads"],
            "variables": spec["variables"],
            "protocol": {"time_limit_seconds": limit},
        },
    }


def cards_of(device: str, count: int) -> list[str]:
    """UUIDs of so many cards of a kind, in CUDA's order.

    Raises:
        CellFailure: Fewer are visible.
    """
    there = [one.uuid for one in gpus.ask_every() if one.slug == device]
    if len(there) < count:
        reason = f"{count} instances need {count} cards of {device}, and {len(there)} can be seen"
        raise CellFailure("unsupported", f"{reason}: see CUDA_VISIBLE_DEVICES, or name fewer cells")
    return there[:count]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the device that must run it")
    parser.add_argument("--group", required=True, help="name of the co-location in the study")
    parser.add_argument("--how", choices=NAMES, required=True, help="how its instances share the device")
    parser.add_argument("--run", type=int, default=1, help="number of this run among the group's")
    parser.add_argument(
        "--spec", type=json_argument, required=True, help="cells, their runtimes, threads, protocol and variables"
    )
    parser.add_argument(
        "--member",
        nargs=5,
        action="append",
        required=True,
        metavar=("CELL", "ARTIFACT", "INPUTS", "REFERENCE", "WORKLOAD"),
        help="a cell, as runtime/model/precision/shape, and its files; once a cell, however many instances it has",
    )
    parser.add_argument("--log", help="path of the log, for the record")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
