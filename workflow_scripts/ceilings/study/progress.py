"""Says about how long a run will take, and the rest of it. Standard library only.

Snakemake counts steps; it does not know how long one takes. This listens to its log events and completes its line.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ceilings.host import kind_of
from ceilings.measure import schedules
from ceilings.measure.colocation import ROUNDS, SETTLING_SECONDS, company, placed
from ceilings.runtimes.catalogue import AUTOTUNING, COMPILATION, PYTORCH, RUNTIMES, Runtime
from ceilings.serving.batching import Batching, batches
from ceilings.serving.deployment import Deployment
from ceilings.study.cell import Cell
from ceilings.study.colocations import Colocation
from ceilings.workload.shape import Shape

RULES = {
    "fetch_weights": 8,
    "compute_reference": 6,
    "check_parity": 6,
    "export_onnx": 12,
    "simplify_onnx": 8,
    "calibrate_ranges": 14,
    "quantize_graph": 6,
    "fuse_graph": 6,
    "capture_trace": 25,
    "capture_changing": 25,
    "capture_overlap": 60,
    "measure_peaks": 30,
    "measure_transfers": 75,
    "build_engine": 60,
    "evaluate_quality": 20,
    "read_texts": 15,
    "write_report": 8,
}
"""Seconds that a job takes, seen on 2 cores of an EPYC and on an H100; of other rules ``UNKNOWN``."""

UNKNOWN = 3.0

WORTH_SAYING = 60
"""Seconds from which on a run says at its start how long it will take, and a plan how long it would."""

MOST_PARTS, LEAST_PART = 4, 0.1
"""Rules that such a line names, and the share of the whole from which on it does."""

START = {("cpu", True): 6.0, ("cpu", False): 3.0, ("cuda", True): 9.0, ("cuda", False): 5.0}
"""Seconds of a timed process in which nothing is timed: by kind of device, and whether PyTorch executes."""

COMPILING = {COMPILATION: 20.0, AUTOTUNING: 60.0}
"""Seconds more of a process that has one of these levers."""

SERVER_START = {"cpu": 6.0, "cuda": 9.0}
"""Seconds until a server is ready, by kind of device: seen on 2 cores and, with Triton, on an H100."""

RUNNER_START = {"cpu": 0.2, "cuda": 1.5}
"""Seconds more for each further batch that a server may form: of most GPU runtimes it is a session by itself."""

ASKED_ALONE = 8
"""Requests of each cell that are asked for one by one, about."""

AROUND_LOADS = 8.0
"""Seconds of one run in which a server neither starts nor has a load: the client's start, the stops, the record."""

SEARCHED, PREPARED = 10, 6.0
"""Batches that a search measures, about, and seconds in which inputs and reference of one are made."""

SERIES_BESIDE = {"cpu": 0, "cuda": 3}
"""Series of copies and of cold caches; each takes a quarter of the closed loop."""


def expected_seconds(
    protocol: Mapping[str, Any],
    cells: Sequence[Cell],
    deployments: Sequence[Deployment] = (),
    colocated: Sequence[Colocation] = (),
    streams: Sequence[int] = (),
) -> dict[str, float]:
    """Seconds that a job takes by rule, as far as that can be known before any has run.

    Args:
        protocol: Of the study.
        cells: Those that are measured; a timed job takes as long as theirs do in the mean.
        deployments: Those that are measured, likewise.
        colocated: Co-locations that are measured, likewise.
        streams: How many streams schedules of copies and compute have, beside those that each measurement has.
    """
    processes = [process_seconds(protocol, cell.spec) for cell in cells if cell.runs]
    mean = sum(processes) / len(processes) if processes else UNKNOWN
    served = [serving_seconds(protocol["serving"], one) for one in deployments]
    groups = [colocation_seconds(protocol, one) for one in colocated]
    return {
        **RULES,
        "measure_latency": mean,
        "search_batch": SEARCHED * (PREPARED + protocol["processes"] * mean),
        "measure_colocation": sum(groups) / len(groups) if groups else UNKNOWN,
        "measure_overlap": overlap_seconds(protocol, streams),
        "measure_serving": sum(served) / len(served) if served else UNKNOWN,
    }


def colocation_seconds(protocol: Mapping[str, Any], one: Colocation) -> float:
    """Seconds that one run of a co-location takes: a start for each instance, the check of answers, and windows."""
    kind = kind_of(one.device or "")
    # Enough cores for any split: how many there are changes no count of windows.
    instances = placed(one.cells, one.sharing.cores, 1, [(core,) for core in range(len(one.cells))])
    windows = (ROUNDS + 1) * len(instances) + ROUNDS * len(company(instances))
    starts = sum(START[kind, RUNTIMES[each.cell.split("/")[0]].stack == PYTORCH] for each in instances)
    return float(
        starts + 2 * protocol["warmup_seconds"] + windows * (protocol["min_seconds"] / 2 + SETTLING_SECONDS[kind])
    )


def overlap_seconds(protocol: Mapping[str, Any], streams: Sequence[int]) -> float:
    """Seconds that one process of copies beside compute takes: a model for each set of buffers, and windows."""
    every = schedules.schedules(streams)
    models = len({one for schedule in every for one in schedule.buffers})
    windows = schedules.ROUNDS * (len(every) + 1)
    start = START["cuda", True]
    return float(start + models + 2 * protocol["warmup_seconds"] + windows * protocol["min_seconds"] / 2)


