"""Records this process's CUDA calls and device work with CUPTI, where Nsight Systems is missing.

CUPTI's own defaults fit: kernels of a graph are reported node by node (as long as ``GRAPH_TRACE`` is not enabled), with
the correlation id of the launch. Records are kept by CUPTI until the end, in buffers that hold a capture as a whole, so
that nothing of this runs between two iterations.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.errors import UserError
from ceilings.traces import capture, store
from ceilings.traces.capture import COLUMNS, KERNEL, MEMCPY, MEMSET, OPERATIONS, RUNTIME, Integers

BUFFER_BYTES = 64 << 20
"""About 300,000 kernels or a million calls."""

UNRECORDED = re.compile(r"(?<!Module)(?<!Library)Get|Peek|IsCapturing")
"""Calls that only ask something: PyTorch's eager mode makes 2,000 an inference, ten times as many as all others.

What gets something of a module or a library loads it, where modules are lazy, and is recorded. To leave the others out
makes the capture small, not the recording fast: each call costs the same, recorded or not.
"""

_FORCED = 1
_PROCESS = 1 << 24


class CuptiRecorder:
    """Records from :meth:`start` to :meth:`stop`, and writes a capture.

    Args:
        path: Where to.

    Raises:
        UserError: CUPTI or its Python bindings are missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            from cupti import cupti
        except ImportError as error:
            raise UserError(f"CUPTI's Python bindings cannot be used ({error}); pip install cupti-python") from None
        self._path, self._cupti = path, cupti
        kind = cupti.ActivityKind
        self._kinds = (kind.RUNTIME, kind.DRIVER, kind.CONCURRENT_KERNEL, kind.MEMCPY, kind.MEMSET)
        self._readers: dict[int, Callable[[Any], None]] = {
            int(kind.RUNTIME): functools.partial(self._call, cupti.runtime_api_trace_cbid),
            int(kind.DRIVER): functools.partial(self._call, cupti.driver_api_trace_cbid),
            int(kind.CONCURRENT_KERNEL): self._kernel,
            int(kind.KERNEL): self._kernel,
            int(kind.MEMCPY): self._copy,
            int(kind.MEMSET): self._fill,
        }
        self._rows: dict[str, list[tuple[int, ...]]] = {table: [] for table in (RUNTIME, *OPERATIONS)}
        self._names: dict[str, int] = {}
        self._begun: list[int] = []
        self._ended: list[int] = []
        self._errors: list[str] = []

    def start(self) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Begin; returns what marks an iteration's begin and its end, with CUPTI's own clock."""
        cupti = self._cupti
        try:
            cupti.set_thread_id_type(cupti.ActivityThreadIdType.SYSTEM)
            cupti.activity_register_callbacks(self._requested, self._completed)
            for kind in self._kinds:
                cupti.activity_enable(kind)
            for calls, record in (
                (cupti.runtime_api_trace_cbid, cupti.activity_enable_runtime_api),
                (cupti.driver_api_trace_cbid, cupti.activity_enable_driver_api),
            ):
                for call in calls:
                    if UNRECORDED.search(call.name):
                        record(int(call), 0)
        except Exception as error:  # cuptiError, or NotSupportedError where there is no driver
            raise UserError(
                f"CUPTI cannot record here ({type(error).__name__}: {error}); end other profilers"
            ) from None
        clock, begun, ended = cupti.get_timestamp, self._begun.append, self._ended.append
        return lambda: begun(clock()), lambda: ended(clock())

    def stop(self) -> None:
        """End and write the capture.

        Raises:
            RuntimeError: A record could not be read.
        """
        cupti = self._cupti
        cupti.activity_flush_all(_FORCED)
        for kind in self._kinds:
            cupti.activity_disable(kind)
        cupti.activity_flush_all(_FORCED)  # what came between the two
        dropped = ctypes.c_size_t(0)
        cupti.activity_get_num_dropped_records(0, 0, ctypes.addressof(dropped))
        if self._errors:
            raise RuntimeError(f"{len(self._errors)} buffers of CUPTI could not be read: {self._errors[0]}")
        store.write(self._path, self.capture(int(dropped.value)))

    def capture(self, dropped: int = 0) -> capture.Capture:
        """What was recorded so far."""
        rows = {
            table: np.array(values, np.int64).reshape(-1, len(COLUMNS[table])) for table, values in self._rows.items()
        }
        marks = np.column_stack([self._begun, self._ended]).astype(np.int64).reshape(-1, 2)
        thread = self._thread(rows[RUNTIME], marks)
        iterations = [(int(begin), int(end), thread, capture.ITERATION) for begin, end in marks]
        strings = {number: demangled(name) for name, number in self._names.items()}
        return capture.assemble(rows, strings, iterations, {"source": "cupti", "dropped": dropped}, self._path)

    @staticmethod
    def _thread(calls: Integers, marks: Integers) -> int:
        """The thread that ran the iterations: this one; by its calls, where CUPTI numbers threads otherwise."""
        this = _PROCESS | (threading.get_native_id() & 0xFFFFFF)
        if (calls[:, 2] == this).any() or not len(calls) or not len(marks):
            return this
        inside = calls[(calls[:, 0] >= marks[0, 0]) & (calls[:, 1] <= marks[-1, 1]), 2]
        values, counts = np.unique(inside, return_counts=True)
        return int(values[counts.argmax()]) if len(values) else this

    # --- CUPTI's callbacks -------------------------------------------------------------------------------------------

    def _requested(self) -> tuple[int, int]:
        return BUFFER_BYTES, 0  # as many records as fit

    def _completed(self, activities: list[Any]) -> None:
        try:
            for activity in activities:
                reader = self._readers.get(int(activity.kind))
                if reader:
                    reader(activity)
        except Exception as error:  # raised here it would be lost
            self._errors.append(f"{type(error).__name__}: {error}")

    def _call(self, callbacks: Any, record: Any) -> None:
        try:
            name = callbacks(record.cbid).name
        except ValueError:  # newer than these bindings
            name = f"call {record.cbid}"
        thread = _PROCESS | (int(record.thread_id) & 0xFFFFFF)
        row = (record.start, record.end, thread, record.correlation_id, self._name(name), record.return_value)
        self._rows[RUNTIME].append(row)

    def _kernel(self, record: Any) -> None:
        self._rows[OPERATIONS[KERNEL]].append((*self._operation(record), self._name(record.name)))

    def _copy(self, record: Any) -> None:
        self._rows[OPERATIONS[MEMCPY]].append((*self._operation(record), record.bytes, int(record.copy_kind)))

    def _fill(self, record: Any) -> None:
        self._rows[OPERATIONS[MEMSET]].append((*self._operation(record), record.bytes))

    @staticmethod
    def _operation(record: Any) -> tuple[int, ...]:
        if not record.start or not record.end:
            raise ValueError("an operation without times")
        place = (record.device_id, record.stream_id, record.correlation_id, _PROCESS, record.context_id)
        return record.start, record.end, *place, int(bool(record.graph_node_id))

    def _name(self, name: Any) -> int:
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return self._names.setdefault(text, len(self._names) + 1)


@functools.cache
def demangled(name: str) -> str:
    """A C++ symbol as a person writes it; any other name as it is.

    >>> demangled("_Z4gemmIiEvT_"), demangled("triton_poi_fused_add_0")
    ('void gemm<int>(int)', 'triton_poi_fused_add_0')
    """
    if not name.startswith("_Z"):
        return name
    library = ctypes.CDLL("libstdc++.so.6")  # PyTorch and ONNX Runtime have loaded it
    demangle, free = library.__cxa_demangle, ctypes.CDLL(None).free
    demangle.restype, demangle.argtypes = ctypes.c_void_p, [ctypes.c_char_p, *[ctypes.c_void_p] * 3]
    free.argtypes = [ctypes.c_void_p]
    status = ctypes.c_int()
    pointer = demangle(name.encode(), None, None, ctypes.addressof(status))
    if not pointer:
        return name
    try:
        return ctypes.cast(pointer, ctypes.c_char_p).value.decode(errors="replace")  # type: ignore[union-attr]
    finally:
        free(pointer)
