"""Requests by a graph of a decoder's forward pass, in a session of ONNX Runtime: a prefill, then a step for each token.

Nothing of the cache and no logits travel. Of a plain graph the present of one pass, as ONNX Runtime allocated it, is
bound as the past of the next. Of a fused graph past and present are one buffer as long as the request. The token that a
pass chooses is written where the next one reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import CellFailure
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape

LENGTHS, TOTAL = "seqlens_k", "total_sequence_length"
"""What a fused graph reads beside the plain one's inputs: tokens of each row in the cache after this pass, less one,
int32 (batch,); and the most tokens of a row, int32 (1,), which is read on the CPU."""

CACHE_TYPES = {"tensor(float)": (1, 4), "tensor(float16)": (10, 2), "tensor(bfloat16)": (16, 2)}
"""Types of a cache as ONNX Runtime calls them: onnx.TensorProto's number, and bytes an element."""

FLOAT, INT32, INT64 = 1, 6, 7
"""onnx.TensorProto's numbers."""


class Buffer(Protocol):
    """Memory at a fixed address."""

    pointer: int


class HostBuffer:
    """Memory of the host; freed with the object."""

    def __init__(self, nbytes: int) -> None:
        self.bytes = np.zeros(max(nbytes, 1), np.uint8)
        self.pointer = int(self.bytes.ctypes.data)

    def array(self, dtype: Any, sizes: Sequence[int]) -> NDArray[Any]:
        """The memory as an array."""
        count = math.prod(sizes) * np.dtype(dtype).itemsize
        return self.bytes[:count].view(dtype).reshape(sizes)


