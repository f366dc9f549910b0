#!/usr/bin/env python3
"""Put an operator of this project in the place of a fused graph's attention."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import artifacts
from ceilings.graphs import attention_operator, graph
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    with graph.made(arguments.report, arguments.output):
        artifacts.refuse_failed(arguments.graph)
        model, heads = attention_operator.place(graph.load(arguments.graph))
        graph.save(model, arguments.output)
        kinds = [one._asdict() for one in dict.fromkeys(heads)]
        graph.report(arguments.report, arguments.output, {"graph": arguments.graph}, operators=len(heads), heads=kinds)
        print(f"{arguments.output}: {len(heads)} {attention_operator.DOMAIN}::{attention_operator.NAME}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True, help="a graph of fuse_graph.py")
parser.add_argument("--output", type=Path, required=True, help="NAME.operator.onnx")
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
