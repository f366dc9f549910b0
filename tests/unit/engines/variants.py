"""The variants of a tiny DistilBERT: what engines are built from."""

from __future__ import annotations

from pathlib import Path

from ceilings.graphs import calibration, export, graph, precision, quantize, simplify
from ceilings.models import definition, weights
from ceilings.workload.workload import Workload

MODEL = {
    "architecture": "distilbert",
    "task": "sequence-classification",
    "weights": "random",
    "config": {
        **{"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        **{"vocab_size": 500, "max_position_embeddings": 64},
    },
}
CALIBRATION = calibration.Calibration("minmax", count=8, sequence=32)


class Variants:
    """A simplified graph in FP32, and what others are made of: weights, workload and ranges."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.weights, self.simplified = folder, folder / "weights", folder / "simplified.onnx"
        weights.fetch(definition.read("tiny", MODEL), self.weights)
        self.workload = Workload.read(self.weights)
        export.export_onnx(self.weights, export.Export(), folder / "exported.onnx")
        graph.save(simplify.simplify(graph.load(folder / "exported.onnx"), self.workload).model, self.simplified)
        self.model = graph.load(self.simplified)
        self.ranges = calibration.calibrate(self.simplified, self.weights, CALIBRATION, 1)[0]

    def save(self, name: str) -> Path:
        """Write the graph of a precision; ``int8.plain`` has its rest in FP32, ``int8.kept`` some products in FP16."""
        path = self.folder / f"{name}.onnx"
        kind, _, how = name.partition(".")
        if kind in ("int8", "fp8"):
            settings = quantize.Quantization(**({"keep": ["*ffn/lin1/MatMul"]} if how == "kept" else {}))
            floats = "fp32" if how == "plain" else "fp16"
            graph.save(quantize.quantize(self.model, self.ranges, kind, settings, floats).model, path)
        else:
            graph.save(precision.convert(self.model, kind)[0], path)
        return path
