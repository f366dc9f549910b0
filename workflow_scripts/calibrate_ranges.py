#!/usr/bin/env python3
"""Calibrate activation ranges, as JSON and as a TensorRT calibration cache."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ceilings import artifacts
from ceilings.graphs import calibration
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    settings = calibration.read(arguments.calibration)
    with artifacts.made(arguments.output, [arguments.tensorrt_cache], "calibration", **dataclasses.asdict(settings)):
        ranges, described = calibration.calibrate(
            arguments.graph, arguments.weights_dir, settings, arguments.threads, calibration.say_progress
        )
        calibration.write(
            arguments.output,
            cache=arguments.tensorrt_cache,
            graph_path=arguments.graph,
            calibration=settings,
            ranges=ranges,
            described=described,
        )
        print(f"{arguments.output}: {len(ranges)} tensors, {settings.method} over {settings.count} inputs")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument(
    "--calibration", type=json_argument, required=True, help="method, count, sequence, percentile, seed"
)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--tensorrt-cache", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
