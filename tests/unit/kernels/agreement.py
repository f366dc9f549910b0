"""Each kernel against FP64 over a random shape, on any device: tests in the interpreter and on a card call the same."""

import dataclasses
import math

import numpy as np
import torch
from unit.kernels import operands, plain_encoder, rounding

from ceilings.kernels import attention as attention_kernel
from ceilings.kernels import attention_projection as projection_kernel
from ceilings.kernels import embedding as embedding_kernel
from ceilings.kernels import fp8_weights
from ceilings.kernels import normalization as normalization_kernel
from ceilings.kernels import pooling as pooling_kernel
from ceilings.kernels import product as product_kernel
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.persistent import PersistentEncoder
from ceilings.kernels.tiles import AttentionTile, ProductTile, Tiles

ACTIVATED = {
    "none": lambda values: values,
    "gelu": lambda values: 0.5 * values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))),
    "gelu_new": lambda values: 0.5 * values * (1 + np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))),
    "relu": lambda values: np.maximum(values, 0),
    "tanh": np.tanh,
}
SMALL = ProductTile(16, 32, 32)
E4M3 = torch.float8_e4m3fn
EIGHT_BITS = 0.04
"""The share of what is written in E4M3, which itself rounds by 1 part in 16."""


def near(got, exact, bound, share=0.02):
    """Within the bound everywhere; the bound itself is a small share of the numbers, so that this says something."""
    got = got.double().cpu().numpy()
    assert np.isfinite(got).all()
    assert np.median(bound) < share * np.abs(exact).max()
    worst = np.max(np.abs(got - exact) / bound)
    assert worst <= 1, f"off by {worst:.2f} of what rounding explains"


def empty(*size, device, dtype=torch.float16):
    return torch.full(size, float("nan")).to(dtype).to(device)


def product(random, device, activation):
    rows, columns, inner = int(random.integers(17, 60)), int(random.integers(33, 70)), int(random.integers(40, 100))
    x, left = operands.half(random, rows, inner, device=device)
    weight, right = operands.half(random, columns, inner, scale=inner**-0.5, device=device)
    bias, added = operands.half(random, columns, device=device)
    y = empty(rows, columns, device=device)
    product_kernel.launch("up", x, weight, bias, y, SMALL, activation)()
    exact = ACTIVATED[activation](left @ right.T + added)
    near(y, exact, rounding.product(left, right, added, exact, activation=activation))


def unit(tile, device):
    """What a sum of products of E4M3 is off by within a block of the inner axis; the interpreter adds in FP32."""
    return 0.0 if device == "cpu" else rounding.UNIT * tile.inner / 32


def fp8_product(random, device, activation, rows=SMALL.rows):
    """Of E4M3 numbers with a scale for each column, the result in FP16, or larger by a factor in E4M3."""
    tile = dataclasses.replace(SMALL, rows=rows)
    tokens, columns, inner = int(random.integers(17, 60)), int(random.integers(33, 70)), 16 * int(random.integers(3, 9))
    x, left = operands.narrow(random, tokens, inner, device=device)
    weight, right = operands.narrow(random, columns, inner, device=device)
    scale, scaled = operands.single(random, columns, device=device)
    scale, scaled = scale * inner**-0.5, scaled * inner**-0.5
    bias, added = operands.half(random, columns, device=device)
    exact = ACTIVATED[activation](left @ right.T * scaled + added)
    weights = right * scaled[:, None]
    for kind, factor in ((torch.float16, 1.0), (E4M3, 8.0)):
        y = empty(tokens, columns, device=device, dtype=kind)
        product_kernel.launch("up", x, weight, bias, y, tile, activation, scale=scale, factor=factor)()
        sides = {"activation": activation, "unit": unit(tile, device)}
        off = rounding.product(left, weights, added, exact, **sides, written=rounding.HALF if factor == 1 else 0.0)
        near(y, factor * exact, off if factor == 1 else rounding.narrow(exact, off, factor), EIGHT_BITS)


