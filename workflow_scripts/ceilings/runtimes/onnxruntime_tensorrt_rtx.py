"""ONNX Runtime with the TensorRT RTX execution provider, a plugin that comes as a package of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping

import onnxruntime
import onnxruntime_ep_nv_tensorrt_rtx as plugin

from ceilings.errors import CellFailure
from ceilings.runtimes import placement
from ceilings.runtimes.onnxruntime_cuda import WITHOUT, OnnxRuntimeCuda
from ceilings.runtimes.onnxruntime_session import open_session, session_options
from ceilings.runtimes.onnxruntime_tensorrt import TF32_SWITCH, tensorrt_failure


class OnnxRuntimeTensorRtRtx(OnnxRuntimeCuda):
    """Executes an ONNX variant as one engine, which the plugin compiles whenever a session opens.

    Options: ``cuda_graph`` (the plugin captures and replays). The axes are fixed to the cell's shape beforehand.
    """

    provider = plugin.get_ep_name()

    def _preload(self) -> str:
        if self.precision == "tf32":
            os.environ.pop(TF32_SWITCH, None)
        else:
            os.environ[TF32_SWITCH] = "0"
        missing = super()._preload()
        try:
            onnxruntime.register_execution_provider_library(self.provider, plugin.get_library_path())
        except Exception as error:  # ORT's exceptions share no base class but Exception
            raise CellFailure("fallback", f"ONNX Runtime could not load {self.provider}: {str(error)[:300]}") from error
        return missing

    def _options(self) -> onnxruntime.SessionOptions:
        return session_options(1, self.shape)

    def _session(self, options: onnxruntime.SessionOptions, graph: bool = False) -> onnxruntime.InferenceSession:
        devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == self.provider]
        if not devices:
            raise CellFailure("unsupported", f"{self.provider} names no device that it runs on here")
        options.add_provider_for_devices(devices[:1], provider_options(self.stream.handle, graph))
        return open_session(self.artifact, options, [], WITHOUT, retry=False)

    def _explain(self, error: Exception) -> CellFailure | None:
        return super()._explain(error) or tensorrt_failure(error)

    def _refuse_fallback(self) -> None:
        super()._refuse_fallback()
        placement.require_one_partition(self.session, self.provider)


def provider_options(stream: int, cuda_graph: bool) -> Mapping[str, str]:
    """The plugin's options: in 0 and 1, where ONNX Runtime's own TensorRT provider has False and True."""
    return {
        "has_user_compute_stream": "1",
        "user_compute_stream": str(stream),
        "enable_cuda_graph": str(int(cuda_graph)),
    }


RUNNER = OnnxRuntimeTensorRtRtx
