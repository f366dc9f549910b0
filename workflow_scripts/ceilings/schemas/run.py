"""One process that measured one cell (``measure_latency.py``)."""

from ceilings.schemas.common import (
    CELL,
    COUNTS,
    FAILURE,
    FULL_PARITY,
    NAME,
    NOT_NEGATIVE,
    POSITIVE,
    PROTOCOL,
    PROVENANCE,
    SHA256,
    SHARE,
    TOKEN_PARITY,
)
from ceilings.schemas.terms import (
    anything,
    by,
    flag,
    free,
    many,
    maybe,
    number,
    numbers,
    one_of,
    record,
    row,
    table,
    text,
    whole,
)

SAMPLES = maybe(numbers(low=0, integral=True))

LATENCIES = {
    "latency_ns": numbers(low=1, least=1, integral=True),
    "gpu_ns": SAMPLES,
    "enqueue_ns": SAMPLES,
    "warmup_ns": numbers(low=0, integral=True),
    "warmup_stable": flag,
    "stop_reason": one_of("precise", "time-cap", "iteration-cap"),
    "elapsed_ns": whole(1),
}
"""A series of a closed loop, as ``ceilings.measure.loop`` gives it."""

HOST_SPEED = dict.fromkeys(("host_at", "host_ns"), numbers(low=0, integral=True))
"""How fast the host was along a series, as ``ceilings.measure.host_speed`` gives it; older records have none."""

THROUGHPUT = {"concurrency": whole(1), "completions": NOT_NEGATIVE, "seconds": POSITIVE, "inferences_per_s": POSITIVE}


REQUESTS = {
    **dict.fromkeys(("request_ns", "first_token_ns"), numbers(low=1, least=1, integral=True)),
    **dict.fromkeys(("token_ns", "per_token_ns", "worst_gap_ns"), numbers(low=1, integral=True)),
    "jitter_ns": numbers(low=0, integral=True),
    **dict.fromkeys(("tokens", "batch", "generated"), whole(1)),
    "cache_bytes": whole(),
    "stop_reason": LATENCIES["stop_reason"],
    "elapsed_ns": whole(1),
}
"""Requests of a model that generates, as ``ceilings.measure.measurements.requests`` gives them."""


def _series(value: object) -> str | None:
    """A series of latencies, or what a measurement of a plug-in gives."""
    if isinstance(value, dict) and "latency_ns" in value:
        further = {name: check for name, check in LATENCIES.items() if name != "latency_ns"}
        return record({"latency_ns": LATENCIES["latency_ns"]}, further | HOST_SPEED, rest=anything)(value)
    return anything(value)


def _spread(value: object) -> str | None:
    """Minimum, median and maximum of what was watched, in this order."""
    if flaw := record({}, dict.fromkeys(("min", "median", "max"), number()))(value):
        return flaw
    known = [value[name] for name in ("min", "median", "max") if name in value]  # type: ignore[index, operator]
    return None if known == sorted(known) and all(one >= 0 for one in known) else " is no range of a quantity"


WATCHED = record(
    {},
    {
        **dict.fromkeys(("sm_mhz", "memory_mhz", "power_w", "utilisation"), maybe(_spread)),
        "throttled": maybe(table(SHARE)),
    },
    rest=anything,
)
"""What was watched of a GPU beside one series, as ``ceilings.cuda.monitor.summarise`` gives it."""

GPU = record(
    {},
    {
        **dict.fromkeys(("name", "uuid", "driver"), maybe(text())),
        **dict.fromkeys(("max_sm_mhz", "power_limit_w"), maybe(NOT_NEGATIVE)),
        **dict.fromkeys(("latency", "throughput", "requests"), maybe(WATCHED)),
    },
    rest=anything,
)

ENERGY = table(
    maybe(
        record(
            {},
            dict.fromkeys(
                ("joules", "seconds", "mean_watts", "joules_per_inference", "inferences", "uncertainty"), NOT_NEGATIVE
            ),
        )
    )
)
"""By series, as ``ceilings.cuda.monitor.energy`` gives it."""

NEIGHBOURS = record(
    {},
    dict.fromkeys(("others_cores", "stolen_cores", "throttled_periods", "throttled_seconds"), maybe(NOT_NEGATIVE)),
)

PLACEMENT = record(
    dict.fromkeys(("operators", "int8_products", "float_products"), COUNTS),
    {"nodes_by_provider": COUNTS},
    rest=anything,
)
"""What ran in a session of ONNX Runtime, as ``ceilings.runtimes.placement`` gives it."""

RUNTIME = record({}, {"placement": maybe(PLACEMENT), "compile_cache": maybe(text())}, rest=anything)

THREADS = record({"intra_op": whole(1, 1024)}, {"affinity": whole(1), "quota": maybe(POSITIVE)}, rest=maybe(text()))

TEXTS = record(
    {
        "weights": maybe(SHA256),
        "inputs": SHA256,
        "tokens": many(numbers(low=0, least=1, integral=True)),
        "places": many(row(whole(), whole())),
    }
)
"""Texts that are not the reference's, and where in the pool each goes on from; for ``ceilings.measure.text_judge``."""

COMMON = {
    "cell": CELL,
    "run": whole(1),
    "log": maybe(text()),
    "protocol": record({"min_iterations": whole(1), "time_limit_seconds": POSITIVE}, rest=anything),
    "flags": many(text()),
}

FURTHER = {
    "inputs": record({"real_share": maybe(SHARE)}, {"source": maybe(NAME)}),
    "runtime": maybe(RUNTIME),
    "neighbours": maybe(NEIGHBOURS),
    "gpu": maybe(GPU),
    "energy": maybe(ENERGY),
    "host": maybe(free),
    "imports_ns": maybe(table(whole())),
    "first_answer_ns": maybe(whole(1)),
}

MEMORY = record({"peak_rss_bytes": whole(1 << 20, 1 << 50), "peak_device_bytes": maybe(whole())}, rest=anything)

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "protocol": PROTOCOL,
                "status": one_of("ok"),
                "failure": one_of(None),
                "parity": record({**FULL_PARITY, "tolerance": POSITIVE}, TOKEN_PARITY),
                "series": record(
                    {"latency": record(LATENCIES, HOST_SPEED, rest=anything)},
                    {
                        "throughput": record(THROUGHPUT, rest=anything),
                        "requests": record(REQUESTS, rest=anything),
                    },
                    rest=_series,
                ),
                "cold_start_ns": table(whole()),
                "memory": MEMORY,
                "threads": THREADS,
                "provenance": PROVENANCE,
            },
            FURTHER | {"texts": TEXTS},
            rest=anything,
        ),
        "failed": record(
            {**COMMON, "status": one_of("failed"), "failure": FAILURE, "series": record({})},
            FURTHER | dict.fromkeys(("parity", "cold_start_ns", "memory", "threads", "provenance"), maybe(free)),
            rest=anything,
        ),
    },
)
