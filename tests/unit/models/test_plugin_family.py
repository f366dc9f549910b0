"""A family from a plug-in folder: two files, and nothing of the package is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ceilings.models import pool, reference, weights
from ceilings.workload.workload import Workload

PROGRAMS = Path(weights.__file__).parents[2]
CATALOGUE = """
from ceilings.models.catalogue import Family

FAMILIES = [Family("averager", {"sentence-embedding": ("batch", "sequence")}, ("torch",), ("averager",))]
"""
MODULE = '''
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


@pytest.mark.slow
def test_a_family_from_outside(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    plugin, folder = tmp_path / "plugin", tmp_path / "weights"
    (plugin / "models" / "families").mkdir(parents=True)
    (plugin / "catalogue.py").write_text(CATALOGUE)
    (plugin / "models" / "families" / "averager.py").write_text(MODULE)

    def run(program: str, **options: object) -> None:
        words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        environment = os.environ | {"CEILINGS_PLUGINS": str(plugin)}
        subprocess.run([sys.executable, PROGRAMS / program, *words], check=True, env=environment, capture_output=True)

    config = {"rows": 50, "width": 6}
    model = {"name": "m", "architecture": "averager", "task": "sentence-embedding", "config": config}
    run("fetch_weights.py", model=json.dumps(model), output_dir=folder)
    assert Workload.read(folder).outputs[0].dims == ("batch", 6)
    inputs, answers = tmp_path / "in.npz", tmp_path / "ref.npz"
    wanted = json.dumps({"pool": 3, "seed": 0})
    run("make_inputs.py", weights_dir=folder, shape="b2-s8", inputs=wanted, output=inputs)
    run("compute_reference.py", weights_dir=folder, inputs=inputs, threads=1, output=answers)
    table = load_file(folder / "model.safetensors")["weight"]
    expected = table[pool.load_pool(inputs)["input_ids"][:2]].mean(2)
    np.testing.assert_allclose(reference.load_for(answers, inputs)[0]["embedding"], expected, rtol=1e-5, atol=1e-6)
