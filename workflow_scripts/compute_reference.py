#!/usr/bin/env python3
"""Compute the FP32 PyTorch logits that every variant is compared with."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings.models import reference
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    shape = reference.compute(arguments.weights_dir, arguments.inputs, arguments.threads, arguments.output)
    print(f"{arguments.output}: logits of shape {shape}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument("--inputs", type=Path, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
