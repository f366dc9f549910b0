"""The arguments of the programs that run a cell on a GPU to look at it, and the task they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ceilings import host as hosts
from ceilings.program import json_argument
from ceilings.workload.shape import Shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a cell and what it runs on."""
    parser.add_argument("--device", required=True, help="slug of the GPU that must run it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--shape", required=True, help="such as b8-s128")
    parser.add_argument(
        "--spec", type=json_argument, required=True, help="runtime, threads, protocol, source and iterations"
    )
    parser.add_argument("--artifact", type=Path, required=True, help="the ONNX graph, or model.safetensors")
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--workload", type=Path, required=True, help="workload.json beside the weights")
    parser.add_argument("--output", type=Path, required=True)


def task(arguments: argparse.Namespace) -> dict[str, Any]:
    """The task for :mod:`ceilings.traces.target`.

    Raises:
        UserError: The cell belongs to another device than this machine's.
    """
    host = hosts.having(arguments.device, arguments.output, "cuda")
    names = {name: getattr(arguments, name) for name in ("device", "runtime", "model", "precision")}
    artifact = arguments.artifact.parent if arguments.artifact.suffix == ".safetensors" else arguments.artifact
    return {
        "cell": {**names, "shape": str(Shape.parse(arguments.shape))},
        "uuid": host.uuid("cuda"),
        "spec": arguments.spec,
        "artifact": str(artifact),
        "inputs": str(arguments.inputs),
        "workload": str(arguments.workload),
    }