def fp8_layer_end(random, device, splits):
    """A cut product of E4M3 numbers, and the normalisation that writes FP16 and E4M3."""
    tokens, width, inner = int(random.integers(17, 40)), int(random.integers(40, 90)), 16 * int(random.integers(5, 9))
    tile = dataclasses.replace(SMALL, splits=splits)
    x, left = operands.narrow(random, tokens, inner, device=device)
    weight, right = operands.narrow(random, width, inner, device=device)
    scale, scaled = operands.single(random, width, device=device)
    bias, added = operands.half(random, width, device=device)
    hidden, residual = operands.half(random, tokens, width, device=device)
    norm, gain, offset = operands.norm(random, width, device, factor=16.0)
    partial = empty(splits, tokens, width, device=device, dtype=torch.float32)
    product_kernel.launch("down", x, weight, None, partial, tile, scale=scale)()
    exact = left @ right.T * scaled
    off = rounding.product(left, right * scaled[:, None], 0.0, exact, written=0.0, unit=unit(tile, device))
    near(partial.sum(0), exact, off)
    row = partial.double().sum(0).cpu().numpy() + added + residual
    twice = empty(tokens, width, device=device, dtype=E4M3)
    normalization_kernel.launch("end", partial, bias, hidden, twice, norm, 4)()
    exact = operands.layer_norm(row, gain, offset)
    off = (
        (splits + 2)
        * rounding.SINGLE
        * (np.abs(partial.double().cpu().numpy()).sum(0) + np.abs(added) + np.abs(residual))
    )
    off = rounding.normalization(row, gain, exact, off)
    near(hidden, exact, off)
    near(twice, 16 * exact, rounding.narrow(exact, off, 16.0), EIGHT_BITS)


def fp8_attention(random, device):
    """Attention's result in E4M3 is the FP16 one, larger by a factor."""
    batch, heads, width, sequence = int(random.integers(1, 5)), 2, int(random.choice([16, 24, 32])), 21
    qkv, _ = operands.half(random, batch, sequence, 3 * heads * width, device=device)
    mask, at = operands.padding(random, batch, sequence, device), qkv.split(heads * width, -1)
    half, narrow = (empty(*at[0].shape, device=device, dtype=kind) for kind in (torch.float16, E4M3))
    attention_kernel.launch(*at, mask, half, heads, AttentionTile(16, 32))()
    attention_kernel.launch(*at, mask, narrow, heads, AttentionTile(16, 32), factor=32.0)()
    exact = half.double().cpu().numpy()
    near(narrow, 32 * exact, rounding.narrow(exact, rounding.HALF * np.abs(exact) + rounding.TINY, 32.0), EIGHT_BITS)


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
    normalization_kernel.launch("end", partial, bias, hidden, None, norm, 4)()
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


