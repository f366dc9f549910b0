"""Reads traces of PyTorch's profiler (Kineto), of PyTorch 1.13 and later, for CUDA and for ROCm.

Of a name in the file only those of kernels, calls, operators, ranges and functions are kept: functions without the
folder of their file. Threads and processes get numbers. Times are read as decimals: in microseconds since 1970 a double
is off by a quarter of one.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from array import array
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ceilings.errors import UserError
from ceilings.traces import calls as call_kinds
from ceilings.traces.capture import KERNEL, MEMCPY, MEMSET, Calls
from ceilings.traces.readers.impossible import misplaced, repeated
from ceilings.traces.readers.json_stream import EVENTS as EVENTS_KEY
from ceilings.traces.readers.json_stream import Stream as Events
from ceilings.traces.readers.links import Links, containing, nested, outermost
from ceilings.traces.recording import (
    AMBIGUOUS,
    CUT,
    FUNCTION,
    LOADING,
    OPERATOR,
    RANGE,
    Integers,
    Progress,
    Recording,
    Source,
    Spans,
    Stream,
    Thread,
    Waits,
    Work,
)

MOST_EVENTS = 40_000_000
"""Events that are kept of one file: some 4 GB of memory."""

LONGEST_NAME, NAMES_BYTES = 20_000, 256 << 20
"""Letters of a name, and of all of them, that are kept."""

_RUNTIME_CALL, _DRIVER_CALL = 0, 1
_CATEGORIES: dict[str, tuple[str, int]] = {
    **dict.fromkeys(("kernel", "concurrent_kernel"), ("work", KERNEL)),
    **dict.fromkeys(("gpu_memcpy", "memcpy"), ("work", MEMCPY)),
    **dict.fromkeys(("gpu_memset", "memset"), ("work", MEMSET)),
    **{f"{api}_runtime": ("call", _RUNTIME_CALL) for api in ("cuda", "hip", "xpu", "musa", "privateuse1")},
    **{f"{api}_driver": ("call", _DRIVER_CALL) for api in ("cuda", "hip", "xpu", "musa", "privateuse1")},
    "runtime": ("call", _RUNTIME_CALL),
    **dict.fromkeys(("cpu_op", "operator"), ("span", OPERATOR)),
    "user_annotation": ("span", RANGE),
    "python_function": ("span", FUNCTION),
    "overhead": ("span", LOADING),
    "cuda_sync": ("sync", 0),
}
"""What an event is by its category in small letters. Those of PyTorch 1.8 began with capital ones."""

_FLOWS = {"ac2g", "async_cpu_to_gpu", "async_gpu"}
_LEFT_OUT = {
    "gpu_user_annotation": "ranges on the device",
    "trace": "spans of the profiler",
    "fwdbwd": "arrows between operators",
}
_NAMED = re.compile(
    r"(mtia|hpu|xpu|npu|tpu|glow|musa|privateuse1)(_\w{1,30})?|(cuda|hip)_(profiler_range|event)|collective_comm|gpu_pm_counter"
    r"|cpu_instant_event|cpu_op|kernel|user_annotation|python_function|cuda_(runtime|driver|sync)|ac2g|gpu_mem(cpy|set)"
)
"""Further categories of recorders. Others are texts of anybody, and are not shown."""

_PHASES = frozenset("XBEsftMiICPNODbenSTpFRcv")
OTHERS = "other categories"

_COPY_KINDS = {
    "HtoD": 1,
    "DtoH": 2,
    "HtoA": 3,
    "AtoH": 4,
    "AtoA": 5,
    "AtoD": 6,
    "DtoA": 7,
    "DtoD": 8,
    "HtoH": 9,
    "PtoP": 10,
}
_LONG_COPY_KINDS = {"HostToDevice": 1, "DeviceToHost": 2, "DeviceToDevice": 8, "HostToHost": 9}
"""CUPTI's numbers; the latter are names that HIP gives."""

_COPY = re.compile(r"\b([HDAP]to[HDAP])\b|((?:Host|Device)To(?:Host|Device))")
_FILE_OF_FUNCTION = re.compile(r"^.*[\\/](?=[^\\/]*\(\d+\): )")
_FOLDER = re.compile(r"(?:[A-Za-z]:)?[^\s'\"<>(),:]*[\\/]")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
LONGEST_FUNCTION = 4_096
"""Letters of a function's name that are looked at: the search for its folder takes the square of them."""

