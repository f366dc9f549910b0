"""What a record's numbers must satisfy among themselves and with the plan, whoever wrote them: decided when collected.

Each function says why a record with status ``ok`` cannot be believed, in a few words, or None. The schemas
(``ceilings.schemas``) bound each number alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings.graphs.parity import too_far
from ceilings.limits.kernel_verdict import Use
from ceilings.limits.kernel_verdict import verdict as kernel_verdict
from ceilings.measure.colocation import Placed, company, placed, schedule
from ceilings.measure.schedules import schedules
from ceilings.measure.stopping import FEWEST_REQUESTS, NS, Protocol
from ceilings.report import text
from ceilings.report.tables.quantities import SOURCED, recorded
from ceilings.runtimes import engine_facts
from ceilings.runtimes.catalogue import RUNTIMES, VLLM
from ceilings.schemas.terms import number, numbers
from ceilings.statistics import search_record
from ceilings.statistics.limit_search import answer, next_batch
from ceilings.study.cell import SECOND
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES
from ceilings.traces.budget_record import CLOSING
from ceilings.traces.verdict import verdict
from ceilings.workload.shape import Shape

Record = Mapping[str, Any]

LEAST_NS = 1000
"""No call of a runtime from Python returns sooner, so no inference does."""

CLOSE = 1e-6
"""Relative difference of numbers that follow from each other, and were computed from the same floats."""

LEAST_TIMED = 0.5
"""Of the time that a CPU's loop took, the share of its latencies: nothing but the stop rule runs between them."""

NS_PER_US = 1000

FEWEST_ALIKE = 5
"""Latencies that two series do not share to the nanosecond by chance."""

CLOCKS = 0.01
"""The device's clock and the host's may differ by this share."""


def parity(record: Record, plan: Record) -> str | None:
    """Why a run's outputs are too far from the FP32 reference by the study's tolerance, whatever the record says."""
    return too_far(record["parity"], plan["tolerances"][record["cell"]["precision"]])


def run(record: Record, plan: Record, path: str | Path) -> str | None:
    """Why a run cannot have been measured so."""
    if Path(path).name != f"run{record['run']}.json":
        return f"it is process {record['run']} of its cell"
    series, protocol = record["series"]["latency"], record["protocol"]
    latencies = series["latency_ns"]
    if len(latencies) < (least := plan["protocol"]["min_iterations"]):
        return f"it has {len(latencies)} iterations, fewer than protocol.min_iterations, {least}"
    if series["elapsed_ns"] > protocol["time_limit_seconds"] * NS:
        return f"it took {series['elapsed_ns'] / NS:g} s, more than its limit of {protocol['time_limit_seconds']:g} s"
    if min(latencies) < LEAST_NS:
        return f"a latency of {min(latencies)} ns is shorter than any call"
    for name, each in record["series"].items():
        if isinstance(each, Mapping) and "latency_ns" in each and (flaw := _series(each)):
            return f"series {name}: {flaw}"
    # Of a model that generates, there is a prefill before each request's decode steps.
    generated = Shape.parse(record["cell"]["shape"]).get("generated")
    if generated is None and series.get("gpu_ns") is None and sum(latencies) < LEAST_TIMED * series["elapsed_ns"]:
        return (
            f"its latencies add up to {sum(latencies)} ns, less than half of the {series['elapsed_ns']} ns that it took"
        )
    if flaw := _cold_start(record):
        return flaw
    reason = Protocol.from_json(protocol).stop_reason(latencies, series["elapsed_ns"])
    if reason != series["stop_reason"]:
        return f"it stopped for {series['stop_reason']!r}, and by its protocol that would be {reason!r}"
    return _throughput(record) or _requests(record) or _engine(record)


def _engine(record: Record) -> str | None:
    """In what vLLM's engine was another one than its cell says."""
    cell = record["cell"]
    spec = RUNTIMES.get(cell["runtime"].removesuffix(SECOND))
    if spec is None or spec.stack != VLLM:
        return None
    try:
        return engine_facts.unlike(
            record.get("runtime") or {}, cell["precision"], Shape.parse(cell["shape"]), spec.options["mode"]
        )
    except (KeyError, TypeError) as error:
        return f"it does not say of vLLM's engine what it was ({error})"


def quantities(record: Record) -> str | None:
    """Why what a record holds of some quantity of the tables is none."""
    one_number, several = number(), numbers()
    for one in SOURCED:
        value = recorded(one, record)
        if value is not None and (flaw := (several if isinstance(value, list) else one_number)(value)):
            return f"{one.source}{flaw}"
    return None


