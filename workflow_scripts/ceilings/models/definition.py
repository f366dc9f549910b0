"""What a study says of one model, checked. Standard library only."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ceilings import files, options
from ceilings.errors import UserError
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import CONTENTS

Implementation = Literal["transformers", "open_clip"]
SOURCES = ("auto", "pretrained", "random")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Definition:
    """One model of a study. Paths are relative to the folder that the workflow works in.

    Attributes:
        name: Its slug.
        hub: Repository of its configuration and pretrained weights, ``owner/name``.
        path: Folder of its configuration and weights.
        onnx: An ONNX file, which is then all that there is.
        architecture: ``model_type`` of its configuration, as ``transformers`` names it, or ``open_clip``.
        task: A key of ``TASKS``; None: as its configuration says.
        implementation: Whose classes run it.
        config: What differs from its configuration, or from the architecture's base model.
        weights: ``auto`` (pretrained if they can be had, else random), ``pretrained`` or ``random``.
        seed: Of random weights.
        axes: Of an ONNX file: symbolic dimension to axis.
        inputs: Of an ONNX file: tensor to what it holds: ``content`` (a key of ``CONTENTS``), ``low``, ``high``.
        data: A labelled file; whoever reads it checks it.
    """

    name: str
    hub: str | None = None
    path: str | None = None
    onnx: str | None = None
    architecture: str | None = None
    task: str | None = None
    implementation: Implementation = "transformers"
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = "auto"
    seed: int = 0
    axes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    data: str | dict[str, Any] | None = None

    @property
    def folder(self) -> Path | None:
        """Where configuration and weights lie, if the study says so."""
        return files.expanded(self.path) if self.path else None

    @property
    def source(self) -> str | None:
        """Where it comes from, as results name it: a hub id, or the last name of a folder or a file."""
        local = self.path or self.onnx
        return files.expanded(local).absolute().name if local else self.hub

    def published(self, text: str) -> str:
        """A text about it in which its folder or file has its last name only."""
        local = self.path or self.onnx
        for written in sorted({str(local), str(files.expanded(local))}, key=len, reverse=True) if local else ():
            text = text.replace(written, str(self.source))
        return text

    def to_json(self) -> dict[str, Any]:
        """What shapes weights and graphs, as ``read`` takes it back: without ``data``."""
        values = dataclasses.asdict(self)
        del values["data"]
        return {key: value for key, value in values.items() if value not in (None, {})}


KEYS = tuple(field.name for field in dataclasses.fields(Definition) if field.name != "name")


def read(name: str, value: str | Mapping[str, Any], weights: str = "auto", seed: int = 0) -> Definition:
    """Check what a study says of a model.

    Args:
        name: The model's slug.
        value: A hub id, a folder, an ONNX file, or an object of ``KEYS``. ``weights: {path: F}`` is ``path: F``.
        weights, seed: The study's, where the model says nothing of them.

    Raises:
        UserError: A key or value that is not known, or that does not go with another.
    """
    given = dict(_shorthand(name, value) if isinstance(value, str) else value)
    given.pop("name", None)
    if unknown := sorted(set(given) - set(KEYS)):
        raise UserError(f"model {name!r} has the unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    chosen = given.get("weights", weights)
    if isinstance(chosen, Mapping) and set(chosen) == {"path"}:
        given.setdefault("path", str(chosen["path"]))
        chosen = "pretrained"
    if chosen not in SOURCES:
        raise UserError(
            f'model {name!r} has weights {chosen!r}; give one of {", ".join(SOURCES)}, or {{"path": "a folder"}}'
        )
    given = {key: value for key, value in given.items() if value is not None}
    definition = options.read(Definition, {"seed": seed, **given, "name": name, "weights": chosen}, f"model {name!r}")
    _refuse_contradictions(definition)
    return definition


def _shorthand(name: str, value: str) -> dict[str, str]:
    if value.endswith(".onnx"):
        return {"onnx": value}
    if value.startswith((".", "/", "~")) or Path(value).is_dir():
        return {"path": value}
    if HUB_ID.fullmatch(value):
        return {"hub": value}
    raise UserError(
        f"model {name!r} is {value!r}, which is neither a folder, nor an .onnx file, nor a hub id such as owner/name"
    )


def _refuse_contradictions(definition: Definition) -> None:
    name = definition.name
    if not (definition.hub or definition.path or definition.onnx or definition.architecture):
        raise UserError(
            f"model {name!r} says nowhere what it is; give hub, path, onnx or architecture, such as "
            "hub: distilbert/distilbert-base-uncased-finetuned-sst-2-english"
        )
    if definition.weights == "pretrained" and not (definition.hub or definition.path or definition.onnx):
        raise UserError(f"model {name!r} has weights 'pretrained', but names none; set hub or path, or weights: random")
    if definition.hub and not HUB_ID.fullmatch(definition.hub):
        raise UserError(f"model {name!r} has hub {definition.hub!r}, which is no hub id; write owner/name")
    if definition.task is not None and definition.task not in TASKS:
        near = difflib.get_close_matches(definition.task, TASKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TASKS)}"
        raise UserError(f"model {name!r} has the unknown task {definition.task!r}; {hint}")
    if definition.implementation not in get_args(Implementation):
        raise UserError(
            f"model {name!r} has implementation {definition.implementation!r}; "
            f"known: {', '.join(get_args(Implementation))}"
        )
    if definition.onnx:
        wrong = [key for key in ("hub", "path", "architecture", "config", "data") if getattr(definition, key)]
    else:
        wrong = [key for key in ("axes", "inputs") if getattr(definition, key)]
    if wrong:
        raise UserError(
            f"model {name!r} has {wrong[0]} {'beside' if definition.onnx else 'without'} onnx, which does not go "
            "together; remove one of them"
        )
    for tensor, says in definition.inputs.items():
        content = says.get("content") if isinstance(says, Mapping) else None
        if not isinstance(says, Mapping) or set(says) - {"content", "low", "high"} or content not in {None, *CONTENTS}:
            raise UserError(
                f"model {name!r} says {says!r} of its input {tensor!r}; give content ({', '.join(CONTENTS)}), low, high"
            )
