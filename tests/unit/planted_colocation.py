"""Records of co-locations whose truth is known: paces alone and in company, drift and use are planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from unit.planted_records import PROVENANCE
from unit.planted_shapes import PARITY

from ceilings import records
from ceilings.measure.colocation import NAMES, Placed, Sharing, company, placed, schedule

FAST, SLOW = "onnxruntime-cpu/text/fp32/b1-s32", "onnxruntime-cpu/image/fp32/b2-i32"
ALONE_MS = {FAST: 1.0, SLOW: 4.0}
CORES = 4
BY_THREADS = Sharing("threads")
PROTOCOL = {"warmup_seconds": 0.1, "warmup_max_seconds": 1, "min_seconds": 1, "time_limit_seconds": 600}


def run(
    number: int = 1,
    cells: Sequence[str] = (FAST, SLOW),
    sharing: Sharing = BY_THREADS,
    *,
    slowed: Mapping[tuple[str, str], float] | None = None,
    drift: float = 1.0,
    jitter: float = 0.002,
    part: float = 1.0,
    seconds: float = 0.5,
    busy: float = 1.0,
    activity: float | None = None,
    utilisation: float | None = None,
) -> dict[str, Any]:
    """A record of one run.

    Args:
        slowed: By (slowed, neighbour) how many times as long a request takes beside it; 2 where nothing is said. Of
            more neighbours the factors multiply.
        drift: Everything takes so many times as long from one reference to the next.
        jitter: Relative standard deviation of a window.
        part: How many times as long a request takes with a member's share of the cores.
        seconds: Length of a window.
        busy: Cores that one instance at work keeps busy.
        activity: Share of the SMs that one instance keeps busy; None of a CPU, or where NVML does not say.
        utilisation: The same of time with a kernel.
    """
    chance = np.random.default_rng([number, NAMES.index(str(sharing))])
    instances = placed(cells, sharing.cores, 2, [(core,) for core in range(CORES)])
    slowed = slowed or {}
    windows, clock = [], 10**9

    def window(at_round: int, of: Sequence[int], reference: bool) -> dict[str, Any]:
        nonlocal clock
        clock += int(0.1e9)
        opened, clock = clock, clock + int(seconds * 1e9)
        answers = {}
        for at in of:
            one = instances[at]
            factor = drift ** (at_round if reference else at_round - 0.5) * (part if one.processors else 1.0)
            for other in of:
                if other != at:
                    factor *= slowed.get((one.cell, instances[other].cell), 2.0)
            took = ALONE_MS[one.cell] * factor * float(np.exp(chance.normal(0, jitter))) / 1e3
            completions = seconds / took
            count = int(completions) - (completions == int(completions))
            answers[str(at)] = {"latency_ns": [int(took * 1e9) - 1] * count, "completions": completions}
        gpu = None
        if utilisation is not None:
            share = {"sm": min(1.0, activity * len(of))} if activity is not None else None
            gpu = {"activity": share, "utilisation": {"median": min(1.0, utilisation * len(of))}}
        return {
            "round": at_round,
            "reference": reference,
            "instances": list(of),
            "opened_ns": opened,
            "closed_ns": clock,
            "cores_busy": busy * len(of),
            "gpu": gpu,
            "answers": answers,
        }

    for at_round, reference, of in schedule(company(instances), len(instances)):
        windows.append(window(at_round, of, reference))
    content = {
        **{"device": "cpu-planted", "group": "planted", "how": sharing.how, "cores": sharing.cores},
        **{"run": number, "log": None, "cells": list(cells), "flags": [], "protocol": PROTOCOL},
        **{"status": "ok", "failure": None, "physical_cores": CORES, "neighbours": {}, "gpu": None},
        "instances": [_instance(one) for one in instances],
        "windows": windows,
        "provenance": PROVENANCE,
    }
    return records.sealed("colocation", content)


def _instance(one: Placed) -> dict[str, Any]:
    runtime, model, precision, shape = one.cell.split("/")
    return {
        "cell": {"runtime": runtime, "model": model, "precision": precision, "shape": shape},
        **{"threads": one.threads, "processors": list(one.processors), "member": one.member},
        "batch": int(shape.partition("-")[0][1:]),
        **{"parity": PARITY, "answers": 8, "memory": {}},
    }


def write(
    folder: Path,
    processes: int = 3,
    cells: Sequence[str] = (FAST, SLOW),
    sharing: Sharing = BY_THREADS,
    **planted: Any,
) -> dict[str, Any]:
    """Write the records of a co-location below a folder; returns it as the plan has it."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [str(folder / f"run{number}.json") for number in range(1, processes + 1)]
    for number, path in enumerate(runs, 1):
        records.write(path, "colocation", run(number, cells, sharing, **planted))
    return {
        **{"device": "cpu-planted", "group": "planted", "how": sharing.how, "cores": sharing.cores},
        **{"cells": list(cells), "runs": runs, "available": True, "reason": None, "remedy": None, "recorded": False},
    }
