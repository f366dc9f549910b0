"""One fresh process that leads a co-location: ``python -m ceilings.measure.colocation_worker TASK.json RECORD.json``.

Started by :mod:`ceilings.measure.supervisor`. The task holds ``device``, ``gpu`` (its UUID; None of a CPU), ``how``,
``cards`` (of separate cards their UUIDs, by instance; else None), ``instances`` (each the task of a cell with
``processors``), ``company`` (who computes together), ``physical_cores`` of
the machine, ``protocol`` and ``spec`` (what the supervisor reads). What is done, in this order:

1. Each instance is loaded, as a thread of this process or as a process below it: one after the other on one device, at
   once on separate cards.
2. All instances answer at once, and their answers are held against the FP32 reference.
3. Each alone and all at once answer until the median of each lies on a plateau.
4. Reference, company, reference, company, ..., reference: in a reference each instance is at work alone, one after the
   other. So company has references on both sides, in the same processes: what drifts falls on both.

A window is the span between two times of one clock. Each instance begins before it opens and ends after it closes, so
all of them are at work in all of it, and none waits for another.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ceilings import environment
from ceilings.control_groups import cpu_quota
from ceilings.errors import CellFailure, UserError
from ceilings.lifetime import temporary_folder
from ceilings.measure.bystanders import Bystanders
from ceilings.measure.colocation import LOOKING_BACK_SECONDS, MPS, SETTLING_SECONDS, THREADS, schedule
from ceilings.measure.instance import Host, ProcessHost, Span, ThreadHost, Window, failure_of
from ceilings.measure.loop import undisturbed
from ceilings.measure.stopping import NS, STABLE_FRACTION
from ceilings.program import answer_task
from ceilings.statistics.levels import change

FEWEST = 10
"""Requests of the slowest instance that a window has room for, at the pace that it had while warming up. An instance
that answers fewer is flagged: its pace rests on few requests."""

SHORTEST_CHECK_NS = 200_000_000

SHORTEST_SECONDS = 0.1
"""Of a window: schedulers give turns of milliseconds, and every instance should have many."""

MOST_DOUBLINGS = 4
"""A window in which an instance answered nothing is repeated with twice its length so many times at most."""

LATE = 0.1
"""From this share of a window on, an instance that began late is flagged."""

_CPU_CLOCK = 2
"""CPUCLOCK_SCHED: with the number of a process it names the clock of its CPU time."""


class _Led:
    """The instances, and what is watched while they are at work."""

    def __init__(self, task: Mapping[str, Any], hosts: Sequence[Host], watch: Any) -> None:
        self._hosts, self._watch = hosts, watch
        self._cells = [_name(one) for one in task["instances"]]
        self._settled = SETTLING_SECONDS["cuda" if task["gpu"] else "cpu"]
        self._settling = max(self._settled, LOOKING_BACK_SECONDS) if watch else self._settled
        self.flags: list[str] = []

    def all(self, command: str, *arguments: Any, of: Sequence[int] | None = None) -> list[Any]:
        """Have instances do a command at once; what each returns.

        Raises:
            CellFailure: One of them failed, named.
        """
        chosen = range(len(self._hosts)) if of is None else of
        waiting = [(at, self._hosts[at].call(command, *arguments)) for at in chosen]
        return [self._named(at, future) for at, future in waiting]

    def one(self, at: int, command: str) -> Any:
        """Have one instance do a command."""
        return self._named(at, self._hosts[at].call(command))

    def refuse_other_clocks(self) -> None:
        """Hold the clock of each instance against the one here, of which windows are spans.

        Raises:
            CellFailure: The clock of one differs, as in another time namespace: its windows are not those of others.
        """
        for at in range(len(self._hosts)):
            asked = time.perf_counter_ns()
            theirs = self.one(at, "clock_ns")
            if not asked <= theirs <= time.perf_counter_ns():
                raise CellFailure(
                    "runtime-error",
                    f"{self._cells[at]}, instance {at + 1}: its clock has another time than that of the process that "
                    "leads, so that no window is the same for both; run both in one time namespace",
                )

    def _named(self, at: int, future: Any) -> Any:
        try:
            return future.result()
        except UserError:
            raise
        except Exception as error:
            kind, message = failure_of(error)
            if kind == "user":
                raise UserError(message) from error
            raise CellFailure(kind, f"{self._cells[at]}, instance {at + 1}: {message}") from error

    def window(self, of: Sequence[int], seconds: float) -> dict[str, Any]:
        """Some instances at work, all of them in all of a window, in which each begins a request.

        Returns:
            ``instances``, ``opened_ns``, ``closed_ns``, ``cores_busy`` (CPU time of the processes over the window's),
            ``gpu`` (what was watched there; None of a CPU), and ``answers``, by instance ``latency_ns`` of the requests
            that began in the window, and ``completions``, requests by the share of their time in it.

        Raises:
            CellFailure: An instance failed, or answered no request in windows that were long.
        """
        for doubling in range(MOST_DOUBLINGS + 1):
            window = self._window(of, seconds * 2**doubling)
            counts = {at: len(window["answers"][str(at)]["latency_ns"]) for at in of}
            silent = [at for at, count in counts.items() if not count]
            if not silent:
                self._flag_few(counts)
                return window
            name = f"{self._cells[silent[0]]}, instance {silent[0] + 1},"
            self.flags.append(f"{name} began no request within {seconds * 2**doubling:.2g} s; a longer window followed")
        raise CellFailure("timed-out", f"{name} answered no request within {seconds * 2**MOST_DOUBLINGS:.3g} s")

    def _flag_few(self, counts: Mapping[int, int]) -> None:
        """Flag instances whose pace rests on fewer requests than a window has room for."""
        for at, count in counts.items():
            if count < FEWEST:
                name = f"{self._cells[at]}, instance {at + 1},"
                self.flags.append(f"{name} began fewer than {FEWEST} requests in a window ({count})")

    def _window(self, of: Sequence[int], seconds: float) -> dict[str, Any]:
        begins = time.perf_counter_ns() + 2_000_000
        opens = begins + int(self._settling * NS)
        closes = opens + int(seconds * NS)
        waiting = [(at, self._hosts[at].call("answer", Window(begins, closes))) for at in of]
        pids = sorted({self._hosts[at].pid for at in of})
        _sleep_until(opens)
        spent, looked = _cpu_ns(pids), time.perf_counter_ns()
        if self._watch:
            self._watch.begin()
        _sleep_until(closes)
        seen = self._watch.end() if self._watch else None
        if not _looks_back(seen):
            self._settling = self._settled
        spent, looked = _cpu_ns(pids) - spent, time.perf_counter_ns() - looked
        spans = {at: self._named(at, future) for at, future in waiting}
        opened = max(opens, *(each[0][0] for each in spans.values()))
        if opened - opens > LATE * (closes - opens):
            self.flags.append(f"a window opened {(opened - opens) / NS:.2g} s late, when the last instance had begun")
        answers = {at: within(each, opened, closes) for at, each in spans.items()}
        return {
            "instances": list(of),
            "opened_ns": opened,
            "closed_ns": closes,
            "cores_busy": max(0, spent) / looked,
            "gpu": seen,
            "answers": {str(at): one for at, one in answers.items()},
        }

    def warm(self, protocol: Mapping[str, Any], of: Sequence[int]) -> float:
        """Instances at work until the median of each differs little from window to window.

        Returns:
            Seconds of a request of the slowest, in the mean of the last window.
        """
        seconds = max(protocol["warmup_seconds"], 0.05)
        deadline = time.perf_counter_ns() + protocol["warmup_max_seconds"] * NS
        before: list[float] = []
        while True:
            begins = time.perf_counter_ns() + 2_000_000
            spans = self.all("answer", Window(begins, begins + int(seconds * NS)), of=of)
            took = [[end - begin for begin, end in each] for each in spans]
            medians = [float(np.median(each)) for each in took]
            slowest = max(map(np.mean, took)) / NS
            pairs = zip(before, medians, strict=True) if before else ()
            if before and all(abs(a - b) <= STABLE_FRACTION * min(a, b) for a, b in pairs):
                return float(slowest)
            if time.perf_counter_ns() > deadline:
                self.flags.append(f"warm-up ended before two windows agreed within {STABLE_FRACTION:.0%}")
                return float(slowest)
            before = medians


def within(spans: Sequence[Span], opened: int, closed: int) -> dict[str, Any]:
    """Of requests one after another those in a window.

    A latency counts where its request began in the window, however late it ended: of those that lie wholly in it, long
    ones would be missing, since they cross its ends most often. What the last one takes after the end has others beside
    it that may have stopped.

    >>> within([(0, 4), (4, 8), (8, 12)], 2, 10)
    {'latency_ns': [4, 4], 'completions': 2.0}
    """
    return {
        "latency_ns": [end - begin for begin, end in spans if opened <= begin < closed],
        "completions": sum(max(0, min(end, closed) - max(begin, opened)) / (end - begin) for begin, end in spans),
    }


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """The record's fields that come from measuring: status, failure, instances, windows, flags and so on."""
    record: dict[str, Any] = {"status": "failed", "failure": None, "flags": []}
    try:
        with contextlib.ExitStack() as stack:
            record |= {"status": "ok", **_measured(task, stack)}
    except CellFailure as failure:
        record |= {"failure": {"kind": failure.kind, "message": str(failure)}}
    except MemoryError as error:
        record |= {"failure": {"kind": "out-of-memory", "message": str(error) or "MemoryError"}}
    return record


def _measured(task: Mapping[str, Any], stack: contextlib.ExitStack) -> dict[str, Any]:
    watch, mps = None, None
    variables: list[dict[str, str]] = [{} for _ in task["instances"]]
    if task["how"] == MPS:
        mps = stack.enter_context(_mps(task["gpu"]))
        variables = [mps.variables for _ in task["instances"]]
    if cards := task.get("cards"):
        variables = [{"CUDA_VISIBLE_DEVICES": uuid} for uuid in cards]
    hosts = [_host(one, task["how"], given) for one, given in zip(task["instances"], variables, strict=True)]
    for host in hosts:
        stack.callback(host.close)
    if cards:
        module = importlib.import_module("ceilings.measure.cards_watch")
        watch = stack.enter_context(
            module.CardsWatch({uuid: host.pid for uuid, host in zip(cards, hosts, strict=True)})
        )
    elif task["gpu"]:
        pids = {os.getpid(), *(host.pid for host in hosts)}
        watch = stack.enter_context(
            importlib.import_module("ceilings.measure.gpu_watch").GpuWatch(task["gpu"], pids, served=mps is not None)
        )
    led = _Led(task, hosts, watch)
    everyone = list(task["company"][-1])
    # On one device nothing is loaded while something is captured or compiled, and each library sees one thread that
    # starts it. Processes of separate cards share neither.
    loaded = led.all("load") if cards else [led.one(at, "load") for at in range(len(hosts))]
    led.refuse_other_clocks()
    if mps is not None:
        mps.refuse_without(len(hosts))
    checked = _check(led, loaded, everyone)
    with undisturbed(), Bystanders(lambda: [host.pid for host in hosts if host.pid != os.getpid()]) as neighbours:
        alone = [led.warm(task["protocol"], [at]) for at in range(len(hosts))]
        together = led.warm(task["protocol"], everyone)
        least = max(SHORTEST_SECONDS, task["protocol"]["min_seconds"] / 2)
        lengths = [max(least, FEWEST * each) for each in (*alone, together)]
        windows = list(_windows(led, task["company"], lengths))
    facts = [led.one(at, "facts") for at in range(len(hosts))]
    return {
        "instances": [
            {
                "cell": {name: one["cell"][name] for name in ("runtime", "model", "precision", "shape")},
                "threads": one["spec"]["threads"],
                "processors": list(one["processors"]),
                "member": one["member"],
                "batch": one["batch"],
                **check,
                "memory": fact["memory"],
            }
            for one, check, fact in zip(task["instances"], checked, facts, strict=True)
        ],
        "windows": windows,
        "physical_cores": task["physical_cores"],
        "neighbours": neighbours.to_json(),
        "gpu": watch.facts() if watch else None,
        "provenance": _origin(task, facts),
        "flags": list(
            dict.fromkeys(
                (
                    *neighbours.flags(),
                    *(watch.flags() if watch else ()),
                    *led.flags,
                    *_unsteady(windows),
                    *(flag for one in (*loaded, *facts) for flag in one["flags"]),
                    *_threads_flags(task),
                    *environment.flags(_variables(), task["spec"]["variables"]),
                )
            )
        ),
    }


def _name(instance: Mapping[str, Any]) -> str:
    """An instance's cell as a study names it."""
    return "/".join(instance["cell"][part] for part in ("runtime", "model", "precision", "shape"))


def _host(task: Mapping[str, Any], how: str, variables: Mapping[str, str]) -> Host:
    return ThreadHost(task) if how == THREADS else ProcessHost(task, variables)


@contextlib.contextmanager
def _mps(uuid: str) -> Iterator[Any]:
    with temporary_folder() as folder, importlib.import_module("ceilings.cuda.mps").Mps(uuid, folder) as mps:
        yield mps


def _check(led: _Led, loaded: Sequence[Mapping[str, Any]], everyone: Sequence[int]) -> list[dict[str, Any]]:
    """Hold the answers of all instances against the reference: of members while all of them compute.

    It goes on for twice as long as the slowest takes for its answers if each waits for all others, so that none is
    checked while the others have ended.
    """
    longest = max(one["pass_ns"] for one in loaded)
    begins = time.perf_counter_ns() + 2_000_000
    closes = begins + max(SHORTEST_CHECK_NS, 2 * len(everyone) * longest)
    together = dict(zip(everyone, led.all("check", Window(begins, closes), of=everyone), strict=True))
    apart = {at: led.all("check", Window(0, 0), of=[at])[0] for at in range(len(loaded)) if at not in together}
    return [(together | apart)[at] for at in range(len(loaded))]


def _windows(led: _Led, company: Sequence[Sequence[int]], lengths: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Every window, in its order.

    Args:
        lengths: Seconds of a reference of each instance, then of company.
    """
    *alone, together = lengths
    for number, reference, of in schedule(company, len(alone)):
        seconds = alone[of[0]] if reference else together
        yield {"round": number, "reference": reference, **led.window(of, seconds)}


def _origin(task: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The provenance of all instances, as one; the variables are those of this process, which each of them has."""
    whole: dict[str, Any] = {**facts[0]["provenance"], "variables": _variables()}
    for part in ("packages", "modules"):
        whole[part] = dict(item for one in facts for item in one["provenance"][part].items())
    whole["sources"] = {
        f"{_name(one)} {name}": digest
        for one, fact in zip(task["instances"], facts, strict=True)
        for name, digest in fact["provenance"]["sources"].items()
    }
    return whole


def _variables() -> dict[str, str]:
    return environment.recorded(environment.shaping_now())


def _threads_flags(task: Mapping[str, Any]) -> list[str]:
    """Flags where the threads of a CPU's instances are not those of its cores: in company, or alone."""
    if task["gpu"]:
        return []
    threads = [one["spec"]["threads"] for one in task["instances"] if one["member"]]
    quota, cores, alone = cpu_quota(), task["physical_cores"], task["spec"]["threads"]
    flags = []
    if quota is not None and sum(threads) > quota:
        flags.append(f"{sum(threads)} threads under a CPU quota of {quota:g} cores, which stops them")
    elif sum(threads) > cores:
        flags.append(f"{sum(threads)} threads in company on {cores} cores: they wait for each other")
    if alone < cores:
        flags.append(
            f"alone a cell computes with {alone} of {cores} cores: a gain holds what more threads would do too"
        )
    return flags


def _unsteady(windows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A flag where the latency of an instance changed its level within a window."""
    flags = []
    for reference, name in ((True, "reference"), (False, "company")):
        of = [window["answers"].values() for window in windows if window["reference"] == reference]
        changed = sum(any(change(np.asarray(one["latency_ns"])) is not None for one in answers) for answers in of)
        if changed:
            flags.append(f"a latency changed its level within {changed} of {len(of)} windows of {name}")
    return flags


def _cpu_ns(pids: Sequence[int]) -> int:
    """CPU time of processes so far, of all their threads; 0 of one that has ended, which its instance says."""
    spent = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            spent += time.clock_gettime_ns((~pid << 3) | _CPU_CLOCK)
    return spent


def _looks_back(seen: Mapping[str, Any] | None) -> bool:
    """Whether what was seen of a card in a window is also of the time before it: without the hardware's counters."""
    return seen is not None and (seen["activity"] or {}).get("sm") is None


def _sleep_until(when_ns: int) -> None:
    time.sleep(max(0, when_ns - time.perf_counter_ns()) / NS)


if __name__ == "__main__":
    answer_task(measure)
