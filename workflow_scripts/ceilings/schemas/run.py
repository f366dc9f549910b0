"""One process that measured one cell (``measure_latency.py``)."""

from ceilings.schemas.common import CELL, FAILURE, FULL_PARITY, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE, SHARE
from ceilings.schemas.terms import anything, by, flag, free, many, maybe, numbers, one_of, record, table, text, whole

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

THROUGHPUT = {"concurrency": whole(1), "completions": NOT_NEGATIVE, "seconds": POSITIVE, "inferences_per_s": POSITIVE}


def _series(value: object) -> str | None:
    """A series of latencies, or what a measurement of a plug-in gives."""
    if isinstance(value, dict) and "latency_ns" in value:
        further = {name: check for name, check in LATENCIES.items() if name != "latency_ns"}
        return record({"latency_ns": LATENCIES["latency_ns"]}, further, rest=anything)(value)
    return anything(value)


COMMON = {
    "cell": CELL,
    "run": whole(1),
    "log": maybe(text()),
    "protocol": record({"min_iterations": whole(1), "time_limit_seconds": POSITIVE}, rest=anything),
    "flags": many(text()),
}

FURTHER = {
    "inputs": record({"real_share": maybe(SHARE)}, {"source": maybe(NAME)}),
    **dict.fromkeys(("runtime", "neighbours", "gpu", "energy", "host"), maybe(free)),
}

MEMORY = record({"peak_rss_bytes": whole(1), "peak_device_bytes": maybe(whole())}, rest=anything)

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "parity": record({**FULL_PARITY, "tolerance": POSITIVE}),
                "series": record(
                    {"latency": record(LATENCIES, rest=anything)},
                    {"throughput": record(THROUGHPUT, rest=anything)},
                    rest=_series,
                ),
                "cold_start_ns": table(whole()),
                "memory": MEMORY,
                "threads": record({"intra_op": whole(1)}, rest=anything),
                "provenance": PROVENANCE,
            },
            FURTHER,
            rest=anything,
        ),
        "failed": record(
            {**COMMON, "status": one_of("failed"), "failure": FAILURE, "series": record({})},
            FURTHER | dict.fromkeys(("parity", "cold_start_ns", "memory", "threads", "provenance"), maybe(free)),
            rest=anything,
        ),
    },
)
