#!/usr/bin/env python3
"""Make the ring of inputs of one model and shape."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import options
from ceilings.models.inputs import Ring, make_inputs
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    ring = options.read(Ring, arguments.inputs, "--inputs")
    source = make_inputs(arguments.weights_dir, ring, arguments.output)
    print(f"{arguments.output}: {ring.ring} inputs of batch {ring.batch} x sequence {ring.sequence} ({source})")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument("--inputs", type=json_argument, required=True, help="batch, sequence, ring (distinct inputs), seed")
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
