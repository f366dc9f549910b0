"""Tiny graphs, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ceilings.graphs import calibration, export, graph, simplify
from ceilings.models import inputs, reference, spec, weights

SIZES = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
CALIBRATION = calibration.Calibration("minmax", count=8, sequence=32)


class Tiny:
    """The files of one tiny model."""

    def __init__(self, architecture: str, folder: Path) -> None:
        self.architecture = architecture
        self.folder = folder
        self.weights = folder / "weights"
        config = {**SIZES[architecture], "vocab_size": 500, "max_position_embeddings": 64}
        model = {"name": "tiny", "architecture": architecture, "weights": "random", "config": config}
        weights.fetch(spec.read(model), self.weights)
        self.exported = folder / "exported.onnx"
        export.export_onnx(self.weights, export.Export(), self.exported)
        self.outcome = simplify.simplify(graph.load(self.exported))
        self.simplified = folder / "simplified.onnx"
        graph.save(self.outcome.model, self.simplified)
        self.inputs, self.reference = folder / "in.npz", folder / "ref.npz"
        inputs.make_inputs(self.weights, inputs.Ring(2, 32, 3, 0), self.inputs)
        reference.compute(self.weights, self.inputs, 1, self.reference)

    @property
    def model(self) -> onnx.ModelProto:
        return graph.load(self.simplified)

    def feed(self, batch: int = 2, sequence: int = 32) -> dict[str, np.ndarray]:
        return graph.example(self.model, 500, (batch, sequence), seed=1)


@pytest.fixture(scope="session")
def distilbert(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny("distilbert", tmp_path_factory.mktemp("distilbert"))


@pytest.fixture(scope="session", params=["distilbert", "bert"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    if request.param == "distilbert":
        return request.getfixturevalue("distilbert")
    return Tiny("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def ranges(distilbert: Tiny) -> dict[str, calibration.Range]:
    return calibration.calibrate(distilbert.simplified, distilbert.weights, CALIBRATION, 1)[0]


@pytest.fixture(scope="session")
def run() -> Callable[[onnx.ModelProto, dict[str, np.ndarray]], np.ndarray]:
    """Logits of a graph as written, on the CPU."""
    return lambda model, feed: graph.session(model, 1, optimize=False).run(["logits"], feed)[0]
