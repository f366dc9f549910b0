"""PyTorch on the CPU: eager, and with linear layers quantised dynamically to INT8."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ceilings.models.weights import load_model
from ceilings.runtimes.base import Inputs, Runner

ATTENTION = "sdpa"
"""transformers' own default: what a user of PyTorch runs. Exports use another, which fuses."""


class TorchCpu(Runner):
    """Executes the weights operator by operator."""

    def load(self) -> None:
        torch.set_num_threads(self.threads)
        quantized = self.options.get("quantize") == "dynamic"
        with self.phase("load"):
            dtype = "bfloat16" if self.precision == "bf16" else "float32"
            self.model = load_model(self.artifact, attention=ATTENTION, dtype=dtype)
        if quantized:
            with self.phase("quantize"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated in favour of torchao, which is another package
                self.model = torch.ao.quantization.quantize_dynamic(self.model, {torch.nn.Linear}, dtype=torch.qint8)

    def place(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}

    def launch(self, slot: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(**slot).logits

    def logits(self, launched: torch.Tensor) -> NDArray[np.float32]:
        return launched.float().numpy()

    def describe(self) -> dict[str, Any]:
        quantized = sum(type(module).__module__.startswith("torch.ao.nn.quantized") for module in self.model.modules())
        return {
            "attention": ATTENTION,
            "quantized_linears": quantized,
            "quantized_engine": torch.backends.quantized.engine,
        }


RUNNER = TorchCpu
