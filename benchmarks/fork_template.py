#!/usr/bin/env python3
"""Fresh processes against processes forked from a template whose imports are done, in turn, on one ONNX graph.

python benchmarks/fork_template.py --graph results/onnx/tiny/fp32.onnx --cpu 1

Prints how many layouts of memory each kind has, its start, its memory and its latencies. docs/method.md says what
follows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SECONDS = 0.35
MAPPED = {"library": "onnxruntime_pybind", "heap": "[heap]", "stack": "[stack]"}


def measured(graph: str) -> dict[str, Any]:
    """Latencies of a session, its start and its memory, in this process."""
    start = time.perf_counter()
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {one.name: np.ones((1, 16), np.int64) for one in session.get_inputs()}
    session.run(None, feed)
    first = time.perf_counter() - start
    for _ in range(300):
        session.run(None, feed)
    samples, end = [], time.perf_counter() + SECONDS
    while (before := time.perf_counter()) < end:
        session.run(None, feed)
        samples.append(time.perf_counter() - before)
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    places = {kind: next((line.split("-")[0] for line in lines if part in line), "") for kind, part in MAPPED.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"p50": statistics.median(samples), "first": first, "peak_mb": peak, **places}


def template(graph: str) -> None:
    """Fork a process for each line of the input, which prints what it measured."""
    import numpy  # noqa: F401
    import onnxruntime  # noqa: F401

    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            print(json.dumps(measured(graph)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


def main() -> None:
    """Measure both kinds in turn and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True, help="of ids and mask, such as results/onnx/tiny/fp32.onnx")
    parser.add_argument("--cpu", type=int, default=1, help="the one that all processes run on")
    parser.add_argument("--templates", type=int, default=5)
    parser.add_argument("--processes", type=int, default=10, help="of each kind, a template")
    parser.add_argument("--as", dest="role", choices=("fresh", "template"), help="what this process is; by itself")
    arguments = parser.parse_args()
    if arguments.role == "fresh":
        print(json.dumps(measured(arguments.graph)))
        return
    if arguments.role == "template":
        template(arguments.graph)
        return
    os.sched_setaffinity(0, {arguments.cpu})
    command = [sys.executable, __file__, "--graph", arguments.graph, "--as"]
    fresh: list[dict[str, Any]] = []
    forked: list[list[dict[str, Any]]] = []
    for _ in range(arguments.templates):
        forked.append([])
        with subprocess.Popen([*command, "template"], stdin=-1, stdout=-1, text=True) as parent:
            assert parent.stdin and parent.stdout
            for _ in range(arguments.processes):
                done = subprocess.run([*command, "fresh"], stdout=-1, text=True, check=True)
                fresh.append(json.loads(done.stdout))
                parent.stdin.write("\n")
                parent.stdin.flush()
                forked[-1].append(json.loads(parent.stdout.readline()))
            parent.stdin.close()
    for name, rows in (("fresh", fresh), ("forked", [row for group in forked for row in group])):
        middle = {key: statistics.median(row[key] for row in rows) for key in ("p50", "first", "peak_mb")}
        spread = statistics.stdev(math.log(row["p50"]) for row in rows)
        places = ", ".join(f"{len({row[kind] for row in rows})} of {kind}" for kind in MAPPED)
        print(
            f"{name}: {len(rows)} processes, addresses: {places}; start {middle['first']:.3f} s, "
            f"peak {middle['peak_mb']:.0f} MB, p50 {middle['p50'] * 1e6:.2f} us, spread {spread:.1%}"
        )
    print("p50 by template, us:", *(f"{statistics.median(row['p50'] for row in group) * 1e6:.2f}" for group in forked))


if __name__ == "__main__":
    main()
