"""vLLM's offline engine in this process: requests of token ids, stepped one output token at a time.

Nothing here needs a GPU: the same logic runs vLLM's build for CPUs. What is not set stays vLLM's default, so that the
engine is what a user of ``vllm.LLM`` gets; :func:`settings` says what is set and why.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings import environment
from ceilings.errors import CellFailure
from ceilings.runtimes import engine_facts
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.compile_cache import compile_folder
from ceilings.runtimes.generating import Answer, Generating
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape

ITEM_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}
MATMUL = {"tf32": "high"}
"""VLLM_FLOAT32_MATMUL_PRECISION, by precision; of any other vLLM's default, which is full FP32."""

ROUNDED = 32
"""The cache holds each row's tokens rounded up to so many, and as many again: room for whole blocks of 16 or 32."""

LEAST = 1024
"""Tokens of the cache at least: blocks on a CPU hold 128."""

MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "compile": {"compilation_config": {"cudagraph_mode": "NONE"}},
    "eager": {"enforce_eager": True},
}
"""Engine arguments of each mode."""

DRAIN_STEPS = 16
"""Steps that a stopped engine takes at most until nothing is under way. Two suffice."""


Prompts = list[list[int]]
"""A slot: token ids of each row. vLLM copies them to the device when a request is scheduled."""


class EngineStoppedError(RuntimeError):
    """The engine ended requests before they had their tokens."""


def variables(precision: str, folder: str) -> dict[str, str]:
    """Environment variables that have to be there before vLLM is imported.

    Args:
        precision: Of the cell.
        folder: Where everything that is compiled goes.
    """
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: a capture sees it, and nothing outlives it
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # its process group of one listens here, not on the network's interface
        "VLLM_FLOAT32_MATMUL_PRECISION": MATMUL.get(precision, "highest"),
        "VLLM_USE_FLASHINFER_SAMPLER": "0",  # no greedy request uses it, and each cold start compiles it with nvcc
        "VLLM_CACHE_ROOT": f"{folder}/vllm",
        "VLLM_CONFIG_ROOT": f"{folder}/config",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "TRITON_CACHE_DIR": f"{folder}/triton",
        "FLASHINFER_WORKSPACE_BASE": f"{folder}/flashinfer",
        "TILELANG_CACHE_DIR": f"{folder}/tilelang",
        "CUTE_DSL_CACHE_DIR": f"{folder}/cute",
    }


def cache_tokens(shape: Shape) -> int:
    """Tokens for which the cache has room, all rows together."""
    row = math.ceil(generation.context(shape) / ROUNDED) * ROUNDED + ROUNDED
    return max(LEAST, shape.batch * row + 2 * ROUNDED)  # one block is never used


def arguments_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the engine that a runner's options say: ``mode``, of ``MODES``, and ``captured``.

    >>> arguments_of({"mode": "default", "captured": "1-4-16"})
    {'compilation_config': {'cudagraph_capture_sizes': [1, 4, 16]}}
    """
    captured = str(options.get("captured", "default"))
    if captured == "default":
        return dict(MODES[options.get("mode", "default")])
    return {"compilation_config": {"cudagraph_capture_sizes": [int(size) for size in captured.split("-")]}}


def settings(
    folder: Path, precision: str, decoder: Decoder, shape: Shape, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of the engine.

    The memory of the cache is what the requests need. By default vLLM takes 92% of the device for it, after which the
    device's memory says nothing about the model; the speed of a step does not depend on blocks that nobody uses.

    Args:
        folder: The weights, as Transformers saves them.
        precision: Of the cell.
        decoder: Of the model.
        shape: Of the cell.
        options: Of the runner.
    """
    return {
        "model": str(folder),
        "skip_tokenizer_init": True,  # prompts are token ids, and there may be no tokenizer
        "dtype": engine_facts.DTYPES[precision],
        "max_model_len": generation.context(shape),
        "kv_cache_memory_bytes": decoder.cache_bytes(1, cache_tokens(shape), ITEM_BYTES[precision]),
        "enable_prefix_caching": False,  # a prompt comes again and again, and must be read each time
        "generation_config": "vllm",  # nothing of the checkpoint's file shapes a request
        "logprobs_mode": "raw_logits",  # of requests that ask for them: none that is timed does
        "max_logprobs": generation.TOP,
        "disable_log_stats": True,  # as in vllm.LLM
        "seed": 0,
        **arguments_of(options),
    }


