"""What executes ``CeilingsAttention``, the plug-in of TensorRT: the kernel on TensorRT's buffers and stream."""

from __future__ import annotations

from typing import Any

import torch

from ceilings.engines.attention_plugin import Call
from ceilings.kernels import attention
from ceilings.kernels.tiles import AttentionTile


def run(call: Call, device: str = "cuda") -> None:
    """Enqueue the kernel of a call on its stream."""
    stream = torch.cuda.ExternalStream(call.stream, device=device)
    with torch.cuda.stream(stream):
        launch(call, [torch.as_tensor(one, device=device) for one in buffers(call)])


def launch(call: Call, tensors: list[Any]) -> None:
    """Enqueue it on the current stream, on tensors over the call's buffers, the output last."""
    query, key, value, *masks, result = tensors
    mask = masks[0] if masks else None
    attention.launch(query, key, value, mask, result, call.heads, AttentionTile(*call.tile))()


def buffers(call: Call) -> list[Buffer]:
    """The call's memory, the output last."""
    rows = [Buffer(address, call.shape, "<f2") for address in (*call.inputs[:3], call.output)]
    return [*rows[:3], *(Buffer(address, call.shape[:2], "<i8") for address in call.inputs[3:]), rows[3]]


class Buffer:
    """Memory on the device, in one piece, as PyTorch takes it without a copy (CUDA array interface, version 3).

    Args:
        address: Of its first byte.
        shape: Sizes of its axes.
        kind: Type of its numbers, as NumPy writes it.
    """

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {
            **{"data": (address, False), "shape": shape, "typestr": kind},
            **{"strides": None, "version": 3},
        }
