"""One fresh process that measures one cell: ``python -m ceilings.measure.worker TASK.json RECORD.json``.

Started by :mod:`ceilings.measure.supervisor`. Ends with status 0 and a record, also of a cell that cannot run; with
status 1 and a message where the user must act; with a traceback where the pipeline is wrong.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
import time
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json, write_json
from ceilings.graphs.parity import compare
from ceilings.measure.loop import closed_loop, saturated
from ceilings.measure.neighbours import Neighbours
from ceilings.measure.stopping import Protocol
from ceilings.models.inputs import load_inputs
from ceilings.program import leave
from ceilings.provenance import provenance
from ceilings.runtimes.base import Runner


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Measure the cell that ``task`` describes.

    Args:
        task: What :func:`ceilings.measure.supervisor.supervise` wrote.

    Returns:
        The record's fields that come from measuring: status, failure, parity, series, flags and so on.
    """
    spec = task["spec"]
    shape = (task["cell"]["batch"], task["cell"]["sequence"])
    inputs = load_inputs(task["inputs"])
    ring = [{name: values[i] for name, values in inputs.items()} for i in range(len(inputs["input_ids"]))]
    reference = np.load(task["reference"])["logits"]

    start = time.perf_counter_ns()
    module = importlib.import_module(f"ceilings.runtimes.{spec['module']}")
    imported_ns = time.perf_counter_ns() - start

    runner: Runner = module.RUNNER(
        Path(task["artifact"]), task["cell"]["precision"], shape, spec["threads"], spec["options"]
    )
    instrument = instrument_for(runner)
    found: dict[str, Any] = {"status": "failed", "failure": None, "parity": None, "series": {}, "flags": []}
    try:
        runner.load()
        slots = [runner.place(element) for element in ring]
        with runner.phase("first_run"):
            first = runner.run(slots[0])
        outputs = np.stack([runner.logits(first), *(runner.logits(runner.run(s)) for s in slots[1 : len(reference)])])
        found["parity"] = gate(outputs, reference, spec["tolerance"])
        protocol = Protocol.from_json(spec["protocol"])
        with Neighbours() as neighbours:
            found |= instrument.measure(runner, slots, ring, protocol)
        found["flags"] = neighbours.flags() + found["flags"]
        if not found["series"]["latency"]["warmup_stable"]:
            found["flags"].append("warm-up ended before two windows agreed within 5%")
        found["neighbours"] = {"others_cores": neighbours.others_cores, "stolen_cores": neighbours.stolen_cores}
        found["memory"] = memory(instrument)  # before a runtime looks at itself, with a second session perhaps
        found["runtime"] = runner.describe()
        found["status"] = "ok"
    except CellFailure as failure:
        found |= {"failure": {"kind": failure.kind, "message": str(failure)}, "series": {}}
    except MemoryError as error:
        found |= {"failure": {"kind": "out-of-memory", "message": str(error) or "MemoryError"}, "series": {}}
    found["cold_start_ns"] = {"import": imported_ns, **runner.cold_start_ns}
    if "memory" not in found:
        found["memory"] = memory(instrument)
    found["threads"] = {
        "intra_op": spec["threads"],
        "affinity": len(os.sched_getaffinity(0)),
        **{name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
    }
    sources = {"inputs": task["inputs"], "reference": task["reference"]}
    artifact = Path(task["artifact"])
    sources["artifact"] = str(artifact / "model.safetensors" if artifact.is_dir() else artifact)
    found["provenance"] = provenance([*spec["packages"], "numpy"], sources)
    return found


def instrument_for(runner: Runner) -> Instrument:
    """What measures a runner of this device; made before the runner loads."""
    if runner.device == "cpu":
        return CpuInstrument()
    # By name: a cell on a CPU does not depend on it.
    return importlib.import_module("ceilings.measure.gpu_loop").Instrument()


class Instrument(typing.Protocol):
    """Measures a loaded runner."""

    def measure(
        self, runner: Any, slots: Sequence[Any], ring: Sequence[Mapping[str, np.ndarray]], protocol: Protocol
    ) -> dict[str, Any]:
        """The record's ``series`` and ``flags``, and what else belongs beside them."""
        ...

    def memory(self) -> dict[str, Any]:
        """The record's ``memory`` beside the host's."""
        ...


class CpuInstrument:
    """Work that is done when its call returns."""

    def measure(
        self, runner: Runner, slots: Sequence[Any], ring: Sequence[Mapping[str, np.ndarray]], protocol: Protocol
    ) -> dict[str, Any]:
        """The closed loop and the saturated one."""
        return {
            "series": {
                "latency": closed_loop(runner.launch, slots, protocol, runner.runs_ns[1:]),
                "throughput": saturated(runner.launch, slots, protocol, runner.shape[0]),
            },
            "flags": [],
        }

    def memory(self) -> dict[str, Any]:
        """No device's."""
        return {"peak_device_bytes": None}


def memory(instrument: Instrument) -> dict[str, Any]:
    """Peaks of the process so far, on the host and on the device."""
    return {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, **instrument.memory()}


def gate(outputs: np.ndarray, reference: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Compare with FP32 PyTorch; wrong outputs get no speed number.

    Args:
        outputs: Logits (elements of the ring, batch, classes).
        reference: The same of FP32 PyTorch.
        tolerance: Largest relative L2 difference.

    Raises:
        CellFailure: The difference is larger, or an output is not finite.
    """
    parity = {**compare(outputs, reference).to_json(), "tolerance": tolerance}
    if not parity["relative_l2"] <= tolerance:
        raise CellFailure(
            "parity",
            f"relative L2 difference from FP32 PyTorch is {parity['relative_l2']:.3g}; allowed {tolerance:.3g}",
        )
    return parity


def main() -> None:
    """Read the task, measure, write the record."""
    task_path, record_path = sys.argv[1:]
    try:
        write_json(record_path, measure(read_json(task_path)), indent=None)
    except UserError as error:
        sys.exit(f"error: {error}")
    leave()


if __name__ == "__main__":
    main()
