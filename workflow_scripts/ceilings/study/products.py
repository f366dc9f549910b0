"""The matrix products whose rates are measured: those of the study's models, at two numbers of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ceilings.models import configuration
from ceilings.models.clip_towers import with_tower_sizes
from ceilings.models.definition import Definition
from ceilings.workload.task import TASKS

ROWS = (128, 4096)
"""M: batch times sequence, of one short text and of a large batch. The same for every study, so that another shape does
not measure a device anew. A decode step's rows, one a request, are not among them: its products take as long as their
weights take to come from memory, and the operands of a measured product stay in the L2 cache."""

BASE = ((768, 768), (768, 3072), (3072, 768))
"""(K, N) of BERT-base's products, always among them: so devices of any two studies can be compared."""

WIDTH = ("hidden_size", "dim", "d_model", "width", "n_embd")
INNER = ("intermediate_size", "hidden_dim", "encoder_ffn_dim", "d_ff", "n_inner")
HEADS = ("num_attention_heads", "n_head")
JOINED = ("gpt2", "gpt_bigcode", "gpt_neox", "bloom", "codegen")
"""Architectures that have queries, keys and values in one product."""


def products(definitions: Iterable[tuple[Definition, str]]) -> list[list[int]]:
    """[M, N, K] of the products in models, each once, BERT-base's first.

    Args:
        definitions: Models, each with its task.
    """
    pairs = dict.fromkeys(BASE)
    for definition, task in definitions:
        pairs |= dict.fromkeys(_pairs(definition, task))
    return [[rows, n, k] for rows in ROWS for k, n in pairs]


def _pairs(definition: Definition, task: str) -> Iterator[tuple[int, int]]:
    """(K, N) of one layer's products; none where the sizes of the model are those of its base, or unknown."""
    found = None if definition.onnx else configuration.find(definition)
    base = configuration.OPEN_CLIP_BASE if definition.architecture == "open_clip" else {}
    settings = {"model_type": definition.architecture, **configuration.merged(found or base, definition.config)}
    settings = with_tower_sizes(settings, task)
    width, inner = _size(settings, WIDTH), _size(settings, INNER)
    if width:
        inner = inner or 4 * width
        if TASKS[task].generates:
            yield from _projections(settings, width)
        yield from ((width, width), (width, inner), (inner, width))


def _projections(settings: Mapping[str, Any], width: int) -> Iterator[tuple[int, int]]:
    """(K, N) of a decoder's queries, keys and values, and of their way back to the width."""
    heads = _size(settings, HEADS)
    if settings.get("model_type") in JOINED or heads is None:
        yield (width, 3 * width)
        return
    size = _size(settings, ("head_dim",)) or width // heads
    queries, keys = heads * size, (_size(settings, ("num_key_value_heads",)) or heads) * size
    yield from ((width, queries), (width, keys), (queries, width))


def _size(settings: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    return next((value for key in keys if isinstance(value := settings.get(key), int) and value > 0), None)
