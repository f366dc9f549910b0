"""What runs within Triton's Python backend: ``model.py`` of the repository imports it."""

from __future__ import annotations

import ctypes
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from ceilings.files import read_json, write_task
from ceilings.serving.batching import Batching
from ceilings.serving.executor import Executor
from ceilings.serving.servers.server import report

_USED = b"used_dltensor"
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes, _rename.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_int


class TritonPythonModel:
    """Executes the requests that Triton joined, with the runner of the cell."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make the runners ready and run every batch; Triton calls it once for each instance."""
        config = json.loads(args["model_config"])
        content = read_json(config["parameters"]["task"]["string_value"])
        batching = Batching.from_json(content["batching"]) if content["batching"] else None
        try:
            self._executor = Executor(content["task"], batching)
            self._executor.load()
        except Exception as error:
            report(error)
            raise
        self._outputs = [output["name"] for output in config["output"]]
        self._inputs = [one["name"] for one in config["input"]]
        write_task(Path(f"{content['facts']}.{args['model_instance_name']}.json"), self._executor.facts())

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One answer a request, in order; all of them are one batch."""
        try:
            arrays = [
                {name: np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in self._inputs}
                for request in requests
            ]
            answers = self._executor.execute(arrays)
        except Exception as error:
            traceback.print_exc()
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}")
            return [pb_utils.InferenceResponse([], failure) for _ in requests]
        return [
            pb_utils.InferenceResponse([tensor(name, answer[name]) for name in self._outputs]) for answer in answers
        ]


def tensor(name: str, values: np.ndarray) -> Any:
    """A tensor of Triton's from an array.

    By DLPack: the constructor that takes arrays was built for NumPy 1 and writes no bytes of NumPy 2's. Triton takes
    the memory over and gives the capsule a name of its own, on which NumPy would complain when the capsule goes; so it
    gets the standard's.
    """
    capsule = np.ascontiguousarray(values).__dlpack__()
    made = pb_utils.Tensor.from_dlpack(name, capsule)
    _rename(capsule, _USED)
    return made
