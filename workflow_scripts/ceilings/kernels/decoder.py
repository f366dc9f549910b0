"""A whole decode step as a sequence of launches: five a layer, one before them and two after.

| part | computes | written where |
|---|---|---|
| token | word + position | the row of the token |
| qkv | LayerNorm, x W^T + bias | queries apart, keys and values into the cache |
| attention | softmax(q K^T) V over a part of the context | one result a part |
| out | the parts put together, x W^T + bias + residual | over the residual |
| up | LayerNorm, x W^T + bias, GELU | |
| down | x W^T + bias + residual | over the residual |
| head | LayerNorm, x W^T | logits, and the largest of each program |
| likeliest | the likeliest token | where the next step reads it, with the next position |

So each weight is read once, the row of a token stays in L2, and a replay of the captured step continues the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ceilings.errors import CellFailure
from ceilings.kernels import cached_attention, likeliest, new_token, streaming
from ceilings.kernels.decoder_tiles import StepTiles
from ceilings.kernels.decoder_weights import DecoderLayer, DecoderWeights
from ceilings.kernels.launch import Launch, blocks
from ceilings.kernels.streaming import Added, Cached, Judged, Normed, Parts, Plain, Written

MOST_ROWS = 8
"""Rows of a request: each row of the weight is multiplied with them one after the other, without matrix units."""

Cache = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, (batch, heads, length, width), FP16, in one piece each."""


class Decoder:
    """A decoder ready to take steps. Its buffers are its own: a call allocates nothing and can be captured.

    Args:
        weights: Of the model, on the device.
        cache: Where a prefill left keys and values, and where steps add theirs.
        token: (batch, 1), INT64, on the device: the newest tokens. A step reads and then replaces them.
        tiles: How each part is cut.
        overlapped: Whether launches overlap (``overlap.py``).

    Attributes:
        position: (1,), INT64, on the device: that of the newest tokens; a step advances it. The caller sets it.
        logits: (batch, vocabulary), FP32, what the newest tokens were chosen from; the next step writes it again.

    Raises:
        CellFailure: ``unsupported``: more rows than ``MOST_ROWS``, or a longer cache than the model has positions.
    """

    def __init__(
        self, weights: DecoderWeights, cache: Cache, token: torch.Tensor, tiles: StepTiles, *, overlapped: bool = False
    ) -> None:
        batch, self.length = len(token), cache[0][0].shape[2]
        if batch > MOST_ROWS:
            raise CellFailure("unsupported", f"the kernels of a step take 1 to {MOST_ROWS} rows, and these are {batch}")
        if self.length > len(weights.places):
            positions = len(weights.places)
            raise CellFailure("unsupported", f"a cache of {self.length} tokens, and {positions} positions of the model")
        self.weights, self.cache, self.token, self.tiles, self.overlapped = weights, cache, token, tiles, overlapped
        device, hidden, parts = weights.words.device, weights.hidden, tiles.attention.parts

        def buffer(*size: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        self.position = buffer(1, dtype=torch.int64)
        self._hidden, self._query = buffer(batch, hidden), buffer(batch, hidden)
        self._parts = buffer(batch, parts, hidden)
        self._shares = buffer(batch, parts, weights.heads, dtype=torch.float32)
        self._wide = buffer(batch, len(weights.layers[0].up.weight))
        programs = blocks(len(weights.head), tiles.head.columns)
        self.logits = buffer(batch, len(weights.head), dtype=torch.float32)
        self._largest = buffer(batch, programs, dtype=torch.float32)
        self._place = buffer(batch, programs, dtype=torch.int64)

    def __call__(self) -> None:
        """Enqueue all launches of a step."""
        for launch in self.launches():
            launch()

    def launches(self, context: int | None = None) -> list[Launch]:
        """Every launch of a step, in order.

        Args:
            context: Tokens, the newest among them, for which the work is counted; None: of a full cache.
        """
        weights, tiles, overlapped = self.weights, self.tiles, self.overlapped
        made = [new_token.launch(self.token, self.position, weights.words, weights.places, self._hidden)]
        for layer, (key, value) in zip(weights.layers, self.cache, strict=True):
            made += self._layer(layer, key, value, context or self.length)
        last, judged = Normed(self._hidden, weights.end), Judged(self.logits, self._largest, self._place)
        chosen = self._largest, self._place, self.token, self.position
        return [
            *made,
            streaming.launch("head", last, weights.head, None, judged, tiles.head, overlapped=overlapped),
            likeliest.launch(*chosen, overlapped=overlapped),
        ]

    def _layer(self, layer: DecoderLayer, key: torch.Tensor, value: torch.Tensor, context: int) -> list[Launch]:
        tiles, overlapped, hidden, wide = self.tiles, self.overlapped, self._hidden, self._wide
        new = Cached(self._query, key, value, self.position)
        read = self._query, key, value, self.position, self._parts, self._shares
        seen = Parts(self._parts, self._shares)
        steps = (
            ("qkv", Normed(hidden, layer.first), layer.qkv, new),
            ("out", seen, layer.out, Added(hidden)),
            ("up", Normed(hidden, layer.second), layer.up, Written(wide)),
            ("down", Plain(wide), layer.down, Added(hidden)),
        )
        qkv, *rest = (
            streaming.launch(
                *(step, source, linear.weight, linear.bias, target, getattr(tiles, step), linear.activation),
                overlapped=overlapped,
            )
            for step, source, linear, target in steps
        )
        attention = cached_attention.launch(*read, tiles.attention, context=context, overlapped=overlapped)
        return [qkv, attention, *rest]
