"""Random operands of the kernels: tensors of FP16 and E4M3, and the same numbers in FP64."""

import dataclasses

import numpy as np
import torch


def half(random, *size, scale=1.0, device="cpu"):
    """A tensor of FP16 and the same numbers in FP64."""
    tensor = torch.from_numpy(random.normal(0, scale, size)).to(torch.float16)
    return tensor.to(device), tensor.double().numpy()


def narrow(random, *size, scale=1.0, device="cpu"):
    """A tensor of E4M3 and the same numbers in FP64."""
    tensor = torch.from_numpy(random.normal(0, scale, size)).to(torch.float32).to(torch.float8_e4m3fn)
    return tensor.to(device), tensor.double().numpy()


def single(random, *size, device="cpu"):
    """A tensor of positive FP32 numbers near 1 and the same numbers in FP64."""
    tensor = torch.from_numpy(random.uniform(0.5, 2, size)).to(torch.float32)
    return tensor.to(device), tensor.double().numpy()


@dataclasses.dataclass
class Norm:
    """A LayerNorm as the kernels take it."""

    gain: torch.Tensor
    offset: torch.Tensor
    epsilon: float
    factor: float = 1.0


def norm(random, width, device="cpu", factor=1.0):
    """A LayerNorm and its gain and offset in FP64."""
    gain, exact_gain = half(random, width, device=device)
    offset, exact_offset = half(random, width, device=device)
    return Norm(gain, offset, 1e-12, factor), exact_gain, exact_offset


def padding(random, batch, sequence, device="cpu"):
    """A mask of texts of random lengths, one at least in full."""
    lengths = random.integers(1, sequence + 1, batch)
    lengths[0] = sequence
    return torch.from_numpy((np.arange(sequence) < lengths[:, None]).astype(np.int64)).to(device)


def layer_norm(rows, gain, offset, epsilon=1e-12):
    """LayerNorm in FP64."""
    centred = rows - rows.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gain + offset
