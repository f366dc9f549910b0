"""Tiny graphs, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ceilings.graphs import calibration, check, examples, export, graph, simplify
from ceilings.models import definition, inputs, reference, weights
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

TEXT = {"vocab_size": 500, "max_position_embeddings": 64}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MODELS = {
    "distilbert": {
        "architecture": "distilbert",
        "config": {**TEXT, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    },
    "bert": {"architecture": "bert", "config": {**TEXT, **BERT}},
    "answers": {"architecture": "bert", "task": "question-answering", "config": {**TEXT, **BERT}},
    "tokens": {"architecture": "bert", "task": "token-classification", "config": {**TEXT, **BERT}},
    "clip": {
        "architecture": "clip_vision_model",
        "task": "image-embedding",
        "config": {**BERT, "image_size": 32, "patch_size": 8, "projection_dim": 16},
    },
    "clip-text": {
        "architecture": "clip_text_model",
        "task": "sentence-embedding",
        "config": {**BERT, **TEXT, "max_position_embeddings": 20, "eos_token_id": 499, "projection_dim": 16},
    },
    "roberta": {"architecture": "roberta", "task": "sentence-embedding", "config": {**TEXT, **BERT}},
    "deberta": {
        "architecture": "deberta-v2",
        "config": {**TEXT, **BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    },
    "speech": {
        "architecture": "wav2vec2",
        "config": {**BERT, "conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2]}
        | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
    },
    "modernbert": {
        "architecture": "modernbert",
        "task": "sentence-embedding",
        "config": {**TEXT, **BERT, "local_attention": 8}
        | {f"{name}_token_id": number for number, name in enumerate(("pad", "bos", "eos", "cls", "sep"))},
    },
}
CALIBRATION = calibration.Calibration("minmax", count=8, sequence=32)


def make_weights(name: str, folder: Path) -> Path:
    """The weights folder of a tiny model."""
    model = {"weights": "random", **MODELS[name]}
    weights.fetch(definition.read(name, model), folder)
    return folder


class Tiny:
    """The files of one tiny model."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.architecture = MODELS[name]["architecture"]
        self.folder = folder
        self.weights = make_weights(name, folder / "weights")
        self.workload = Workload.read(self.weights)
        self.exported = folder / "exported.onnx"
        export.export_onnx(self.weights, export.Export(), self.exported)
        self.outcome = simplify.simplify(graph.load(self.exported), self.workload)
        self.simplified = folder / "simplified.onnx"
        graph.save(self.outcome.model, self.simplified)
        sizes = {"batch": 2, "sequence": 20 if name == "clip-text" else 32, "image": 32, "samples": 800}
        self.shape = Shape.of({axis: sizes[axis] for axis in self.workload.axes})
        self.inputs, self.reference = folder / "in.npz", folder / "ref.npz"
        inputs.make_inputs(self.weights, self.shape, inputs.Wanted(3, 0), self.inputs)
        reference.compute(self.weights, self.inputs, 1, self.reference)

    @property
    def model(self) -> onnx.ModelProto:
        return graph.load(self.simplified)

    def feed(self, batch: int = 2, sequence: int = 32) -> dict[str, np.ndarray]:
        sizes = {"batch": batch, "sequence": sequence, "image": 32}
        return examples.make(self.workload.inputs, Shape.of({axis: sizes[axis] for axis in self.workload.axes}), 1)

    def check(self, path: Path, precision: str, base: Path | None = None) -> dict[str, object]:
        """The parity record of a graph of this model."""
        return check.check(
            path,
            precision=precision,
            workload=self.weights / "workload.json",
            inputs=self.inputs,
            reference=self.reference,
            base=base,
            threads=1,
        )


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """Tiny models by name, each made at its first use."""
    made: dict[str, Tiny] = {}

    def make(name: str) -> Tiny:
        if name not in made:
            made[name] = Tiny(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture(scope="session")
def distilbert(make_tiny: Callable[[str], Tiny]) -> Tiny:
    return make_tiny("distilbert")


@pytest.fixture(scope="session", params=["distilbert", "bert"])
def tiny(request: pytest.FixtureRequest, make_tiny: Callable[[str], Tiny]) -> Tiny:
    return make_tiny(request.param)


@pytest.fixture(scope="session")
def ranges(distilbert: Tiny) -> dict[str, calibration.Range]:
    return calibration.calibrate(distilbert.simplified, distilbert.weights, CALIBRATION, 1)[0]


@pytest.fixture(scope="session")
def run() -> Callable[[onnx.ModelProto, dict[str, np.ndarray]], np.ndarray]:
    """The first output of a graph as written, on the CPU."""
    return lambda model, feed: graph.session(model, 1, optimize=False).run(None, feed)[0]
