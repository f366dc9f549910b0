"""Generating text: a request reads a prompt and gives tokens one by one. Its phases, and the sizes of a forward pass.

A request of ``generated`` tokens is a prefill, which reads the prompt and gives the first token, and ``generated - 1``
decode steps, each of which reads the token before and gives the next. An iteration of a cell is one output token: of a
shape with ``g1`` the first one, of every other shape one after the first. So a shape has one regime and one floor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec

AXES = ("batch", "prompt", "generated")
"""Axes of a request."""

STEP_AXES = ("batch", "tokens", "past", "present")
"""Axes of a forward pass: ids read at once, length of the cache before it and after it."""

CHECKED_STEPS = 4
"""Tokens of a request whose logits are compared."""

CHECKED_ROWS = 8
"""Rows of a batch whose logits are compared, at most. Tokens are compared in all of them."""

TOP = 20
"""Logits of a token that a runtime gives for the comparison, the largest ones. vLLM gives no more."""

PROBES = ("an empty slot in the middle of the cache", "an empty slot at its end", "a position that is one too small")
"""Faults that the reference commits on purpose in its first decode step, to see how far they move logits."""

ROUNDED = ("fp16", "bf16")
"""Precisions of which the reference says how far rounding in them moves its logits."""

ROUNDED_TOKENS = 64
"""Tokens of a prompt, at most, whose logits it rounds for that. How far they are off hardly depends on it."""

Phase = Literal["prefill", "decode"]


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What a decoder's cache and its steps are made of.

    Attributes:
        layers: Each holds keys and values.
        heads, kv_heads: Heads of queries, and of keys and values: fewer where queries share them (GQA).
        head_size: Width of a head.
        vocabulary: Logits of a token.
        positions: The longest context, prompt and generated tokens together; 0: nothing bounds it.
    """

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    positions: int = 0

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decoder:
        """Of a JSON object."""
        return cls(**value)

    def cache_bytes(self, batch: int, length: int, item_bytes: int) -> int:
        """Bytes of the keys and values of ``length`` tokens in every row.

        >>> Decoder(24, 16, 16, 64, 50257, 1024).cache_bytes(1, 128, 2)
        12582912
        """
        return 2 * self.layers * batch * self.kv_heads * length * self.head_size * item_bytes

    def step_inputs(self, dtype: str = "float32") -> tuple[TensorSpec, ...]:
        """What a graph of a forward pass reads: ids, then keys and values of each layer."""
        ids = TensorSpec("input_ids", "int64", ("batch", "tokens"), "tokens", 0, self.vocabulary - 1)
        return (ids, *self._cache("past", dtype, "reals"))

    def step_outputs(self, dtype: str = "float32") -> tuple[TensorSpec, ...]:
        """What it gives: logits of the last token of each row, float32 whatever the cache is, the token of the largest
        of them, then keys and values with those of the new tokens."""
        logits = TensorSpec("logits", "float32", ("batch", self.vocabulary))
        return (logits, TensorSpec("token", "int64", ("batch", 1)), *self._cache("present", dtype))

    def _cache(self, which: str, dtype: str, content: str = "") -> tuple[TensorSpec, ...]:
        dims = ("batch", self.kv_heads, which, self.head_size)
        names = [f"{which}.{layer}.{part}" for layer in range(self.layers) for part in ("key", "value")]
        return tuple(TensorSpec(name, dtype, dims, content) for name in names)


def is_request(shape: Shape) -> bool:
    """Whether a shape is one of requests that generate, and not of single inferences.

    >>> is_request(Shape.parse("b1-p128-g32")), is_request(Shape.parse("b1-s128"))
    (True, False)
    """
    return set(AXES) <= set(shape.axes)


def phase(shape: Shape) -> Phase:
    """The regime of a shape's iterations.

    >>> phase(Shape.parse("b1-p128-g1")), phase(Shape.parse("b1-p128-g32"))
    ('prefill', 'decode')
    """
    return "prefill" if shape["generated"] == 1 else "decode"


def context(shape: Shape) -> int:
    """Tokens of a row when a request ends, the last of which is never read.

    >>> context(Shape.parse("b1-p128-g32"))
    160
    """
    return shape["prompt"] + shape["generated"]


def too_long(model: str, shape: Shape, positions: int) -> str:
    """Why a model of so many positions does not take a shape, and what would help."""
    return (
        f"{shape} is a context of {context(shape)} tokens (prompt {shape['prompt']} and generated "
        f"{shape['generated']}), longer than the {positions} positions of {model}; shorten it, or take random weights "
        "with more of them: weights: random, and max_position_embeddings (GPT-2: n_positions) in config"
    )


def steps(shape: Shape) -> int:
    """Iterations of one request: its decode steps, or its prefill."""
    return max(1, shape["generated"] - 1)


def step_shape(shape: Shape) -> Shape:
    """Sizes of the forward pass that a shape's iteration is; of a decode step at the middle of the generated tokens.

    >>> dict(step_shape(Shape.parse("b2-p128-g1")).sizes)["tokens"]
    128
    >>> sizes = dict(step_shape(Shape.parse("b2-p128-g33")).sizes)
    >>> sizes["tokens"], sizes["past"], sizes["present"]
    (1, 143, 144)
    """
    if phase(shape) == "prefill":
        tokens, past = shape["prompt"], 0
    else:  # the k-th step reads one token after prompt + k - 1, k from 1 to generated - 1
        tokens, past = 1, shape["prompt"] + (shape["generated"] - 2) // 2
    return Shape.of({"batch": shape.batch, "tokens": tokens, "past": past, "present": past + tokens})