_MINUS = (-1, "-1", -1.0)

_NOWHERE = (-1, 4_294_967_295)
"""How a trace writes that a wait is for no stream."""

ROUNDING = 1000
"""ns by which a span may reach over the one round it: both may be rounded to microseconds."""

KINDS_OF_WORK = {"kernels": KERNEL, "copies": MEMCPY, "fills": MEMSET}
KINDS_OF_SPANS = {"ranges": RANGE, "operators": OPERATOR, "functions": FUNCTION, "parts of the profiler": LOADING}

UNKNOWN_EVENT = "waits for an event of an unknown stream"

REPEATED, MISPLACED = "operations that are there twice", "operations far from everything else"

_NOTHING = msgspec.Raw(b"")
_FAR = 1 << 62


class _Args(msgspec.Struct, gc=False):
    device: Any = None
    context: Any = None
    stream: Any = None
    correlation: Any = None
    bytes: Any = None
    kind: Any = None
    graph_node: Any = msgspec.field(default=None, name="graph node id")
    sync: Any = msgspec.field(default=None, name="cuda_sync_kind")
    after_stream: Any = msgspec.field(default=None, name="wait_on_stream")
    after: Any = msgspec.field(default=None, name="wait_on_cuda_event_record_corr_id")


class _Event(msgspec.Struct, gc=False):
    ph: Any = None
    cat: Any = None
    name: Any = None
    pid: Any = None
    tid: Any = None
    id: Any = None
    ts: msgspec.Raw = _NOTHING
    dur: msgspec.Raw = _NOTHING
    args: _Args | list[Any] | str | int | float | bool | None = None


_NO_ARGS = _Args()


def knows(category: Any) -> bool:
    """Whether events of a category are those of PyTorch's profiler."""
    return isinstance(category, str) and category.lower() in _CATEGORIES


def read(path: Path | str, progress: Progress | None = None) -> Recording:
    """The recording of one file, that of one rank.

    Args:
        path: A trace of PyTorch's profiler, plain or gzipped.
        progress: Is called with the share of the file that was read.

    Raises:
        UserError: It is none, or holds more than is read.
    """
    # What is no event, or has no arguments, is decoded too: one such thing would make a block be read piece by piece.
    events = Events(path, _Event | list[Any] | str | int | float | bool | None, progress)
    rows = _Rows(path)
    for batch in events.batches():
        rows.add(batch)
    if not rows.known:
        raise UserError(
            f"{path} holds no event of PyTorch's profiler ({rows.counts['events']:,} others); give the trace that "
            "torch.profiler's export_chrome_trace or tensorboard_trace_handler wrote"
        )
    return _Assembly(rows, events).recording()


_WIDTHS = {"work": 9, "calls": 6, "spans": 5, "syncs": 5, "begins": 3, "ends": 3}
"""Columns of each table of rows."""


