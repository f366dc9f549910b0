#!/usr/bin/env python3
"""Measure a sequence of changing shapes in one fresh process: first appearances, returns, steady latencies, the mix."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import host as hosts
from ceilings import records, turns
from ceilings.artifacts import refuse_failed
from ceilings.errors import CellFailure
from ceilings.measure.supervisor import failed, supervise
from ceilings.program import json_argument, main
from ceilings.workload.shape_order import Requests

WORKER = "ceilings.measure.changing_worker"


def work(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    host = hosts.having(arguments.device, arguments.output)
    names = ("device", "runtime", "model", "precision", "sequence")
    cell = {name: getattr(arguments, name) for name in names}
    shapes = spec["requests"]["shapes"]
    inputs = dict(zip(shapes, arguments.inputs, strict=True))
    references = dict(zip(shapes, arguments.references, strict=True))
    requests = spec["requests"]
    try:
        if arguments.buckets:
            requests = padded(requests, arguments.buckets)
        needed = requests["shapes"]
        read = [paths[shape] for shape in needed for paths in (inputs, references)]
        refuse_failed(arguments.artifact, *read)
    except CellFailure as failure:
        measured = failed(failure.kind, str(failure))
    else:
        artifact = arguments.artifact.parent if arguments.artifact.suffix == ".safetensors" else arguments.artifact
        task = {
            "cell": cell,
            "spec": {**spec, "requests": requests},
            "artifact": str(artifact),
            "workload": str(arguments.workload),
            "pools": {shape: {"inputs": str(inputs[shape]), "reference": str(references[shape])} for shape in needed},
        }
        with turns.turn(host.uuid(hosts.kind_of(arguments.device))):
            measured = supervise(task, WORKER)
    record = {
        "cell": cell,
        "run": arguments.run,
        "log": arguments.log,
        "padded": bool(arguments.buckets),
        "requests": requests,
        **{name: value for name, value in measured.items() if name != "series"},
        "protocol": spec["protocol"],
    }
    records.write(arguments.output, "changing", record, indent=None)


def padded(requests: dict[str, Any], path: Path) -> dict[str, Any]:
    """The requests, each at its bucket.

    Raises:
        CellFailure: There are no buckets, and why.
    """
    chosen = records.read(path, "buckets")
    if chosen["status"] != "ok":
        raise CellFailure(chosen["failure"]["kind"], f"no buckets were chosen: {chosen['failure']['message']}")
    return Requests.from_json(requests).padded(chosen["runs_at"]).to_json()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the device that must run it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--sequence", required=True, help="name of the sequence")
    parser.add_argument("--run", type=int, default=1, help="number of this process among the cell's")
    parser.add_argument("--spec", type=json_argument, required=True, help="runtime, threads, protocol and requests")
    parser.add_argument("--artifact", type=Path, required=True, help="the ONNX graph, or model.safetensors")
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="of each shape of the spec, in its order")
    parser.add_argument("--references", type=Path, nargs="+", required=True, help="the same")
    parser.add_argument("--workload", type=Path, required=True, help="workload.json beside the weights")
    parser.add_argument("--buckets", type=Path, help="buckets.json: pad each request up to its bucket")
    parser.add_argument("--log", help="path of the log, for the record")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
