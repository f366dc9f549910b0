#!/usr/bin/env python3
"""Measure one cell in one fresh process, behind a parity gate: cold start, and the measurements that the spec lists."""

import argparse
from pathlib import Path

from ceilings import host as hosts
from ceilings import records, turns
from ceilings.artifacts import refuse_failed
from ceilings.errors import CellFailure
from ceilings.measure.supervisor import failed, supervise
from ceilings.program import json_argument, main
from ceilings.workload.shape import Shape


def work(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    host = hosts.having(arguments.device, arguments.output)
    cell = {
        "device": arguments.device,
        "runtime": arguments.runtime,
        "model": arguments.model,
        "precision": arguments.precision,
        "shape": str(Shape.parse(arguments.shape)),
    }
    paths = {name: getattr(arguments, name) for name in ("artifact", "inputs", "reference", "workload")}
    try:
        refuse_failed(arguments.artifact, arguments.inputs, arguments.reference)
    except CellFailure as failure:
        measured = failed(failure.kind, str(failure))
    else:
        if arguments.artifact.suffix == ".safetensors":
            paths["artifact"] = arguments.artifact.parent
        task = {"cell": cell, "spec": spec, **{name: str(path) for name, path in paths.items()}}
        with turns.turn(host.uuid(hosts.kind_of(arguments.device))):
            measured = supervise(task)
    record = {
        "cell": cell,
        "run": arguments.run,
        "log": arguments.log,
        **measured,
        "protocol": spec["protocol"],
    }
    records.write(arguments.output, "run", record, indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the device that must run it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--shape", required=True, help="such as b8-s128")
    parser.add_argument("--run", type=int, default=1, help="number of this process among the cell's")
    parser.add_argument(
        "--spec", type=json_argument, required=True, help="runtime, threads, tolerance, protocol and measurements"
    )
    parser.add_argument("--artifact", type=Path, required=True, help="the ONNX graph, or model.safetensors")
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--workload", type=Path, required=True, help="workload.json beside the weights")
    parser.add_argument("--log", help="path of the log, for the record")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