class _Rows:
    """What is kept of the events, a row each, in whole numbers.

    Attributes:
        work: Start, end, kind, place, correlation, name, bytes, copy kind, node of a graph, 0 for none.
        calls: Start, end, thread, correlation, name, whether it is the driver's.
        spans: Start, end, thread, name, kind.
        syncs: Start, place that waits, correlation, place that is waited for, correlation of the event's record; -1 for
            what is not said.
        begins, ends: Of arrows: number, thread, time; and number, lane, time.
        threads: Number of each (process, thread) of the file; of the calls and spans.
        places: Number of each (process, device, context, stream) of the device's side.
        lanes: Number of each (process, stream) in which an arrow ends.
        firsts: The processes of the file, devices among them, in the order in which they come.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._columns = {name: array("q") for name in _WIDTHS}
        self.threads: dict[tuple[Any, Any], int] = {}
        self.places: dict[tuple[Any, int, int, int], int] = {}
        self.lanes: dict[tuple[Any, int], int] = {}
        self.firsts: dict[Any, int] = {}
        self.names: dict[str, int] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.left_out: collections.Counter[str] = collections.Counter()
        self.known = False
        self._functions: dict[str, int] = {}
        self._open: dict[tuple[Any, Any], list[_Event]] = {}
        self._letters = 0

    def table(self, name: str) -> Integers:
        """Rows of a table; empties it."""
        values = np.frombuffer(self._columns.pop(name), np.int64) if len(self._columns[name]) else np.empty(0, np.int64)
        return values.reshape(-1, _WIDTHS[name])

    @property
    def unclosed(self) -> int:
        """Events that began and did not end."""
        return sum(map(len, self._open.values()))

    def add(self, batch: list[_Event]) -> None:
        """Keep what is of use of some events."""
        self.counts["events"] += len(batch)
        for event in batch:
            try:
                phase, category = event.ph, event.cat
                if phase == "X":
                    self._complete(event, event.ts, event.dur)
                elif phase in ("s", "f") and category in _FLOWS:
                    self._flow(event)
                elif phase == "B":
                    self._open.setdefault((event.pid, event.tid), []).append(event)
                elif phase == "E":
                    self._close(event)
                elif phase == "M":
                    self.counts["names and order of rows"] += 1
                else:
                    known = phase if isinstance(phase, str) and phase in _PHASES else "no phase"
                    self._leave(_LEFT_OUT.get(category, f"{_category(category)} ({known})"))
            except (TypeError, ValueError, OverflowError, AttributeError):  # a value that is none of its kind
                self.counts["events without sense"] += 1
        if sum(len(self._columns[name]) // width for name, width in _WIDTHS.items()) > MOST_EVENTS:
            raise UserError(f"{self._path} holds more than {MOST_EVENTS:,} events; record fewer steps")

    def _close(self, end: _Event) -> None:
        opened = self._open.get((end.pid, end.tid))
        if not opened:
            self.counts["ends without a begin"] += 1
            return
        begin = opened.pop()
        self._complete(begin, begin.ts, None, _nanoseconds(end.ts))

    def _complete(self, event: _Event, begin: msgspec.Raw, length: msgspec.Raw | None, end: int | None = None) -> None:
        category = event.cat
        what = _CATEGORIES.get(category) or self._otherwise(event)
        if what is None:
            return
        start = _nanoseconds(begin)
        if end is None:
            if length is _NOTHING:
                self.counts["without a length"] += 1
                end = start
            else:
                end = start + _nanoseconds(length or _NOTHING)
        if end < start:
            self.counts["end before they begin"] += 1
            end = start
        self.known = True
        table, kind = what
        args = event.args if isinstance(event.args, _Args) else _NO_ARGS
        if args is _NO_ARGS and event.args is not None:
            self.counts["arguments of a wrong kind"] += 1
        if table == "span":
            name = self._function(event.name) if kind == FUNCTION else self._name(event.name)
            if kind == OPERATOR and event.name.startswith("ProfilerStep"):
                kind = RANGE
            self._columns["spans"].extend((start, end, self._thread(event), name, kind))
        elif table == "call":
            correlation = _whole(args.correlation)
            self._columns["calls"].extend((start, end, self._thread(event), correlation, self._name(event.name), kind))
        elif table == "work":
            copy_kind = _copy_kind(event.name) if kind == MEMCPY else 0
            copy_kind += _PAGEABLE if kind == MEMCPY and "Pageable" in event.name else 0
            name = self._name(event.name) if kind == KERNEL else -1
            size = max(0, _whole(args.bytes))
            node = max(0, _whole(args.graph_node))
            place, correlation = self._place(event, args, args.stream), _whole(args.correlation)
            self._columns["work"].extend((start, end, kind, place, correlation, name, size, copy_kind, node))
        else:
            self._sync(event, args, start)

    def _otherwise(self, event: _Event) -> tuple[str, int] | None:
        """What an event of another category is; counts what is left out."""
        category = event.cat
        if category is None and event.pid == "CPU functions":  # the profiler without Kineto
            return "span", OPERATOR
        if isinstance(category, str) and (known := _CATEGORIES.get(category.lower())):
            return known
        self._leave(_LEFT_OUT.get(str(category).lower(), _category(category)))
        return None

    def _leave(self, what: str) -> None:
        self.left_out[what] += 1

    def _sync(self, event: _Event, args: _Args, start: int) -> None:
        """Keep that a stream or the host waits: for an event, for a stream, or for all streams of a device."""
        of_event = _whole(args.after_stream) if args.sync != "Stream Sync" else _whole(args.stream)
        of_stream = _whole(args.stream) if args.sync == "Stream Wait Event" else -1
        known = args.sync == "Context Sync" or of_event not in _NOWHERE
        if not known or (args.sync == "Stream Wait Event" and of_stream in _NOWHERE):
            self.counts[UNKNOWN_EVENT] += 1
            return
        after = -1 if args.sync == "Context Sync" else self._place(event, args, of_event)
        place = self._place(event, args, of_stream) if of_stream >= 0 else -1
        self._columns["syncs"].extend((start, place, _whole(args.correlation), after, _whole(args.after)))

    def _flow(self, event: _Event) -> None:
        self.counts["arrows from calls to work"] += 1
        number = _whole(event.id)
        if event.ph == "s":
            self._columns["begins"].extend((number, self._thread(event), _nanoseconds(event.ts)))
        else:
            lane = self.lanes.setdefault((event.pid, _whole(event.tid)), len(self.lanes))
            self._columns["ends"].extend((number, lane, _nanoseconds(event.ts)))

    # --- numbers of things --------------------------------------------------------------------------------------------

    def _thread(self, event: _Event) -> int:
        key = (event.pid, event.tid)
        number = self.threads.get(key)
        if number is None:
            number = self.threads[key] = len(self.threads)
            self.firsts.setdefault(event.pid, len(self.firsts))
        return number

    def _place(self, event: _Event, args: _Args, stream: Any) -> int:
        device = event.pid if args.device is None else args.device
        key = (event.pid, _whole(device), _whole(args.context), _whole(event.tid if stream is None else stream))
        number = self.places.get(key)
        said = (args.device, args.context, args.stream if stream is None else stream)
        if -1 in key[1:] and any(value is not None and _whole(value) == -1 and value not in _MINUS for value in said):
            self.counts["places of a wrong kind"] += 1
        if number is None:
            number = self.places[key] = len(self.places)
            self.firsts.setdefault(event.pid, len(self.firsts))
        return number

    def _name(self, name: Any) -> int:
        number = self.names.get(name)
        if number is None:
            text = str(name)[:LONGEST_NAME]
            self._letters += len(text)
            if self._letters > NAMES_BYTES:
                text = "(a name beyond those that are kept)"
            number = self.names.setdefault(text, len(self.names))
        return number

    def _function(self, name: Any) -> int:
        number = self._functions.get(name)
        if number is None:
            number = self._name(function_name(str(name)[:LONGEST_FUNCTION]))
            if self._letters <= NAMES_BYTES:
                self._functions[name] = number
        return number


def _category(category: Any) -> str:
    """A category of an event that is not read, if it is of a recorder: anything else may be a text of anybody."""
    if category is None or category == "":
        return "no category"
    return category if isinstance(category, str) and _NAMED.fullmatch(category.lower()) else OTHERS


def function_name(name: str) -> str:
    """A function of Python's call stack without the folder of its file and without addresses.

    >>> function_name("/home/bob/x.py(12): f"), function_name("<built-in method item of Tensor object at 0x7f00>")
    ('x.py(12): f', '<built-in method item of Tensor object>')
    """
    return _FOLDER.sub("", _FILE_OF_FUNCTION.sub("", _ADDRESS.sub("", name)))


def _nanoseconds(raw: msgspec.Raw) -> int:
    """A time in microseconds, as the file writes it, in ns; a text that holds one too."""
    text = bytes(raw).strip(b'"')
    whole, _, part = text.partition(b".")
    if len(part) <= 3 and whole.isdigit() and (part.isdigit() or not part):
        value = int(whole) * 1000 + int(part.ljust(3, b"0"))
    else:
        try:
            value = int((Decimal(text.decode()) * 1000).to_integral_value())
        except InvalidOperation:
            raise ValueError(f"{text!r} is no time") from None
    if not -_FAR < value < _FAR:
        raise OverflowError(f"{text!r} is no time")
    return value


def _whole(value: Any) -> int:
    """A whole number of the file, also one that is written as a text; -1 for anything else."""
    if type(value) is int:
        return value if -_FAR < value < _FAR else -1
    try:
        return int(value) if isinstance(value, str | float) and -_FAR < int(value) < _FAR else -1
    except (ValueError, OverflowError):
        return -1


_PAGEABLE = 256
"""Added to the kind of a copy from or to pageable memory."""


def _copy_kind(name: str) -> int:
    match = _COPY.search(name)
    if not match:
        return 0
    return _COPY_KINDS.get(match[1], 0) or _LONG_COPY_KINDS.get(match[2], 0)


class _Assembly:
    """A recording made of rows."""

    def __init__(self, rows: _Rows, events: Events) -> None:
        self._rows, self._events = rows, events
        self._problems: list[str] = []
        self._processes: list[Any] = []
        self._counts = collections.Counter(rows.counts)

    def recording(self) -> Recording:
        rows = self._rows
        tables = {name: rows.table(name) for name in _WIDTHS}
        self._leave_impossible(tables)
        threads, thread_of = self._threads(tables["calls"], tables["spans"])
        calls, links = self._calls(tables["calls"], thread_of, threads)
        table = tables["work"]
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        pid_of_place = self._numbers([pid for pid, *_ in rows.places])
        home = self._homes([pid for pid, *_ in rows.places])
        call = links.calls(table[:, 4], table[:, 0], pid_of_place[table[:, 3]], home[table[:, 3]])
        self._counts["launches chosen among several"] = links.guessed
        self._counts[f"operations that {AMBIGUOUS}"] = links.ambiguous
        self._by_arrows(table, call, calls, tables, thread_of)
        streams, stream_of, device_of = self._streams(table, call, calls, threads)
        spans = self._spans(tables["spans"], thread_of, threads)
        waits = self._waits(tables["syncs"], links, stream_of, pid_of_place)
        start, end, kind, place, _, name, size, copy_kind, node = table.T
        of_graph = node > 0
        if len(calls.start):
            launches_graph = np.array([call_kinds.launches_graph(text) for text in rows.names])
            of_graph |= (call >= 0) & launches_graph[calls.name[call]]
        pageable, copy_kind = copy_kind >= _PAGEABLE, copy_kind % _PAGEABLE
        work = Work(
            *(start, end, stream_of[place], kind, name, call, of_graph, size, copy_kind, device_of[place]), pageable
        )
        self._say_oddities(work, calls)
        zero = min((int(part.start.min()) for part in (calls, work, spans) if len(part.start)), default=0)
        source = self._source(work, calls, spans, waits)
        parts = (_since(calls, zero), _since(work, zero), _since(spans, zero), waits)
        return Recording(*parts, tuple(threads), streams, tuple(rows.names), self._device_names(), source)

    def _leave_impossible(self, tables: dict[str, Integers]) -> None:
        """Keep each operation once, and none that lies far from everything else."""
        work = tables["work"]
        again = repeated(work)
        work = work[~again]
        if again.any():
            # Nested operators of a coarse clock may look equal, so spans count only beside operations.
            spans = repeated(tables["spans"])
            tables["spans"] = tables["spans"][~spans]
            self._counts["spans that are there twice"] = int(spans.sum())
        host = np.concatenate([tables["calls"][:, 0], tables["spans"][:, 0]])
        far = misplaced(work[:, 0], work[:, 1], work[:, 3], host)
        tables["work"] = work[~far]
        self._counts[REPEATED], self._counts[MISPLACED] = int(again.sum()), int(far.sum())

    # --- the host -----------------------------------------------------------------------------------------------------

    def _threads(self, calls: Integers, spans: Integers) -> tuple[list[Thread], Integers]:
        """The threads, and the number among them of each thread of the file."""
        keys = list(self._rows.threads)
        used = np.bincount(np.concatenate([calls[:, 2], spans[:, 2]]), minlength=len(keys))
        weight: collections.Counter[Any] = collections.Counter()
        for (pid, _), count in zip(keys, used.tolist(), strict=True):
            weight[pid] += count
        # The profiler's own parts, and functions that ran when it began, stand under processes that are none.
        most = next((pid for pid, _ in weight.most_common() if pid not in (0, -1)), None)
        process_of = [most if pid in (0, -1) and most is not None else pid for pid, _ in keys]
        processes = list(dict.fromkeys(pid for pid, count in zip(process_of, used.tolist(), strict=True) if count))
        self._processes = processes
        threads: list[Thread] = []
        number_of = np.full(len(keys), -1, np.int64)
        for process, pid in enumerate(processes):
            own = [i for i, one in enumerate(process_of) if one == pid and used[i]]
            for place, i in enumerate(own):
                number_of[i] = len(threads)
                label = f"thread {place}"
                threads.append(Thread(process, f"process {process}, {label}" if len(processes) > 1 else label))
        return threads, number_of

    def _calls(self, table: Integers, thread_of: Integers, threads: list[Thread]) -> tuple[Calls, Links]:
        start, end, thread, correlation, name, _ = table.T
        thread = thread_of[thread]
        chosen, within = outermost(start, end, thread)
        self._counts["calls within calls"] = len(start) - len(chosen)
        calls = Calls(start[chosen], end[chosen], thread[chosen], name[chosen], np.zeros(len(chosen), bool))
        process = np.array([thread.process for thread in threads], np.int64)
        return calls, Links(correlation, within, calls.start, process[calls.thread])

    def _by_arrows(
        self, table: Integers, call: Integers, calls: Calls, tables: dict[str, Integers], thread_of: Integers
    ) -> None:
        """Give work without a call the one that the file draws an arrow from."""
        missing = np.flatnonzero(call < 0)
        if not len(missing) or not len(tables["begins"]) or not len(tables["ends"]):
            return
        lane_of = [self._rows.lanes.get((pid, stream), -1) for pid, _, _, stream in self._rows.places]
        arrows = {(lane, when): number for number, lane, when in tables["ends"].tolist()}
        begins = {number: (thread, when) for number, thread, when in tables["begins"].tolist()}
        found = [begins.get(arrows.get((lane_of[row[3]], row[0]), -1), (-1, 0)) for row in table[missing].tolist()]
        thread, when = np.array(found, np.int64).T
        numbers = np.where(thread >= 0, thread_of[thread], -1)
        call[missing] = containing(calls.start, calls.end, calls.thread, numbers, when)
        self._counts["linked by arrows"] = int((call[missing] >= 0).sum())

    def _spans(self, table: Integers, thread_of: Integers, threads: list[Thread]) -> Spans:
        """The spans; what crosses others of its thread gets a thread of its own, beside it."""
        start, end, thread, name, kind = table.T
        thread = thread_of[thread]
        ends, lane = nested(start, end, thread, kind == FUNCTION, ROUNDING)
        self._counts["spans that end with the one round them"] = int((ends < end).sum())
        if many := int((lane > 0).sum()):
            self._counts["spans across others"] = many
            further, place = np.unique(np.column_stack([thread, lane])[lane > 0], axis=0, return_inverse=True)
            thread[lane > 0] = len(threads) + place.reshape(-1)
            for beside, number in further.tolist():
                of = threads[beside]
                threads.append(Thread(of.process, f"{of.label}, ranges across others {number}"))
        order = np.lexsort((-ends, start))
        return Spans(start[order], ends[order], thread[order], name[order], kind[order])

    # --- the device ---------------------------------------------------------------------------------------------------

    def _homes(self, pids: list[Any]) -> Integers:
        """The process of the host that each of the device's belongs to, -1 where the file does not say.

        In a file of several ranks, one behind the other, each process of the host comes before its devices.
        """
        hosts = [pid for pid in self._rows.firsts if pid in self._processes]
        home, owner = {}, -1
        for pid in self._rows.firsts:
            if pid in hosts:
                owner = self._processes.index(pid)
            else:
                home[pid] = owner
        apart = len(hosts) > 1 and set(home.values()) >= set(range(len(hosts)))
        return np.array([home.get(pid, -1) if apart else -1 for pid in pids], np.int64)

    def _streams(
        self, table: Integers, call: Integers, calls: Calls, threads: list[Thread]
    ) -> tuple[tuple[Stream, ...], Integers, Integers]:
        """The streams; of each place of the file its stream, and its device's number."""
        places = list(self._rows.places)
        process = np.array([thread.process for thread in threads], np.int64)
        launched = call >= 0
        of_place = np.full(len(places), process[0] if len(threads) and not process.any() else -1, np.int64)
        if process.any() and launched.any():
            pids = self._numbers([pid for pid, *_ in places])
            of = process[calls.thread[call[launched]]]
            for pid in np.unique(pids):
                own = pids[table[launched, 3]] == pid
                if own.any():
                    of_place[pids == pid] = np.bincount(of[own]).argmax()
        devices = self._devices(places)
        keys = [
            (int(of_place[i]), device, context, number)
            for i, ((_, _, context, number), device) in enumerate(zip(places, devices, strict=True))
        ]
        numbers = {key: i for i, key in enumerate(sorted(set(keys)))}
        return (
            tuple(Stream(*key) for key in numbers),
            np.array([numbers[key] for key in keys], np.int64),
            np.array(devices, np.int64),
        )

    def _devices(self, places: list[tuple[Any, int, int, int]]) -> list[int]:
        """Each place's device: one number stands for several where ranks were merged into one file."""
        numbers: dict[tuple[Any, int], int] = {}
        taken = {device for _, device, _, _ in places}
        for pid, device, _, _ in places:
            if (pid, device) not in numbers:
                known = device in numbers.values()
                numbers[pid, device] = max(taken | set(numbers.values())) + 1 if known else device
        if renamed := [number for (_, device), number in numbers.items() if number != device]:
            listed = ", ".join(map(str, renamed))
            self._problems.append(
                f"One number stands for several devices, as in a file of several ranks: the others are called {listed}."
            )
        return [numbers[pid, device] for pid, device, _, _ in places]

    def _waits(self, table: Integers, links: Links, stream_of: Integers, pid_of_place: Integers) -> Waits:
        table = table[np.argsort(table[:, 0], kind="stable")]
        start, place, correlation, after, record = table.T
        where = pid_of_place[np.maximum(place, after)] if len(pid_of_place) else place
        call = links.calls(correlation, start, where)
        recorded = links.calls(record, start, where)
        known = np.append(stream_of, -1)
        return Waits(known[place], call, known[after], recorded)

    @staticmethod
    def _numbers(values: list[Any]) -> Integers:
        """A number for each different value."""
        known: dict[Any, int] = {}
        return np.array([known.setdefault(value, len(known)) for value in values], np.int64)

    # --- about the file -----------------------------------------------------------------------------------------------

    def _say_oddities(self, work: Work, calls: Calls) -> None:
        counts, events, rows = self._counts, self._events, self._rows
        say = self._problems.append
        if events.damaged:
            say(
                f"The packed file is damaged: it cannot be unpacked beyond {events.bytes:,} bytes of text, and what "
                f"comes before is read as far as it is whole; it ends {CUT}. Copy it again."
            )
        elif events.cut:
            say(
                f"The file ends {CUT}, after {events.bytes:,} bytes of text: what came before was "
                "read. Copy it again, or export it again."
            )
        late = work.call >= 0
        late[late] = calls.start[work.call[late]] > work.start[late]
        by = int((calls.start[work.call[late]] - work.start[late]).max()) if late.any() else 0
        orphans, total = int((work.call < 0).sum()), len(work.start)
        counts["begins without an end"] = rows.unclosed
        sentences = (
            (
                counts[REPEATED],
                "Operations that are there twice, equal in stream, times and correlation: {:,}, counted once.",
            ),
            (counts[MISPLACED], "Operations that begin far before or end far after everything else: {:,}, left out."),
            (events.unreadable, "Events that are no JSON: {:,}, left out."),
            (events.mended, "Blocks or events that are no JSON as they stand: {:,}, mended and read."),
            (
                counts["events without sense"],
                "Events with values of a wrong kind, as a text for a time: {:,}, left out.",
            ),
            (
                counts["places of a wrong kind"],
                "Operations whose device, context or stream is no number: {:,}, given to number -1.",
            ),
            (
                counts["arguments of a wrong kind"],
                "Events whose arguments are no object: {:,}, read without stream, correlation and size.",
            ),
            (counts["without a length"], "Events without a duration: {:,}, counted with none."),
            (counts["end before they begin"], "Events that end before they begin: {:,}, counted without a duration."),
            (rows.unclosed, "Events that begin and do not end: {:,}, left out."),
            (counts["ends without a begin"], "Events that end and did not begin: {:,}, left out."),
            (counts[UNKNOWN_EVENT], "Waits for an event of a stream that the file does not name: {:,}, left out."),
            (orphans, f"Operations of devices without the call that launched them: {{:,}} of {total:,}."),
            (
                counts[f"operations that {AMBIGUOUS}"],
                f"Operations that {AMBIGUOUS}, whose correlations are the same: {{:,}} of {total:,}, shared out by "
                "their times. Whose they are is not certain: record each process into a separate file.",
            ),
            (
                counts["launches chosen among several"],
                "Operations that could be of several calls: {:,}, given to the last.",
            ),
            (
                int(late.sum()),
                f"Operations that begin before the call that launched them: {{:,}} of {total:,}, by up to "
                f"{by / 1e3:,.3f} us: the clocks of host and device do not fit.",
            ),
        )
        self._problems += [sentence.format(many) for many, sentence in sentences if many]
        if EVENTS_KEY in events.beside:
            say("The file holds further lists of events, which were not read.")

    def _source(self, work: Work, calls: Calls, spans: Spans, waits: Waits) -> Source:
        counts = {
            "events": self._counts.pop("events"),
            **{f"{what}": int((work.kind == kind).sum()) for what, kind in KINDS_OF_WORK.items()},
            "calls": len(calls.start),
            **{what: int((spans.kind == kind).sum()) for what, kind in KINDS_OF_SPANS.items()},
            "waits": len(waits.stream),
            **dict(sorted(self._counts.items())),
            "unreadable": self._events.unreadable,
            **{f"left out: {what}": many for what, many in sorted(self._rows.left_out.items())},
        }
        missing = {
            "It holds no work of a device: it says what the host did only.": not len(work.start),
            "It holds no CUDA calls: it says when work ran, and not when it was launched.": len(work.start) > 0
            and not len(calls.start),
            "It holds no event dependencies between streams.": not len(waits.stream),
            "It holds no operators of PyTorch.": not (spans.kind == OPERATOR).any(),
            "It holds no Python call stack (with_stack=True).": not (spans.kind == FUNCTION).any(),
            f"It holds events of kinds that are not read: {', '.join(self._unread())}.": bool(self._unread()),
            "It does not say whether a call failed, or how many records the profiler lost.": True,
            "It holds one process and its work: what others ran on the device is not in it.": True,
        }
        lacks = [sentence for sentence, holds in missing.items() if holds]
        counts = {name: many for name, many in counts.items() if many}
        return Source("pytorch-profiler", self._tool(), tuple(lacks), None, tuple(self._problems), counts)

    def _unread(self) -> list[str]:
        """Categories that no part of this reader knows, such as the work of another accelerator."""
        known = {*_LEFT_OUT.values(), OTHERS}
        return [
            f"{what} ({many:,})"
            for what, many in sorted(self._rows.left_out.items())
            if what not in known and re.fullmatch(r"\w{1,40}", what)
        ]

    def _tool(self) -> str:
        """The recorder as far as the file names it, and the rank."""
        beside = self._events.beside
        versions = [
            f"{name} {version}"
            for key, name in (("cupti_version", "CUPTI"), ("roctracer_version", "roctracer"))
            if (version := _version(beside.get(key)))
        ]
        for key, name in (("cuda_runtime_version", "CUDA"), ("hip_runtime_version", "HIP")):
            if version := _version(beside.get(key)):
                number = int(version)
                # CUDA writes 12080 for 12.8, HIP 60443484 for 6.4.
                major, minor = (
                    (number // 1000, number % 1000 // 10) if name == "CUDA" else divmod(number // 100_000, 100)
                )
                versions.append(f"{name} {major}.{minor}")
        text = "PyTorch profiler" + (f" ({', '.join(versions)})" if versions else "")
        info = beside.get("distributedInfo")
        if isinstance(info, dict) and (rank := _whole(info.get("rank"))) >= 0:
            size = _whole(info.get("world_size"))
            text += f", rank {rank}" + (f" of {size}" if size > 0 else "")
        return text

    def _device_names(self) -> dict[int, str]:
        described = self._events.beside.get("deviceProperties")
        names = {}
        for one in described if isinstance(described, list) else []:
            if (
                isinstance(one, dict)
                and _whole(one.get("id")) >= 0
                and isinstance(one.get("name"), str)
                and one["name"]
            ):
                names[_whole(one["id"])] = one["name"][:LONGEST_NAME]
        return names


def _version(value: Any) -> str:
    """A version that is a number or a text of one; nothing else of the file gets into a text."""
    number = _whole(value)
    return str(number) if number > 0 else ""


def _since(part: Any, zero: int) -> Any:
    """Times from a zero."""
    return dataclasses.replace(part, start=part.start - zero, end=part.end - zero)
