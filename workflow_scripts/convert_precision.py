#!/usr/bin/env python3
"""Convert a graph to another floating point precision."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings.graphs import graph, precision
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    with graph.made(arguments.report, arguments.output, precision=arguments.precision):
        converted, done = precision.convert(graph.load(arguments.graph), arguments.precision)
        graph.save(converted, arguments.output)
        sources = {"graph": arguments.graph}
        graph.report(arguments.report, arguments.output, sources, precision=arguments.precision, **done)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True)
parser.add_argument("--precision", choices=precision.PRECISIONS, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