def _series(series: Record) -> str | None:
    latencies = series["latency_ns"]
    if sum(latencies) > (took := series.get("elapsed_ns", sum(latencies))):
        return f"its latencies add up to {sum(latencies)} ns, more than the {took} ns that it took"
    for name in ("gpu_ns", "enqueue_ns"):
        if (beside := series.get(name)) is not None and len(beside) != len(latencies):
            return f"{len(beside)} {name} beside {len(latencies)} latencies"
    if sum(series.get("gpu_ns") or ()) > took * (1 + CLOCKS):
        return f"the GPU worked for {sum(series['gpu_ns'])} ns, longer than the {took} ns that it took"
    enqueued = series.get("enqueue_ns")
    if enqueued is not None and any(part > whole for part, whole in zip(enqueued, latencies, strict=True)):
        return "submitting took longer than the inference"
    return None


def _cold_start(record: Record) -> str | None:
    whole, stages = record.get("first_answer_ns"), sum(record["cold_start_ns"].values())
    if whole is not None and stages > whole * (1 + CLOSE):
        return f"the stages up to its first answer took {stages} ns, more than the {whole} ns up to there"
    return None


def _throughput(record: Record) -> str | None:
    series = record["series"].get("throughput")
    if series is None:
        return None
    follows = series["completions"] * Shape.parse(record["cell"]["shape"]).batch / series["seconds"]
    if not math.isclose(follows, series["inferences_per_s"], rel_tol=CLOSE):
        return f"{series['inferences_per_s']:g} inferences a second do not follow from its counts, {follows:g} would"
    return None


def _requests(record: Record) -> str | None:
    """Why requests cannot have been as a record says: their parts make them up, and they all gave the same tokens."""
    series = record["series"].get("requests")
    if series is None:
        return None
    shape = Shape.parse(record["cell"]["shape"])
    times, generated = series["request_ns"], shape.get("generated")
    if generated is None:
        return f"it has requests, and the shape {shape} generates nothing"
    if (series["generated"], series["batch"]) != (generated, shape.batch):
        return (
            f"its requests are of {series['generated']} tokens for {series['batch']} prompts, and its shape is {shape}"
        )
    if len(times) < FEWEST_REQUESTS:
        return f"it has {len(times)} requests, fewer than {FEWEST_REQUESTS}"
    if series["tokens"] != len(times) * shape.batch * generated:
        return f"{len(times)} requests of {shape} do not give {series['tokens']} tokens"
    gaps = generated - 1
    several = {"first_token_ns": 1, "token_ns": gaps, **dict.fromkeys(("per_token_ns", "worst_gap_ns"), min(gaps, 1))}
    for name, each in (several | {"jitter_ns": int(gaps > 1)}).items():
        if len(series[name]) != each * len(times):
            return f"{len(series[name])} {name} beside {len(times)} requests of {generated} tokens"
    for k, (whole, first) in enumerate(zip(times, series["first_token_ns"], strict=True)):
        between = series["token_ns"][k * gaps : (k + 1) * gaps]
        if first + sum(between) != whole:
            return f"request {k} took {whole} ns, and its tokens {first + sum(between)} ns"
        if gaps and series["per_token_ns"][k] != round(sum(between) / gaps):
            return (
                f"request {k} took {series['per_token_ns'][k]} ns a token, and its gaps say {sum(between) / gaps:g} ns"
            )
        if gaps and series["worst_gap_ns"][k] != max(between):
            return f"the longest gap of request {k} is {max(between)} ns, not {series['worst_gap_ns'][k]} ns"
        if gaps > 1 and series["jitter_ns"][k] > max(between) - min(between):
            return f"the gaps of request {k} do not differ by {series['jitter_ns'][k]} ns"
    if sum(times) > series["elapsed_ns"]:
        return f"its requests add up to {sum(times)} ns, more than the {series['elapsed_ns']} ns that they took"
    return None


