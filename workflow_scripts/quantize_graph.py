#!/usr/bin/env python3
"""Quantise a graph with Q/DQ pairs from calibrated ranges."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings.graphs import calibration, graph, quantize
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    settings = quantize.read(arguments.quantization)
    model = graph.load(arguments.graph)
    ranges = calibration.load(arguments.calibration, arguments.graph)
    done = quantize.quantize(model, ranges, arguments.precision, settings)
    graph.save(done.model, arguments.output)
    graph.report(
        arguments.report,
        arguments.output,
        {"graph": arguments.graph, "calibration": arguments.calibration},
        precision=arguments.precision,
        per_channel=settings.per_channel,
        quantized=done.quantized,
        kept=done.kept,
        opset_before=done.opset_before,
    )
    print(f"{arguments.output}: {len(done.quantized)} products in {arguments.precision}, {len(done.kept)} kept")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True)
parser.add_argument("--calibration", type=Path, required=True)
parser.add_argument("--precision", choices=quantize.PRECISIONS, required=True)
parser.add_argument("--quantization", type=json_argument, required=True, help='{"keep": [globs], "per_channel": true}')
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
