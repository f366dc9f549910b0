"""The models of a study: what it says of each, and what planning knows of each."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ceilings.errors import UserError
from ceilings.files import expanded
from ceilings.models import checkpoint
from ceilings.models import definition as definitions
from ceilings.models import outline as outlines
from ceilings.models.definition import Definition
from ceilings.models.outline import Outline
from ceilings.study.config import nearest
from ceilings.workload import generation
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS

BATCH = 8
"""Inputs at once where the pipeline chooses for itself: a graph's parity, a labelled file."""


PROMPT = 16
"""Tokens of a prompt where no sweep gives any."""


class StudyModels:
    """The models of a study by name, each read when somebody asks for it.

    Args:
        config: The study, checked, with its defaults.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    @functools.cache  # noqa: B019 - one study lives as long as the process
    def definition(self, name: str) -> Definition:
        """What the study says of a model.

        Raises:
            UserError: No such model, or it says what cannot be.
        """
        models = self.config["models"]
        if name not in models:
            raise UserError(f"no model is called {name!r}, {nearest(name, models)}")
        return definitions.read(name, models[name], self.config["weights"], self.config["seed"])

    @functools.cache  # noqa: B019
    def outline(self, name: str) -> Outline:
        """What planning knows of a model.

        Raises:
            UserError: Nothing says what it is.
        """
        return outlines.outline(self.definition(name))

    @property
    def of_onnx(self) -> list[str]:
        """Names of the models that are ONNX files."""
        return [name for name in self.config["models"] if self.definition(name).onnx]

    def files(self, name: str) -> list[str]:
        """The files of the user that a model is made from, so that a change is seen; none if from elsewhere.

        Of a folder those of the names that are read (``checkpoint.PATTERNS``), of an ONNX file it and its weights.
        """
        definition = self.definition(name)
        if definition.onnx:
            from ceilings.models import onnx_file

            return [str(expanded(definition.onnx)), *map(str, onnx_file.beside(definition))]
        folder = definition.folder
        return sorted({str(path) for file in checkpoint.PATTERNS for path in folder.glob(file)}) if folder else []

    def fixed_axes(self, name: str) -> dict[str, int]:
        """The axes that a model, or its graph as exported, has in one size only."""
        exported = self.config["export"]["axes"]
        outline = self.outline(name)
        sizes = {} if exported == "dynamic" or not outline.has_weights else exported
        return {axis: size for axis, size in {**sizes, **outline.fixed}.items() if axis in outline.axes}

    def chosen_shape(self, name: str, batch: int, sequence: int, others: Mapping[str, int]) -> Shape:
        """A shape that fits a model, as near to what is wanted as its limits allow.

        Args:
            name: The model.
            batch, sequence: Wanted sizes, where it has these axes.
            others: Sizes of further axes that it may have; of a model that generates at least as many tokens as are
                compared by their logits, where its positions allow.
        """
        outline = self.outline(name)
        wanted = {**others, "batch": batch, "sequence": sequence}
        if TASKS[outline.task].generates:
            prompt = wanted.setdefault("prompt", PROMPT)
            wanted["generated"] = max(generation.CHECKED_STEPS, wanted.get("generated", 1))
            if outline.positions:
                wanted["prompt"] = max(1, min(prompt, outline.positions - 1))
                wanted["generated"] = min(wanted["generated"], outline.positions - wanted["prompt"])
        least, most = outline.least, outline.limits
        sizes = {axis: min(wanted.get(axis, least.get(axis, 1)), most.get(axis, 1 << 30)) for axis in outline.axes}
        return Shape.of({**sizes, **self.fixed_axes(name)})
