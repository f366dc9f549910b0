"""A family, a runtime and a measurement from a folder beside the study: nothing of the project is touched."""

import csv
import shutil

import pytest
from tiny import PROJECT, STUDY, SUMMARY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

CATALOGUE = """
from ceilings.measure.catalogue import Measurement
from ceilings.models.catalogue import Family
from ceilings.quantity import Quantity
from ceilings.runtimes.catalogue import Runtime

FAMILIES = [Family("averager", {"sentence-embedding": ("batch", "sequence")}, ("torch",), ("averager",))]
RUNTIMES = [
    Runtime(
        name="numpy-table",
        stack="NumPy",
        levers=frozenset(),
        device="cpu",
        module="numpy_table",
        artifact="weights",
        environment="cpu",
        precisions=("fp32",),
        packages=("numpy",),
        note="an average in NumPy",
    )
]
MEASUREMENTS = [
    Measurement(
        name="pairs",
        module="pairs",
        devices=("cpu",),
        quantities=(
            Quantity(
                "pair_p50_ms", "pair p50", "ms", "number", "Two inferences in a row.", "Latency",
                source="series.latency_pair.latency_ns", scale=1e-6,
            ),
        ),
        meaning="Latency of two inferences in a row.",
    )
]
"""

FAMILY = '''
"""Models that average the rows of a table."""

import json

import torch
from safetensors.torch import load_file, save_file

from ceilings.models import interface, pretrained


def build(architecture, task, base, changes, *, seed, name):
    return pretrained.seeded(lambda: torch.nn.Embedding(changes["rows"], changes["width"]), seed, name)


def load(folder, task, attention="sdpa", dtype="float32", changes=None):
    table = load_file(folder / "model.safetensors")["weight"]
    return torch.nn.Embedding.from_pretrained(table.to(getattr(torch, dtype)))


def save(model, folder):
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "averager"}))


def wrap(model, task):
    return Averager(model)


def workload(model, task):
    inputs = interface.token_inputs(model.num_embeddings, with_mask=False)
    return interface.describe(wrap(model, task), task, inputs, family="averager", architecture="averager")


class Averager(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return (self.model(input_ids).mean(1),)
'''

RUNTIME = '''
"""An average in NumPy."""

from safetensors.numpy import load_file

from ceilings.runtimes.base import Runner


class NumpyTable(Runner):
    def load(self):
        with self.phase("load"):
            self.table = load_file(self.artifact / "model.safetensors")["weight"]

    def place(self, element):
        return element["input_ids"]

    def launch(self, slot):
        return self.table[slot].mean(1)

    def outputs(self, launched):
        return {self.workload.outputs[0].name: launched}


RUNNER = NumpyTable
'''

MEASUREMENT = '''
"""Latency of two inferences in a row."""


def measure(bench):
    def pair(slot):
        bench.runner.launch(slot)
        return bench.runner.launch(slot)

    return {"latency_pair": bench.closed_loop(pair)}
'''

FILES = {
    "catalogue.py": CATALOGUE,
    "models/families/averager.py": FAMILY,
    "runtimes/numpy_table.py": RUNTIME,
    "measure/measurements/pairs.py": MEASUREMENT,
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with a plug-in folder, after its study."""
    folder = tmp_path_factory.mktemp("extended") / "project"
    folder.mkdir()
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder)
    for name, content in FILES.items():
        path = folder / "my_plugins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    project = Project(folder)
    project.configure(study())
    project.snakemake(SUMMARY)
    return project


def study():
    model = {
        "architecture": "averager",
        "task": "sentence-embedding",
        "weights": "random",
        "config": {"rows": 50, "width": 6},
    }
    sweep = {
        "models": ["table"],
        "runtimes": ["numpy-table", "torch-eager", "onnxruntime-cpu"],
        "precisions": ["fp32"],
        "batches": [2],
        "sequences": [16],
    }
    shared = {key: STUDY[key] for key in ("protocol", "cpu_threads", "inputs", "calibration")}
    return {
        "study": "extended",
        "plugins": ["my_plugins"],
        "models": {"table": model},
        "sweeps": {"one": sweep},
        **shared,
    }


def test_all_three_are_measured(extended):
    with open(extended.folder / "results/tables/cells.csv", newline="") as file:
        cells = {row["runtime"]: row for row in csv.DictReader(file)}
    for runtime, stack in (
        ("numpy-table", "NumPy"),
        ("torch-eager", "PyTorch"),
        ("onnxruntime-cpu", "onnxruntime-cpu"),
    ):
        assert (cells[runtime]["status"], cells[runtime]["stack"]) == ("ok", stack), cells[runtime]["reason"]
        assert float(cells[runtime]["relative_l2"]) < 1e-5
        assert float(cells[runtime]["pair_p50_ms"]) > float(cells[runtime]["p50_ms"])
    assert "numpy-table" in (extended.folder / SUMMARY).read_text()


@pytest.mark.parametrize(
    ("file", "cells"),
    [("runtimes/numpy_table.py", 2), ("models/families/averager.py", 4), ("measure/measurements/pairs.py", 4)],
)
def test_its_code_counts_for_what_it_shapes(extended, tmp_path, file, cells):
    """The runtime: its cell and the A/A pair's second. The family and the measurement: every cell."""
    shutil.copytree(extended.folder, tmp_path / "project")
    project = Project(tmp_path / "project")
    assert project.planned() == {}
    project.edit(f"my_plugins/{file}", "EDITED = True")
    assert project.planned()["measure_latency"] == cells * STUDY["protocol"]["processes"]
