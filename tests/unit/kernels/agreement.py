"""Each kernel against FP64 over a random shape, on any device: tests in the interpreter and on a card call the same."""

import math

import numpy as np
import torch
from unit.kernels import operands, rounding

from ceilings.kernels import attention as attention_kernel
from ceilings.kernels import embedding as embedding_kernel
from ceilings.kernels import normalization as normalization_kernel
from ceilings.kernels import pooling as pooling_kernel
from ceilings.kernels import product as product_kernel
from ceilings.kernels.tiles import AttentionTile, ProductTile

ACTIVATED = {
    "none": lambda values: values,
    "gelu": lambda values: 0.5 * values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))),
    "relu": lambda values: np.maximum(values, 0),
    "tanh": np.tanh,
}
SMALL = ProductTile(16, 32, 32)


def near(got, exact, bound):
    """Within the bound everywhere; the bound itself is small beside the numbers, so that this says something."""
    got = got.double().cpu().numpy()
    assert np.isfinite(got).all()
    assert np.median(bound) < 0.02 * np.abs(exact).max()
    worst = np.max(np.abs(got - exact) / bound)
    assert worst <= 1, f"off by {worst:.2f} of what rounding explains"


def empty(*size, device, dtype=torch.float16):
    return torch.full(size, float("nan"), dtype=dtype, device=device)


def product(random, device, activation):
    rows, columns, inner = int(random.integers(17, 60)), int(random.integers(33, 70)), int(random.integers(40, 100))
    x, left = operands.half(random, rows, inner, device=device)
    weight, right = operands.half(random, columns, inner, scale=inner**-0.5, device=device)
    bias, added = operands.half(random, columns, device=device)
    y = empty(rows, columns, device=device)
    product_kernel.launch("up", x, weight, bias, y, SMALL, activation)()
    exact = ACTIVATED[activation](left @ right.T + added)
    near(y, exact, rounding.product(left, right, added, exact, activation=activation))


def cut_product(random, device, splits, inner=None):
    tokens, width = int(random.integers(17, 40)), int(random.integers(40, 90))
    inner = inner or int(random.integers(70, 130))
    x, left = operands.half(random, tokens, inner, device=device)
    weight, right = operands.half(random, width, inner, scale=inner**-0.5, device=device)
    bias, added = operands.half(random, width, device=device)
    hidden, residual = operands.half(random, tokens, width, device=device)
    norm, gain, offset = operands.norm(random, width, device)
    partial = empty(splits, tokens, width, device=device, dtype=torch.float32)
    product_kernel.launch("down", x, weight, None, partial, ProductTile(16, 32, 32, splits=splits))()
    exact = left @ right.T
    off = rounding.product(left, right, 0.0, exact, written=0.0)
    near(partial.sum(0), exact, off)
    normalization_kernel.launch("end", partial, bias, hidden, norm, 4)()
    row = exact + added + residual
    exact = operands.layer_norm(row, gain, offset)
    off = off + (splits + 2) * rounding.SINGLE * (np.abs(left) @ np.abs(right).T + np.abs(added) + np.abs(residual))
    near(hidden, exact, rounding.normalization(row, gain, exact, off))


def head(random, device, transposed):
    """Of first tokens, which lie a whole text apart; columns as rows, as start and end of an answer are written."""
    batch, sequence, width, columns = int(random.integers(1, 5)), 7, 48, int(random.integers(2, 20))
    states, exact_states = operands.half(random, batch, sequence, width, device=device)
    weight, right = operands.half(random, columns, width, scale=width**-0.5, device=device)
    bias, added = operands.half(random, columns, device=device)
    y = empty(*((columns, batch) if transposed else (batch, columns)), device=device)
    tile = ProductTile(16, 16, 32)
    product_kernel.launch("head", states[:, 0], weight, bias, y, tile, transposed=transposed)()
    left = exact_states[:, 0]
    exact = left @ right.T + added
    near(y.T if transposed else y, exact, rounding.product(left, right, added, exact))