def changing(record: Record, plan: Record, path: str | Path, *, padded: bool) -> str | None:
    """Why a process of changing shapes cannot have measured so."""
    if Path(path).name != f"{'padded' if padded else 'run'}{record['run']}.json" or record["padded"] != padded:
        return f"it is process {record['run']} of its cell, {'with' if record['padded'] else 'without'} padding"
    every = [*record["sequence_ns"], record["cold"]["latency_ns"], *record["return_ns"]]
    every += [latencies for reference in record["steady_ns"] for latencies in reference]
    if (least := min(map(min, every))) < LEAST_NS:
        return f"a latency of {least} ns is shorter than any call"
    if (took := sum(map(sum, every))) > record["protocol"]["time_limit_seconds"] * NS:
        return f"its latencies add up to {took / NS:g} s, more than its limit"
    return _counted_twice("sequence_ns", record["sequence_ns"]) or _counted_twice(
        "steady_ns", [list(itertools.chain.from_iterable(reference)) for reference in record["steady_ns"]]
    )


def _counted_twice(name: str, series: Sequence[Sequence[int]]) -> str | None:
    for (i, one), (k, other) in itertools.combinations(enumerate(series), 2):
        if len(one) >= FEWEST_ALIKE and one == other:
            return f"{name}[{i}] and {name}[{k}] are the same to the nanosecond"
    return None


def changing_requests(record: Record, requests: Record, before: Sequence[Record]) -> str | None:
    """Why a process of changing shapes is not one of these requests, or is one of the processes before it again."""
    mine = record["requests"]
    if other := set(mine["shapes"]) ^ set(requests["shapes"]):
        return f"{min(other)} is a shape of {'its' if min(other) in mine['shapes'] else 'the other'} requests only"
    if (mine["shapes"], mine["order"]) != (requests["shapes"], requests["order"]):
        return "its requests come in another order"
    same = [one["run"] for one in before if one["sequence_ns"] == record["sequence_ns"]]
    if same and len(mine["order"]) >= FEWEST_ALIKE:
        return f"its latencies are those of process {same[0]} to the nanosecond"
    return None


def changing_parity(record: Record, plan: Record) -> str | None:
    """Why outputs of a process of changing shapes are wrong by the study's tolerance; None where they are right."""
    for shape, one in record["parity"].items():
        if reason := too_far(one, plan["tolerances"][record["cell"]["precision"]]):
            return f"at {shape}: {reason}"
    return None


def colocation(
    record: Record, planned: Record, plan: Record, path: str | Path, others: Sequence[Record] = ()
) -> str | None:
    """Why instances of a co-location cannot have answered so, or not beside its other runs."""
    if Path(path).name != f"run{record['run']}.json":
        return f"it is run {record['run']} of its co-location"
    if record["cells"] != planned["cells"]:
        return "its instances are of other cells than the study's"
    return _placed(record) or _windows(record) or _answers(record, plan) or _otherwise(record, others)


def _placed(record: Record) -> str | None:
    """Why its instances are not those of its group."""
    instances = record["instances"]
    machine = [(core,) for core in range(record["physical_cores"])]
    try:
        follow = placed(record["cells"], record["cores"], max(one["threads"] for one in instances), machine)
    except ValueError as error:
        return str(error)
    if len(instances) != len(follow):
        return f"it has {len(instances)} instances, and of its cells {len(follow)} follow"
    for index, (one, wanted) in enumerate(zip(instances, follow, strict=True)):
        seen = "/".join(one["cell"].values()), one["member"], bool(one["processors"])
        if seen != (wanted.cell, wanted.member, bool(wanted.processors)):
            return f"instances[{index}] is not the one of {wanted.cell} that follows from its cells and cores"
        if one["threads"] != wanted.threads:
            return f"instances[{index}] has {one['threads']} threads, and {wanted.threads} follow from the others'"
        if one["batch"] != Shape.parse(one["cell"]["shape"]).batch:
            return f"instances[{index}] has batch {one['batch']}, and its shape is {one['cell']['shape']}"
    processors = [processor for one in instances for processor in one["processors"]]
    if len(set(processors)) != len(processors):
        return "two of its instances share a processor, and its cores are split"
    return None


def _windows(record: Record) -> str | None:
    """Why its windows are not those of a run: each at its place, and none while another was open."""
    instances, windows = record["instances"], record["windows"]
    group = company([Placed("/".join(one["cell"].values()), 1, member=one["member"]) for one in instances])
    follow = list(schedule(group, len(instances)))
    if len(windows) != len(follow):
        return f"it has {len(windows)} windows, and of its instances {len(follow)} follow"
    closed = 0
    for index, (window, (at_round, reference, working)) in enumerate(zip(windows, follow, strict=True)):
        if (window["round"], window["reference"], tuple(window["instances"])) != (at_round, reference, working):
            what = "a reference" if reference else "company"
            named = text.listed(working)
            return f"windows[{index}] is not {what} of round {at_round}, of instance {named}, which follows"
        if window["opened_ns"] < closed:
            return f"windows[{index}] opened before the one before it had closed"
        closed = window["closed_ns"]
    return None


