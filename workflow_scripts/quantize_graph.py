#!/usr/bin/env python3
"""Quantise a graph with Q/DQ pairs from calibrated ranges."""

from __future__ import annotations

import argparse
import dataclasses
import glob
from pathlib import Path

from ceilings.errors import UserError
from ceilings.graphs import calibration, examples, graph, quantize, sensitivity
from ceilings.models.pool import load_pool
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    settings = quantize.read(arguments.quantization)
    facts = {"precision": arguments.precision, "floats": arguments.floats, "per_channel": settings.per_channel}
    with graph.made(arguments.report, arguments.output, **facts):
        model = graph.load(arguments.graph)
        ranges = calibration.load(arguments.calibration, arguments.graph)
        worst: list[sensitivity.Layer] = []
        if settings.keep_most_sensitive:
            if arguments.inputs is None:
                raise UserError("--quantization has keep_most_sensitive, which needs --inputs; give an input pool")
            done = quantize.quantize(model, ranges, arguments.precision, settings)
            element = {name: values[0] for name, values in load_pool(arguments.inputs).items()}
            feed = examples.feed(model, element)
            worst = sensitivity.layers(done.model, model, feed, arguments.threads, optimize=False)
            worst = worst[: settings.keep_most_sensitive]
            kept = [*settings.keep, *(glob.escape(layer.node) for layer in worst)]
            settings = dataclasses.replace(settings, keep=kept)
        done = quantize.quantize(model, ranges, arguments.precision, settings, arguments.floats)
        graph.save(done.model, arguments.output)
        graph.report(
            arguments.report,
            arguments.output,
            {"graph": arguments.graph, "calibration": arguments.calibration},
            **facts,
            quantized=done.quantized,
            kept=done.kept,
            kept_as_most_sensitive=[dataclasses.asdict(layer) for layer in worst],
            opset_before=done.opset_before,
        )
        print(f"{arguments.output}: {len(done.quantized)} products in {arguments.precision}, {len(done.kept)} kept")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True)
parser.add_argument("--calibration", type=Path, required=True)
parser.add_argument("--precision", choices=quantize.PRECISIONS, required=True)
parser.add_argument("--quantization", type=json_argument, required=True, help='{"keep": [globs], "per_channel": true}')
parser.add_argument("--floats", choices=("fp32", "fp16"), default="fp32", help="what the rest computes in")
parser.add_argument("--inputs", type=Path, help="an input pool, by which the most sensitive layers are found")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
