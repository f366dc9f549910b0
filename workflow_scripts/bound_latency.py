#!/usr/bin/env python3
"""Bound the latency of a graph at one shape by what its device was measured to allow."""

import argparse
from pathlib import Path

from ceilings import files
from ceilings.graphs import graph
from ceilings.limits import floors
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    batch, sequence = (int(part[1:]) for part in arguments.shape.split("-"))
    cell = {"model": arguments.model, "precision": arguments.precision, "batch": batch, "sequence": sequence}
    cell["graph"] = arguments.graph.stem
    sources = {"graph": arguments.graph, "peaks": arguments.peaks}
    record = floors.bound(graph.load(arguments.graph), files.read_json(arguments.peaks), cell, sources)
    files.write_json(arguments.output, record)
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
