"""What records a process without a GPU: PyTorch's profiler, or ONNX Runtime's of a session.

Both leave a capture as those of a GPU are kept, without calls and operations of CUDA: its ranges are the framework's
operators, nodes, and what the framework does to compile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.errors import UserError
from ceilings.lifetime import temporary_folder
from ceilings.traces import store
from ceilings.traces.capture import COLUMNS, ITERATION, OPERATIONS, RUNTIME, Capture, assemble
from ceilings.traces.readers import kineto
from ceilings.traces.recording import OPERATOR, RANGE, Recording

GROWS = "grows the arena: "
"""Before the operator of a node during which ONNX Runtime's arena took memory of the system."""

MOST_EVENTS = 1_000_000
"""Events after which ONNX Runtime records no more."""

Marks = tuple[Callable[[], Any], Callable[[], Any]]
Place = tuple[int, int, int, str]
"""Begin and end in ns, thread, text."""

_PROCESS = 1 << 24


class TorchRecorder:
    """Records what PyTorch does on the CPU.

    Args:
        path: Where the capture goes.
    """

    def __init__(self, path: Path) -> None:
        from torch import profiler

        self._path, self._range = path, profiler.record_function
        self._profile = profiler.profile(activities=[profiler.ProfilerActivity.CPU])

    def attach(self, runner: Any) -> None:
        """Nothing: it records whatever the process does."""

    def start(self) -> Marks:
        """Begin; returns what marks a request's begin and its end."""
        opened: list[Any] = []

        def begin() -> None:
            opened.append(self._range(ITERATION))
            opened[-1].__enter__()

        self._profile.start()
        return begin, lambda: opened.pop().__exit__(None, None, None)

    def stop(self) -> None:
        """End and write the capture."""
        self._profile.stop()
        with temporary_folder() as folder:
            raw = Path(folder, "trace.json")
            self._profile.export_chrome_trace(str(raw))
            store.write(self._path, captured(kineto.read(raw)))


class OnnxRuntimeRecorder:
    """Records the nodes that a session of ONNX Runtime runs, in a session that profiles.

    Args:
        path: Where the capture goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._requests: list[Place] = []
        self._session: Any = None

    def attach(self, runner: Any) -> None:
        """Have the session that a runner will open, with whatever options, profile itself."""
        opened = runner._session

        def profiling(options: Any, *others: Any, **named: Any) -> Any:
            options.enable_profiling = True
            options.profile_file_prefix = str(self._path.with_name("profile"))
            self._session = opened(options, *others, **named)
            return self._session

        runner._session = profiling

    def start(self) -> Marks:
        """Begin; returns what marks a request's begin and its end."""
        zero = self._session.get_profiling_start_time_ns()
        # Of std::chrono's high_resolution_clock, which is one of these two.
        clock = min((time.monotonic_ns, time.time_ns), key=lambda each: abs(each() - zero))
        begun: list[int] = []

        def begin() -> None:
            begun.append(clock() - zero)

        def end() -> None:
            self._requests.append((begun.pop(), clock() - zero, _PROCESS, ITERATION))

        return begin, end

    def stop(self) -> None:
        """End and write the capture.

        Raises:
            UserError: ONNX Runtime recorded no more events before the end.
        """
        profile = Path(self._session.end_profiling())
        events = json.loads(profile.read_text(encoding="utf-8"))
        profile.unlink()
        if len(events) >= MOST_EVENTS:
            raise UserError(f"ONNX Runtime records no more than {MOST_EVENTS:,} events; lower traces.iterations")
        store.write(self._path, _assembled([*self._requests, *map(_node, filter(_is_node, events))], "onnxruntime"))


def _is_node(event: dict[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event.get("name")).endswith("_kernel_time")


def _node(event: dict[str, Any]) -> Place:
    facts = event.get("args") or {}
    begin, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
    grows = int(facts.get("mem_arena_held_delta", 0)) > 0
    return begin, begin + length, _PROCESS, f"{GROWS if grows else ''}{facts.get('op_name', 'unknown')}"


def captured(recording: Recording) -> Capture:
    """The requests of a recording, with the outermost ranges and operators of their thread.

    Raises:
        UserError: It holds no request.
    """
    spans = recording.spans
    texts = np.array([*recording.names, ""], object)[spans.name]
    asked = np.flatnonzero((texts == ITERATION) & (spans.kind == RANGE))
    if not len(asked):
        raise UserError("PyTorch's profiler recorded no request; run again")
    # A range that crosses others has a row of its own, with the label of its thread before a comma.
    labels = np.array([thread.label.split(",")[0] for thread in recording.threads])
    mine = np.isin(spans.kind, (RANGE, OPERATOR)) & (labels[spans.thread] == labels[spans.thread[asked[0]]])
    rows = [
        (int(begin), int(end), _PROCESS, str(text))
        for begin, end, text in zip(spans.start[mine], spans.end[mine], texts[mine], strict=True)
    ]
    return _assembled(rows, "torch")


def _assembled(places: list[Place], source: str) -> Capture:
    rows = {table: np.empty((0, len(COLUMNS[table])), np.int64) for table in (RUNTIME, *OPERATIONS)}
    return assemble(rows, {}, sorted(places), {"source": source}, "a capture of a CPU")
