"""One process in which ONNX Runtime builds and keeps an engine: its first start, phase by phase.

Started by :mod:`ceilings.measure.supervisor`: a builder that crashes is a result of the cell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ceilings.engines.cache import Plan, contents
from ceilings.errors import CellFailure
from ceilings.program import answer_task
from ceilings.runtimes.base import example
from ceilings.runtimes.onnxruntime_tensorrt import Builder
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Let the provider build the engine of ``task`` into its folder, and run it once."""
    plan, shape = Plan.from_json(task["plan"]), Shape.parse(task["cell"]["shape"])
    workload = Workload.read(task["workload"])
    Path(plan.folder).mkdir(parents=True, exist_ok=True)
    Path(plan.timing_cache).mkdir(parents=True, exist_ok=True)
    runner = Builder(plan, task["cell"]["precision"], workload, shape)
    record: dict[str, Any] = {"status": "failed", "failure": None, "files": {}, "provider": None}
    try:
        runner.load()
        slot = runner.place(example(workload, shape))
        with runner.phase("first_run"):
            runner.run(slot)
        record |= {"files": contents(plan.folder), "provider": runner.facts()}
        if not any(name.endswith(".engine") for name in record["files"]):
            raise CellFailure("fallback", f"the provider kept no engine in {plan.folder}")
        record["status"] = "ok"
    except CellFailure as failure:
        record["failure"] = {"kind": failure.kind, "message": str(failure)}
    return {**record, "cold_start_ns": runner.cold_start_ns, "versions": runner.versions()}


if __name__ == "__main__":
    answer_task(build, indent=1)
