#!/usr/bin/env python3
"""Build the library with the operators of a graph, which ONNX Runtime loads with it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ceilings import artifacts, files, records
from ceilings.errors import UserError
from ceilings.graphs.attention_operator import Heads
from ceilings.kernels import onnxruntime_attention
from ceilings.lifetime import temporary_folder
from ceilings.program import main
from ceilings.provenance import provenance

PACKAGES = ("triton",)


def work(arguments: argparse.Namespace) -> None:
    with artifacts.made(arguments.report, [arguments.output], "operator-library"):
        artifacts.refuse_failed(arguments.graph)
        asked = records.read(artifacts.report_of(arguments.graph), "graph")
        if "heads" not in asked:
            raise UserError(
                f"{arguments.graph} does not contain the operator ai.ceilings::Attention; name a graph that "
                "place_operator.py wrote"
            )
        with temporary_folder() as folder:
            os.environ.setdefault("TRITON_CACHE_DIR", folder)
            built = onnxruntime_attention.build([Heads(**one) for one in asked["heads"]], arguments.output)
        record = {
            "status": "ok",
            **built,
            "bytes": arguments.output.stat().st_size,
            "sha256": files.sha256(arguments.output),
            "provenance": provenance(PACKAGES, {"graph": arguments.graph}),
        }
        records.write(arguments.report, "operator-library", record)
        print(f"{arguments.output}: {', '.join(built['kernels'])}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--graph", type=Path, required=True, help="a graph of place_operator.py, its report beside it")
parser.add_argument("--output", type=Path, required=True, help="NAME.attention.so beside NAME.operator.onnx")
parser.add_argument("--report", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
