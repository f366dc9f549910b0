#!/usr/bin/env python3
"""Export a model's weights to ONNX."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ceilings import artifacts
from ceilings.graphs import export, graph
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    settings = export.read(arguments.export)
    weights = arguments.weights_dir / "model.safetensors"
    facts = {"export": dataclasses.asdict(settings)}
    with graph.made(arguments.report, arguments.output, **facts):
        artifacts.refuse_failed(weights)
        export.export_onnx(arguments.weights_dir, settings, arguments.output)
        graph.report(arguments.report, arguments.output, {"weights": weights}, **facts)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument("--export", type=json_argument, required=True, help="exporter, opset, attention, axes")
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