def serving_seconds(protocol: Mapping[str, Any], deployment: Deployment) -> float:
    """Seconds that one server takes: two starts, the check of its answers, and its windows.

    Answers of a window's end come after it: across a round trip that takes as long as the trip.
    """
    kind = RUNTIMES[deployment.cells[0].split("/")[0]].device
    batching = Batching.from_json(deployment.batching) if deployment.batching else None
    further = max(len(batches(Shape.parse(cell.split("/")[3]).batch, batching)) for cell in deployment.cells) - 1
    start = SERVER_START[kind] + further * RUNNER_START[kind] if deployment.kind != "endpoint" else 0.0
    trip = deployment.round_trip_ms / 1e3
    windows = len(deployment.loads) * protocol["rounds"] * (protocol["window_seconds"] + trip)
    checks = len(deployment.cells) * (ASKED_ALONE * trip + max(protocol["warmup_seconds"], 2 * ASKED_ALONE * trip))
    return float(2 * start + AROUND_LOADS + checks + windows)


def process_seconds(protocol: Mapping[str, Any], spec: Runtime) -> float:
    """Seconds that one timed process of a runtime takes."""
    start = START[spec.device, spec.stack == PYTORCH] + sum(COMPILING.get(lever, 0) for lever in spec.levers)
    # The closed loop ends between both limits.
    closed = (protocol["min_seconds"] + protocol["max_seconds"]) / 2
    closed *= 1 + SERIES_BESIDE[spec.device] / 4
    return float(start + protocol["warmup_seconds"] + closed + protocol["saturated_seconds"])


class TimeLeft(logging.Filter):
    """Turns Snakemake's ``38 of 118 steps (32%) done`` into ``..., about 3 min left``; passes everything else on.

    Args:
        expected_seconds: A first guess per rule, used until a job of the rule has ended.
        is_plan: Whether nothing runs (``snakemake -n``): then the table of jobs gains the line of :func:`say`.
    """

    def __init__(self, expected_seconds: Mapping[str, float], is_plan: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._is_plan = is_plan
        self.expected_seconds = dict(expected_seconds)
        self.remaining: Counter[str] = Counter()
        self.started: dict[int, tuple[str, float]] = {}
        self.spent: dict[str, tuple[int, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Follow one log event of Snakemake."""
        fields = record.__dict__
        match fields.get("event"):
            case "run_info":
                self.remaining = Counter({rule: n for rule, n in fields["stats"].items() if rule != "total"})
                if self._is_plan() and (words := self.in_parts()):
                    record.msg = f"{record.msg}\n{words}\n"
            case "job_info":
                self.started[fields["jobid"]] = (fields["rule_name"], time.monotonic())
            case "job_finished" if fields["job_id"] in self.started:
                rule, start = self.started.pop(fields["job_id"])
                count, seconds = self.spent.get(rule, (0, 0.0))
                self.spent[rule] = (count + 1, seconds + time.monotonic() - start)
                self.remaining[rule] -= 1
            case "progress" if fields["done"] < fields["total"]:
                done, total = fields["done"], fields["total"]
                record.msg = f"{done} of {total} steps ({done / total:.0%}) done, about {duration(self.seconds())} left"
                fields["event"] = None  # a plain message: Snakemake would format the event without the time
        return True

    def seconds(self) -> float:
        """Sum over the remaining jobs of what one of their rule has taken so far, else of the first guess."""
        return sum(count * self._mean(rule) for rule, count in self.remaining.items())

    def in_parts(self) -> str:
        """How long the remaining jobs will take, the rules with most of it by name; empty if that is not worth a line.

        Jobs beside each other count as if they came one after the other, which only timed ones do.
        """
        if (whole := self.seconds()) < WORTH_SAYING:
            return ""
        parts = {rule: count * self._mean(rule) for rule, count in self.remaining.items()}
        named = [rule for rule, seconds in Counter(parts).most_common(MOST_PARTS) if seconds >= LEAST_PART * whole]
        words = [f"{rule} {duration(parts[rule])} ({self.remaining[rule]})" for rule in named]
        rest = whole - sum(parts[rule] for rule in named)
        words += [f"the rest {duration(rest)}"] if named and rest >= 1 else []
        return f"This will take about {duration(whole)}{': ' if words else ''}{', '.join(words)}."

    def _mean(self, rule: str) -> float:
        if rule in self.spent:
            count, seconds = self.spent[rule]
            return seconds / count
        return self.expected_seconds.get(rule, UNKNOWN)


def show(expected_seconds: Mapping[str, float], is_plan: Callable[[], bool]) -> TimeLeft:
    """Complete the log of the Snakemake process that calls this, once however often it parses the workflow."""
    logger = logging.getLogger("snakemake.logging")
    known = next((one for one in logger.filters if isinstance(one, TimeLeft)), None)
    if known is None:
        logger.addFilter(known := TimeLeft(expected_seconds, is_plan))
    return known


def hide() -> None:
    """Leave the log of this Snakemake process as it is, where nobody can know how long a run takes."""
    logger = logging.getLogger("snakemake.logging")
    for known in [one for one in logger.filters if isinstance(one, TimeLeft)]:
        logger.removeFilter(known)


def say(time_left: TimeLeft) -> None:
    """Say at the start how long the whole will take, if that is worth a line."""
    if words := time_left.in_parts():
        logging.getLogger("snakemake.logging").info(words)


def duration(seconds: float) -> str:
    """A span in words, as exact as an estimate deserves.

    >>> duration(8), duration(100), duration(4000)
    ('10 s', '1 min 40 s', '1 h 7 min')
    """
    tens = max(round(seconds / 10) * 10, 10)
    if tens < 60:
        return f"{tens} s"
    minutes, rest = divmod(tens, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
