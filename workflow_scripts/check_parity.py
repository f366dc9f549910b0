#!/usr/bin/env python3
"""Compare a graph on ONNX Runtime's CPU provider with the FP32 reference."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import isolation, records
from ceilings.graphs import check
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    isolation.leave_on_crash({arguments.output: {"kind": "parity", **check.crashed(arguments.precision)}})
    record = check.check(
        arguments.graph,
        precision=arguments.precision,
        workload=arguments.workload,
        inputs=arguments.inputs,
        reference=arguments.reference,
        base=arguments.base,
        threads=arguments.threads,
    )
    records.write(arguments.output, "parity", record)
    measured = record.get("relative_l2")
    print(f"{arguments.output}: {record['status']}, {record['reason'] or f'relative L2 {measured:.2g}'}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True)
parser.add_argument("--precision", required=True)
parser.add_argument("--workload", type=Path, required=True, help="workload.json of the model")
parser.add_argument("--inputs", type=Path, required=True)
parser.add_argument("--reference", type=Path, required=True)
parser.add_argument(
    "--base", type=Path, help="the FP32 graph that a quantised one was made from: names sensitive layers"
)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
