#!/usr/bin/env python3
"""Make the small captures that tests/unit/traces rests on, on a GPU with both Nsight Systems and CUPTI's bindings.

    snakemake --cores all results/onnx/distilbert/fp16.onnx results/models/distilbert/inputs/b1-s128.npz
    PYTHONPATH=workflow_scripts python3 tests/gpu/capture_fixtures.py --output tests/unit/traces/data

Each kind of capture is tried, also where another failed; the exit status is 1 if one did.

Of a capture that a study kept, a few iterations; this needs no GPU:

    PYTHONPATH=workflow_scripts python3 tests/gpu/capture_fixtures.py --output tests/unit/traces/data \\
        --cut decode-torch-cuda-eager.cupti=results/traces/nvidia-h100-80gb-hbm3/.../b1-p128-g128.sqlite
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import yaml

from ceilings import host as hosts
from ceilings.environment import executing
from ceilings.study.study import Study
from ceilings.traces import capture, health, nsys, recorder, store
from ceilings.traces.budget_record import budget_record
from ceilings.traces.source import SOURCES

PROJECT = Path(__file__).parents[2]
RUNTIMES = ("torch-cuda-eager", "onnxruntime-cuda-graph")
MODEL, PRECISION, SHAPE = "distilbert", "fp16", "b1-s128"
ITERATIONS = 5
SKIPPED = 10
"""Iterations of a longer capture that are left out before those that are kept."""


def truth(source: str, output: Path) -> None:
    """Capture the program whose account is known."""
    command = [sys.executable, str(Path(__file__).with_name("known_truth.py"))]
    with tempfile.TemporaryDirectory() as folder:
        raw, report = Path(folder, "raw.sqlite"), Path(folder, "raw.nsys-rep")
        command = [*command, "--cupti", str(raw)] if source == "cupti" else nsys.wrapped(command, report)
        done = subprocess.run(command, capture_output=True, text=True, env=executing(1), timeout=300, check=False)
        if not (report if source == "nsys" else raw).is_file():
            raise RuntimeError(f"status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        if source == "nsys":
            nsys.export(report, raw, executing(1), done.stdout + done.stderr)
        found = capture.trimmed(store.read(raw))
        health.refuse_unsound(found, output)
        store.write(output, found)


def cell(study: Study, runtime: str, source: str, output: Path) -> None:
    """Capture a cell of the default study, with few iterations."""
    spec = json.loads(study.slices.trace(runtime, MODEL)) | {"iterations": ITERATIONS, "source": source}
    artifact = Path(study.artifact(runtime, MODEL, PRECISION, SHAPE, study.host.device("cuda"))[0])
    task = {
        "cell": {
            "device": study.host.device("cuda"),
            "runtime": runtime,
            "model": MODEL,
            "precision": PRECISION,
            "shape": SHAPE,
        },
        "spec": spec,
        "artifact": str(artifact.parent if artifact.suffix == ".safetensors" else artifact),
        "inputs": f"results/models/{MODEL}/inputs/{SHAPE}.npz",
        "workload": f"results/models/{MODEL}/weights/workload.json",
    }
    print(recorder.record(task, output))
    output.with_suffix(".nsys-rep").unlink(missing_ok=True)


def cut(kept: Path, output: Path, iterations: int) -> None:
    """Keep a few iterations of a capture in the middle of it, without what is known of the GPU's host."""
    whole = store.read(kept)
    chosen = slice(SKIPPED, SKIPPED + iterations)
    marks = capture.Marks(*(column[chosen] for column in (whole.marks.start, whole.marks.end, whole.marks.thread)))
    facts = {name: value for name, value in whole.meta.items() if name != "gpu"} | {"iterations": iterations}
    store.write(output, capture.trimmed(dataclasses.replace(whole, marks=marks, meta=facts)))


def main() -> None:
    """Make all of them and say what each holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the captures")
    parser.add_argument("--cut", action="append", metavar="NAME=CAPTURE", default=[], help="only cut these captures")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="that --cut keeps (default: %(default)s)")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name, _, kept in (each.partition("=") for each in arguments.cut):
        cut(Path(kept), folder / f"{name}.sqlite", arguments.iterations)
    if arguments.cut:
        return
    os.chdir(PROJECT)
    study = Study(yaml.safe_load(Path("config.yaml").read_text()), hosts.detect())
    wanted: dict[str, Callable[[Path], None]] = {}
    for source in SOURCES:
        wanted[f"truth.{source}"] = lambda output, source=source: truth(source, output)  # type: ignore[misc]
        for runtime in RUNTIMES:
            wanted[f"{runtime}.{source}"] = lambda output, source=source, runtime=runtime: cell(  # type: ignore[misc]
                study, runtime, source, output
            )
    failed = 0
    for name, make in wanted.items():
        output = folder / f"{name}.sqlite"
        try:
            make(output)
            found = store.read(output)
            record = budget_record(found, health.refuse_unsound(found, output))
            told = {key: record[key] for key in ("counts", "shares", "residual_ns", "flags")}
            print(f"{name}: {output.stat().st_size:,} bytes, {record['iteration_ns']['median'] / 1e3:,.0f} us, {told}")
        except Exception:
            failed += 1
            print(f"{name} FAILED\n{traceback.format_exc()}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