def attended(qkv, heads, mask):
    """Attention in FP64, (batch, sequence, hidden), and how far the kernel's may be."""
    batch, sequence, hidden = *qkv.shape[:2], qkv.shape[-1] // 3
    width = hidden // heads
    query, key, value = qkv.reshape(batch, sequence, 3, heads, width).transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) * width**-0.5
    if mask is not None:
        scores = np.where(mask.cpu().numpy()[:, None, None, :] != 0, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    exact = shares @ value
    bound = rounding.attention(query, key, value, shares, exact)
    return tuple(one.swapaxes(1, 2).reshape(batch, sequence, hidden) for one in (exact, bound))


def attention(random, device, masked):
    batch, heads, width = int(random.integers(1, 5)), int(random.integers(1, 4)), int(random.choice([16, 24, 32]))
    sequence = int(random.integers(9, 22)) * 2 + 1
    qkv, exact_qkv = operands.half(random, batch, sequence, 3 * heads * width, device=device)
    mask = operands.padding(random, batch, sequence, device) if masked else None
    at = qkv.split(heads * width, -1)
    apart = empty(batch, sequence, heads * width, device=device)
    attention_kernel.launch(*[one.contiguous() for one in at], mask, apart, heads, AttentionTile(16, 32))()
    attention_kernel.launch(*at, mask, at[0], heads, AttentionTile(16, 32))()
    exact, bound = attended(exact_qkv, heads, mask)

    near(qkv[..., : heads * width], exact, bound)
    assert torch.equal(apart, at[0])
    untouched = exact_qkv[..., heads * width :]
    assert np.array_equal(qkv[..., heads * width :].double().cpu().numpy(), untouched)


def attention_projection(random, device, tile, *, masked=True):
    """The partial sums of each group of heads, from attention's result as rounded to FP16."""
    batch, width, heads = int(random.integers(1, 4)), int(random.choice([16, 24, 32])), int(random.choice([4, 6]))
    sequence, hidden = int(random.integers(9, 22)) * 2 + 1, heads * width
    qkv, exact_qkv = operands.half(random, batch, sequence, 3 * hidden, device=device)
    weight, right = operands.half(random, hidden, hidden, scale=hidden**-0.5, device=device)
    mask, at = operands.padding(random, batch, sequence, device) if masked else None, qkv.split(hidden, -1)
    partial = empty(tile.groups(heads), batch * sequence, hidden, device=device, dtype=torch.float32)
    projection_kernel.launch(*at, mask, weight, partial, heads, tile)()
    context, off = (one.reshape(-1, hidden) for one in attended(exact_qkv, heads, mask))
    numbers = tile.group(heads) * width
    for group, sums in enumerate(partial):
        of = slice(group * numbers, (group + 1) * numbers)
        exact = context[:, of] @ right[:, of].T
        bound = rounding.product(np.abs(context[:, of]) + off[:, of], right[:, of], 0.0, exact, written=0.0)
        near(sums, exact, off[:, of] @ np.abs(right[:, of]).T + bound)


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
    norm, gain, offset = operands.norm(random, width, device, factor=16.0)
    ids = torch.from_numpy(random.integers(0, 50, (batch, sequence))).to(device)
    hidden, narrow = (empty(batch * sequence, width, device=device, dtype=kind) for kind in (torch.float16, E4M3))
    embedding_kernel.launch(ids, words, positions, norm, hidden, narrow, 4)()
    row = (exact_words[ids.cpu().numpy()] + exact_positions[:sequence]).reshape(-1, width)
    exact = operands.layer_norm(row, gain, offset)
    off = rounding.normalization(row, gain, exact, rounding.SINGLE * np.abs(row))
    near(hidden, exact, off)
    near(narrow, norm.factor * exact, rounding.narrow(exact, off, norm.factor), EIGHT_BITS)


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


def encoder(random, device, precision, tiles, **how):
    """A whole encoder against FP64: in FP16 near it, in FP8 as near as FP64 is on operands that are rounded alike.

    FP16 moves one in a hundred of them to E4M3's next number, so the two are not the same.
    """
    weights = plain_encoder.random(int(random.integers(1000)))
    sequence = int(random.integers(9, 40))
    ids = torch.from_numpy(random.integers(0, 50, (2, sequence)))
    mask = operands.padding(random, 2, sequence)
    (exact,) = plain_encoder.run(weights, ids, mask)
    allowed = 2e-3 * torch.norm(exact)
    if precision == "fp8":
        weights = fp8_weights.quantised(weights)
        allowed = 1.5 * torch.norm(plain_encoder.run(weights, ids, mask)[0] - exact)
    made = Encoder(plain_encoder.moved(weights, device), 2, sequence, tiles, **how)
    got = made(ids.to(device), mask.to(device))[0].double().cpu()
    assert 0 < torch.norm(got - exact) <= allowed < 0.2 * torch.norm(exact)


REPLAYS = 200


def persistent_encoder(random, device, programs):
    """One launch a step: near FP64, and the bits of the encoder of many kernels. On a card one launch for all: the same
    bits in each of many replays of a graph."""
    weights = plain_encoder.random(int(random.integers(1000)))
    sequence = int(random.integers(9, 40))
    ids = torch.from_numpy(random.integers(0, 50, (2, sequence)))
    mask = operands.padding(random, 2, sequence)
    (exact,) = plain_encoder.run(weights, ids, mask)
    moved, inputs = plain_encoder.moved(weights, device), (ids.to(device), mask.to(device))
    tile = dataclasses.replace(SMALL, rows=64, warps=8)
    cut = Tiles(
        tile, AttentionTile(16, 32), dataclasses.replace(tile, splits=2), tile, dataclasses.replace(tile, splits=3)
    )
    card = device != "cpu"
    steps = PersistentEncoder(moved, 2, sequence, cut, programs=programs, at_once=False, ahead=card)
    (got,) = steps(*inputs)
    assert 0 < torch.norm(got.double().cpu() - exact) <= 2e-3 * torch.norm(exact)
    if not card:
        assert torch.equal(got, Encoder(moved, 2, sequence, cut)(*inputs)[0])
        return
    once = PersistentEncoder(moved, 2, sequence, cut, programs=programs)
    once(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        (result,) = once(*inputs)
    for _ in range(REPLAYS):
        once.states.fill_(float("nan"))
        graph.replay()
        assert torch.equal(once.states, steps.states) and torch.equal(result, got)
