#!/usr/bin/env python3
"""Time each layer of a cell's engine with TensorRT's profiler. Feeds no latency."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import SCHEMA_VERSION
from ceilings import host as hosts
from ceilings.engines import inspect
from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json, write_json
from ceilings.program import json_argument, main
from ceilings.provenance import provenance


def work(arguments: argparse.Namespace) -> None:
    here = hosts.detect({}).device("cuda")
    if here != arguments.device:
        raise UserError(
            f"{arguments.output} belongs to {arguments.device}, but this machine's GPU is {here or 'none'}; run it "
            "there, or ask for the path of this machine's GPU"
        )
    from ceilings.models.inputs import load_inputs
    from ceilings.runtimes.layer_times import described, layer_times
    from ceilings.runtimes.tensorrt_native import TensorRt

    batch, sequence = (int(part[1:]) for part in arguments.shape.split("-"))
    inputs = load_inputs(arguments.inputs)
    ring = [{name: values[i] for name, values in inputs.items()} for i in range(len(inputs["input_ids"]))]
    options = {**arguments.spec["options"], "cuda_graph": False}
    runner = TensorRt(arguments.engine, arguments.precision, (batch, sequence), 1, options)
    found: dict[str, Any] = {"status": "failed", "failure": None}
    try:
        runner.load()
        found |= layer_times(runner, [runner.place(one) for one in ring], arguments.spec["iterations"])
        told = read_json(arguments.engine.with_suffix(".layers.json"))
        found |= {
            "status": "ok",
            "layers": described(found["layers"], inspect.layers(told)),
            "runtime": runner.describe(),
        }
    except CellFailure as failure:
        found["failure"] = {"kind": failure.kind, "message": str(failure)}
    cell = {key: getattr(arguments, key) for key in ("device", "runtime", "precision")}
    record = {
        "schema_version": SCHEMA_VERSION,
        **cell,
        "batch": batch,
        "sequence": sequence,
        **found,
        "provenance": provenance(arguments.spec["packages"], {"engine": arguments.engine, "inputs": arguments.inputs}),
    }
    write_json(arguments.output, record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the GPU that must run it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--shape", required=True, help="such as b8-s128")
    parser.add_argument("--spec", type=json_argument, required=True, help="options, iterations, packages")
    parser.add_argument("--engine", type=Path, required=True, help="x.engine, with its record beside it")
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
