"""Making the rows that quality is evaluated on, and what FP32 PyTorch answers to them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import CellFailure, UserError
from ceilings.files import expanded, sha256
from ceilings.models import inputs, labelled, tokens, weights_folder
from ceilings.models import tokenizer as tokenizers
from ceilings.models.dataset import Arrays, Dataset, rows_at_once
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT_CONTENTS = {"tokens", "mask", "zeros"}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which rows.

    Attributes:
        file: A labelled file; empty: the package's texts, which have no labels.
        text, label: Columns of it; empty: found by their names.
        limit: Most rows; a seeded sample of more.
        seed: Of the sample, and of rows that are made.
    """

    file: str = ""
    text: str = ""
    label: str = ""
    limit: int = 1000
    seed: int = 0


def make(weights_dir: Path, wanted: Wanted, shape: Shape) -> Dataset:
    """Rows for a model at the sizes of a shape, whatever its batch.

    Raises:
        UserError: The file does not fit the model, or cannot be read.
    """
    if wanted.limit < 1:
        raise UserError(f"quality.limit is {wanted.limit}; it must be at least 1")
    workload = Workload.read(weights_dir)
    tokenizer = weights_dir / weights_folder.TOKENIZER
    textual = {tensor.content for tensor in workload.inputs} <= TEXT_CONTENTS and tokenizer.is_file()
    facts = {"weights": _weights(weights_dir), "seed": wanted.seed, "sequence": shape.get("sequence")}
    if wanted.file:
        if not textual:
            why = "takes other inputs than texts" if tokenizer.is_file() else f"has no {weights_folder.TOKENIZER}"
            raise UserError(
                f"models: {weights_dir} {why}, so the texts of {wanted.file} cannot be read by it; "
                "leave its data out, or give weights with a tokenizer (weights: {path: FOLDER})"
            )
        return _of_file(weights_dir, workload, wanted, shape, facts)
    if textual and tokenizers.reads_english(_tokenizer(weights_dir)):
        texts = tokenizers.corpus()
        chosen = _sample(len(texts), wanted)
        arrays, truncated = encode(weights_dir, workload, [texts[i] for i in chosen], shape)
        return _distinct(Dataset(arrays, None, truncated, facts | {"source": "corpus", "available": len(texts)}))
    return _made(weights_dir, workload, wanted, shape, facts)


def reference(weights_dir: Path, rows: Dataset, shape: Shape, threads: int) -> Arrays:
    """What FP32 PyTorch answers on the CPU with plain (eager) attention, (rows, *dims) float32 by output."""
    import torch

    from ceilings.models.load import load_module

    workload = Workload.read(weights_dir)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    module = load_module(weights_dir, attention="eager")
    names = [tensor.name for tensor in workload.inputs]

    def answer(element: Arrays) -> Sequence[NDArray[Any]]:
        with torch.inference_mode():
            return [output.float().numpy() for output in module(*(torch.from_numpy(element[name]) for name in names))]

    return _answers(rows, workload, shape, answer)


def reference_of_graph(graph: Path, workload: Workload, rows: Dataset, shape: Shape, threads: int) -> Arrays:
    """As :func:`reference`, by ONNX Runtime on the CPU: of a model that has no other form than its FP32 graph."""
    by_graph = importlib.import_module("ceilings.models.graph_reference")  # see ceilings.models.reference
    names = [output.name for output in workload.outputs]
    return _answers(rows, workload, shape, by_graph.graph_runner(graph, names, threads))


