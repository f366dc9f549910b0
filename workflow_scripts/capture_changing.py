#!/usr/bin/env python3
"""Capture the requests of a sequence of changing shapes, each with its shape, as one SQLite file. Feeds no latency."""

import argparse
from pathlib import Path

from ceilings import host as hosts
from ceilings.program import json_argument, main
from ceilings.traces.recorder import record

TARGET = "ceilings.traces.changing_target"


def work(arguments: argparse.Namespace) -> None:
    host = hosts.having(arguments.device, arguments.output)
    artifact = arguments.artifact.parent if arguments.artifact.suffix == ".safetensors" else arguments.artifact
    names = ("device", "runtime", "model", "precision", "sequence")
    task = {
        "cell": {name: getattr(arguments, name) for name in names},
        "uuid": host.uuid(hosts.kind_of(arguments.device)),
        "spec": arguments.spec,
        "artifact": str(artifact),
        "inputs": dict(zip(arguments.spec["requests"]["shapes"], map(str, arguments.inputs), strict=True)),
        "workload": str(arguments.workload),
    }
    print(record(task, arguments.output, TARGET))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the device that must run it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--sequence", required=True, help="name of the sequence")
    parser.add_argument(
        "--spec", type=json_argument, required=True, help="runtime, threads, protocol, requests, source and iterations"
    )
    parser.add_argument("--artifact", type=Path, required=True, help="the ONNX graph, or model.safetensors")
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="of each shape of the spec, in its order")
    parser.add_argument("--workload", type=Path, required=True, help="workload.json beside the weights")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
