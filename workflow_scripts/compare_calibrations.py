#!/usr/bin/env python3
"""Compare calibration methods by the parity of the int8 graphs that they give."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import artifacts, records
from ceilings.graphs import calibration_comparison as comparison
from ceilings.graphs import quantize
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    with artifacts.made(arguments.output, [], "calibration-comparison"):
        record = comparison.compare(
            arguments.graph,
            {path.stem: path for path in arguments.calibrations},
            quantize.read(arguments.quantization),
            workload=arguments.workload,
            inputs=arguments.inputs,
            reference=arguments.reference,
            threads=arguments.threads,
        )
        records.write(arguments.output, "calibration-comparison", record)
        for method, found in record["methods"].items():
            print(f"{method}: relative L2 {found['relative_l2']}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True, help="the FP32 graph that was calibrated")
parser.add_argument("--calibrations", type=Path, nargs="+", required=True, help="{method}.json of each method")
parser.add_argument("--quantization", type=json_argument, required=True)
parser.add_argument("--workload", type=Path, required=True, help="workload.json of the model")
parser.add_argument("--inputs", type=Path, required=True)
parser.add_argument("--reference", type=Path, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
