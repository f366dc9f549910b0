"""NVTX ranges for a profiler outside of this process.

Through the library of the package nvidia-nvtx, which PyTorch's CUDA builds bring. The package nvtx falls silent under a
Nsight Systems that is older than itself: it asks first whether anyone listens, which that one cannot answer.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ceilings.errors import UserError

LIBRARY = "libnvtx3interop.so.1"


def ranges(text: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What begins a range of this text on the calling thread, and what ends it.

    Raises:
        UserError: The library is missing.
    """
    library = ctypes.CDLL(str(_path()))
    push, pop = library.nvtxRangePushA, library.nvtxRangePop
    push.argtypes, pop.argtypes = [ctypes.c_char_p], []
    return functools.partial(push, text.encode()), pop


def _path() -> Path:
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if libraries := sorted(Path(place).glob(f"*/lib/{LIBRARY}")):
            return libraries[-1]
    raise UserError(
        f"{LIBRARY} is not there, and without it a profiler cannot tell iterations; pip install nvidia-nvtx"
    )
