#!/usr/bin/env python3
"""Make the input pool of one model and shape."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import artifacts, options
from ceilings.models.inputs import Wanted, make_inputs
from ceilings.models.weights_folder import WEIGHTS
from ceilings.program import json_argument, main
from ceilings.workload.shape import Shape


def work(arguments: argparse.Namespace) -> None:
    wanted = options.read(Wanted, arguments.inputs, "--inputs")
    with artifacts.made(artifacts.report_of(arguments.output), [arguments.output], "pool"):
        artifacts.refuse_failed(arguments.weights_dir / WEIGHTS)
        made = make_inputs(arguments.weights_dir, Shape.parse(arguments.shape), wanted, arguments.output)
        padded = "" if made.real_share == 1 else f", {made.real_share:.0%} of the tokens real"
        print(f"{arguments.output}: {wanted.pool} inputs of {arguments.shape} ({made.source}{padded})")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument("--shape", required=True, help="such as b8-s128")
parser.add_argument("--inputs", type=json_argument, required=True, help="pool (distinct inputs), seed, lengths")
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
