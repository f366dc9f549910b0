"""Each kernel of a decode step against FP64 over a random shape, on any device, as ``agreement.py`` of encoders."""

import numpy as np
import torch
from unit.kernels import operands, rounding
from unit.kernels.agreement import ACTIVATED, empty, near

from ceilings.kernels import cached_attention as attention_kernel
from ceilings.kernels import likeliest as likeliest_kernel
from ceilings.kernels import new_token as token_kernel
from ceilings.kernels import streaming
from ceilings.kernels.decoder_tiles import ContextTile, StepTile

TILE = StepTile(16)


def linear(random, columns, inner, device):
    """Weight and bias, each as the kernel takes it and in FP64."""
    weight, right = operands.half(random, columns, inner, scale=inner**-0.5, device=device)
    bias, added = operands.half(random, columns, device=device)
    return weight, right, bias, added


def product_of_normed(random, device, activation):
    """x is normalised by each program; its width is no power of two."""
    batch, columns, inner = int(random.integers(1, 9)), int(random.integers(17, 60)), int(random.integers(40, 100))
    x, row = operands.half(random, batch, inner, device=device)
    norm, gain, offset = operands.norm(random, inner, device)
    weight, right, bias, added = linear(random, columns, inner, device)
    y = empty(batch, columns, device=device)
    streaming.launch("up", streaming.Normed(x, norm), weight, bias, streaming.Written(y), TILE, activation)()
    left = operands.layer_norm(row, gain, offset)
    exact = ACTIVATED[activation](left @ right.T + added)
    off = rounding.normalization(row, gain, left, 0 * row, written=2 * rounding.SINGLE) @ np.abs(right).T
    near(y, exact, rounding.product(left, right, added, exact, activation=activation) + 2 * off)


def product_added(random, device, batch=None):
    """To the residual, in its place."""
    batch, columns, inner = batch or int(random.integers(1, 9)), int(random.integers(17, 60)), 64
    x, left = operands.half(random, batch, inner, device=device)
    weight, right, bias, added = linear(random, columns, inner, device)
    y, residual = operands.half(random, batch, columns, device=device)
    streaming.launch("down", streaming.Plain(x), weight, bias, streaming.Added(y), TILE)()
    exact = left @ right.T + added + residual
    near(y, exact, rounding.product(left, right, np.abs(added) + np.abs(residual), exact))


def product_of_parts(random, device, parts):
    """Of attention, some of them without tokens."""
    batch, heads, width, columns = int(random.integers(1, 5)), int(random.integers(1, 6)), 16, 24
    x, results = operands.half(random, batch, parts, heads * width, device=device)
    shares = torch.from_numpy(random.normal(0, 4, (batch, parts, heads))).float()
    shares[:, 1:][torch.from_numpy(random.random((batch, parts - 1, heads)) < 0.3)] = -1e30
    weight, right, bias, added = linear(random, columns, heads * width, device)
    y, residual = operands.half(random, batch, columns, device=device)
    seen = streaming.Parts(x, shares.to(device))
    streaming.launch("out", seen, weight, bias, streaming.Added(y), TILE)()
    weights = np.exp2(shares.double().numpy())
    weights = (weights / weights.sum(1, keepdims=True)).repeat(width, -1)
    left, magnitude = (weights * results).sum(1), (weights * np.abs(results)).sum(1)
    exact = left @ right.T + added + residual
    off = 2 * (parts + 8 + 16) * rounding.SINGLE * magnitude @ np.abs(right).T
    near(y, exact, rounding.product(left, right, np.abs(added) + np.abs(residual), exact) + off)


def product_cached(random, device):
    """Queries apart, keys and values at one place of the cache, which is untouched elsewhere."""
    batch, heads, width, length = int(random.integers(1, 9)), int(random.integers(1, 6)), 16, 7
    hidden, place = heads * width, int(random.integers(0, length))
    x, row = operands.half(random, batch, hidden, device=device)
    norm, gain, offset = operands.norm(random, hidden, device)
    weight, right, bias, added = linear(random, 3 * hidden, hidden, device)
    query = empty(batch, hidden, device=device)
    key, value = (empty(batch, heads, length, width, device=device) for _ in range(2))
    target = streaming.Cached(query, key, value, torch.tensor([place], device=device))
    streaming.launch("qkv", streaming.Normed(x, norm), weight, bias, target, TILE)()
    left = operands.layer_norm(row, gain, offset)
    exact = left @ right.T + added
    off = rounding.normalization(row, gain, left, 0 * row, written=2 * rounding.SINGLE) @ np.abs(right).T
    got = torch.cat([query, *(one[:, :, place].reshape(batch, -1) for one in (key, value))], 1)
    near(got, exact, rounding.product(left, right, added, exact) + 2 * off)
    others = [at for at in range(length) if at != place]
    assert all(one[:, :, others].isnan().all() for one in (key, value))


