"""One fresh process that answers all rows: ``python -m ceilings.measure.evaluation_worker TASK.json RECORD.json``.

Started by :mod:`ceilings.measure.supervisor`. Nothing is timed. The answers go to the file that the task names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ceilings.errors import CellFailure
from ceilings.measure.setup import artifact_file, make_runner
from ceilings.models import dataset
from ceilings.program import answer_task
from ceilings.provenance import provenance
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """Run the rows of ``task["data"]`` and write the outputs to ``task["outputs"]``.

    Args:
        task: ``cell``, ``spec``, and the paths ``artifact``, ``workload``, ``data`` and ``outputs``.

    Returns:
        The record's fields that come from running: status, failure, runtime, provenance.
    """
    shape, workload = Shape.parse(task["cell"]["shape"]), Workload.read(task["workload"])
    rows = dataset.load(task["data"])
    record: dict[str, Any] = {"status": "failed", "failure": None, "runtime": None}
    try:
        size = dataset.rows_at_once(workload, shape)
        runner = make_runner(task)
        runner.load()
        parts = []
        for element, count in rows.batches(size):
            outputs = runner.outputs(runner.run(runner.place(element)))
            parts.append({name: np.array(values[:count], np.float32) for name, values in outputs.items()})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        dataset.save_outputs(task["outputs"], joined, rows)
        record |= {"status": "ok", "runtime": runner.describe()}
    except CellFailure as failure:
        record["failure"] = {"kind": failure.kind, "message": str(failure)}
    except MemoryError as error:
        record["failure"] = {"kind": "out-of-memory", "message": str(error) or "MemoryError"}
    sources = {name: task[name] for name in ("data", "workload")} | {"artifact": str(artifact_file(task))}
    record["provenance"] = provenance([*task["spec"]["packages"], "numpy"], sources)
    return record


if __name__ == "__main__":
    answer_task(answer, indent=1)
