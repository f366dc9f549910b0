"""Phases of the cold start: each has its own time, and together they are no longer than all."""

import time
from pathlib import Path

from unit.runtimes.workloads import EMBEDDER

from ceilings.runtimes.onnxruntime_cpu import RUNNER
from ceilings.workload.shape import Shape

MS = 1_000_000


def test_a_phase_within_a_phase_counts_once():
    runner = RUNNER(Path("none.onnx"), "fp32", EMBEDDER, Shape.parse("b1-i16"), 1, {})
    start = time.perf_counter_ns()
    with runner.phase("first_run"):
        time.sleep(0.01)
        with runner.phase("compile"):
            time.sleep(0.05)
    whole = time.perf_counter_ns() - start
    spent = runner.cold_start_ns
    assert spent["compile"] >= 50 * MS and spent["first_run"] >= 10 * MS
    assert sum(spent.values()) <= whole
