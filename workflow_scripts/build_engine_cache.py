#!/usr/bin/env python3
"""Let ONNX Runtime's TensorRT provider build an engine and keep it; record what its first start cost."""

import argparse
from pathlib import Path

from ceilings import artifacts, records, turns
from ceilings import host as hosts
from ceilings.engines.cache import Plan
from ceilings.errors import CellFailure
from ceilings.files import sha256
from ceilings.measure.supervisor import failed, supervise
from ceilings.program import json_argument, main
from ceilings.provenance import provenance

LIMIT_SECONDS = 3600
PACKAGES = ("onnxruntime-gpu", "tensorrt-cu13-libs", "cuda-bindings")


def work(arguments: argparse.Namespace) -> None:
    host = hosts.having(arguments.device, arguments.output, "cuda")
    cell = {"precision": arguments.precision, "shape": arguments.shape}
    plan = Plan(
        graph=str(arguments.graph),
        folder=str(arguments.folder),
        timing_cache=str(arguments.folder.parents[2] / "timing"),
        optimization_level=arguments.spec["optimization_level"],
        workspace_mb=arguments.spec["workspace_mb"],
    )
    # Also for a build that fails: the rule promises the folder, and the record says why it is empty.
    arguments.folder.mkdir(parents=True, exist_ok=True)
    spec = {"threads": 1, "protocol": {"time_limit_seconds": LIMIT_SECONDS}}
    task = {"cell": cell, "spec": spec, "plan": plan.to_json(), "workload": str(arguments.workload)}
    try:
        artifacts.refuse_failed(arguments.graph)
        with turns.turn(host.uuid("cuda")):
            built = supervise(task, "ceilings.runtimes.tensorrt_cache_worker")
    except CellFailure as failure:
        built = failed(failure.kind, str(failure))
    record = {
        "status": built["status"],
        "failure": built["failure"],
        "device": arguments.device,
        **cell,
        "plan": plan.to_json(),
        "graph_sha256": sha256(arguments.graph),
        "files": built.get("files", {}),
        "versions": built.get("versions", {}),
        "cold_start_ns": built["cold_start_ns"],
        "provider": built.get("provider"),
        "provenance": provenance(PACKAGES, {"graph": arguments.graph}),
    }
    records.write(arguments.output, "engine-cache", record, as_is=("plan",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the GPU that must run it")
    parser.add_argument("--precision", required=True)
    parser.add_argument("--shape", required=True, help="such as b8-s128")
    parser.add_argument("--graph", type=Path, required=True, help="typed ONNX graph with dynamic axes")
    parser.add_argument("--workload", type=Path, required=True, help="the model's workload.json")
    parser.add_argument("--spec", type=json_argument, required=True, help="settings of the builder, and versions")
    parser.add_argument("--folder", type=Path, required=True, help="where the provider keeps its engine")
    parser.add_argument("--output", type=Path, required=True, help="the record")
    main(work, parser)
