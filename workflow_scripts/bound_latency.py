#!/usr/bin/env python3
"""Bound the latency of a graph at one shape by what its device was measured to allow."""

import argparse
from pathlib import Path

from ceilings import records
from ceilings.limits import floors
from ceilings.program import main
from ceilings.workload.shape import Shape


def work(arguments: argparse.Namespace) -> None:
    cell = {
        "model": arguments.model,
        "precision": arguments.precision,
        "graph": arguments.graph.stem,
        "shape": str(Shape.parse(arguments.shape)),
    }
    sources = {"graph": arguments.graph, "peaks": arguments.peaks}
    record = floors.bound(arguments.graph, records.read(arguments.peaks, "peaks"), cell, sources)
    records.write(arguments.output, "floor", record)
    print(f"{arguments.output}: {floors.sentence(record)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model, for the record")
    parser.add_argument("--precision", required=True, help="of the cell: tf32 shares fp32's graph")
    parser.add_argument("--shape", required=True, help="such as b8-s128")
    parser.add_argument("--graph", type=Path, required=True, help="the unfused ONNX graph in that precision")
    parser.add_argument("--peaks", type=Path, required=True, help="peaks.json of the device")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
