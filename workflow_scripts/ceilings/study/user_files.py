"""The user's files that a study names, looked at while planning: each can be read and holds what it must."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings import files
from ceilings.engines.catalogue import BUILDERS
from ceilings.errors import UserError
from ceilings.models import configuration, labelled
from ceilings.models.definition import Definition
from ceilings.study import captures
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import Asked

NEEDED = ("config.json", "open_clip_config.json", "model.safetensors", "tokenizer.json")
"""Files in a folder of weights that are read where they are there."""

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "sentencepiece.bpe.model")
"""Files in a folder of weights of which each is a tokenizer, or becomes one."""

COMPARED = ("cells", "runs", "samples", "budgets", "floors")
"""The tables of earlier results that ``compare`` reads."""


def problems(config: Mapping[str, Any], models: StudyModels, cells: Iterable[Asked], results: str) -> Iterator[str]:
    """What is wrong with the texts, labelled files, engines, earlier results and captures that a study names.

    A study that only shows what other machines recorded needs none of them but earlier results and captures.
    """
    if "auto" in config["devices"]:
        read = sorted({(cell.shape.lengths, cell.model) for cell in cells if cell.shape.lengths})
        for name, distribution in config["inputs"]["lengths"].items():
            if "file" in distribution:
                readers = [model for lengths, model in read if lengths == name]
                yield from _texts(f"inputs.lengths.{name}.file", distribution["file"], readers, models)
        for name in dict.fromkeys(cell.model for cell in cells):
            yield from _data(name, models)
        yield from _engines(config["engines"])
    if "compare" in config:
        yield from _before(config["compare"]["before"], results)
    if "trends" in config and not Path(trees := config["trends"]["trees"]).is_dir():
        yield f"trends.trees: {trees} is no folder; name a folder of earlier results trees"
    yield from captures.problems(config)


def of_model(definition: Definition) -> Iterator[str]:
    """What is wrong with the folder or the file that a model is made from, as far as its configuration does not say."""
    where, folder = f"models.{definition.name}", definition.folder
    if definition.onnx:
        if why := files.problem(Path(definition.onnx)):
            yield f"{where}.onnx: {definition.onnx} {why}"
    elif folder is not None and not folder.is_dir():
        yield f"{where}.path: {folder} {'is a file; name its folder' if folder.is_file() else files.problem(folder)}"
    elif folder is not None:
        for file in (folder / name for name in NEEDED if os.path.lexists(folder / name)):
            if why := files.problem(file):
                yield f"{where}.path: {file} {why}"


def _texts(where: str, name: str, readers: Iterable[str], models: StudyModels) -> Iterator[str]:
    file = files.expanded(name)
    if why := files.problem(file, text=True):
        yield f"{where}: {file} {why}"
    elif not files.head(file).strip():
        yield f"{where}: {file} holds no line of text; put one text on each line"
    for model in readers:
        if _has_no_tokenizer(models.definition(model)):
            yield f"{where}: {model!r} has no tokenizer to read texts with; give weights with one, or {{share: 0.5}}"


def _data(name: str, models: StudyModels) -> Iterator[str]:
    definition = models.definition(name)
    if not definition.data:
        return
    given = {"file": definition.data} if isinstance(definition.data, str) else definition.data
    where, file = f"models.{name}.data", files.expanded(given["file"])
    if why := files.problem(file, text=file.suffix.lower() != ".parquet"):
        yield f"{where}: {file} {why}"
        return
    if definition.onnx or _has_no_tokenizer(definition):
        yield f"{where}: {name!r} has no tokenizer to read texts with; give weights with one, or leave data out"
    task = models.outline(name).task
    if task != "sequence-classification" and given.get("label"):
        yield (
            f"{where}.label: {given['label']!r} is of no use: labels are those of a sequence-classification, and the "
            f"task of {name!r} is {task}; leave it out"
        )
    try:
        labelled.refuse_columns(file, given.get("text"), given.get("label"))
        if file.stat().st_size <= files.HEAD_BYTES:
            classes = _classes(definition) if task == "sequence-classification" else None
            labelled.read(file, classes, given.get("text"), given.get("label"))
    except UserError as error:
        yield f"{where}: {error}"


def _classes(definition: Definition) -> labelled.Classes | None:
    """The classes of a classifier; None where its configuration does not say, once, how many there are."""
    base = configuration.find(definition)
    if base is None and definition.hub is not None:
        return None
    config = {**(base or {}), **definition.config}
    named = config.get("id2label") or config.get("label2id")
    count = len(named) if isinstance(named, Mapping) else config.get("num_labels", 2)
    if not isinstance(count, int) or config.get("num_labels", count) != count:
        return None
    with contextlib.suppress(ValueError, TypeError):  # of ids that are no numbers
        return labelled.Classes.of(count, config)
    return None


def _has_no_tokenizer(definition: Definition) -> bool:
    """Whether the weights of a model surely come without a tokenizer."""
    if definition.weights == "random" or not (definition.folder or definition.hub or definition.onnx):
        return True
    folder = definition.folder
    return folder is not None and folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZERS)


def _engines(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, external in settings["external"].items():
        if BUILDERS[external["builder"]].installed() and (why := files.problem(Path(external["path"]))):
            yield f"engines.external.{name}.path: {external['path']} {why}"
    cache = settings.get("timing_cache")
    used = any(builder.timing_cache and builder.installed() for builder in BUILDERS.values())
    if cache and used and (why := files.problem(Path(cache))):
        yield f"engines.timing_cache: {cache} {why}"


def _before(before: str, results: str) -> Iterator[str]:
    if Path(before).resolve() == Path(results).resolve():
        return  # its tables are made
    for table in COMPARED:
        if not Path(before, "tables", f"{table}.parquet").is_file():
            yield f"compare.before: {before} has no tables/{table}.parquet; name an earlier results folder"
            return
