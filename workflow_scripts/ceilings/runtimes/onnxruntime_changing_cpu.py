"""ONNX Runtime on its CPU execution provider, with requests of any shape: its sessions have symbolic axes anyway."""

from __future__ import annotations

from ceilings.runtimes.changing import Changing
from ceilings.runtimes.onnxruntime_cpu import OnnxRuntimeCpu


class OnnxRuntimeChangingCpu(Changing, OnnxRuntimeCpu):
    """One session for all shapes."""


RUNNER = OnnxRuntimeChangingCpu
