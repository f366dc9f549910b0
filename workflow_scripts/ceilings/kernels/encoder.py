"""A whole encoder as a sequence of launches: embedding, seven a layer, and the head.

| step | computes | written where |
|---|---|---|
| qkv | x W^T + bias for queries, keys and values | side by side in a token's row |
| attention | softmax(Q K^T) V | over the queries |
| out, cut | partial sums | FP32, one a cut |
| norm | sums + bias + residual, LayerNorm | over the residual |
| up | x W^T + bias, activation | |
| down, cut | partial sums | FP32, one a cut |
| end | as norm | over the residual |

So a layer reads its weights once from memory, and its activations stay in L2; nothing is transposed or copied.
"""

from __future__ import annotations

import torch

from ceilings.errors import CellFailure
from ceilings.kernels import attention, embedding, normalization, pooling, product
from ceilings.kernels.encoder_weights import EncoderWeights, Layer
from ceilings.kernels.launch import Launch
from ceilings.kernels.tiles import Tiles


class Encoder:
    """An encoder ready to run at one shape. Its buffers are its own: a call allocates nothing and can be captured.

    Args:
        weights: Of the model, on the device.
        batch: Texts of a request.
        sequence: Tokens of a text, padding included.
        tiles: How each step is cut.
        overlapped: Whether launches overlap (``overlap.py``).

    Raises:
        CellFailure: ``unsupported``: more tokens than the model has positions.
    """

    attention = "ceilings"
    """Whose attention it runs, as records say it."""

    def __init__(
        self, weights: EncoderWeights, batch: int, sequence: int, tiles: Tiles, *, overlapped: bool = False
    ) -> None:
        if sequence > len(weights.positions):
            raise CellFailure("unsupported", f"{sequence} tokens, and the model has {len(weights.positions)} positions")
        self.weights, self.tiles, self.overlapped = weights, tiles, overlapped
        self.batch, self.sequence = batch, sequence
        tokens, hidden = batch * sequence, weights.hidden

        def half(*size: int) -> torch.Tensor:
            return torch.empty(size, dtype=torch.float16, device=weights.words.device)

        def sums(splits: int) -> torch.Tensor:
            return torch.empty((splits, tokens, hidden), dtype=torch.float32, device=weights.words.device)

        self._hidden, self._qkv = half(tokens, hidden), half(batch, sequence, 3 * hidden)
        self._wide = half(tokens, weights.intermediate)
        self._out, self._down = sums(tiles.out.splits), sums(tiles.down.splits)
        rows = tokens if weights.reads == "all" else batch
        self._results = [half(rows, len(linear.weight)) for linear in weights.head] or [half(batch, hidden)]

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Enqueue all launches; returns the outputs, whose memory the next call writes again.

        Args:
            ids: (batch, sequence), INT64.
            mask: (batch, sequence), INT64, zero where a token is padding; None: no padding.
        """
        for launch in self.launches(ids, mask):
            launch()
        return self.outputs()

    def outputs(self) -> tuple[torch.Tensor, ...]:
        """Where the outputs of the last call are, in the task's order and sizes."""
        result = self._results[-1]
        if self.weights.separate:
            return result.view(-1, self.batch, self.sequence).unbind()
        return (result.view(self.batch, self.sequence, -1) if self.weights.reads == "all" else result,)

    def launches(self, ids: torch.Tensor, mask: torch.Tensor | None) -> list[Launch]:
        """Every launch of a request, in order."""
        weights, warps, overlapped = self.weights, self.tiles.row_warps, self.overlapped
        tables = weights.words, weights.positions, weights.norm
        made = [embedding.launch(ids, *tables, self._hidden, warps, overlapped=overlapped)]
        for layer in weights.layers:
            made += self._layer(layer, mask)
        return made + self._head(mask)

    def _layer(self, layer: Layer, mask: torch.Tensor | None) -> list[Launch]:
        tiles, warps, overlapped = self.tiles, self.tiles.row_warps, self.overlapped
        hidden, wide, rows = self._hidden, self._wide, self._qkv.view(len(self._hidden), -1)
        context = rows[:, : hidden.shape[1]]  # attention writes over the queries
        query, key, value = self._qkv.split(hidden.shape[1], -1)
        reads = query, key, value, mask, query
        return [
            product.launch("qkv", hidden, *layer.qkv[:2], rows, tiles.qkv, overlapped=overlapped),
            attention.launch(*reads, self.weights.heads, tiles.attention, overlapped=overlapped),
            product.launch("out", context, layer.out.weight, None, self._out, tiles.out, overlapped=overlapped),
            normalization.launch("norm", self._out, layer.out.bias, hidden, layer.norm, warps, overlapped=overlapped),
            product.launch("up", hidden, *layer.up[:2], wide, tiles.up, layer.up.activation, overlapped=overlapped),
            product.launch("down", wide, layer.down.weight, None, self._down, tiles.down, overlapped=overlapped),
            normalization.launch("end", self._down, layer.down.bias, hidden, layer.end, warps, overlapped=overlapped),
        ]

    def _head(self, mask: torch.Tensor | None) -> list[Launch]:
        weights, overlapped = self.weights, self.overlapped
        states = self._hidden.view(self.batch, self.sequence, -1)
        if not weights.head:
            pooled = self._results[0]
            return [
                pooling.launch(states, mask, pooled, weights.reads, normalize=weights.normalize, overlapped=overlapped)
            ]
        made, x = [], states[:, 0] if weights.reads == "first" else self._hidden
        for linear, result in zip(weights.head, self._results, strict=True):
            y = result.view(-1, len(result)) if weights.separate else result
            made.append(
                product.launch(
                    *("head", x, *linear[:2], y, self.tiles.head, linear.activation),
                    transposed=weights.separate,
                    overlapped=overlapped,
                )
            )
            x = result
        return made
