"""Columns of the table of serving, declared once: a row a device, deployment, cell and load.

An account of a request runs from the client's side inwards: what the client waits is what lies beyond the server and
what the server counts; what the server counts is queue, input, execution, output and a rest.
"""

from __future__ import annotations

from ceilings.quantity import Quantity
from ceilings.report import text
from ceilings.report.tables.quantities import columns

DEPLOYMENT, LOAD, CLIENT, ACCOUNT, BATCHES, STARTS = (
    *("Deployment", "Load", "What the client sees", "Account of a request, means"),
    *("Batches that the server forms", "Start of the server"),
)


def _text(column: str, label: str, meaning: str, group: str = DEPLOYMENT) -> Quantity:
    return Quantity(column, label, "", "text", meaning, group)


def _ms(column: str, label: str, meaning: str, group: str = ACCOUNT, interval: bool = False) -> Quantity:
    return Quantity(column, label, "ms", "number", meaning, group, interval)


def _count(column: str, label: str, meaning: str, group: str = LOAD) -> Quantity:
    return Quantity(column, label, "", "count", meaning, group)


SETTINGS = (
    _text("server", "server", "embedded, triton, or endpoint: a server that was there already."),
    _text("server_version", "server version", "As the server names it."),
    _text("backend", "backend", "What executes in the server."),
    Quantity("instances", "instances", "", "count", "Instances of the model, which execute side by side.", DEPLOYMENT),
    _text("batching", "dynamic batching", "Its largest batch, delay and preferred sizes as JSON; empty: off."),
    _text("transport", "transport", "http or grpc."),
    _text("shared_memory", "shared memory", "none, system or cuda."),
    Quantity("round_trip_ms", "round trip", "ms", "number", "That was set between client and server.", DEPLOYMENT),
    _text("served", "cells served", "All cells that the deployment serves, in interleaved rounds."),
    Quantity("threads", "threads", "", "count", "Of the execution in the server.", DEPLOYMENT),
    _text("server_cores", "server's cores", "Where the server may run."),
    _text("client_cores", "client's cores", "Where the client may run."),
)
"""What a deployment is. Two deployments are compared only where they differ in one of these."""

IDENTITY = (
    _text("device", "device", "The device that the server executes on."),
    _text("deployment", "deployment", "The deployment, as the study calls it."),
    _text("aa_of", "repeats", "Of the second of an A/A pair of servers: the deployment that it is once more."),
    *(_text(name, name, f"Of the cell that is served: its {name}.") for name in ("runtime", "model", "precision")),
    _text("shape", "shape", "Of one request."),
    _text("status", "status", "ok, failed or unavailable; of what was not measured there is one row a cell."),
    _text("reason", "reason", "Why it was not measured."),
    _text("remedy", "remedy", "What a user can do about that."),
    _text("log", "log", "The log of the process that failed."),
)

LOADS = (
    _text("load", "load", "The load in words; it names the load of a deployment and cell in every table.", LOAD),
    _text("kind", "kind of load", "closed: each client sends when it has its answer; open: Poisson arrivals.", LOAD),
    _count("concurrency", "clients", "Of a closed loop: requests in flight."),
    _text("asked", "asked rate", "Of an open loop: the rate as the study asks for it, such as 40 or 0.8x.", LOAD),
    Quantity("rate_per_s", "rate", "1/s", "number", "Of an open loop: requests a second that were to be sent.", LOAD),
    _count("runs", "servers", "Fresh server processes that it was measured with."),
    _count("windows", "windows", "Windows of all servers."),
    _count("n", "requests", "Requests that were answered."),
    _count("failures", "failed requests", "Requests that the server or the transport refused."),
    _count("flagged", "flagged windows", "Windows in which something makes the numbers wrong: they carry no claim."),
    _text("flags", "flags", "What was noticed, and in how many windows.", LOAD),
    Quantity("limit_ms", "limit", "ms", "number", "The study's limit of the 99th percentile at the client.", LOAD),
    Quantity(
        "share", "share", "", "number", "Of an open loop: its rate over the highest throughput of closed loops.", LOAD
    ),
    _count("growing", "growing windows", "Windows of an open loop whose last third waits longer than the first."),
    _text(
        "state",
        "state of the queue",
        "steady; grows; short: windows end before it settles. Only steady has a latency.",
        LOAD,
    ),
)

LATENCIES = (
    _ms("p50_ms", "p50", "Median latency at the client, from the intended send time.", CLIENT, True),
    *(
        _ms(
            f"p{q}_ms",
            f"p{q}",
            f"{q}th percentile at the client; empty with fewer than {least} requests.",
            CLIENT,
            True,
        )
        for q, least in ((90, 64), (95, 130), (99, 662))
    ),
    _ms("client_ms", "mean", "Mean latency at the client.", CLIENT),
    Quantity("answered_per_s", "throughput", "1/s", "number", "Requests answered a second.", CLIENT, True),
    Quantity(
        *("client_busy", "client's cores in use", "", "percent", "CPU time of the client over what it may use.", CLIENT)
    ),
)

PARTS = (
    _ms("beyond_ms", "beyond the server", "Client's mean less the server's: serialisation, HTTP or gRPC, network."),
    _ms("queue_ms", "queue", "Waiting in the server, also for others to form a batch."),
    _ms("input_ms", "input", "Gathering the inputs of a batch."),
    _ms("infer_ms", "execution", "Executing the batch that the request is in, with what the backend adds."),
    _ms("output_ms", "output", "Handing out the outputs."),
    _ms("rest_ms", "rest", "What the server counts as a request and as none of its parts."),
)
"""They add up to the client's mean latency. Empty where the server does not count them."""

SERVER = (
    *PARTS,
    _ms("request_ms", "at the server", "Mean time of a request as the server counts it."),
    _ms("late_ms", "late", "Of what lies beyond the server: how late the client sent, for want of a free connection."),
    _ms(
        "bare_ms",
        "bare runtime",
        "Mean latency of the same runtime in a loop of its own, at the batch sizes that were executed, by requests.",
    ),
    _ms("added_ms", "added to the execution", "Execution in the server less the bare runtime."),
)

FORMED = (
    Quantity("batch_mean", "mean batch", "", "number", "Inputs over executions.", BATCHES),
    _text("batch_sizes", "batch sizes", "Share of the executions by batch size, as JSON.", BATCHES),
)

BEGUN = (
    _ms(
        "first_ready_ms",
        "first start",
        "From the start of the process until all models are ready, with empty caches.",
        STARTS,
        True,
    ),
    _ms("warm_ready_ms", "warm start", "The same with the caches that the first start left.", STARTS, True),
)

QUANTITIES = (*IDENTITY, *SETTINGS, *LOADS, *LATENCIES, *SERVER, *FORMED, *BEGUN)
"""Every column of the table, but for the ends of intervals."""

BY_COLUMN = {one.column: one for one in QUANTITIES}

SERVING_COLUMNS = columns(QUANTITIES)

INTRODUCTION = """\

## Serving

Every column of `results/tables/serving.csv`: a row a device, deployment, cell and load ([serving.md](serving.md)).
Means of the server are totals over counts of the same windows, so they cover the requests that the client counts.
"""


def documentation() -> str:
    """The section of docs/quantities.md on the table of serving."""
    rows = [(f"`{one.column}`", one.label, one.unit, one.meaning, "±" if one.interval else "") for one in QUANTITIES]
    return f"{INTRODUCTION}\n{text.table(rows, ('column', 'label', 'unit', 'meaning', 'interval'), 'lllll')}\n"
