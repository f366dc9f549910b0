#!/usr/bin/env python3
"""What fixing a graph's axes does to ONNX Runtime's CPU kernels, FP32 and INT8.

    python benchmarks/fixed_axes.py results/onnx/distilbert/{fp32,int8,int8.cpu}.onnx

For each graph three sessions: axes dynamic; fixed by add_free_dimension_override_by_name; fixed, without the optimizer
that merges products with their biases. For each the median of 20 runs and the operators that take the time.
"""

import argparse
import collections
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings.workload.shape import Shape

TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


def ones(session: onnxruntime.InferenceSession, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Inputs of a graph, all ones: its axes by name, or of the size that the graph gives."""
    return {
        one.name: np.ones([sizes.get(dim, dim) for dim in one.shape], TYPES[one.type]) for one in session.get_inputs()
    }


def measure(graph: Path, sizes: dict[str, int], threads: int, fixed: bool, disabled: list[str]) -> tuple[float, str]:
    """Median ms without profiling, and the three operators that take most in a profiled session."""

    def session(profile: bool) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = profile
        options.profile_file_prefix = "fixed_axes"
        if fixed:
            for axis, size in sizes.items():
                options.add_free_dimension_override_by_name(axis, size)
        made = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        feeds = ones(made, sizes)
        for _ in range(5):
            made.run(None, feeds)
        return made

    timed = session(profile=False)
    feeds = ones(timed, sizes)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        timed.run(None, feeds)
        times.append(1e3 * (time.perf_counter() - start))
    file = Path(session(profile=True).end_profiling())
    spent: collections.Counter[str] = collections.Counter()
    for event in json.loads(file.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    file.unlink()
    return statistics.median(times), ", ".join(f"{name} {us / 5e3:.1f}" for name, us in spent.most_common(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--shape", default="b1-s128", help="sizes of the graph's axes")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    sizes = dict(Shape.parse(arguments.shape).sizes)
    print("| graph | session | p50 (ms) | operators (ms a run) |\n|---|---|---:|---|")
    for graph in arguments.graphs:
        for name, fixed, disabled in (
            ("dynamic axes", False, []),
            ("fixed axes", True, []),
            ("fixed axes, no MatMulAddFusion", True, ["MatMulAddFusion"]),
        ):
            median, operators = measure(graph, sizes, arguments.threads, fixed, disabled)
            print(f"| {graph.stem} | {name} | {median:.1f} | {operators} |", flush=True)


if __name__ == "__main__":
    main()
