#!/usr/bin/env python3
"""Fuse the operators of a floating point graph for ONNX Runtime."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import artifacts
from ceilings.graphs import fuse, graph
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    with graph.made(arguments.report, arguments.output):
        artifacts.refuse_failed(arguments.graph)
        fused = fuse.fuse(arguments.graph, arguments.weights_dir)
        graph.save(fused.model, arguments.output)
        graph.report(
            arguments.report,
            arguments.output,
            {"graph": arguments.graph},
            fusions=fused.fusions,
            attentions=fused.attentions,
        )
        print(f"{arguments.output}: {', '.join(f'{count} {name}' for name, count in fused.fusions.items())}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
