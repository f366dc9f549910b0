#!/usr/bin/env python3
"""Compute the FP32 outputs that every variant is compared with."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import artifacts
from ceilings.models import reference
from ceilings.models.weights_folder import WEIGHTS
from ceilings.program import main
from ceilings.workload.shape import Shape


def work(arguments: argparse.Namespace) -> None:
    source = arguments.graph or arguments.weights_dir / WEIGHTS
    with artifacts.made(artifacts.report_of(arguments.output), [arguments.output], "pool"):
        artifacts.refuse_failed(source, arguments.inputs)
        shapes = reference.compute(
            arguments.weights_dir,
            arguments.inputs,
            arguments.threads,
            arguments.output,
            arguments.graph,
            shape=Shape.parse(arguments.shape) if arguments.shape else None,
        )
        print(f"{arguments.output}: " + ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items()))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument("--graph", type=Path, help="an ONNX file to run by ONNX Runtime instead of the weights")
parser.add_argument("--inputs", type=Path, required=True)
parser.add_argument("--shape", help="of the inputs, such as b1-p128-g32: where a model generates, how many tokens")
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
