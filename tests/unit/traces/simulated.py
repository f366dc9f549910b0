"""Programs of several threads and streams, run by a simulator: what they record, and how long they take if changed.

The simulator knows the program; it shares nothing with the replay, which sees the recording alone.
"""

from __future__ import annotations

import dataclasses
import random

import numpy as np

from ceilings.traces.capture import DEVICE_TO_HOST, HOST_TO_DEVICE, KERNEL, MEMCPY, Calls
from ceilings.traces.recording import Recording, Source, Spans, Stream, Thread, Waits, Work

GEMM, REDUCE = "sm90_gemm_f16", "ncclDevKernel_AllReduce_Sum_f16_RING_LL"
NAMES = (
    *("cudaLaunchKernel", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventRecord"),
    *("cudaStreamWaitEvent", "cudaGraphLaunch", GEMM, REDUCE, "aten::mm", "iteration"),
)
NUMBER = {name: number for number, name in enumerate(NAMES)}


@dataclasses.dataclass(frozen=True)
class Action:
    """What a thread does: it thinks for ``before`` ns, then is in a call for at least ``inside`` ns.

    Attributes:
        call: Its name.
        stream: What it is for.
        work: Length, name (None: a copy) and latency of each operation that it launches.
        event: Number of the event that it records or that its stream waits for.
    """

    thread: int
    before: int
    call: str
    inside: int
    stream: int = 0
    work: tuple[tuple[int, str | None, int], ...] = ()
    event: int = -1
    copy: int = 0


@dataclasses.dataclass(frozen=True)
class Change:
    """Factors of the host's time and of the lengths of kernels, communication and copies."""

    host: float = 1.0
    kernels: float = 1.0
    communication: float = 1.0
    copies: float = 1.0


@dataclasses.dataclass
class Run:
    """What happened: rows of calls and work, event dependencies, and when it was over."""

    calls: list[tuple[int, int, int, int]]
    work: list[tuple[int, int, int, str | None, int, int]]
    waits: list[tuple[int, int, int, int]]
    length: int


def run(program: list[Action], change: Change = Change(), gap: int = 900, notice: int = 3_000) -> Run:
    """Run a program: threads take turns in the order of its actions; streams run beside one another."""
    now = 0.0
    free: dict[int, float] = {}  # when each stream is done
    last: dict[int, float] = {}  # and the work that it waits for by events
    events: dict[int, tuple[float, int, int]] = {}
    calls, work, waits = [], [], []
    for action in program:
        now += change.host * action.before
        gone = change.copies == 0 and bool(action.work) and all(name is None for _, name, _ in action.work)
        begin, inside = now, 0 if gone else change.host * action.inside  # what is not copied needs no call
        number = len(calls)
        if action.call == "cudaEventRecord":
            events[action.event] = (free.get(action.stream, 0.0), action.stream, number)
        elif action.call == "cudaStreamWaitEvent":
            done, stream, call = events[action.event]
            last[action.stream] = max(last.get(action.stream, 0.0), done)
            waits.append((action.stream, number, stream, call))
        end = begin + inside
        for node, (length, name, latency) in enumerate(action.work):
            factor = change.copies if name is None else change.communication if name == REDUCE else change.kernels
            delivered = begin if name is None else end
            ready = max(free.get(action.stream, -gap), last.get(action.stream, -gap)) + gap
            start = max(ready, delivered + latency) if not node else ready
            free[action.stream] = start + factor * length
            work.append((start, free[action.stream], action.stream, name, number, action.copy))
        if action.call == "cudaStreamSynchronize":
            end = max(end, free.get(action.stream, 0.0) + notice)
            waits.append((-1, number, action.stream, -1))
        elif action.call == "cudaDeviceSynchronize":
            end = max(end, max(free.values(), default=0.0) + notice)
        calls.append((begin, end, action.thread, NUMBER[action.call]))
        now = end
    rounded = [(round(a), round(b), *rest) for a, b, *rest in calls]
    return Run(rounded, [(round(a), round(b), *rest) for a, b, *rest in work], waits, round(now + change.host * 5_000))


def program(seed: int) -> list[Action]:
    """A program: two threads that take turns, one to three streams joined by events, copies, communication, waits."""
    draw = random.Random(seed)
    think, length = draw.choice([500, 3_000, 12_000]), draw.choice([2_000, 10_000, 60_000])
    streams, threads = draw.randint(1, 3), draw.randint(1, 2)
    actions, event = list[Action](), 0

    def launch(thread: int, stream: int, name: str | None, many: int = 1, copy: int = 0) -> None:
        work = tuple((round(length * draw.uniform(0.3, 2)), name, draw.randint(2_500, 5_000)) for _ in range(many))
        call = "cudaMemcpyAsync" if name is None else "cudaLaunchKernel" if many == 1 else "cudaGraphLaunch"
        before = round(draw.expovariate(1 / think)) + 200
        actions.append(Action(thread, before, call, draw.randint(2_000, 6_000), stream, work, copy=copy))

    for _ in range(draw.randint(3, 6)):
        thread, main = draw.randrange(threads), draw.randrange(streams)
        launch(thread, main, None, copy=HOST_TO_DEVICE)
        for _ in range(draw.randint(3, 12)):
            launch(thread, main, GEMM, draw.choice([1, 1, 1, 1, 6]))
        other = draw.randrange(streams)
        if other != main:
            actions.append(Action(thread, 300, "cudaEventRecord", 800, main, event=event))
            actions.append(Action(thread, 300, "cudaStreamWaitEvent", 800, other, event=event))
            event += 1
            launch(thread, other, REDUCE)
            if draw.random() < 0.7:
                for _ in range(draw.randint(1, 5)):  # beside the communication
                    launch(thread, main, GEMM)
                actions.append(Action(thread, 300, "cudaEventRecord", 800, other, event=event))
                actions.append(Action(thread, 300, "cudaStreamWaitEvent", 800, main, event=event))
                event += 1
                launch(thread, main, GEMM)
        if draw.random() < 0.25:
            actions.append(Action(0, 500, "cudaStreamSynchronize", 1_500, main))
    launch(0, 0, None, copy=DEVICE_TO_HOST)
    actions.append(Action(0, 1_000, "cudaDeviceSynchronize", 2_000))
    return actions


def as_graphs(actions: list[Action], launch: int) -> list[Action]:
    """The same work, what is between two waits submitted by one call at its first launch; one launch stays as it is."""
    made, stretch = list[Action](), list[Action]()
    for action in actions:
        stretch.append(action)
        if not action.call.endswith("Synchronize"):
            continue
        works = [k for k, one in enumerate(stretch) if one.work]
        if len(works) > 1:
            for k in range(works[0], len(stretch)):
                first = k == works[0]
                before = stretch[k].before + launch if first else 0
                stretch[k] = dataclasses.replace(stretch[k], before=before, inside=0)
        made += stretch
        stretch = []
    return [*made, *stretch]


def recording(ran: Run, known: bool = True, threads: int = 2) -> Recording:
    """What a profiler would have recorded; without what waits for what, unless ``known``."""
    starts = np.argsort([row[0] for row in ran.work], kind="stable")
    rows = [ran.work[k] for k in starts]
    calls = np.array(ran.calls, np.int64).reshape(-1, 4).T
    none = np.zeros(0, np.int64)
    waits = np.array(ran.waits if known else [], np.int64).reshape(-1, 4).T
    kind = np.array([MEMCPY if row[3] is None else KERNEL for row in rows], np.int64)
    return Recording(
        calls=Calls(calls[0], calls[1], calls[2], calls[3], np.zeros(len(calls[0]), bool)),
        work=Work(
            start=np.array([row[0] for row in rows], np.int64),
            end=np.array([row[1] for row in rows], np.int64),
            stream=np.array([row[2] for row in rows], np.int64),
            kind=kind,
            name=np.array([-1 if row[3] is None else NUMBER[row[3]] for row in rows], np.int64),
            call=np.array([row[4] for row in rows], np.int64),
            node=np.zeros(len(rows), bool),
            bytes=np.where(kind == MEMCPY, 4096, 0),
            copy_kind=np.array([row[5] for row in rows], np.int64),
            device=np.zeros(len(rows), np.int64),
        ),
        spans=Spans(none, none, none, none, none),
        waits=Waits(*waits),
        threads=tuple(Thread(0, f"thread {number + 1}") for number in range(threads)),
        streams=tuple(Stream(0, 0, 0, number + 7) for number in range(3)),
        names=NAMES,
        device_names={0: "NVIDIA H100 80GB HBM3"},
        source=Source("pytorch-profiler", None, (), None, (), {}),
    )
