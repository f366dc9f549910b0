#!/usr/bin/env python3
"""Fetch, copy, convert or make the weights of one model, and record which of these it was and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import artifacts
from ceilings.errors import CellFailure, UserError
from ceilings.models import definition, weights
from ceilings.models.weights_folder import CONFIG, PROVENANCE, WEIGHTS
from ceilings.program import json_argument, main
from ceilings.workload import workload


def work(arguments: argparse.Namespace) -> None:
    model = definition.read(arguments.model.get("name", "model"), arguments.model)
    folder: Path = arguments.output_dir
    outputs = [folder / name for name in (WEIGHTS, CONFIG, workload.FILE)]
    # Not recorded where it fails: a hub that cannot be reached now may be the next time.
    origin = weights.choose(model)
    with artifacts.made(folder / PROVENANCE, outputs, "weights", model=model.name):
        try:
            record = weights.fetch(model, folder, origin)
        except UserError as error:
            raise CellFailure("damaged", model.published(str(error))) from None
        print(f"{model.name}: {record['source']} weights, {record['parameters']:,} parameters: {record['why']}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", type=json_argument, required=True, help="name, and what a study says of the model")
parser.add_argument("--output-dir", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
