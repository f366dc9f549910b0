#!/usr/bin/env python3
"""Make the rows that a model's quality is evaluated on, and what FP32 PyTorch answers to them."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import artifacts, options, records
from ceilings.models import dataset, dataset_rows
from ceilings.program import json_argument, main
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

WEIGHTS = "model.safetensors"


def work(arguments: argparse.Namespace) -> None:
    wanted, shape = options.read(dataset_rows.Wanted, arguments.data, "--data"), Shape.parse(arguments.shape)
    report = arguments.output.with_suffix(".json")
    outputs = [arguments.output, *filter(None, [arguments.reference])]
    with artifacts.made(report, outputs, "data"):
        artifacts.refuse_failed(*arguments.weights_dir.glob(WEIGHTS), *filter(None, [arguments.graph]))
        made = dataset_rows.make(arguments.weights_dir, wanted, shape)
        if arguments.reference:
            dataset.save_outputs(arguments.reference, answers(arguments, made, shape), made)
        made.save(arguments.output)
        facts = {**made.facts, "rows": len(made), "truncated": int(made.truncated.sum())}
        records.write(report, "data", {"status": "ok", **facts})
        labels = "no labels" if made.labels is None else f"labels of column {facts['label']}"
        print(
            f"{arguments.output}: {len(made)} of {facts['available']} rows ({facts.get('file', facts['source'])}), "
            f"{facts['truncated']} truncated, {labels}"
        )


def answers(arguments: argparse.Namespace, made: dataset.Dataset, shape: Shape) -> dataset.Arrays:
    if arguments.graph:
        workload = Workload.read(arguments.weights_dir)
        return dataset_rows.reference_of_graph(arguments.graph, workload, made, shape, arguments.threads)
    return dataset_rows.reference(arguments.weights_dir, made, shape, arguments.threads)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights-dir", type=Path, required=True)
parser.add_argument("--data", type=json_argument, required=True, help="file, text, label (columns), limit, seed; or {}")
parser.add_argument("--shape", required=True, help="such as b8-s128")
parser.add_argument("--graph", type=Path, help="FP32 graph that answers for a model which is an ONNX file")
parser.add_argument("--threads", type=int, default=1, help="of the reference")
parser.add_argument("--reference", type=Path, help="where the answers of FP32 PyTorch go; left out: none")
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser, isolated=True)