def _answers(record: Record, plan: Record) -> str | None:
    """Why its instances cannot have answered so in its windows."""
    for index, window in enumerate(record["windows"]):
        took = window["closed_ns"] - window["opened_ns"]
        for at, one in window["answers"].items():
            where, latencies = f"instance {at} of windows[{index}]", one["latency_ns"]
            if min(latencies) < LEAST_NS:
                return f"{where} has a latency of {min(latencies)} ns, shorter than any call"
            if sum(latencies[:-1]) > took:  # the last one may end after the window
                return f"{where} answered for {sum(latencies[:-1])} ns in a window of {took} ns"
            # What lies partly in the window counts by its share: one request at each end; the last began in it.
            if not len(latencies) * (1 - CLOSE) - 1 <= one["completions"] <= len(latencies) + 1:
                return f"{where} has {one['completions']:g} completions of {len(latencies)} requests"
    for one in record["instances"]:
        if reason := too_far(one["parity"], plan["tolerances"][one["cell"]["precision"]]):
            return f"{'/'.join(one['cell'].values())}: {reason}"
    return None


def _otherwise(record: Record, others: Sequence[Record]) -> str | None:
    """In what its run differs from others, all of which are one measurement."""
    for other in others:
        for name in ("protocol", "physical_cores"):
            if record[name] != other[name]:
                return f"its {name} differs from that of run {other['run']}"
        if [one["threads"] for one in record["instances"]] != [one["threads"] for one in other["instances"]]:
            return f"its instances have other threads than those of run {other['run']}"
    return None


def overlap(record: Record, plan: Record, path: str | Path) -> str | None:
    """Why schedules of copies and compute cannot have run so."""
    if Path(path).name != f"run{record['run']}.json":
        return f"it is run {record['run']} of its cell"
    expected = [one.name for one in schedules(record["streams"])]
    if [one["name"] for one in record["schedules"]] != expected:
        return f"its schedules are not those of {len(record['streams'])} numbers of streams"
    in_flight = {one["name"]: one["in_flight"] for one in record["schedules"]}
    for index, window in enumerate(record["windows"]):
        latencies, where = window["latency_ns"], f"windows[{index}]"
        if min(latencies) < LEAST_NS:
            return f"{where} has a latency of {min(latencies)} ns, shorter than any call"
        if window["completions"] >= len(latencies):
            return f"{where} counts {window['completions']} completions of {len(latencies)} requests"
        # A request that waits for a place among those in flight is submitted when another is home.
        at_once = in_flight[window["schedule"]]
        if window["elapsed_ns"] * at_once < sum(sorted(latencies)[: max(0, window["completions"] - at_once)]) * (
            1 - CLOSE
        ):
            return f"{where} has more latency than {at_once} requests at once can have in {window['elapsed_ns']} ns"
    if record["checked"] < sum(len(window["latency_ns"]) for window in record["windows"]):
        return "it checked fewer answers than it has latencies"
    return too_far(record["parity"], plan["tolerances"][record["cell"]["precision"]])


def best_batch(record: Record, plan: Record) -> str | None:
    """Why a search cannot have gone so: what each process measured, and that each batch follows from those before."""
    search, steps, protocol = record["search"], record["steps"], Protocol.from_json(record["protocol"])
    for step in steps:
        for run in step["runs"] if step["status"] == "ok" else ():
            latencies = run["latency_ns"]
            if min(latencies) < LEAST_NS:
                return f"batch {step['batch']}: a latency of {min(latencies)} ns is shorter than any call"
            if sum(latencies) > run["elapsed_ns"]:
                return (
                    f"batch {step['batch']}: its latencies add up to more than the {run['elapsed_ns']} ns that it took"
                )
            if (reason := protocol.stop_reason(latencies, run["elapsed_ns"])) != run["stop_reason"]:
                return f"batch {step['batch']}: it stopped for {run['stop_reason']!r}, by its protocol {reason!r}"
            if reason := too_far(run["parity"], plan["tolerances"][record["cell"]["precision"]]):
                return f"batch {step['batch']}: {reason}"
    right = [(number, step) for number, step in enumerate(steps, 1) if step["status"] == "ok"]
    processes = [(number, run) for number, step in right for run in step["runs"]]
    for (one, run), (other, again) in itertools.combinations(processes, 2):
        if run["latency_ns"] == again["latency_ns"]:
            return f"a process of step {one} stands in step {other} once more"
    measured, bounds = search_record.measured(search, steps), (search["most"], search["multiple"])
    for index, step in enumerate(steps):
        before = measured[:index]
        follows = next_batch({one.batch: one.verdict for one in before}, *bounds)
        if step["again"] and follows is None:
            follows = answer(before, *bounds).best
        if step["batch"] != follows:
            return f"step {index + 1} measured batch {step['batch']}, and from those before it {follows} follows"
    if not steps[-1]["again"]:
        left = next_batch({one.batch: one.verdict for one in measured}, *bounds) or answer(measured, *bounds).best
        if left is not None:
            return f"it ends after {len(steps)} steps, and from these batch {left} follows"
    return None


