#!/usr/bin/env python3
"""Take over a user's ONNX file as a model of the study."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings.graphs import importing
from ceilings.models import definition
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    name = str(arguments.model.get("name", arguments.output.parent.name))
    model = definition.read(name, arguments.model)
    importing.import_onnx(model, arguments.output, arguments.report, arguments.weights_dir)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", type=json_argument, required=True, help="onnx (the file), task, axes, inputs")
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--report", type=Path, required=True)
parser.add_argument("--weights-dir", type=Path, required=True, help="gets workload.json and provenance.json")

if __name__ == "__main__":
    main(work, parser)
