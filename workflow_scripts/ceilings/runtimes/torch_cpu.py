"""PyTorch on the CPU: eager, and with linear layers quantised dynamically to INT8."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.ao.nn.quantized import dynamic

from ceilings.errors import CellFailure
from ceilings.models.load import load_module
from ceilings.runtimes.base import Inputs, Runner

ATTENTION = "sdpa"
"""transformers' own default: what a user of PyTorch runs. Exports use another, which fuses."""

REFUSALS: dict[bool, tuple[type[Exception], ...]] = {
    False: (NotImplementedError,),
    # Models that look at the weights of their layers: a quantised layer has none to look at.
    True: (NotImplementedError, AttributeError, TypeError),
}
"""What PyTorch raises where it lacks a kernel; by whether the model is quantised."""


class TorchCpu(Runner):
    """Executes the weights operator by operator. Options: ``quantize`` (``dynamic``)."""

    def load(self) -> None:
        torch.set_num_threads(self.threads)
        with self.phase("load"):
            dtype = "bfloat16" if self.precision == "bf16" else "float32"
            self.model = load_module(self.artifact, ATTENTION, dtype)
        if self.options.get("quantize") == "dynamic":
            with self.phase("quantize"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated in favour of torchao, which is another package
                self.model = torch.ao.quantization.quantize_dynamic(self.model, {torch.nn.Linear}, dtype=torch.qint8)
            if not self._quantized():
                raise CellFailure("unsupported", "the model has no linear layer that PyTorch can quantise dynamically")

    def place(self, element: Inputs) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(np.ascontiguousarray(element[each.name])) for each in self.workload.inputs)

    def launch(self, slot: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            return self.model(*slot)

    def run(self, slot: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        try:
            return super().run(slot)
        except REFUSALS[bool(self.options.get("quantize"))] as error:
            raise CellFailure("unsupported", f"PyTorch cannot run it: {str(error)[:300]}") from error

    def outputs(self, launched: tuple[torch.Tensor, ...]) -> dict[str, NDArray[np.float32]]:
        return {
            output.name: value.float().numpy() for output, value in zip(self.workload.outputs, launched, strict=True)
        }

    def _quantized(self) -> int:
        """Layers that compute in INT8."""
        return sum(isinstance(module, dynamic.Linear) for module in self.model.modules())

    def describe(self) -> dict[str, Any]:
        return {
            "attention": self.model.attention,
            "quantized_linears": self._quantized(),
            "quantized_engine": torch.backends.quantized.engine,
        }


RUNNER = TorchCpu