def samples(record: Record) -> tuple[int, ...]:
    """What no other process has: the ns of each iteration; empty where none was timed."""
    return tuple((record["series"].get("latency") or {}).get("latency_ns") or ())


def colocated_samples(record: Record) -> tuple[int, ...]:
    """What no other run of a co-location has: the ns of each request; empty where nothing was timed."""
    windows = record.get("windows", ())
    return tuple(took for window in windows for one in window["answers"].values() for took in one["latency_ns"])


def budget(record: Record) -> str | None:
    """Why an account of an iteration does not close, or does not say what its numbers say."""
    whole = record["iteration_ns"]["median"]
    device = record["device_ns"]
    sides = {
        "host": [record["host_ns"][part]["median"] for part in HOST_PARTS],
        "device": [middle["median"] for middle in device["classes"].values()]
        + [device["idle"][cause]["median"] for cause in IDLE_CAUSES],
    }
    for side, parts in sides.items():
        left = whole - sum(parts)
        if not math.isclose(left, record["residual_ns"][side], rel_tol=CLOSE, abs_tol=1 + CLOSE * whole):
            return f"the {side}'s parts and residual do not add up to the iteration of {whole:g} ns"
        flagged = any(flag.startswith(f"the {side} side leaves") for flag in record["flags"])
        if abs(left) > CLOSING * whole and not flagged:
            return f"the {side}'s parts leave {left / whole:.1%} of the iteration, and no flag says so"
    if verdict(record["shares"]) != record["verdict"]["name"]:
        return f"its verdict is {record['verdict']['name']!r}, and its shares say {verdict(record['shares'])!r}"
    return None


def kernel_limits(record: Record) -> str | None:
    """Why what is said to limit kernels does not follow from their numbers."""
    times: dict[str, float] = {}
    for index, kernel in enumerate(record["kernels"]):
        use = Use(
            shares=kernel["shares"],
            waves=kernel["waves"],
            theoretical=kernel["occupancy"]["theoretical"],
            limiters=tuple(kernel["limiters"]),
            eligible=kernel["eligible_warps"],
            stall=next(iter(kernel["stalls"].items()), None),
        )
        follows, why = kernel_verdict(use)
        if follows != kernel["verdict"]:
            return f"kernels[{index}] is called {kernel['verdict']}, and its numbers say {follows}: {why}"
        times[kernel["verdict"]] = times.get(kernel["verdict"], 0.0) + (kernel["duration_ns"] or 0)
    for name in {*times, *record["verdicts"]}:
        if not math.isclose(times.get(name, 0.0), record["verdicts"].get(name, 0.0), rel_tol=CLOSE, abs_tol=1):
            return f"its {name} kernels take {times.get(name, 0.0):g} ns in sum, and it says another number"
    return None


def shape_change(record: Record) -> str | None:
    """Why what a change of the shape costs is not the sum of its parts."""
    for name in ("changes", "first"):
        if not (comparison := record[name]):
            continue
        taken, again = comparison["taken_ns"], comparison["again_ns"]
        if not math.isclose(taken - again, comparison["cost_ns"]["mean"], rel_tol=CLOSE, abs_tol=1 + CLOSE * taken):
            return (
                f"{name} take {taken:g} ns, again {again:g} ns, and their cost is {comparison['cost_ns']['mean']:g} ns"
            )
        for side, part in itertools.product(("host", "device"), ("taken_ns", "again_ns")):
            total, whole = sum(row[part] for row in comparison[side]), comparison[part]
            if comparison[side] and not math.isclose(total, whole, rel_tol=CLOSE, abs_tol=1):
                return f"the {side}'s parts of {name} add up to {total:g} ns, and the request takes {whole:g} ns"
    return None


