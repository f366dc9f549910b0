"""PyTorch on the CPU: every output of a real model, and what it quantises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from unit.runtimes import tiny
from unit.runtimes.workloads import EMBEDDER

from ceilings.errors import CellFailure
from ceilings.runtimes import torch_cpu
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

FETCH = Path(torch_cpu.__file__).parents[2] / "fetch_weights.py"
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LINEAR = 2 * 6 + 1
"""Six in each of the two layers, and the head."""


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """Weights folders by task, made by the program."""

    def make(**described):
        folder = tmp_path_factory.mktemp("weights") / "weights"
        model = json.dumps({"name": "tiny", "weights": "random", "seed": 2, **described})
        subprocess.run([sys.executable, FETCH, "--model", model, "--output-dir", folder], check=True, timeout=120)
        return folder

    text = {**SIZES, "vocab_size": 100, "max_position_embeddings": 64}
    return {
        "answers": make(architecture="bert", task="question-answering", config=text),
        "images": make(
            architecture="vit",
            task="image-classification",
            config={**SIZES, "image_size": 16, "patch_size": 8},
        ),
    }


def loaded(folder, shape, precision="fp32", **options):
    runner = torch_cpu.RUNNER(folder, precision, Workload.read(folder), Shape.parse(shape), 1, options)
    runner.load()
    return runner


def test_both_outputs_of_a_model_that_answers_questions(fetched):
    folder = fetched["answers"]
    runner = loaded(folder, "b2-s16")
    element = tiny.element(tiny.ANSWERER, 2, 16)
    element |= {
        tensor.name: np.zeros((2, 16), np.int64) for tensor in runner.workload.inputs if tensor.name not in element
    }
    found = runner.outputs(runner.run(runner.place(element)))
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(element[name]) for name in ("input_ids", "attention_mask")})
    assert list(found) == [output.name for output in runner.workload.outputs]
    for values, expected in zip(found.values(), (wanted.start_logits, wanted.end_logits), strict=True):
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_images_are_classified(fetched, precision, within):
    folder = fetched["images"]
    runner = loaded(folder, "b3-i16", precision)
    element = tiny.element(EMBEDDER, 3, 16)
    (found,) = runner.outputs(runner.run(runner.place(element))).values()
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = model(pixel_values=torch.from_numpy(element["pixel_values"])).logits.numpy()
    assert found.dtype == np.float32 and found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) <= within * np.linalg.norm(wanted)


@pytest.mark.parametrize("case", ["answers", "images"])
def test_linear_layers_are_quantised_whatever_the_model(fetched, case):
    shape = {"answers": "b2-s16", "images": "b2-i16"}[case]
    runner = loaded(fetched[case], shape, "int8", quantize="dynamic")
    assert runner.describe()["quantized_linears"] == LINEAR
    slot = runner.place({t.name: np.ones(t.sizes(runner.shape), t.dtype) for t in runner.workload.inputs})
    plain = loaded(fetched[case], shape)
    found, wanted = (each.outputs(each.run(slot)) for each in (runner, plain))
    for name, values in wanted.items():
        difference = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
        assert 0 < difference < 0.2


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (torch.nn.Conv2d(3, 16, 16), "has no linear layer that PyTorch can quantise dynamically"),
        (torch.nn.MultiheadAttention(16, 2), "has no linear layer that PyTorch can quantise dynamically"),
    ],
)
def test_a_model_of_which_nothing_is_quantised_is_not_measured_as_int8(monkeypatch, tmp_path, module, message):
    monkeypatch.setattr(torch_cpu, "load_module", lambda *_: module)
    runner = torch_cpu.RUNNER(tmp_path, "int8", EMBEDDER, Shape.parse("b1-i16"), 1, {"quantize": "dynamic"})
    with pytest.raises(CellFailure, match=message) as caught:
        runner.load()
    assert caught.value.kind == "unsupported"


class Peeking(torch.nn.Module):
    """Looks at the type of its layer's weights, as some models do."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 16 * 16, 16)

    def forward(self, pixels):
        return (self.layer(pixels.flatten(1).to(self.layer.weight.dtype)),)


def test_a_model_that_cannot_run_quantised_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_cpu, "load_module", lambda *_: Peeking())
    shape = Shape.parse("b1-i16")
    runner = torch_cpu.RUNNER(tmp_path, "int8", EMBEDDER, shape, 1, {"quantize": "dynamic"})
    runner.load()
    slot = runner.place(tiny.element(EMBEDDER, 1, 16))
    with pytest.raises(CellFailure, match="PyTorch cannot run it: ") as caught:
        runner.run(slot)
    assert caught.value.kind == "unsupported"
