"""One forward pass of a decoder as a module of tensors: ids and a cache in, logits, tokens and the cache out."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ceilings.workload.generation import Decoder

LONGEST = 1 << 17
"""Positions of a decoder that nothing bounds."""

LEAST = 512
"""Entries of the table of positions, at least: ONNX Runtime takes integer constants of up to 100 elements for
arithmetic on shapes, which it puts on the CPU."""


class DecoderStep(torch.nn.Module):
    """Takes ``Decoder.step_inputs`` and returns ``Decoder.step_outputs``.

    Positions follow from the length of the past. They and the causal mask are cut from a table, and rotary angles are
    looked up in one that was made in float32: so all of it happens where the weights lie, none of it is arithmetic on
    shapes that a runtime puts on the host, and no angle is computed in half precision.

    Args:
        model: A causal language model of Transformers, which takes a mask of four dimensions as it is.
        decoder: Its sizes.
    """

    def __init__(self, model: Any, decoder: Decoder) -> None:
        super().__init__()
        self.model = model
        self.layers = decoder.layers
        self.attention = str(getattr(model.config, "_attn_implementation", ""))
        self.register_buffer(
            "places", torch.arange(max(decoder.positions, LEAST) if decoder.positions else LONGEST), persistent=False
        )
        body = getattr(model, model.base_model_prefix, model)
        rotary = getattr(body, "rotary_emb", None)
        if rotary is not None and list(inspect.signature(type(rotary).forward).parameters) == [
            *("self", "x", "position_ids")
        ]:
            body.rotary_emb = _Angles(rotary, self.places, decoder.positions, next(model.parameters()))
        if isinstance(head := model.get_output_embeddings(), torch.nn.Linear):
            model.set_output_embeddings(_Head(head))

    def forward(self, input_ids: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        for layer in range(self.layers):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        before, present = past[0].shape[2], past[0].shape[2] + input_ids.shape[1]
        places: Any = self.places
        rows, columns = places[before:present], places[:present]
        hidden = columns.unsqueeze(0) > rows.unsqueeze(1)
        kind = past[0].dtype
        mask = hidden.to(kind) * torch.finfo(kind).min  # where() has no kernel for bfloat16
        answer = self.model(
            input_ids=input_ids,
            past_key_values=cache,
            attention_mask=mask[None, None],
            position_ids=rows.unsqueeze(0),
            use_cache=True,
            logits_to_keep=1,
        )
        logits = answer.logits[:, -1]
        token = torch.argmax(logits, -1, keepdim=True)
        present_cache = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return logits, token, *present_cache


class _Head(torch.nn.Module):
    """Logits of the last token, (rows, 1, vocabulary), as a product of two matrices."""

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(state[:, -1]).unsqueeze(1)
        return logits


class _Angles(torch.nn.Module):
    """Cosines and sines of rotary positions, looked up.

    Those beyond the model's positions are never read. Some kinds of angles become others for a longer context, so none
    is computed for one; the table still has an entry for each place.
    """

    def __init__(self, rotary: torch.nn.Module, places: Any, positions: int, like: torch.Tensor) -> None:
        super().__init__()
        last = (positions or len(places)) - 1
        with torch.no_grad():
            cosine, sine = rotary(like, places.clamp(max=last).unsqueeze(0).to(like.device))
        self.register_buffer("cosine", cosine[0].to(like.dtype), persistent=False)
        self.register_buffer("sine", sine[0].to(like.dtype), persistent=False)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cosine: Any = self.cosine
        sine: Any = self.sine
        return cosine[position_ids], sine[position_ids]
