"""PyTorch on the CPU, with requests of any shape: operator by operator, or quantised."""

from __future__ import annotations

from ceilings.runtimes.changing import Changing
from ceilings.runtimes.torch_cpu import TorchCpu


class TorchChangingCpu(Changing, TorchCpu):
    """One module for all shapes."""


RUNNER = TorchChangingCpu
