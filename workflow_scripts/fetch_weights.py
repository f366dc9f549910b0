#!/usr/bin/env python3
"""Fetch, copy or make the weights of one model, and record which of these it was and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings.models import spec, weights
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    model = spec.read(arguments.model)
    record = weights.fetch(model, arguments.output_dir)
    print(f"{model.name}: {record['source']} weights, {record['parameters']:,} parameters: {record['why']}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", type=json_argument, required=True, help="name, architecture, hub, config, weights, seed")
parser.add_argument("--output-dir", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
