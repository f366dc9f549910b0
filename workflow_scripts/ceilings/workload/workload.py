"""The workload of a model: its task, and the tensors that it reads and writes. ``workload.json`` beside its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.errors import UserError
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS, Task
from ceilings.workload.tensors import TensorSpec

FILE = "workload.json"


@dataclasses.dataclass(frozen=True)
class Workload:
    """What everything behind the weights knows of a model.

    Attributes:
        task: Its task.
        inputs, outputs: In the order of its signature.
        family: The module of ``ceilings.models.families`` that loads its weights; empty for an ONNX file, which has
            none.
        architecture: ``model_type`` of its configuration; empty where nobody knows it.
        decoder: Of a task that generates, what a forward pass reads and gives; None of every other.
    """

    task: Task
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    family: str = ""
    architecture: str = ""
    decoder: Decoder | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """Every axis of its inputs, in the order of names of shapes; where it generates, of its tokens too."""
        tensors = (*self.inputs, *(self.outputs if self.task.generates else ()))
        names = {dim for tensor in tensors for dim in tensor.dims if isinstance(dim, str)}
        return Shape.of(dict.fromkeys(names, 1)).axes

    @property
    def graph(self) -> Workload:
        """What a graph of it reads and writes: of what generates one forward pass, of everything else all of it."""
        if self.decoder is None:
            return self
        return dataclasses.replace(self, inputs=self.decoder.step_inputs(), outputs=self.decoder.step_outputs())

    @property
    def mask(self) -> TensorSpec | None:
        """The input that says which tokens count; None where every one does."""
        return next((tensor for tensor in self.inputs if tensor.content == "mask"), None)

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {
            "task": self.task.name,
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "family": self.family,
            "architecture": self.architecture,
            **({"decoder": self.decoder.to_json()} if self.decoder else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Workload:
        """Of a JSON object."""
        return cls(
            TASKS[value["task"]],
            tuple(map(TensorSpec.from_json, value["inputs"])),
            tuple(map(TensorSpec.from_json, value["outputs"])),
            value["family"],
            value["architecture"],
            Decoder.from_json(value["decoder"]) if value.get("decoder") else None,
        )

    def write(self, folder: Path | str) -> None:
        """Write ``workload.json`` into a folder."""
        records.write(Path(folder, FILE), "workload", self.to_json())

    @classmethod
    def read(cls, path: Path | str) -> Workload:
        """Read a ``workload.json``, by its path or its folder's.

        Raises:
            UserError: Missing or damaged.
        """
        path = Path(path, FILE) if Path(path).is_dir() else Path(path)
        value = records.read(path, "workload")
        try:
            return cls.from_json(value)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path} describes no workload ({error!r}); {records.anew(path)}") from None
