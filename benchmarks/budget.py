#!/usr/bin/env python3
"""Time and memory of accounting for a capture of 100,000 kernels: python benchmarks/budget.py [--kernels N]."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings.traces import capture, store

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow_scripts"
LAUNCHES, CALLS_BETWEEN, PERIOD_NS = 100, 5, 10_000
"""Kernels of an iteration, other CUDA calls before each launch, and the time from launch to launch: PyTorch's eager."""


def made(kernels: int) -> capture.Capture:
    """A capture as of PyTorch's eager mode."""
    iterations = kernels // LAUNCHES
    number = np.arange(iterations * LAUNCHES)
    begin = number * PERIOD_NS + 20_000 * (number // LAUNCHES)
    per_kernel = CALLS_BETWEEN + 1
    starts = (begin[:, None] + 1000 * np.arange(per_kernel)).ravel()
    names = np.tile([2] * CALLS_BETWEEN + [1], len(number))
    correlations = np.arange(1, len(starts) + 1)
    runtime = [starts, starts + 700, np.full_like(starts, 1 << 24), correlations, names, np.zeros_like(starts)]
    waits = begin[LAUNCHES - 1 :: LAUNCHES] + 9000
    wait = [waits, waits + 8000, *([np.full_like(waits, value) for value in (1 << 24, 0, 3, 0)])]
    launched = begin + 1000 * CALLS_BETWEEN
    operation = [launched + 4000, launched + 7000, *([np.full_like(launched, value) for value in (0, 7)])]
    operation += [correlations[CALLS_BETWEEN::per_kernel], *(np.full_like(launched, one) for one in (1 << 24, 1, 0))]
    rows = {table: np.empty((0, len(capture.COLUMNS[table])), np.int64) for table in capture.OPERATIONS}
    rows[capture.OPERATIONS[capture.KERNEL]] = np.column_stack([*operation, 4 + number % 50])
    rows[capture.RUNTIME] = np.concatenate([np.column_stack(runtime), np.column_stack(wait)])
    strings = {1: "cudaLaunchKernel_v7000", 2: "cudaGetDevice_v3020", 3: "cudaStreamSynchronize_v3020"}
    strings |= {4 + k: f"void kernel_{k}<gemm>(float)" for k in range(50)}
    marks = np.column_stack([begin[::LAUNCHES] - 2000, waits + 9000, np.full_like(waits, 1 << 24)])
    iterations = [(*mark, capture.ITERATION) for mark in marks.tolist()]
    return capture.assemble(rows, strings, iterations, {"source": "cupti", "cell": None}, "made")


def main() -> None:
    """Write it, account for it in a fresh process, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=100_000)
    kernels = parser.parse_args().kernels
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.sqlite")
        capture_made = made(kernels)
        store.write(path, capture_made)
        start = time.perf_counter()
        command = [sys.executable, SCRIPTS / "account_budget.py", "--capture", path, "--output", Path(folder, "x.json")]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)})
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        calls = len(capture_made.calls.start)
        print(
            f"{kernels:,} kernels, {calls:,} calls, {path.stat().st_size / 1e6:.0f} MB: {seconds:.1f} s, {peak:.0f} MB"
        )


if __name__ == "__main__":
    main()
