"""A model that generates, in NumPy: one layer of attention over a cache of keys and values that are the embeddings.

A plug-in's runtime module as well: it has a ``RUNNER``.
"""

from __future__ import annotations

import numpy as np

from ceilings.runtimes.base import Runner
from ceilings.runtimes.generating import Generating
from ceilings.workload.generation import Decoder, context
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

VOCABULARY, WIDTH = 50, 8
WORKLOAD = Workload(
    TASKS["text-generation"],
    (TensorSpec("input_ids", "int64", ("batch", "prompt"), "tokens", 0, VOCABULARY - 1),),
    (
        TensorSpec("tokens", "int64", ("batch", "generated")),
        TensorSpec("logits", "float32", ("batch", VOCABULARY)),
    ),
    decoder=Decoder(1, 1, 1, WIDTH, VOCABULARY, 128),
)


def parameters() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (vocabulary, width) and the last layer (width, vocabulary)."""
    random = np.random.default_rng(1)
    shapes = (VOCABULARY, WIDTH), (WIDTH, VOCABULARY)
    return tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)  # type: ignore[return-value]


def logits_of(ids: np.ndarray) -> np.ndarray:
    """Logits after each row of ids, (batch, vocabulary), without a cache: what the runner must agree with."""
    embeddings, last = parameters()
    keys = embeddings[ids]
    scores = np.einsum("bd,btd->bt", keys[:, -1], keys)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return (np.einsum("bt,btd->bd", weights / weights.sum(1, keepdims=True), keys) + 0.1 * keys.sum(1)) @ last


def tokens_after(prompts: np.ndarray, generated: int) -> np.ndarray:
    """The likeliest tokens one by one, (batch, generated), by reading everything anew for each."""
    ids = prompts
    for _ in range(generated):
        ids = np.concatenate([ids, logits_of(ids).argmax(1)[:, None]], 1)
    return ids[:, prompts.shape[1] :]


def prompts_of(shape: Shape, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Elements of a pool."""
    random = np.random.default_rng(seed)
    return [{"input_ids": random.integers(0, VOCABULARY, (shape.batch, shape["prompt"]))} for _ in range(count)]


class Steps(Generating):
    """What a runner of any device does."""

    made = 0

    def load(self):
        with self.phase("load"):
            self.embeddings, self.last = parameters()
            self.cache = np.zeros((self.shape.batch, context(self.shape), WIDTH), np.float32)

    def place(self, element):
        return element["input_ids"]

    def begin(self, slot):
        self.length, self.prompts = 0, slot

    def prefill(self):
        self._forward(self.prompts)

    def step(self):
        self._forward(self.newest[:, None])

    def _forward(self, ids):
        end = self.length + ids.shape[1]
        assert end < self.cache.shape[1] + 1, "a step beyond the request"
        self.cache[:, self.length : end] = self.embeddings[ids]
        self.length = end
        keys = self.cache[:, :end]
        scores = np.einsum("bd,btd->bt", keys[:, -1], keys)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        attended = np.einsum("bt,btd->bd", weights / weights.sum(1, keepdims=True), keys)
        self.logits = (attended + 0.1 * keys.sum(1)) @ self.last
        self.newest = self.logits.argmax(1)
        self.made += 1

    def arrived(self):
        return self.newest

    def top_logits(self, rows, top):
        ids = np.argsort(-self.logits[:rows], 1)[:, :top]
        return ids, np.take_along_axis(self.logits[:rows], ids, 1)

    def cache_bytes(self):
        return self.cache.nbytes


class TinyGenerator(Steps, Runner):
    """On a CPU."""


RUNNER = TinyGenerator


def make(kind: type, shape: str, *arguments):
    """A loaded runner."""
    runner = kind(None, "fp32", WORKLOAD, Shape.parse(shape), 1, {}, *arguments)
    runner.load()
    return runner
