#!/usr/bin/env python3
"""Time each layer of a cell's engine with TensorRT's profiler. Feeds no latency."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import artifacts, records, turns
from ceilings import host as hosts
from ceilings.engines import engine_record, inspect
from ceilings.errors import CellFailure
from ceilings.program import json_argument, main
from ceilings.provenance import provenance
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload


def work(arguments: argparse.Namespace) -> None:
    host = hosts.having(arguments.device, arguments.output, "cuda")
    from ceilings.models.pool import elements, load_pool
    from ceilings.runtimes.layer_times import described, layer_times
    from ceilings.runtimes.tensorrt_native import TensorRt

    pool = elements(load_pool(arguments.inputs))
    options = {**arguments.spec["options"], "cuda_graph": False}
    shape, workload = Shape.parse(arguments.shape), Workload.read(arguments.workload)
    runner = TensorRt(arguments.engine, arguments.precision, workload, shape, 1, options)
    outcome: dict[str, Any] = {"status": "failed", "failure": None}
    try:
        artifacts.refuse_failed(arguments.engine)
        with turns.turn(host.uuid("cuda")):
            runner.load()
            outcome |= layer_times(runner, [runner.place(element) for element in pool], arguments.spec["iterations"])
        known = inspect.layers(engine_record.layers(arguments.engine))
        outcome |= {"status": "ok", "layers": described(outcome["layers"], known), "runtime": runner.describe()}
    except CellFailure as failure:
        outcome["failure"] = {"kind": failure.kind, "message": str(failure)}
    record = {
        **{key: getattr(arguments, key) for key in ("device", "runtime", "precision", "shape")},
        **outcome,
        "provenance": provenance(arguments.spec["packages"], {"engine": arguments.engine, "inputs": arguments.inputs}),
    }
    records.write(arguments.output, "layer-times", record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the GPU that must run it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--shape", required=True, help="such as b8-s128")
    parser.add_argument("--workload", type=Path, required=True, help="the model's workload.json")
    parser.add_argument("--spec", type=json_argument, required=True, help="options, iterations, packages")
    parser.add_argument("--engine", type=Path, required=True, help="x.engine, with its record beside it")
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
