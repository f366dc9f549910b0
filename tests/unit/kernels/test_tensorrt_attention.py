"""What executes the plug-in of TensorRT, in Triton's interpreter: a call's memory, and the kernel on it."""

import ctypes

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

import torch

from ceilings.engines.attention_plugin import TILES, Call
from ceilings.kernels import tensorrt_attention, torch_operator

pytestmark = pytest.mark.usefixtures("interpreted")


def as_tensor(buffer):
    """On a CPU, what torch.as_tensor makes of memory on a device."""
    facts = buffer.__cuda_array_interface__
    kind = np.dtype(facts["typestr"])
    length = int(np.prod(facts["shape"])) * kind.itemsize
    content = (ctypes.c_char * length).from_address(facts["data"][0])
    return torch.from_numpy(np.frombuffer(content, kind).reshape(facts["shape"]))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("masked", [True, False])
def test_a_call_gives_what_the_operator_gives(tile, masked):
    torch.manual_seed(0)
    three = [torch.randn(2, 19, 48).half() for _ in range(3)]
    mask = (torch.arange(19).expand(2, -1) < torch.tensor([[19], [7]])).long().contiguous()
    result = torch.full((2, 19, 48), float("nan")).half()
    inputs = tuple(one.data_ptr() for one in (*three, *([mask] if masked else [])))
    call = Call((2, 19, 48), inputs, result.data_ptr(), 3, tile, 0)
    tensorrt_attention.launch(call, [as_tensor(one) for one in tensorrt_attention.buffers(call)])
    expected = torch_operator.attention(*three, mask if masked else None, 3)
    torch.testing.assert_close(result, expected, rtol=2e-3, atol=2e-3)
