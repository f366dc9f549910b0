"""One fresh process that measures one cell: ``python -m ceilings.measure.worker TASK.json RECORD.json``.

Started by :mod:`ceilings.measure.supervisor`. Ends with status 0 and a record, also of a cell that cannot run; with
status 1 and a message where the user must act; with a traceback where the pipeline is wrong.

The task holds ``cell`` (``device``, ``runtime``, ``model``, ``precision``, ``shape``), the paths ``artifact``,
``inputs``, ``reference`` and ``workload``, and ``spec``: ``module`` and ``options`` of the runtime, ``packages``,
``threads``, ``tolerance``, ``protocol`` and ``measurements``, a list of (name, module) in order. All modules are
imported by these names, so that a cell depends on its own alone.
"""

from __future__ import annotations

from ceilings import import_clock

if __name__ == "__main__":  # before the imports that it times
    import_clock.start()
    INTERPRETER_NS = import_clock.age_ns()
else:
    INTERPRETER_NS = None

import importlib
import os
import resource
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ceilings import environment
from ceilings.control_groups import cpu_quota, memory_limit
from ceilings.errors import CellFailure, UserError
from ceilings.graphs.token_parity import other_texts
from ceilings.measure.bench import Bench
from ceilings.measure.gate import coarse, constant, gate, stacked
from ceilings.measure.neighbours import Neighbours
from ceilings.measure.setup import artifact_file, make_runner, pool_facts
from ceilings.measure.steadiness import level_flags
from ceilings.measure.stopping import Protocol
from ceilings.models import pool, weights_folder
from ceilings.program import answer_task
from ceilings.provenance import package_flags, provenance
from ceilings.runtimes.base import Runner

Outputs = Mapping[str, np.ndarray]

