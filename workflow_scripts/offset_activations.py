#!/usr/bin/env python3
"""Make of an int8 graph the same one with uint8 activations around 128: the form that CPU kernels take."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings.graphs import graph, quantize
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    with graph.made(arguments.report, arguments.output):
        model = quantize.unsigned(graph.load(arguments.graph), weights=arguments.weights == "uint8")
        graph.save(model, arguments.output)
        kernels = quantize.integer_kernels(model)
        graph.report(
            arguments.report,
            arguments.output,
            {"graph": arguments.graph},
            cpu_kernels=kernels,
            weights=arguments.weights,
        )
        print(f"{arguments.output}: {kernels['integer']} products with integer kernels, {kernels['float']} without")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True, help="an int8 Q/DQ graph")
parser.add_argument(
    "--weights",
    choices=("int8", "uint8"),
    required=True,
    help="uint8 for x86 CPUs without VNNI, which saturate products of uint8 and int8",
)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
