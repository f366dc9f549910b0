"""A request to a model of Transformers, pass by pass: greedy, on any device, with a growing or a static cache.

What submits only enqueues: no pass asks the device for anything. So nothing here reads a tensor on the host, and where
Transformers would, it gets what it asks for from here.

Transformers is imported where it is used: ``ceilings.models.load`` imports it first, without what it does not need.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ceilings.errors import CellFailure
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape

WARM_RUNS = 3
"""Before a capture: libraries choose kernels and allocate workspaces in the first calls."""

UNMASKED = "sdpa_without_mask"
"""Transformers' ``sdpa`` under a name of which it knows no mask. A prefill begins with an empty cache, so that causal
attention to the prompt is all there is. Transformers sees that too, but by asking the device where the cache was used
before, and not at all while it is compiled or captured: then a mask would let other kernels run than eagerly."""

ONE_WINDOW = "attends to the last {window} tokens only, and a static cache of {length} would keep them by a position \
that the host counts; use a shorter context, or the runtime with a growing cache"


class TorchDecoding(abc.ABC):
    """One request at a time, on one device.

    Args:
        model: Of Transformers, for causal language modelling, in eval mode, on the device.
        decoder: What its cache is made of.
        shape: Of a request.
        device: As torch names it.

    Attributes:
        prompt: (batch, prompt) on the device, what a prefill reads; the caller writes it.
        token: (batch, 1) on the device: the newest tokens. A step reads and then replaces them.
        newest: (batch,) on the host, the newest tokens once the device is done.
        logits: (batch, vocabulary), what they were chosen from; valid until the next pass. None before the first.
        given: Tokens of the request that were submitted.
    """

    kind: str

    def __init__(self, model: Any, decoder: Decoder, shape: Shape, device: str) -> None:
        # With a token for padding, some models look on the host whether the ids hold it, to warn. None here do.
        model.config.pad_token_id = None
        self.model, self.decoder, self.shape, self.device = model, decoder, shape, device
        # Nobody reads the logits of the other tokens of a prompt; some models give them all the same.
        self._kept = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        self.prompt = torch.zeros((shape.batch, shape["prompt"]), dtype=torch.int64, device=device)
        self.token = torch.zeros((shape.batch, 1), dtype=torch.int64, device=device)
        # Page-locked, else the copy to it would wait for the device.
        self._host = torch.zeros((shape.batch, 1), dtype=torch.int64, pin_memory=device != "cpu")
        self.newest: NDArray[np.int64] = self._host.numpy()[:, 0]
        self.logits: torch.Tensor | None = None
        self.given = 0

    @abc.abstractmethod
    def begin(self) -> None:
        """Empty the cache."""

    @abc.abstractmethod
    def cache_bytes(self) -> int:
        """Bytes allocated for keys and values."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the cache is, and what attention reads of it."""

    def prefill(self) -> None:
        """Submit the pass over the prompt, the choice of the first tokens and their copy to the host.

        Raises:
            RuntimeError: The request has begun already.
        """
        if self.given:
            raise RuntimeError("a prefill reads an empty cache; begin a request first")
        self.given = 1
        self.logits = None  # a compiled graph replaces it in place
        self.logits = self._prefill()

    def step(self) -> None:
        """Submit the pass over the newest tokens, the choice of the next ones and their copy to the host.

        Raises:
            RuntimeError: The request has not begun, or is at its end.
        """
        if not 0 < self.given < self.shape["generated"]:
            raise RuntimeError(f"no step after {self.given} tokens of {self.shape}; begin a request first")
        self.given += 1
        self.logits = None
        self.logits = self._step()

    def top_logits(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and values of the largest logits of the newest tokens, (rows, top). Waits."""
        assert self.logits is not None
        values, ids = self.logits[:rows].float().topk(top, dim=-1)
        return ids.cpu().numpy(), values.cpu().numpy()

    def _prefill(self) -> torch.Tensor:
        logits = self._prefill_pass()
        self._to_host()
        return logits

    def _step(self) -> torch.Tensor:
        logits = self._step_pass()
        self._to_host()
        return logits

    @abc.abstractmethod
    def _prefill_pass(self) -> torch.Tensor:
        """The pass over the prompt and the choice; returns the logits."""

    @abc.abstractmethod
    def _step_pass(self) -> torch.Tensor:
        """The pass over the newest tokens and the choice; returns the logits."""

    def _forward(self, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        """A pass over ``ids``, whose positions follow from the cache, and the choice; returns the last logits."""
        output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **self._kept)
        logits: torch.Tensor = output.logits[:, -1]
        torch.argmax(logits, dim=-1, keepdim=True, out=self.token)
        return logits

    def _to_host(self) -> None:
        self._host.copy_(self.token, non_blocking=True)


class GrowingDecoding(TorchDecoding):
    """With Transformers' default cache: every step joins its keys and values to all before, in new memory."""

    kind = "growing"

    def __init__(self, model: Any, decoder: Decoder, shape: Shape, device: str) -> None:
        super().__init__(model, decoder, shape, device)
        self._cache = self._empty()
        self._bytes = 0

    def _empty(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def begin(self) -> None:
        self.cache_bytes()
        self._cache = self._empty()
        self.given = 0

    def cache_bytes(self) -> int:
        """Bytes of the longest cache so far."""
        layers = [layer for layer in self._cache.layers if layer.is_initialized]
        self._bytes = max(self._bytes, sum(layer.keys.nbytes + layer.values.nbytes for layer in layers))
        return self._bytes

    def describe(self) -> dict[str, Any]:
        return {"cache": self.kind, "read": "attention reads the keys and values of the context, without a mask"}

    def _prefill_pass(self) -> torch.Tensor:
        return self._forward(self.prompt, self._cache)

    def _step_pass(self) -> torch.Tensor:
        return self._forward(self.token, self._cache)


def buffers(config: Any, length: int) -> Any:
    """Transformers' static cache of ``length`` tokens. Its length so far is a tensor, which passes advance.

    Raises:
        CellFailure: ``unsupported``: attention with a window below the length.
    """
    from transformers import StaticCache
    from transformers.cache_utils import StaticLayer

    cache = StaticCache(config, max_cache_len=length)
    window = getattr(config.get_text_config(decoder=True), "sliding_window", None)
    for index, sliding in enumerate(cache.is_sliding):
        if sliding:
            # A buffer of the window's length counts its position on the host. Up to the window all attention is full.
            if window is None or window < length:
                raise CellFailure("unsupported", "the model " + ONE_WINDOW.format(window=window, length=length))
            cache.layers[index] = StaticLayer(max_cache_len=length)
    return cache


class StaticDecoding(TorchDecoding):
    """With buffers of a request's whole context, which passes write in place.

    Attention of a step reads the whole buffer, under a mask of what is past the context. What lies there, of the
    request before or of a warm-up, has no weight, so that ``begin`` only sets the lengths to 0.
    """

    kind = "static"

    def __init__(self, model: Any, decoder: Decoder, shape: Shape, device: str) -> None:
        from transformers import AttentionInterface
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        super().__init__(model, decoder, shape, device)
        self.length = generation.context(shape)
        self.cache = buffers(model.config, self.length)
        AttentionInterface.register(UNMASKED, sdpa_attention_forward)
        attention = model.config._attn_implementation
        # Of one token attention is not causal but reads the whole buffer, so that it needs the mask.
        self._attention = (UNMASKED if attention == "sdpa" and shape["prompt"] > 1 else attention, attention)
        dtype = next(model.parameters()).dtype
        # Before anything is compiled: buffers that appear while compiling cannot be marked as staying where they are.
        self.cache.early_initialization(shape.batch, decoder.kv_heads, decoder.head_size, dtype, torch.device(device))
        self._lengths = [layer.cumulative_length for layer in self.cache.layers]
        for buffer in (self.prompt, self.token):  # else Inductor's graphs copy them first, or refuse what is written
            torch._dynamo.mark_static_address(buffer)
        self._graphs: list[Any] = []

    def begin(self) -> None:
        torch._foreach_zero_(self._lengths)
        self.given = 0

    def cache_bytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    @property
    def prefill_read(self) -> str:
        """What attention of a prefill reads, in words."""
        if self._attention[0] == UNMASKED:
            return "the prompt, without a mask"
        return f"keys and values of {self.length:,} tokens under a mask"

    def describe(self) -> dict[str, Any]:
        return {
            "cache": self.kind,
            "length": self.length,
            "read": f"attention of a step reads keys and values of {self.length:,} tokens under a mask, whatever the "
            f"context; that of a prefill reads {self.prefill_read}",
        }

    def compile(self, mode: str) -> None:
        """Let Inductor make both passes of a request, each once for all positions; compiled when first called."""
        kind = None if mode == "default" else mode
        # Names of this object, so that the bodies keep their own code: one compilation each.
        self._prefill_pass = torch.compile(self._prefill_pass, mode=kind, dynamic=False)  # type: ignore[method-assign]
        self._step_pass = torch.compile(self._step_pass, mode=kind, dynamic=False)  # type: ignore[method-assign]

    def warm(self, runs: int = WARM_RUNS) -> None:
        """Make requests of two tokens, or of one where no request has more. Their tokens are without meaning."""
        for _ in range(runs):
            self.begin()
            self.prefill()
            if self.shape["generated"] > 1:
                self.step()
        self.begin()

    def capture(self) -> None:
        """Put a prefill and, where a request has one, a step into CUDA graphs, with the copy to the host.

        A replayed step reads token and length from where it leaves the next ones. Called on the stream that replays.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.warm()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        pool = torch.cuda.graph_pool_handle()  # one: a request's passes never overlap
        with self._prefilling():
            self._prefill = self._captured(self._prefill, side, pool)  # type: ignore[method-assign]
        if self.shape["generated"] > 1:
            self._step = self._captured(self._step, side, pool)  # type: ignore[method-assign]
        self.begin()  # a capture executes nothing, so the lengths stand where the warm-up left them

    def _captured(self, submit: Callable[[], torch.Tensor], stream: Any, pool: Any) -> Callable[[], torch.Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, pool=pool):
            logits = submit()
        self._graphs.append(graph)
        replay = graph.replay

        def replayed() -> torch.Tensor:
            replay()
            return logits

        return replayed

    @contextlib.contextmanager
    def _prefilling(self) -> Iterator[None]:
        """Let attention be causal by itself, without a mask."""
        config = self.model.config
        config._attn_implementation, after = self._attention
        try:
            yield
        finally:
            config._attn_implementation = after

    def prefill(self) -> None:
        with self._prefilling():
            super().prefill()

    def _prefill_pass(self) -> torch.Tensor:
        return self._forward(self.prompt, self.cache)

    def _step_pass(self) -> torch.Tensor:
        return self._forward(self.token, self.cache)
