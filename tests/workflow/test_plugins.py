"""A folder beside the study adds a family, a runtime and a measurement; the library stays as it is."""

from __future__ import annotations

import json

import pytest
from test_rebuilds import changed
from tiny import STUDY

pytestmark = pytest.mark.workflow

CATALOGUE = """
import dataclasses

from ceilings.measure.catalogue import Measurement
from ceilings.models.catalogue import TEXT, Family
from ceilings.quantity import Quantity
from ceilings.runtimes.catalogue import Runtime

FAMILIES = [Family("mine", {"sequence-classification": TEXT}, architectures=("electra",))]
RUNTIMES = [
    Runtime(
        "my-runtime", "mine", frozenset(), "cpu", "mine", "plain", "cpu", ("fp32",), ("onnxruntime",), "ORT, but ours"
    )
]
AGAIN = Quantity("again_ms", "again", "ms", "number", "Once more.", source="series.again.latency_ns", scale=1e-6)
MEASUREMENTS = [Measurement("again", "again", ("cpu",), (AGAIN,), "The closed loop once more.")]
"""
FILES = {
    "catalogue.py": CATALOGUE,
    "models/families/mine.py": "from ceilings.models.families.text_encoder import *\n",
    "runtimes/mine.py": """
from ceilings.runtimes.onnxruntime_cpu import OnnxRuntimeCpu

class Mine(OnnxRuntimeCpu):
    def describe(self):
        return {**super().describe(), "mine": True}

RUNNER = Mine
""",
    "measure/measurements/again.py": 'def measure(bench):\n    return {"again": bench.closed_loop()}\n',
}


def test_a_plug_in_folder_is_enough(project):
    for file, text in FILES.items():
        path = project.folder / "mine" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = {"architecture": "electra", "weights": "random", "config": {**sizes, "vocab_size": 500}}
    shape = {"batches": [1], "sequences": [16]}
    sweep = {"models": ["later"], "runtimes": ["my-runtime", "torch-eager"], "precisions": ["fp32"], **shape}
    config = changed(plugins=["mine"], models={"later": model})
    config["sweeps"] = {"mine": sweep}
    config["protocol"] = {**STUDY["protocol"], "processes": 1}
    project.configure(config)
    device = next((project.folder / "results/benchmarks").iterdir()).name
    runs = [f"results/benchmarks/{device}/{name}/later/fp32/b1-s16/run1.json" for name in sweep["runtimes"]]
    project.snakemake(*runs)
    mine, torch = (json.loads((project.folder / run).read_text()) for run in runs)
    assert mine["status"] == torch["status"] == "ok"
    assert mine["runtime"]["mine"] is True
    assert mine["series"]["again"]["latency_ns"] and torch["series"]["again"]["latency_ns"]
    workload = json.loads((project.folder / "results/models/later/weights/workload.json").read_text())
    assert (workload["family"], workload["architecture"]) == ("mine", "electra")

    # What the plug-in's modules do is part of what is measured.
    project.edit("mine/models/families/mine.py", "EDITED = True")
    assert project.planned(runs[0]) == {} and project.planned(runs[1]) == {"measure_latency": 1}
    project.edit("mine/runtimes/mine.py", "EDITED = True")
    assert project.planned(runs[0]) == {"measure_latency": 1}
    project.edit("mine/measure/measurements/again.py", "EDITED = True")
    assert project.planned(runs[1]) == {"measure_latency": 1}