def attention(random, device, masked):
    batch, heads, width = int(random.integers(1, 5)), int(random.integers(1, 4)), int(random.choice([16, 24, 32]))
    sequence = int(random.integers(9, 22)) * 2 + 1
    qkv, exact_qkv = operands.half(random, batch, sequence, 3 * heads * width, device=device)
    mask = operands.padding(random, batch, sequence, device) if masked else None
    at = qkv.split(heads * width, -1)
    apart = empty(batch, sequence, heads * width, device=device)
    attention_kernel.launch(*[one.contiguous() for one in at], mask, apart, heads, AttentionTile(16, 32))()
    attention_kernel.launch(*at, mask, at[0], heads, AttentionTile(16, 32))()
    query, key, value = exact_qkv.reshape(batch, sequence, 3, heads, width).transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) * width**-0.5
    if mask is not None:
        scores = np.where(mask.cpu().numpy()[:, None, None, :] != 0, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    exact = shares @ value
    bound = rounding.attention(query, key, value, shares, exact)

    def together(values):
        return values.swapaxes(1, 2).reshape(batch, sequence, heads * width)

    near(qkv[..., : heads * width], together(exact), together(bound))
    assert torch.equal(apart, at[0])
    untouched = exact_qkv[..., heads * width :]
    assert np.array_equal(qkv[..., heads * width :].double().cpu().numpy(), untouched)


def attention_of_padding(random, device):
    qkv, exact = operands.half(random, 1, 21, 3 * 16, device=device)
    at, nothing = qkv.split(16, -1), torch.zeros(1, 21, dtype=torch.int64, device=device)
    attention_kernel.launch(*at, nothing, at[0], 1, AttentionTile(16, 16))()
    values = exact[..., 32:]
    mean = np.repeat(values.mean(1, keepdims=True), 21, 1)
    bound = 2 * rounding.HALF * np.abs(values).mean(1, keepdims=True) + rounding.HALF * np.abs(mean) + rounding.TINY
    near(qkv[..., :16], mean, bound + 0 * mean)


def embedding(random, device):
    batch, sequence, width = int(random.integers(1, 5)), int(random.integers(3, 12)), int(random.integers(20, 80))
    words, exact_words = operands.half(random, 50, width, device=device)
    positions, exact_positions = operands.half(random, 16, width, device=device)
    norm, gain, offset = operands.norm(random, width, device)
    ids = torch.from_numpy(random.integers(0, 50, (batch, sequence))).to(device)
    hidden = empty(batch * sequence, width, device=device)
    embedding_kernel.launch(ids, words, positions, norm, hidden, 4)()
    row = (exact_words[ids.cpu().numpy()] + exact_positions[:sequence]).reshape(-1, width)
    exact = operands.layer_norm(row, gain, offset)
    near(hidden, exact, rounding.normalization(row, gain, exact, rounding.SINGLE * np.abs(row)))


def pooling(random, device, kind, normalize):
    batch, sequence, width = int(random.integers(1, 5)), int(random.integers(9, 30)), int(random.integers(20, 80))
    hidden, states = operands.half(random, batch, sequence, width, device=device)
    mask = operands.padding(random, batch, sequence, device)
    pooled = empty(batch, width, device=device)
    pooling_kernel.launch(hidden, mask, pooled, kind, normalize=normalize)()
    real = mask.cpu().numpy()[..., None]
    exact = states[:, 0] if kind == "cls" else (states * real).sum(1) / real.sum(1)
    magnitude = np.abs(states[:, 0]) if kind == "cls" else (np.abs(states) * real).sum(1) / real.sum(1)
    bound = 2 * (sequence + 4) * rounding.SINGLE * magnitude
    if normalize:
        length = np.linalg.norm(exact, axis=1, keepdims=True)
        bound = bound / length + 2 * np.linalg.norm(bound, axis=1, keepdims=True) / length * np.abs(exact) / length
        exact = exact / length
        bound = bound + 2 * (width + 4) * rounding.SINGLE * np.abs(exact)
    near(pooled, exact, bound + rounding.HALF * np.abs(exact) + rounding.TINY)