def product_judged(random, device):
    """Logits in FP32, and the first largest of each program; the vocabulary fills no whole number of programs."""
    batch, columns, inner = int(random.integers(1, 5)), int(random.integers(33, 60)), 64
    x, row = operands.half(random, batch, inner, device=device)
    norm, gain, offset = operands.norm(random, inner, device)
    weight, right = operands.half(random, columns, inner, scale=inner**-0.5, device=device)
    weight[5], right[5] = weight[3], right[3]  # equal logits in one program
    programs = -(-columns // TILE.columns)
    y = empty(batch, columns, device=device, dtype=torch.float32)
    largest = empty(batch, programs, device=device, dtype=torch.float32)
    place = torch.full((batch, programs), -1, device=device)
    judged = streaming.Judged(y, largest, place)
    streaming.launch("head", streaming.Normed(x, norm), weight, None, judged, TILE)()
    left = operands.layer_norm(row, gain, offset)
    exact = left @ right.T
    off = rounding.normalization(row, gain, left, 0 * row, written=2 * rounding.SINGLE) @ np.abs(right).T
    near(y, exact, rounding.product(left, right, 0.0, exact, written=0.0) + 2 * off)
    for program in range(programs):
        first = program * TILE.columns
        mine = y[:, first : first + TILE.columns]
        assert torch.equal(largest[:, program], mine.amax(1))
        assert place[:, program].tolist() == [first + row.tolist().index(row.max().item()) for row in mine.cpu()]


def cached_attention(random, device, parts):
    """Of a cache that is no number beyond the newest token; parts may have no tokens at all."""
    batch, heads, width = int(random.integers(1, 5)), int(random.integers(1, 4)), int(random.choice([16, 32]))
    length, tile = int(random.integers(20, 50)), ContextTile(8, parts)
    before = int(random.choice([0, 3, int(random.integers(4, length)), length - 1]))
    hidden = heads * width
    query, asked = operands.half(random, batch, hidden, device=device)
    (key, keys), (value, values) = (operands.half(random, batch, heads, length, width, device=device) for _ in range(2))
    key[:, :, before + 1 :] = value[:, :, before + 1 :] = float("nan")
    results = empty(batch, parts, hidden, device=device)
    shares = empty(batch, parts, heads, device=device, dtype=torch.float32)
    position = torch.tensor([before], device=device)
    attention_kernel.launch(query, key, value, position, results, shares, tile, context=before + 1)()
    asked = asked.reshape(batch, heads, 1, width)
    keys, values = keys[:, :, : before + 1], values[:, :, : before + 1]
    scores = asked @ keys.swapaxes(-1, -2) * width**-0.5
    softmax = np.exp(scores - scores.max(-1, keepdims=True))
    softmax /= softmax.sum(-1, keepdims=True)
    exact = softmax @ values
    weights = np.exp2(shares.double().cpu().numpy())
    weights = (weights / weights.sum(1, keepdims=True)).repeat(width, -1)
    got = (weights * results.double().cpu().numpy()).sum(1)
    # A part's result is rounded where it is written, and its magnitude may exceed the sum's.
    bound = rounding.attention(asked, keys, values, softmax, exact) + rounding.HALF * softmax @ np.abs(values)
    near(torch.from_numpy(got), exact.reshape(batch, hidden), bound.reshape(batch, hidden))


def new_token(random, device):
    batch, width = int(random.integers(1, 9)), int(random.integers(20, 80))
    words, exact_words = operands.half(random, 50, width, device=device)
    places, exact_places = operands.half(random, 16, width, device=device)
    token = torch.from_numpy(random.integers(0, 50, (batch, 1))).to(device)
    hidden, at = empty(batch, width, device=device), int(random.integers(0, 16))
    token_kernel.launch(token, torch.tensor([at], device=device), words, places, hidden)()
    exact = exact_words[token[:, 0].cpu().numpy()] + exact_places[at]
    near(hidden, exact, (rounding.HALF + rounding.SINGLE) * np.abs(exact) + rounding.TINY)


def likeliest(random, device):
    """The first of equal ones."""
    batch, count = int(random.integers(1, 9)), int(random.integers(3, 40))
    largest = torch.from_numpy(random.normal(size=(batch, count))).float()
    largest[:, count // 2] = largest[:, -1] = largest.max() + 1
    place = torch.from_numpy(random.permutation(batch * count).reshape(batch, count))
    token, position = torch.zeros(batch, 1, dtype=torch.int64, device=device), torch.tensor([41], device=device)
    likeliest_kernel.launch(largest.to(device), place.to(device), token, position)()
    assert torch.equal(token[:, 0].cpu(), place[:, count // 2]) and position.item() == 42
