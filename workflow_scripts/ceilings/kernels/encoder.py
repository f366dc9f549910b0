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

``projected``: attention and out are one launch, a layer is six (``attention_projection.py``).

In FP8 what a product of a layer reads is written in E4M3 by the step before it: attention has a buffer for its result,
and LayerNorm writes its own twice, in FP16 for the residual. Attention itself and the head are FP16.
"""

from __future__ import annotations

from collections import Counter

import torch

from ceilings.errors import CellFailure
from ceilings.kernels import attention, attention_projection, embedding, normalization, pooling, product
from ceilings.kernels.encoder_weights import EncoderWeights, Layer, Linear, Norm
from ceilings.kernels.fp8_weights import E4M3
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
        projected: Whether attention and its output projection are one launch.

    Raises:
        CellFailure: ``unsupported``: more tokens than the model has positions, or ``projected`` in FP8.
    """

    attention = "ceilings"
    """Whose attention it runs, as records say it."""

    def __init__(
        self,
        weights: EncoderWeights,
        batch: int,
        sequence: int,
        tiles: Tiles,
        *,
        overlapped: bool = False,
        projected: bool = False,
    ) -> None:
        if sequence > len(weights.positions):
            raise CellFailure("unsupported", f"{sequence} tokens, and the model has {len(weights.positions)} positions")
        narrow = weights.precision == "fp8"
        if narrow and projected:
            raise CellFailure("unsupported", "attention and its projection as one kernel are FP16 alone")
        self.weights, self.tiles, self.overlapped, self.projected = weights, tiles, overlapped, projected
        self.batch, self.sequence = batch, sequence
        tokens, hidden = batch * sequence, weights.hidden

        def empty(*size: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
            return torch.empty(size, dtype=dtype, device=weights.words.device)

        def sums(splits: int) -> torch.Tensor:
            return empty(splits, tokens, hidden, dtype=torch.float32)

        self._hidden, self._qkv = empty(tokens, hidden), empty(batch, sequence, 3 * hidden)
        query = self._qkv[..., :hidden]
        self._narrow = empty(tokens, hidden, dtype=E4M3) if narrow else None
        self._context = empty(batch, sequence, hidden, dtype=E4M3) if narrow else query
        self._wide = empty(tokens, weights.intermediate, dtype=E4M3 if narrow else torch.float16)
        self._out = sums(tiles.projection.groups(weights.heads) if projected else tiles.out.splits)
        self._down = sums(tiles.down.splits)
        rows = tokens if weights.reads == "all" else batch
        self._results = [empty(rows, len(linear.weight)) for linear in weights.head] or [empty(batch, hidden)]

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

    @property
    def states(self) -> torch.Tensor:
        """What the last layer of the last call gave, (batch, sequence, hidden), FP16."""
        return self._hidden.view(self.batch, self.sequence, -1)

    def products(self) -> dict[str, int]:
        """Launches of a request that multiply matrices, by the type that they multiply: ``fp16``, ``fp8``."""
        layers, head = len(self.weights.layers), len(self.weights.head)
        apart = 3 if self.projected else 4  # of a layer, beside attention
        return dict(Counter([self.weights.precision] * apart * layers + ["fp16"] * (layers + head)))

    def launches(self, ids: torch.Tensor, mask: torch.Tensor | None) -> list[Launch]:
        """Every launch of a request, in order."""
        weights, warps, overlapped = self.weights, self.tiles.row_warps, self.overlapped
        tables = weights.words, weights.positions, weights.norm
        made = [embedding.launch(ids, *tables, self._hidden, self._narrow, warps, overlapped=overlapped)]
        for layer in weights.layers:
            made += self._layer(layer, mask)
        return made + self._head(mask)

    def _layer(self, layer: Layer, mask: torch.Tensor | None) -> list[Launch]:
        warps, overlapped = self.tiles.row_warps, self.overlapped
        hidden, narrow, size = self._hidden, self._narrow, self._hidden.shape
        x = hidden if narrow is None else narrow

        def norm(step: str, partial: torch.Tensor, linear: Linear, norm: Norm) -> Launch:
            row = partial, linear.bias, hidden, narrow, norm
            return normalization.launch(step, *row, warps, overlapped=overlapped)

        return [
            self._product("qkv", x, layer.qkv, self._qkv.view(size[0], -1)),
            *self._attention(layer, mask),
            norm("norm", self._out, layer.out, layer.norm),
            self._product("up", x, layer.up, self._wide),
            self._product("down", self._wide, layer.down, self._down, partial=True),
            norm("end", self._down, layer.down, layer.end),
        ]

    def _attention(self, layer: Layer, mask: torch.Tensor | None) -> list[Launch]:
        """From queries, keys and values to the projection's partial sums."""
        tiles, weights, overlapped = self.tiles, self.weights, self.overlapped
        query, key, value = self._qkv.split(weights.hidden, -1)
        if self.projected:
            sides = layer.out.weight, self._out, weights.heads, tiles.projection
            return [attention_projection.launch(query, key, value, mask, *sides, overlapped=overlapped)]
        attended = self._context, weights.heads, tiles.attention
        return [
            attention.launch(query, key, value, mask, *attended, factor=layer.factor, overlapped=overlapped),
            self._product("out", self._context.view(self._hidden.shape), layer.out, self._out, partial=True),
        ]

    def _product(self, step: str, x: torch.Tensor, linear: Linear, y: torch.Tensor, *, partial: bool = False) -> Launch:
        """The launch of a product of a layer; partial sums get their bias by the normalisation after it."""
        operands = x, linear.weight, None if partial else linear.bias, y
        return product.launch(
            *(step, *operands, getattr(self.tiles, step), linear.activation),
            scale=linear.scale,
            factor=linear.factor,
            overlapped=self.overlapped,
        )

    def _head(self, mask: torch.Tensor | None) -> list[Launch]:
        weights, overlapped, states = self.weights, self.overlapped, self.states
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