class Decoding:
    """Requests of one shape on the CPU, one after another.

    Args:
        session: Of a graph with ``Decoder.step_inputs`` and ``Decoder.step_outputs``.
        decoder: Its sizes.
        shape: Of the requests.

    Attributes:
        fused: Whether past and present are one buffer.
        ids, token, logits, lengths: What passes read and write: prompts int64 (batch, prompt), the newest tokens int64
            (batch, 1), their logits float32 (batch, vocabulary), and of a fused graph ``LENGTHS``.
        position: Passes of the request that were submitted.

    Raises:
        CellFailure: The graph has other inputs or outputs.
    """

    device: ClassVar[str] = "cpu"

    def __init__(self, session: Any, decoder: Decoder, shape: Shape) -> None:
        self.session = session
        self.decoder = decoder
        self.batch, self.prompt = shape.batch, shape["prompt"]
        self.length = generation.context(shape)
        read = {value.name: value.type for value in session.get_inputs()}
        self._past = [tensor.name for tensor in decoder.step_inputs()[1:]]
        self._present = [tensor.name for tensor in decoder.step_outputs()[2:]]
        self.fused = LENGTHS in read
        self._check(read, [value.name for value in session.get_outputs()])
        self.kind, self.item_bytes = CACHE_TYPES[read[self._past[0]]]
        self.ids = self.allocate(8 * self.batch * self.prompt)
        self.token = self.allocate(8 * self.batch)
        self.logits = self.allocate(4 * self.batch * decoder.vocabulary)
        self.lengths = self.allocate(4 * self.batch)
        self.total = HostBuffer(4)
        self._total = self.total.array(np.int32, (1,))
        self.position = 0
        if self.fused:
            self._cache = [self.allocate(self._bytes(self.length)) for _ in self._past]
            self._bindings = [self._fused_binding(prefill) for prefill in (True, False)]
        else:
            self._nothing = self.allocate(1)
            self._binding = self._new_binding()

    # ---- what depends on the device ----------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> Any:
        """Memory where the session reads it."""
        return HostBuffer(nbytes)

    def put_lengths(self) -> None:
        """Write the position of the newest token into ``lengths``, in every row."""
        self.lengths.array(np.int32, (self.batch,))[:] = self._reach - 1

    def run(self, binding: Any) -> None:
        """Execute a pass."""
        self.session.run_with_iobinding(binding)

    def total_length(self) -> int:
        """What a fused graph is given as the longest row's length."""
        return self._reach

    # ---- a request ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget the request before; the prompts stand in ``ids``."""
        self.position = 0
        if not self.fused:
            for name in self._past:
                self._bind_in(self._binding, name, self.kind, self._sizes(0), self._nothing.pointer)

    def advance(self) -> None:
        """One pass: over the prompts, if nothing came before, else over the newest tokens."""
        self.position += 1
        if self.fused:
            self.put_lengths()
            self._total[0] = self.total_length()
            self.run(self._bindings[min(self.position, 2) - 1])
            return
        binding, present = self._binding, self._present
        source, tokens = (self.token, 1) if self.position > 1 else (self.ids, self.prompt)
        self._bind_in(binding, "input_ids", INT64, (self.batch, tokens), source.pointer)
        for name in present:
            binding.bind_output(name, self.device, 0)
        self.run(binding)
        made = binding.get_outputs()[-len(present) :]
        self.hand_over(made)

    def hand_over(self, made: Sequence[Any]) -> None:
        """Bind what a pass of a plain graph gave as what the next one reads."""
        for name, value in zip(self._past, made, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        self._made = made  # what is bound keeps it too; the next pass lets go of it

    def addresses(self) -> list[int]:
        """Where the cache lies now."""
        if self.fused:
            return [buffer.pointer for buffer in self._cache]
        return [value.data_ptr() for value in self._made]

    def cache_bytes(self) -> int:
        """Bytes held for keys and values: of a plain graph those of the longest past and of the present beside it."""
        if self.fused:
            return len(self._past) * self._bytes(self.length)
        longest = self.length - 1  # the last token is never read
        before = longest - 1 if longest > self.prompt else 0
        return len(self._past) * (self._bytes(longest) + self._bytes(before))

    @property
    def _reach(self) -> int:
        """Tokens of a row in the cache after this pass."""
        return self.prompt + self.position - 1

    # ---- bindings ----------------------------------------------------------------------------------------------------

    def _check(self, read: dict[str, str], written: list[str]) -> None:
        extra = [LENGTHS, TOTAL] if self.fused else []
        expected = ["input_ids", *self._past, *extra]
        if sorted(read) != sorted(expected):
            odd = sorted(set(read) ^ set(expected))
            raise CellFailure("unsupported", f"the graph is no forward pass of this decoder: {', '.join(odd[:5])}")
        if missing := [name for name in ("logits", "token", *self._present) if name not in written]:
            raise CellFailure("unsupported", f"the graph does not write {', '.join(missing[:5])}")
        if (kind := read[self._past[0]]) not in CACHE_TYPES:
            raise CellFailure("unsupported", f"the graph's cache is {kind}; known: {', '.join(CACHE_TYPES)}")

    def _sizes(self, length: int) -> tuple[int, int, int, int]:
        return (self.batch, self.decoder.kv_heads, length, self.decoder.head_size)

    def _bytes(self, length: int) -> int:
        return math.prod(self._sizes(length)) * self.item_bytes

    def _bind_in(self, binding: Any, name: str, kind: int, sizes: tuple[int, ...], pointer: int) -> None:
        device = "cpu" if name == TOTAL else self.device
        binding.bind_input(name, device, 0, kind, sizes, pointer)

    def _new_binding(self) -> Any:
        binding = self.session.io_binding()
        logits = (self.batch, self.decoder.vocabulary)
        binding.bind_output("logits", self.device, 0, FLOAT, logits, self.logits.pointer)
        binding.bind_output("token", self.device, 0, INT64, (self.batch, 1), self.token.pointer)
        return binding

    def _fused_binding(self, prefill: bool) -> Any:
        binding = self._new_binding()
        source, tokens = (self.ids, self.prompt) if prefill else (self.token, 1)
        self._bind_in(binding, "input_ids", INT64, (self.batch, tokens), source.pointer)
        self._bind_in(binding, LENGTHS, INT32, (self.batch,), self.lengths.pointer)
        self._bind_in(binding, TOTAL, INT32, (1,), self.total.pointer)
        sizes = self._sizes(self.length)
        for past, present, buffer in zip(self._past, self._present, self._cache, strict=True):
            self._bind_in(binding, past, self.kind, sizes, buffer.pointer)
            binding.bind_output(present, self.device, 0, self.kind, sizes, buffer.pointer)
        return binding


def answers(session: Any, decoder: Decoder, prompts: NDArray[np.int64], generated: int) -> dict[str, NDArray[Any]]:
    """What requests give on the CPU, one after another, as a runner gives it.

    Args:
        session: Of a graph of a forward pass.
        decoder: Its sizes.
        prompts: (elements, batch, prompt).
        generated: Tokens of each request.

    Returns:
        ``tokens`` (elements, batch, generated); ``ids`` and ``logits`` (elements, rows, checked steps, top), the
        largest logits of the first tokens.
    """
    batch, prompt = prompts.shape[1:]
    decoding = Decoding(session, decoder, Shape.of({"batch": batch, "prompt": prompt, "generated": generated}))
    rows = min(batch, generation.CHECKED_ROWS)
    ids = decoding.ids.array(np.int64, (batch, prompt))
    newest = decoding.token.array(np.int64, (batch,))
    logits = decoding.logits.array(np.float32, (batch, decoder.vocabulary))
    made: dict[str, list[NDArray[Any]]] = {"tokens": [], "ids": [], "logits": []}
    for element in prompts:
        ids[:] = element
        decoding.begin()
        tokens, tops = [], []
        for position in range(generated):
            decoding.advance()
            tokens.append(newest.copy())
            if position < generation.CHECKED_STEPS:
                tops.append(largest(logits[:rows], generation.TOP))
        made["tokens"].append(np.stack(tokens, 1))
        for name, parts in zip(("ids", "logits"), zip(*tops, strict=True), strict=True):
            made[name].append(np.stack(parts, 1))
    return {name: np.stack(parts) for name, parts in made.items()}


def largest(logits: NDArray[Any], top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and values of the largest logits of each row, descending; of equal ones the first, as ArgMax chooses.

    A NaN comes before all others, so that whoever compares sees it.
    """
    ids = np.argsort(np.where(np.isnan(logits), -np.inf, -logits), axis=-1, kind="stable")[:, :top]
    return ids.astype(np.int64), np.take_along_axis(logits, ids, -1).astype(np.float32)
