"""Runs and captures of copies beside compute whose truth is known: parts of a request, gains and noise are planted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from unit.planted_records import PROVENANCE
from unit.planted_shapes import PARITY
from unit.traces.events import Events

from ceilings import records
from ceilings.measure.schedules import IN_FLIGHT, ROUNDS, THREE, Schedule, order, schedules
from ceilings.traces.capture import DEVICE_TO_HOST, HOST_TO_DEVICE, Capture
from ceilings.traces.hidden_copies import accounts

CELL = {"device": "nvidia-planted", "runtime": "torch-cudagraph", "model": "vit", "precision": "fp16"}
PROTOCOL = {"warmup_seconds": 0.1, "warmup_max_seconds": 1, "min_seconds": 1, "time_limit_seconds": 600}
PARTS_US = (30.0, 100.0, 10.0)
"""Copies in, compute, copies out."""

REQUESTS = 4 * IN_FLIGHT


def run(
    number: int = 1,
    shape: str = "b8-i224",
    parts_us: tuple[float, float, float] = PARTS_US,
    host_us: float = 5.0,
    gains: Mapping[str, float] | None = None,
    *,
    jitter: float = 0.001,
    drift: float = 1.0,
    requests: int = 40,
    image_bytes: int = 602_112,
    busy: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """A record of one run.

    Args:
        parts_us: What a request takes of each part; one stream takes their sum.
        host_us: What the calls take that submit one.
        gains: By schedule how many times as many requests a second as one stream; 1 where nothing is said.
        jitter: Relative standard deviation of a window.
        drift: Everything takes so many times as long from one round to the next.
        busy: By schedule the share of the multiprocessors that are busy; None where NVML does not say.
    """
    chance = np.random.default_rng(number)
    every, windows = schedules([2]), []
    for at_round in range(1, ROUNDS + 1):
        for schedule in order(every, at_round):
            period = sum(parts_us) * drift**at_round / (gains or {}).get(schedule.name, 1.0)
            took = period * 1e3 * float(np.exp(chance.normal(0, jitter)))
            windows.append(
                {
                    **{"round": at_round, "schedule": schedule.name, "submit_ns": host_us * 1e3},
                    "latency_ns": [round(took * schedule.in_flight)] * requests,
                    **{"completions": requests - 1, "elapsed_ns": round(took * (requests - 1))},
                    "activity": None if busy is None else {"sm": busy[schedule.name]},
                }
            )
    batch = int(shape.partition("-")[0][1:])
    content = {
        **{"cell": {**CELL, "shape": shape}, "run": number, "log": None, "streams": [2], "protocol": PROTOCOL},
        **{"status": "ok", "failure": None, "flags": [], "elements": 7, "checked": 1000, "parity": PARITY},
        "schedules": [
            {
                **{"name": one.name, "streams": len(one.streams), "buffers": len(one.buffers)},
                **{"in_flight": one.in_flight, "pinned": one.pinned},
            }
            for one in every
        ],
        **{"batch": batch, "bytes_in": batch * image_bytes, "bytes_out": batch * 1024},
        "parts": {
            name: [round(1e3 * us)] * 5
            for name, us in zip(("copy_in_ns", "compute_ns", "copy_out_ns"), parts_us, strict=True)
        },
        **{"windows": windows, "memory": {}, "neighbours": {}, "gpu": {}, "provenance": PROVENANCE},
    }
    return records.sealed("overlap", content)


def write(
    folder: Path, processes: int = 3, shape: str = "b8-i224", *, captured: bool = True, **planted: Any
) -> dict[str, Any]:
    """Write the records of a cell below a folder; returns it as the plan has it."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [str(folder / f"run{number}.json") for number in range(1, processes + 1)]
    for number, path in enumerate(runs, 1):
        records.write(path, "overlap", run(number, shape, **planted))
    hidden = str(folder / "hidden.json") if captured else None
    if hidden:
        records.write(hidden, "hidden-copies", account(shape, planted.get("parts_us", PARTS_US)))
    return {
        **{**CELL, "shape": shape, "runs": runs, "hidden": hidden},
        **{"available": True, "reason": None, "remedy": None, "recorded": False},
    }


def account(shape: str = "b8-i224", parts_us: tuple[float, float, float] = PARTS_US) -> dict[str, Any]:
    """The record of a capture's account."""
    return {
        **{"status": "ok", "failure": None, "source": "cupti", "tool": "CUPTI", "cell": {**CELL, "shape": shape}},
        **{"schedules": accounts(capture(parts_us)), "flags": [], "provenance": PROVENANCE},
    }


def capture(parts_us: tuple[float, float, float] = PARTS_US) -> Capture:
    """Requests of each schedule, one after another; each part takes what is planted, and begins as soon as it may.

    Two streams are left as one is: their work is all on the stream that computes.
    """
    events, now = Events(), 100.0
    every = schedules([2])
    for schedule in every:
        now = _requests(events, schedule, parts_us, now) + 50
    facts = [{"name": one.name, "in_flight": one.in_flight, "pinned": one.pinned} for one in every]
    return events.capture(requests=REQUESTS, schedules=facts, iterations=len(every) * (REQUESTS + 1))


def _requests(events: Events, schedule: Schedule, parts_us: tuple[float, float, float], now: float) -> float:
    into, compute, out = parts_us
    apart = schedule.name == THREE
    free = {"in": now, "compute": now, "out": now}
    done: list[float] = []
    home: list[float] = []
    for number in range(REQUESTS):
        if number >= schedule.in_flight:
            now = max(now, home[number - schedule.in_flight])
        events.mark(now, now + 3)
        calls = [
            events.call(now + 0.1, now + 0.6, "cudaMemcpyAsync_v3020"),
            events.call(now + 1, now + 1.6, "cudaLaunchKernel_v7000"),
            events.call(now + 2, now + 2.6, "cudaMemcpyAsync_v3020"),
        ]
        begin = max(now + 1, free["in" if apart else "compute"])
        if number >= len(schedule.buffers):
            begin = max(begin, done[number - len(schedule.buffers)])
        computed = max(begin + into, free["compute"]) + compute
        done.append(computed)
        begin_out = max(computed, free["out"])
        events.copy(calls[0], begin, begin + into, HOST_TO_DEVICE, stream=8 if apart else 7)
        events.kernel(calls[1], computed - compute, computed - compute / 2)
        events.kernel(calls[1], computed - compute / 2, computed)
        events.copy(calls[2], begin_out, begin_out + out, DEVICE_TO_HOST, stream=9 if apart else 7)
        free = (
            {"in": begin + into, "compute": computed, "out": begin_out + out}
            if apart
            else dict.fromkeys(free, begin_out + out)
        )
        home.append(begin_out + out)
        now += 4
    events.mark(now, max(now, home[-1]) + 1)
    return home[-1] + 5