def encode(
    weights_dir: Path, workload: Workload, texts: Sequence[str], shape: Shape
) -> tuple[Arrays, NDArray[np.bool_]]:
    """Texts as a model's inputs, padded at their end or cut to the sequence; and which of them were cut, (rows,)."""
    weights_folder.refuse_impossible(weights_dir, shape)
    path, sequence = weights_dir / weights_folder.TOKENIZER, shape["sequence"]
    tokenizer = _tokenizer(weights_dir)
    if sequence <= tokenizer.num_special_tokens_to_add(False):
        raise UserError(f"a sequence of {sequence} has no room for text beside the special tokens; use a longer one")
    tensor = next(tensor for tensor in workload.inputs if tensor.content == "tokens")
    pad = tokens.special_ids(weights_folder.read_config(weights_dir), tensor, tokenizer).padding
    tokenizer.no_padding()
    # Not by what overflows: a tokenizer without special tokens drops that.
    whole = [len(one.ids) for one in tokenizers.encode(tokenizer, texts, path)]
    tokenizer.enable_truncation(sequence)
    encoded = tokenizers.encode(tokenizer, texts, path)
    ids = np.full((len(texts), sequence), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(encoded):
        ids[row, : len(one.ids)] = one.ids
        mask[row, : len(one.ids)] = 1
    if ids.max() > tensor.high:
        raise CellFailure(
            "damaged",
            f"{path} gives the id {ids.max()}, but the model's largest is {tensor.high}; "
            "put the tokenizer of this model beside its weights",
        )
    values = {"tokens": ids, "mask": mask, "zeros": np.zeros_like(ids)}
    arrays = {tensor.name: values[tensor.content].astype(tensor.dtype) for tensor in workload.inputs}
    return arrays, np.array(whole) > sequence


def _tokenizer(weights_dir: Path) -> Tokenizer:
    tokenizer = tokenizers.read(weights_dir)
    if tokenizer is None:
        raise UserError(f"{weights_dir} has no {weights_folder.TOKENIZER}; {weights_folder.REMEDY}")
    return tokenizer


def classes(weights_dir: Path, workload: Workload) -> labelled.Classes | None:
    """What labels of a model may be; None for a task whose right answers no label tells."""
    if workload.task.name != "sequence-classification":
        return None
    last = workload.outputs[0].dims[-1]
    return labelled.Classes.of(int(last), weights_folder.read_config(weights_dir))


def _of_file(weights_dir: Path, workload: Workload, wanted: Wanted, shape: Shape, facts: dict[str, Any]) -> Dataset:
    known = classes(weights_dir, workload)
    if wanted.label and known is None:
        raise UserError(
            f"data.label is {wanted.label!r}, but labels are of use to sequence classification alone, and this model's "
            f"task is {workload.task.name}; leave it out"
        )
    path = expanded(wanted.file)
    table = labelled.read(path, known, wanted.text or None, wanted.label or None)
    chosen = _sample(len(table.texts), wanted)
    arrays, truncated = encode(weights_dir, workload, [table.texts[i] for i in chosen], shape)
    labels = None
    if table.labels is not None and known is not None:
        labels = np.array([table.labels[i] for i in chosen], np.float64 if known.count == 1 else np.int64)
    facts |= {
        "source": "file",
        "file": path.name,
        "file_sha256": sha256(path),
        "text": table.text,
        "label": table.label,
    }
    rows = Dataset(arrays, labels, truncated, facts | {"available": len(table.texts)})
    return _distinct(rows) if labels is None else rows


def _made(weights_dir: Path, workload: Workload, wanted: Wanted, shape: Shape, facts: dict[str, Any]) -> Dataset:
    """Rows for a model that reads no text here: seeded images, token ids or numbers."""
    size = rows_at_once(workload, shape)
    elements = -(-wanted.limit // size)
    made = inputs.sample(weights_dir, shape, elements, wanted.seed)
    flat = {name: values.reshape(-1, *values.shape[2:])[: wanted.limit] for name, values in made.arrays.items()}
    facts |= {"source": made.source, "available": wanted.limit}
    return _distinct(Dataset(flat, None, np.zeros(wanted.limit, bool), facts))


def _distinct(rows: Dataset) -> Dataset:
    """Rows without labels, each input once: texts cut to the same tokens are one answer, and would count as several."""
    first: dict[tuple[bytes, ...], int] = {}
    for index in range(len(rows)):
        first.setdefault(tuple(values[index].tobytes() for values in rows.inputs.values()), index)
    chosen = list(first.values())
    inputs = {name: values[chosen] for name, values in rows.inputs.items()}
    return dataclasses.replace(rows, inputs=inputs, truncated=rows.truncated[chosen])


def _answers(rows: Dataset, workload: Workload, shape: Shape, answer: Any) -> Arrays:
    parts = [
        [part[:count] for part in answer(element)] for element, count in rows.batches(rows_at_once(workload, shape))
    ]
    answers = {}
    for output, column in zip(workload.outputs, zip(*parts, strict=True), strict=True):
        if len({part.shape[1:] for part in column}) > 1:
            raise CellFailure("unsupported", f"the size of output {output.name} depends on values of the inputs")
        answers[output.name] = np.concatenate(column).astype(np.float32)
    return answers


def _sample(available: int, wanted: Wanted) -> list[int]:
    """Which rows, in the order of the file."""
    if available <= wanted.limit:
        return list(range(available))
    return sorted(np.random.default_rng(wanted.seed).choice(available, wanted.limit, replace=False).tolist())


def _weights(weights_dir: Path) -> str | None:
    path = weights_dir / weights_folder.PROVENANCE
    return weights_folder.provenance(weights_dir).get("source") if path.is_file() else None
