"""Tasks: what outputs mean, so how two of them are compared."""

from __future__ import annotations

import dataclasses
from typing import Literal

Compared = Literal["classes", "embedding", "values", "tokens"]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model is asked for.

    Attributes:
        name: As a study calls it.
        compared: ``classes``: the largest number along the last dimension is the answer, so that outputs agree or do
            not. ``embedding``: the direction is. ``values``: the numbers themselves. ``tokens``: the tokens generated,
            one after another, and the logits that chose them.
        meaning: What an output is, in a few words.
    """

    name: str
    compared: Compared
    meaning: str

    @property
    def generates(self) -> bool:
        """Whether a request gives tokens one by one: then ``ceilings.workload.generation`` says what its parts are."""
        return self.compared == "tokens"


TASKS = {
    task.name: task
    for task in (
        Task("sequence-classification", "classes", "logits of each input's classes"),
        Task("token-classification", "classes", "logits of each token's classes"),
        Task("question-answering", "classes", "logits of each token as the answer's begin and as its end"),
        Task("sentence-embedding", "embedding", "one vector a text"),
        Task("image-embedding", "embedding", "one vector an image"),
        Task("image-classification", "classes", "logits of each image's classes"),
        Task("speech-embedding", "embedding", "one vector a recording"),
        Task("text-generation", "tokens", "the tokens after a prompt, each the likeliest one"),
        Task("tensors", "values", "what an ONNX file of unknown meaning gives"),
    )
}
"""Every task by name."""
