"""PyTorch on a GPU with attention as an operator of ``ceilings.kernels``; all else is PyTorch's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ceilings.errors import CellFailure
from ceilings.kernels import torch_operator
from ceilings.models.load import load_module
from ceilings.runtimes.compile_cache import compile_folder
from ceilings.runtimes.torch_cuda import TorchCuda
from ceilings.runtimes.triton_kernels import FACTS, tiles_fit


class TorchOperatorCuda(TorchCuda):
    """Executes the weights, attention by ``torch.ops.ceilings.attention``. Options: those of :class:`TorchCuda`."""

    def _model(self) -> Any:
        os.environ["TRITON_CACHE_DIR"], self._kernels = compile_folder()
        torch_operator.register()
        return load_module(self.artifact, torch_operator.NAME, "float16", "cuda")

    def _open_compile_cache(self) -> None:
        kept = os.environ["TRITON_CACHE_DIR"]
        super()._open_compile_cache()
        os.environ["TRITON_CACHE_DIR"] = kept

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        with super().failures(), tiles_fit():
            try:
                yield
            except ValueError as error:
                # Ours, of a layer that the kernel cannot compute, or Transformers', of a model with one attention only.
                if torch_operator.NAME not in str(error):
                    raise
                raise CellFailure("unsupported", f"{error}") from error

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **FACTS}


RUNNER = TorchOperatorCuda