Compared = list[tuple[Any, dict[str, Any]]]
"""Of the pool what is compared: each element as a slot and in host memory."""


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Measure the cell that ``task`` describes.

    Args:
        task: What :func:`ceilings.measure.supervisor.supervise` wrote.

    Returns:
        The record's fields that come from measuring: status, failure, parity, series, flags and so on.
    """
    import_clock.start()
    try:
        return _measure(task)
    finally:
        import_clock.stop()  # also where the user must act: a process that goes on has its own import system back


def _measure(task: dict[str, Any]) -> dict[str, Any]:
    spec = task["spec"]
    runner = make_runner(task)
    with runner.phase("instrument"):
        bench = make_bench(runner)
        bench.refuse_other_device(task["cell"]["device"])
        measurements = {
            name: importlib.import_module(f"ceilings.measure.measurements.{module}")
            for name, module in spec["measurements"]
        }
    with runner.phase("inputs"):
        arrays = pool.load_pool(task["inputs"])
        elements = pool.elements(arrays)
        reference = pool.load_outputs(task["reference"], pool.digest(arrays))
    record: dict[str, Any] = {"status": "failed", "failure": None, "parity": None, "series": {}, "flags": []}
    try:
        runner.load()
        with runner.phase("inputs"):
            slots = [runner.place(element) for element in elements]
        with runner.phase("first_run"):
            first = runner.first(slots[0])
        record |= cold_start(runner)
        if runner.workload.task.generates:  # that was the first token alone
            first = runner.run(slots[0])
        compared = list(zip(slots, elements, strict=True))[: len(next(iter(reference.values())))]
        outputs, record["parity"] = judged(runner, first, compared, reference, spec["tolerance"])
        with Neighbours() as neighbours:
            record |= measured(bench, slots, elements, spec["protocol"], measurements)
        record["flags"] = neighbours.flags() + record["flags"]
        record["flags"] += constant([element for _, element in compared], reference) + coarse(runner, record["parity"])
        record["flags"] += level_flags(record["series"])
        if not record["series"]["latency"]["warmup_stable"]:
            record["flags"].append("warm-up ended before two windows agreed within 5%")
        record["neighbours"] = neighbours.to_json()
        record["memory"] = memory(bench)  # before a runtime looks at itself, with a second session perhaps
        record |= judged_again(runner, outputs, compared, reference, task)
        record["runtime"] = runner.describe()
        record["status"] = "ok"
    except CellFailure as failure:
        record |= {"failure": {"kind": failure.kind, "message": str(failure)}, "series": {}}
    except MemoryError as error:
        record |= {"failure": {"kind": "out-of-memory", "message": str(error) or "MemoryError"}, "series": {}}
    if "cold_start_ns" not in record:
        record |= cold_start(runner)
    record["inputs"] = pool_facts(task)
    if "memory" not in record:
        record["memory"] = memory(bench)
    record["threads"] = {
        "intra_op": spec["threads"],
        "affinity": len(os.sched_getaffinity(0)),
        "quota": (quota := cpu_quota()),
        **{name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
    }
    if quota is not None and spec["threads"] > quota:
        record["flags"].append(f"{spec['threads']} threads under a CPU quota of {quota:g} cores, which stops them")
    record["provenance"] = provenance([*spec["packages"], "numpy"], sources(task))
    record["flags"] += environment.flags(record["provenance"]["variables"], spec.get("variables"))
    record["flags"] += package_flags(spec["packages"])
    return record


def judged(
    runner: Runner, first: Any, compared: Compared, reference: Outputs, tolerance: float
) -> tuple[Outputs, dict[str, Any]]:
    """The outputs of all slots and their parity, given what the first of them gave.

    Raises:
        CellFailure: They are too far from the reference, or nothing says how far.
    """
    outputs = stacked([runner.outputs(first), *(runner.outputs(runner.run(slot)) for slot, _ in compared[1:])])
    elements = [element for _, element in compared]
    return outputs, gate(runner.workload, elements, outputs, reference, tolerance, precision=runner.precision)


def judged_again(
    runner: Runner, before: Outputs, compared: Compared, reference: Outputs, task: Mapping[str, Any]
) -> dict[str, Any]:
    """Judge generated text after the timed part: a cache outlives its request, and no timed request is compared.

    Returns:
        Of what generates ``texts``, which the reference has still to read (``text_judge``): ``tokens`` of each that is
        not its own, once, and ``places``, the element of the pool and the row that it goes on from; digests of the
        ``weights`` and of the ``inputs``.

    Raises:
        CellFailure: As of ``judged``; it says when that was.
    """
    if not runner.workload.task.generates:
        return {}
    try:
        after, _ = judged(runner, runner.run(compared[0][0]), compared, reference, task["spec"]["tolerance"])
    except CellFailure as failure:
        raise CellFailure(failure.kind, f"after the timed part, {failure}") from failure
    tokens, places = other_texts([before["tokens"], after["tokens"]], reference["tokens"])
    of = {
        "weights": weights_folder.digest(Path(task["workload"]).parent),
        "inputs": pool.digest(pool.load_pool(task["inputs"])),
    }
    return {"texts": {**of, "tokens": tokens.tolist(), "places": places.tolist()}}


def cold_start(runner: Runner) -> dict[str, Any]:
    """What the process did up to its first answer, an inference or a token: nothing that is timed has an import timed.

    Returns:
        ``cold_start_ns``, the stages: all that the runner went through, ``import``, and ``interpreter`` where the
        process belongs to the pipeline; ``imports_ns``, the imports by package; ``first_answer_ns``, the age of the
        process.
    """
    imports = import_clock.stop()
    before = {} if INTERPRETER_NS is None else {"interpreter": INTERPRETER_NS}
    return {
        "cold_start_ns": {**before, "import": sum(imports.values()), **runner.cold_start_ns},
        "imports_ns": imports,
        "first_answer_ns": None if INTERPRETER_NS is None else import_clock.age_ns(),
    }


def measured(bench: Bench, slots: list[Any], elements: list[Any], protocol: Any, modules: Any) -> dict[str, Any]:
    """What the measurements give.

    Raises:
        CellFailure: One failed, or raised something else, which is then named: it may be a plug-in's.
    """
    try:
        return bench.measure(slots, elements, Protocol.from_json(protocol), modules)
    except (CellFailure, UserError, MemoryError):
        raise
    except Exception as error:
        if not bench.measuring:
            raise
        traceback.print_exc()
        line = next(iter(str(error).splitlines()), "")[:300]
        raise CellFailure(
            "runtime-error", f"the measurement {bench.measuring} raised {type(error).__name__}: {line}"
        ) from error


def make_bench(runner: Runner) -> Bench:
    """What measures a runner of this device; made before the runner loads."""
    # By name: a cell of one device does not depend on the other's loops.
    bench: Bench = importlib.import_module(f"ceilings.measure.{runner.device}_bench").BENCH(runner)
    return bench


def memory(bench: Bench) -> dict[str, Any]:
    """Peaks of the process so far, on the host and on the device, and what its control groups allow on the host."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak_rss_bytes": peak, "limit_bytes": memory_limit(), **bench.memory()}


def sources(task: Mapping[str, Any]) -> dict[str, str]:
    """The files that a measurement is made from."""
    artifact = artifact_file(task)
    paths = {name: task[name] for name in ("inputs", "reference", "workload")} | {"artifact": str(artifact)}
    external = f"{artifact}.data"  # what a graph of more than 2 GB keeps beside itself
    return paths | ({"artifact_data": external} if Path(external).is_file() else {})


if __name__ == "__main__":
    answer_task(measure)