def enlarged(shape: Shape, rows: int, tokens: int) -> dict[str, int]:
    """Limits of the scheduler that are raised, so that all prompts fit into one step.

    Args:
        shape: Of the cell.
        rows: vLLM's default of requests at once.
        tokens: vLLM's default of tokens in a step.
    """
    read = shape.batch * shape["prompt"]
    return {
        **({"max_num_seqs": shape.batch} if shape.batch > rows else {}),
        **({"max_num_batched_tokens": read} if read > tokens else {}),
    }


class OfflineEngine:
    """One engine, and the one request of ``batch`` rows that it works on.

    Args:
        folder: The weights.
        precision: Of the cell.
        decoder: Of the model.
        shape: Of the cell.
        options: ``mode`` (``default``, ``compile``, which has no CUDA graphs, or ``eager``), and ``captured``.

    Raises:
        CellFailure: ``unsupported``: vLLM made another engine than the cell asks for.

    Attributes:
        spent_ns: Of the start, time by stage: ``compile`` and ``capture``.
        adding_ns: Time in which the rows of each request were handed over.
        variables: Environment variables that vLLM sets for itself, those that shape a latency.
    """

    def __init__(
        self, folder: Path, precision: str, decoder: Decoder, shape: Shape, options: Mapping[str, Any]
    ) -> None:
        self.shape, self.mode = shape, str(options.get("mode", "default"))
        self.spent_ns: dict[str, int] = {}
        self.adding_ns: list[int] = []
        self._place(precision)
        before = environment.shaping_now()
        from vllm import SamplingParams
        from vllm.engine.arg_utils import EngineArgs
        from vllm.sampling_params import RequestOutputKind
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        self._sampling, self._delta = SamplingParams, RequestOutputKind.DELTA
        usage = UsageContext.LLM_CLASS
        defaults = [by_usage[usage] for by_usage in EngineArgs.get_batch_defaults(1)]
        self.arguments = settings(folder, precision, decoder, shape, options)
        self.arguments |= enlarged(shape, rows=defaults[1], tokens=defaults[0])
        with self._stages():
            self._engine: Any = LLMEngine.from_engine_args(EngineArgs(**self.arguments), usage_context=usage)
        self.variables = _put_back(before)
        compiled = self._engine.vllm_config.compilation_config.compilation_time
        self.spent_ns["compile"] = round(compiled * 1e9)
        self._core: Any = self._engine.engine_core.engine_core
        self._requests = 0
        self._names: list[str] = []
        self._tokens: dict[str, list[int]] = {}
        self._tops: dict[str, list[Mapping[int, Any]]] = {}
        self._position = 0
        self.refuse_other(precision)

    def _place(self, precision: str) -> None:
        """Say where compiled code goes, and what vLLM leaves alone."""
        where, self._folder = compile_folder()
        self.warm = any(Path(where).glob("vllm/*")) or any(Path(where).glob("triton/*"))
        os.environ.update(variables(precision, where))

    # ---- requests ----------------------------------------------------------------------------------------------------

    def begin(self, prompts: Sequence[Sequence[int]], generated: int, top: int | None = None) -> None:
        """Drop the request before, and hand over the rows of the next one.

        Args:
            prompts: Token ids of each row.
            generated: Tokens that each row gets.
            top: Largest logits of each token to keep; None keeps none and costs nothing.
        """
        self.finish()
        self._requests += 1
        parameters = self._sampling(
            temperature=0.0,
            max_tokens=generated,
            ignore_eos=True,
            detokenize=False,
            output_kind=self._delta,
            logprobs=top,
        )
        start = time.perf_counter_ns()
        self._names = [f"{self._requests}-{row}" for row in range(len(prompts))]
        self._tokens = {name: [] for name in self._names}
        self._tops = {name: [] for name in self._names}
        self._position = 0
        for name, prompt in zip(self._names, prompts, strict=True):
            self._engine.add_request(name, {"prompt_token_ids": list(prompt)}, parameters)
        self.adding_ns.append(time.perf_counter_ns() - start)

    def advance(self) -> None:
        """Step the engine until every row has one more token.

        Raises:
            EngineStoppedError: It has nothing more to do.
        """
        self._position += 1
        wanted, tokens = self._position, self._tokens
        while any(len(row) < wanted for row in tokens.values()):
            outputs = self._engine.step()
            for output in outputs:
                (completion,) = output.outputs
                tokens[output.request_id] += completion.token_ids
                if completion.logprobs:
                    self._tops[output.request_id] += completion.logprobs
            if not outputs and not self._engine.has_unfinished_requests():
                raise EngineStoppedError(f"vLLM ended the requests before all rows had {wanted} tokens")

    def newest(self) -> NDArray[np.int64]:
        """The tokens that the last :meth:`advance` brought, (rows,)."""
        return np.array([self._tokens[name][self._position - 1] for name in self._names], np.int64)

    def top(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and values of the largest logits of the newest tokens, (rows, top), descending."""
        ids, values = np.zeros((rows, top), np.int64), np.zeros((rows, top), np.float32)
        for row, name in enumerate(self._names[:rows]):
            given = self._tops[name][self._position - 1]
            ranked = sorted(given.items(), key=lambda pair: (-pair[1].logprob, pair[0]))[:top]
            ids[row] = [token for token, _ in ranked]
            values[row] = [one.logprob for _, one in ranked]
        return ids, values

    def finish(self) -> None:
        """Drop what is left of the request, and let the engine come to rest."""
        if self._engine.has_unfinished_requests():
            self._engine.abort_request(self._names)
        for _ in range(DRAIN_STEPS):
            # Asynchronous scheduling leaves a batch behind whose tokens nobody waits for.
            if not self._core.batch_queue and not self._core.scheduler.has_requests():
                return
            self._engine.step()
        raise EngineStoppedError(f"vLLM is not at rest after {DRAIN_STEPS} steps without a request")

    # ---- facts -------------------------------------------------------------------------------------------------------

    def cache_bytes(self) -> int:
        """Bytes that it holds for keys and values."""
        return sum(int(tensor.size) for tensor in self._core.scheduler.kv_cache_config.kv_cache_tensors)

    def describe(self) -> dict[str, Any]:
        """How it runs: versions, backends, graphs, scheduler, caches."""
        import torch
        import vllm

        config = self._engine.vllm_config
        compilation, scheduler, cache = config.compilation_config, config.scheduler_config, config.cache_config
        layers = compilation.static_forward_context.values()
        backends = {layer.attn_backend.get_name() for layer in layers if hasattr(layer, "attn_backend")}
        runner = self._engine.model_executor.driver_worker.worker.model_runner
        sizes = list(compilation.cudagraph_capture_sizes or ())
        facts = {
            "mode": self.mode,
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "engine": "in this process",
            "model_runner": f"{type(runner).__module__}.{type(runner).__name__}",
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "attention": ", ".join(sorted(backends)),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "compilation": compilation.mode.name if compilation.mode is not None else "NONE",
            "cudagraph_mode": compilation.cudagraph_mode.name if compilation.cudagraph_mode is not None else "NONE",
            "cudagraph_sizes": sizes,
            "compile_cache": "warm: its folder held compiled code at the start" if self.warm else "cold",
            "cute_dsl": importlib.util.find_spec("cutlass") is not None,  # then each start compiles with it, for MoE
            "variables": environment.recorded(self.variables),
            "prefix_caching": bool(cache.enable_prefix_caching),
            "cache_dtype": str(cache.cache_dtype),
            "block_size": int(cache.block_size),
            "blocks": int(self._core.scheduler.kv_cache_config.num_blocks),
            "cache_bytes": self.cache_bytes(),
            "cache_sized_by": "what the requests need, not gpu_memory_utilization",
            "max_model_len": int(config.model_config.max_model_len),
            "max_num_seqs": int(scheduler.max_num_seqs),
            "max_num_batched_tokens": int(scheduler.max_num_batched_tokens),
            "chunked_prefill": bool(scheduler.enable_chunked_prefill),
            "async_scheduling": bool(scheduler.async_scheduling),
            "batches_under_way": int(self._core.batch_queue_size),
            "adding_ns": int(statistics.median(self.adding_ns)) if self.adding_ns else None,
            "raised": {key: self.arguments[key] for key in ("max_num_seqs", "max_num_batched_tokens")
                       if key in self.arguments},
        }  # fmt: skip
        return {**facts, "graph_replayed": engine_facts.replays(facts, self.shape)}

    def refuse_other(self, precision: str) -> None:
        """Refuse an engine that is not what its cell says.

        Raises:
            CellFailure: ``unsupported``: in what it is another one.
        """
        if reason := engine_facts.unlike(self.describe(), precision, self.shape, self.mode):
            raise CellFailure("unsupported", reason)

    @contextlib.contextmanager
    def _stages(self) -> Iterator[None]:
        """Time the capture of CUDA graphs while the engine starts: vLLM logs it and keeps it nowhere."""
        spent = self.spent_ns

        def timed(method: Any) -> Any:
            def capture_model(*arguments: Any, **named: Any) -> Any:
                start = time.perf_counter_ns()
                try:
                    return method(*arguments, **named)
                finally:
                    spent["capture"] = spent.get("capture", 0) + time.perf_counter_ns() - start

            return capture_model

        with contextlib.ExitStack() as stack:
            for runner in _model_runners():
                method = runner.__dict__.get("capture_model")
                if method is not None:
                    runner.capture_model = timed(method)
                    stack.callback(setattr, runner, "capture_model", method)
            yield


class EngineRequests(Generating):
    """Requests of an engine, whatever device it runs on.

    Attributes:
        engine: What works on them.
        differing: Requests of which the one with logits gave other first tokens than the one without.
    """

    engine: OfflineEngine
    differing = 0
    _prompts: Prompts

    def place(self, element: Inputs) -> Prompts:
        """Token ids of each row."""
        rows: Prompts = element["input_ids"].tolist()
        return rows

    def begin(self, slot: Prompts) -> None:
        self.engine.finish()
        self._prompts = slot

    def prefill(self) -> None:
        # Handing the rows over is a part of waiting for the first token: whoever calls the engine waits for it.
        self.engine.begin(self._prompts, self.shape["generated"])
        self.engine.advance()

    def step(self) -> None:
        self.engine.advance()

    def arrived(self) -> NDArray[np.int64]:
        return self.engine.newest()

    def top_logits(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self.engine.top(rows, top)

    def cache_bytes(self) -> int:
        return self.engine.cache_bytes()

    def answer(self, slot: Prompts) -> Answer:
        """The tokens of a request as it is timed, and logits of a second one that asks for them.

        The second one may give other tokens, and its logits belong to those: both are judged.
        """
        rows, generated = min(self.shape.batch, generation.CHECKED_ROWS), self.shape["generated"]
        checked = min(generated, generation.CHECKED_STEPS)
        tokens = self._tokens(slot, None, generated)[0]
        again, ids, logits = self._tokens(slot, generation.TOP, checked)
        logged = again[:rows]
        self.differing += not np.array_equal(logged, tokens[:rows, :checked])
        return Answer(tokens, logged, ids, logits)

    def _tokens(self, slot: Prompts, top: int | None, generated: int) -> tuple[Any, Any, Any]:
        """Tokens of a request, and ids and values of the largest logits of the first ones."""
        rows = min(self.shape.batch, generation.CHECKED_ROWS)
        self.engine.begin(slot, generated, top)
        tokens, tops = [], []
        for position in range(generated):
            self.engine.advance()
            tokens.append(self.engine.newest())
            if top and position < generation.CHECKED_STEPS:
                tops.append(self.engine.top(rows, top))
        ids, logits = (np.stack(part, 1) for part in zip(*tops, strict=True)) if tops else (None, None)
        return np.stack(tokens, 1), ids, logits


def _put_back(before: Mapping[str, str]) -> dict[str, str]:
    """Set the shaping variables back to what they were; returns those that differed. They have had their effect.

    What stands in the environment afterwards is taken for what the user set.
    """
    after = environment.shaping_now()
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    return {name: value for name, value in after.items() if before.get(name) != value}


def _model_runners() -> list[Any]:
    """The classes of vLLM that capture graphs: it has two generations of them."""
    found = []
    for name in ("vllm.v1.worker.gpu.model_runner", "vllm.v1.worker.gpu_model_runner"):
        with contextlib.suppress(ImportError, AttributeError):
            found.append(importlib.import_module(name).GPUModelRunner)
    return found
