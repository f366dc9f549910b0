#!/usr/bin/env python3
"""Simplify an exported graph, or keep it and record why."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings.graphs import graph, simplify
from ceilings.program import main
from ceilings.workload.workload import Workload


def work(arguments: argparse.Namespace) -> None:
    with graph.made(arguments.report, arguments.output):
        exported = graph.load(arguments.graph)
        outcome = simplify.simplify(exported, Workload.read(arguments.workload))
        graph.save(outcome.model, arguments.output)
        graph.report(
            arguments.report,
            arguments.output,
            {"graph": arguments.graph},
            simplified=outcome.simplified,
            reason=outcome.reason,
            max_difference=outcome.max_difference,
            nodes_before=len(exported.graph.node),
            op_types_before=graph.op_types(exported),
        )
        nodes = f"{len(exported.graph.node)} nodes to {len(outcome.model.graph.node)}"
        print(f"{arguments.output}: {nodes if outcome.simplified else f'kept as it was: {outcome.reason}'}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True)
parser.add_argument("--workload", type=Path, required=True, help="workload.json of the model")
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