def floor(record: Record) -> str | None:
    """Why a floor does not follow from its parts."""
    parts = record["floor"]
    follows = max(parts[name] for name in ("compute_floor_ms", "memory_floor_ms", "launch_floor_ms"))
    if not math.isclose(parts["floor_ms"], follows, rel_tol=CLOSE):
        return f"its floor is {parts['floor_ms']:g} ms, and the largest of its parts {follows:g} ms"
    return None


def serving(record: Record) -> str | None:
    """Why windows of load cannot have been as a record says."""
    for index, window in enumerate(record["windows"]):
        where = f"windows[{index}]"
        if window["cell"] not in record["cells"]:
            return f"{where} is of {window['cell']}, and the server has no such cell"
        if window["ended_ns"] <= window["began_ns"]:
            return f"{where} ended before it began"
        if len(window["latency_ns"]) != window["answered"]:
            return f"{where} has {len(window['latency_ns'])} latencies of {window['answered']} answers"
        failed = sum(window["failed"].values())
        if window["sent"] != window["answered"] + failed:
            return f"of {window['sent']} requests of {where} {window['answered']} were answered and {failed} failed"
        if flaw := _waited(window) or _counters(window):
            return f"{where}: {flaw}"
    return None


def _waited(window: Record) -> str | None:
    """Why clients cannot have waited so: for longer than they were there, or shorter than their server took."""
    latencies, failed, server = window["latency_ns"], sum(window["failed"].values()), window["server"]
    there = window["drained_ns"] - window["began_ns"]
    if window["answered_inside"] > window["answered"]:
        return f"{window['answered_inside']:g} requests were answered in it, of {window['answered']}"
    if max(latencies, default=0) > there:
        return f"a latency of {max(latencies)} ns is longer than the {there} ns until its last answer"
    clients = window["concurrency"]
    if clients and sum(latencies) > clients * there:
        return f"its latencies add up to {sum(latencies)} ns, more than {clients} times the {there} ns that it took"
    whole = server.get("request_ns")
    if whole is None or failed or server.get("requests") != len(latencies):  # not of the same requests
        return None
    if whole > sum(latencies) * (1 + CLOCKS) + NS_PER_US * len(latencies):
        return f"its requests took {whole} ns at the server, more than the {sum(latencies)} ns that clients waited"
    return None


def _counters(window: Record) -> str | None:
    """Why a server cannot have counted so in a window."""
    server = window["server"]
    parts = [server.get(name) for name in ("queue_ns", "compute_input_ns", "compute_infer_ns", "compute_output_ns")]
    whole = server.get("request_ns")
    known = [value for value in parts if value is not None]
    if whole is not None and sum(known) > whole * (1 + CLOCKS) + NS_PER_US * max(1, server.get("requests") or 0):
        return f"the parts of its requests take {sum(known)} ns, more than the {whole} ns that they take as a whole"
    sizes = server.get("batch_sizes")
    executions, inferences = server.get("executions"), server.get("inferences")
    if sizes and executions is not None and sum(sizes.values()) != executions:
        return f"{executions} executions, and batch sizes of {sum(sizes.values())}"
    if sizes and inferences is not None and sum(int(size) * n for size, n in sizes.items()) != inferences:
        return f"{inferences} inferences, and batch sizes of {sum(int(size) * n for size, n in sizes.items())}"
    return None


def quality(record: Record) -> str | None:
    """Why metrics cannot be those of so many rows."""
    metrics, data = record["metrics"], record["data"]
    rows = data["rows"]
    if data["truncated"] > rows or rows > data["available"]:
        return f"{rows} rows, {data['truncated']} of them truncated, of {data['available']}"
    for name in ("only_cell_right", "only_reference_right", "neighbours_among"):
        if metrics.get(name, 0) > rows:
            return f"{name} is {metrics[name]} of {rows} rows"
    predictions = metrics.get("predictions")
    if predictions is not None and (not isinstance(predictions, list) or len(predictions) != rows):
        return f"it has no prediction for each of {rows} rows"
    ends = [metrics[name] for name in ("low", "value", "high")]
    low, value, high = ends
    inside = value is not None and (low is None or low <= value + CLOSE) and (high is None or value <= high + CLOSE)
    if not inside and any(end is not None for end in ends):
        return f"its {metrics['metric']} {ends[1]} lies outside of its interval {ends[0]} to {ends[2]}"
    return None
