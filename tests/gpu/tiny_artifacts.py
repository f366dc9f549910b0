"""Tiny models in all forms, made by the pipeline's programs, and tasks of cells on them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ceilings import gpu
from ceilings.graphs import operator_library
from ceilings.models import pool
from ceilings.runtimes.base import Runner
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import installed
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"
COMPARED = 2
PROTOCOL = {
    "warmup_seconds": 0.1,
    "warmup_max_seconds": 1,
    "min_iterations": 50,
    "min_seconds": 0.5,
    "max_seconds": 1,
    "precision": 0.05,
    "saturated_seconds": 0.4,
    "concurrency": 1,
    "time_limit_seconds": 400,
}
TOLERANCE = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1, "fp8": 2.5e-1}
BERT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "classifier": (
        {
            "architecture": "distilbert",
            "task": "sequence-classification",
            "config": {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128, "vocab_size": 500},
        },
        "b2-s32",
    ),
    "answerer": (
        {"architecture": "bert", "task": "question-answering", "config": {**BERT, "vocab_size": 500}},
        "b2-s32",
    ),
    "images": (
        {"architecture": "vit", "task": "image-classification", "config": {**BERT, "image_size": 32, "patch_size": 8}},
        "b2-i32",
    ),
}
"""What a study would say of each model, and the shape at which it runs."""


class Artifacts:
    """One of ``MODELS`` in all forms, below a folder."""

    def __init__(self, folder: Path, model: str = "classifier") -> None:
        definition, shape = MODELS[model]
        self.folder, self.weights, self.shape = folder, folder / "weights", Shape.parse(shape)
        self.inputs, self.reference = folder / "inputs.npz", folder / "reference.npz"
        described = {"name": "tiny", "weights": "random", "seed": 1, **definition}
        program("fetch_weights", "--model", json.dumps(described), "--output-dir", self.weights)
        self.workload = Workload.read(self.weights)
        wanted = json.dumps({"pool": 4, "seed": 0, "lengths": None})
        given = ("--weights-dir", self.weights)
        program("make_inputs", *given, "--shape", shape, "--inputs", wanted, "--output", self.inputs)
        program("compute_reference", *given, "--inputs", self.inputs, "--threads", "2", "--output", self.reference)
        self._graph("export_onnx", "fp32", *given, "--export", "{}")
        self._graph("convert_precision", "fp16", "--graph", folder / "fp32.onnx", "--precision", "fp16")
        if model == "classifier":
            for kind in ("fp32", "fp16"):
                self._graph("fuse_graph", f"{kind}.fused", "--graph", folder / f"{kind}.onnx", *given)

    def _graph(self, name: str, output: str, *arguments: Any) -> None:
        where = ("--output", self.folder / f"{output}.onnx", "--report", self.folder / f"{output}.json")
        program(name, *arguments, *where)

    def of(self, runtime: str, precision: str) -> Path:
        """What a runtime executes."""
        artifact = RUNTIMES[runtime].artifact
        if artifact == "weights":
            return self.weights
        graph = self.folder / (f"{precision}.onnx" if artifact == "plain" else f"{precision}.{artifact}.onnx")
        if artifact == "operator" and not graph.exists():
            self._graph("place_operator", graph.stem, "--graph", self.folder / f"{precision}.fused.onnx")
            library, report = operator_library.files_of(graph)
            program("build_operator", "--graph", graph, "--output", library, "--report", report)
        return graph

    @property
    def pool(self) -> list[dict[str, np.ndarray]]:
        """The elements of the input pool."""
        return pool.elements(pool.load_pool(self.inputs))

    @property
    def expected(self) -> list[dict[str, np.ndarray]]:
        """The reference's outputs for the first elements, by name."""
        arrays = {name: values for name, values in pool.load(self.reference).items() if name.startswith("output/")}
        return [
            {name.removeprefix("output/"): values[index] for name, values in arrays.items()}
            for index in range(COMPARED)
        ]

    def loaded(self, runtime: str, precision: str = "fp32") -> Runner:
        """A runner in this process."""
        entry = RUNTIMES[runtime]
        module = importlib.import_module(f"ceilings.runtimes.{entry.module}")
        runner: Runner = module.RUNNER(
            self.of(runtime, precision), precision, self.workload, self.shape, 2, entry.options
        )
        runner.load()
        return runner

    def task(
        self, runtime: str, precision: str = "fp32", shape: Shape | None = None, folder: Path | None = None
    ) -> dict[str, Any]:
        """The task of a cell, with inputs and reference of this model or of another folder."""
        from ceilings.measure import catalogue

        entry = RUNTIMES[runtime]
        return {
            "cell": {
                "device": gpu.visible().slug,
                "runtime": runtime,
                "model": "tiny",
                "precision": precision,
                "shape": str(shape or self.shape),
            },
            "spec": {
                "module": entry.module,
                "options": dict(entry.options),
                "packages": installed(entry.packages),
                "threads": 2,
                "tolerance": TOLERANCE[precision],
                "protocol": PROTOCOL,
                "measurements": catalogue.task_entries("cuda"),
            },
            "artifact": str(self.of(runtime, precision)),
            "inputs": str((folder or self.folder) / "inputs.npz"),
            "reference": str((folder or self.folder) / "reference.npz"),
            "workload": str(self.weights / "workload.json"),
        }


def program(name: str, *arguments: Any) -> None:
    """Run one of the pipeline's programs."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{name}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
