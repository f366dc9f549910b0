#!/usr/bin/env python3
"""What ONNX Runtime's convolution does when the batch changes: its time in each request, and the plans that it builds.

python benchmarks/convolution_plans.py results/onnx/openclip/fp16.onnx --output convolution_plans.csv

Two processes for each search of convolutions: one with ONNX Runtime's profile, which says how long each operator takes
on the host, and one with the log of cuDNN's frontend, which says each plan that is built and run. Both slow the host:
these are no latencies. The model has one convolution and one input, images of (batch, 3, side, side). Needs onnxruntime
for CUDA, and PyTorch for cuDNN's libraries.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
BATCHES = (2, 2, 1, 1, 2, 1, 2, 1, 2, 2, 1, 2, 1, 2)
"""Of the requests, in order: changes and repetitions, and returns to both."""

BUILT = "CREATE EXECUTION PLANS  (HEURISTICS QUERY)"
"""A line of cuDNN's frontend before it builds plans for a graph."""

QUERY = re.compile(r"Heuristic query for mode (\d) has (\d+) configurations")
"""A line of cuDNN's frontend for the plans that cuDNN proposes: the mode of the query, and how many they are."""

MODES = {"0": "instant", "1": "B", "2": "fallback", "3": "A"}
"""Of a query, by its number in ``cudnnBackendHeurMode_t``."""

RUN = re.compile(r"INFO: Executing _?(eng\d+)")
"""A line of cuDNN's frontend for the plan that it runs: the engine's name."""

COLUMNS = ("search", "request", "batch", "request_ms", "convolution_ms", "plans_built", "query", "proposals", "engine")


def convolutions(events: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Of each request of ONNX Runtime's profile its ms, and those of its convolutions on the host."""
    runs = sorted((one for one in events if one.get("name") == "model_run"), key=lambda one: one["ts"])
    nodes = [one for one in events if one.get("cat") == "Node" and one["name"].endswith("_kernel_time")]
    found = []
    for run in runs:
        inside = (one for one in nodes if run["ts"] <= one["ts"] < run["ts"] + run["dur"])
        found.append((run["dur"] / 1e3, sum(one["dur"] for one in inside if one["args"]["op_name"] == "Conv") / 1e3))
    return found


class Planned(NamedTuple):
    """What the log says of a request: plans built before it ran, the query's mode and proposals, the engine run."""

    built: int
    query: str
    proposals: int | None
    engine: str


def plans(log: str) -> list[Planned]:
    """Each request in the log of cuDNN's frontend."""
    found, built, query, proposals = [], 0, "", None
    for line in log.splitlines():
        if BUILT in line:
            built += 1
        elif match := QUERY.search(line):
            query, proposals = MODES[match[1]], int(match[2])
        elif match := RUN.search(line):
            found.append(Planned(built, query, proposals, match[1]))
            built, query, proposals = 0, "", None
    return found


def rows(search: str, profiled: Sequence[tuple[float, float]], planned: Sequence[Planned]) -> list[list[Any]]:
    """A row a request.

    Raises:
        ValueError: Profile and log are not of the same requests.
    """
    if not len(profiled) == len(planned) == len(BATCHES):
        raise ValueError(f"{search}: {len(profiled)} requests profiled, {len(planned)} logged, {len(BATCHES)} asked")
    each = zip(BATCHES, profiled, planned, strict=True)
    return [
        [search, number, batch, round(took, 2), round(inside, 3), *plan]
        for number, (batch, (took, inside), plan) in enumerate(each, 1)
    ]


def requests(model: Path, search: str, profile: Path | None) -> None:
    """Answer the requests in this process; with ``profile``, ONNX Runtime writes its profile there."""
    import onnxruntime
    import torch  # noqa: F401  it brings cuDNN's libraries

    options = onnxruntime.SessionOptions()
    options.enable_profiling = profile is not None
    options.profile_file_prefix = str(profile)
    providers = [("CUDAExecutionProvider", {"cudnn_conv_algo_search": search})]
    session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    (given,) = session.get_inputs()
    draw, half = np.random.default_rng(0), "float16" in given.type
    for batch in BATCHES:
        images = draw.standard_normal((batch, *given.shape[1:])).astype(np.float16 if half else np.float32)
        session.run(None, {given.name: images})
    if profile:
        Path(session.end_profiling()).rename(profile)


def main() -> None:
    """Run the processes of each search and write a row a request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--search", choices=SEARCHES, help=argparse.SUPPRESS)
    parser.add_argument("--profile", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.search:
        requests(given.model, given.search, given.profile)
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for search in SEARCHES:
            profile, log = Path(folder, f"{search}.json"), Path(folder, f"{search}.log")
            command = [sys.executable, __file__, str(given.model), "--output", "-", "--search", search]
            logged = os.environ | {"CUDNN_FRONTEND_LOG_INFO": "1", "CUDNN_FRONTEND_LOG_FILE": str(log)}
            subprocess.run([*command, "--profile", str(profile)], check=True)
            subprocess.run(command, check=True, env=logged)
            found += rows(search, convolutions(json.loads(profile.read_text())), plans(log.read_text()))
    with given.output.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *found])


if __name__ == "__main__":
    main()
