#!/usr/bin/env python3
"""Evaluate one cell's answers over all rows of its model's data, in one fresh process: accuracy, or agreement."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ceilings import artifacts, records, turns
from ceilings import host as hosts
from ceilings.errors import CellFailure
from ceilings.lifetime import temporary_folder
from ceilings.measure.evaluation import evaluate
from ceilings.measure.supervisor import supervise
from ceilings.models import dataset
from ceilings.program import json_argument, main
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

WORKER = "ceilings.measure.evaluation_worker"


def work(arguments: argparse.Namespace) -> None:
    host = hosts.having(arguments.device, arguments.output)
    names = ("device", "runtime", "model", "precision")
    cell = {name: getattr(arguments, name) for name in names} | {"shape": str(Shape.parse(arguments.shape))}
    record: dict[str, Any] = {"cell": cell, "log": arguments.log, "metrics": None}
    try:
        artifacts.refuse_failed(arguments.artifact, arguments.data)
        with turns.turn(host.uuid(hosts.kind_of(arguments.device)), timed=False):
            fill(record, arguments)
    except CellFailure as failure:
        record |= {"status": "failed", "failure": {"kind": failure.kind, "message": str(failure)}}
    records.write(arguments.output, "quality", record, indent=None)
    print(f"{arguments.output}: {record['status']}")


def fill(record: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Answer all rows, and put into the record what comes of it.

    Raises:
        CellFailure: The answers are no numbers.
    """
    rows, workload = dataset.load(arguments.data), Workload.read(arguments.workload)
    counts = {"rows": len(rows), "truncated": int(rows.truncated.sum()), "labelled": rows.labels is not None}
    record |= {"task": workload.task.name, "data": {**rows.facts, **counts}}
    artifact = arguments.artifact.parent if arguments.artifact.suffix == ".safetensors" else arguments.artifact
    reference = arguments.reference or arguments.data.with_name(f"{arguments.data.stem}.reference.npz")
    with temporary_folder() as folder:
        task = {
            "cell": record["cell"],
            "spec": arguments.spec,
            "artifact": str(artifact),
            "workload": str(arguments.workload),
            "data": str(arguments.data),
            "outputs": f"{folder}/outputs.npz",
        }
        done = supervise(task, WORKER)
        record |= {name: done.get(name) for name in ("status", "failure", "runtime", "provenance")}
        if done["status"] == "ok":
            answers = dataset.load_outputs(task["outputs"], rows)
            record["metrics"] = evaluate(workload, rows, answers, dataset.load_outputs(reference, rows))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", required=True, help="slug of the device that must run it")
parser.add_argument("--runtime", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--precision", required=True)
parser.add_argument("--shape", required=True, help="such as b8-s128")
parser.add_argument(
    "--spec", type=json_argument, required=True, help="module, threads, options, packages, protocol.time_limit_seconds"
)
parser.add_argument("--artifact", type=Path, required=True, help="the ONNX graph, the engine, or model.safetensors")
parser.add_argument("--workload", type=Path, required=True)
parser.add_argument("--data", type=Path, required=True, help="made by make_data.py")
parser.add_argument(
    "--reference", type=Path, help="answers of FP32 PyTorch; left out: data.reference.npz beside --data"
)
parser.add_argument("--log", help="path of the log, for the record")
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
