"""Where the time of a captured cell's iteration went (``account_budget.py``)."""

from ceilings.schemas.common import CELL, FAILURE, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE, SHARE
from ceilings.schemas.terms import anything, by, free, many, maybe, number, numbers, one_of, record, row, text, whole
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, PATH_SHARES, SELDOM

MEDIAN = record({"median": NOT_NEGATIVE, "low": maybe(NOT_NEGATIVE), "high": maybe(NOT_NEGATIVE)})
MIDDLE = record(dict.fromkeys(("median", "low", "high"), maybe(number())))
ITERATION = record({"median": POSITIVE, "low": maybe(POSITIVE), "high": maybe(POSITIVE)})
SHARES = record(dict.fromkeys(PATH_SHARES, number(0, 2)))
KERNEL = record(
    {"name": text(), "short": text(), "class": one_of(*KERNEL_CLASSES), "count": POSITIVE, "ns": NOT_NEGATIVE}
)
IRREGULAR = record(
    {
        "what": one_of("kernel", "copy", "call"),
        "name": text(),
        **dict.fromkeys(("iterations", "of", "most"), whole(1)),
        "least": whole(),
        "ns": NOT_NEGATIVE,
    },
    {**dict.fromkeys(("first", "last"), whole()), "period": maybe(whole(2))},
)
TIME = whole(-(10**12), 10**15)
CALL = row(TIME, TIME, text())
OPERATION = row(TIME, TIME, one_of(*KERNEL_CLASSES), whole(-1), maybe(TIME))

AT_ALL_SPEEDS = {
    **dict.fromkeys(("length_ns", "submitted_ns", "no_work_ns"), numbers(low=0, least=1)),
    "shares": record(dict.fromkeys(PATH_SHARES, numbers(0, 2, least=1))),
}
REPLAYS = record(
    {"iterations": whole(1), "host": numbers(low=0, least=1), **AT_ALL_SPEEDS},
    {"closer": record({"node_gap_ns": POSITIVE, **AT_ALL_SPEEDS})},
)

COMMON = {
    "source": maybe(text()),
    "tool": maybe(text()),
    "cell": maybe(CELL),
    "warmup_p50_ns": maybe(POSITIVE),
    "provenance": PROVENANCE,
}

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "iterations": whole(1),
                "iteration_ns": ITERATION,
                "host_ns": record(dict.fromkeys(HOST_PARTS, MEDIAN)),
                "other_calls_ns": MIDDLE,
                "device_ns": record(
                    {
                        "busy": MEDIAN,
                        "classes": record(
                            dict.fromkeys(set(KERNEL_CLASSES) - set(SELDOM), MEDIAN), dict.fromkeys(SELDOM, MEDIAN)
                        ),
                        "idle": record(dict.fromkeys(IDLE_CAUSES, MEDIAN)),
                        "idle_unexplained": MIDDLE,
                    }
                ),
                "residual_ns": record({"host": number(), "device": number()}),
                "counts": record(dict.fromkeys(("launches", "graphs", "kernels"), NOT_NEGATIVE)),
                "kernel_mean_ns": maybe(NOT_NEGATIVE),
                "submit_ns": NOT_NEGATIVE,
                "launch_to_start_ns": maybe(number()),
                "shares": SHARES,
                "verdict": record({"name": NAME, "meaning": text(), "majority": SHARE}),
                "replays": maybe(REPLAYS),
                "jitter": maybe(record({"slow_iterations": whole(1)}, rest=anything)),
                "kernels": many(KERNEL),
                "unknown_kernels": many(KERNEL),
                "timeline": record(
                    {"iteration": whole(), "length": whole(1), "calls": many(CALL), "operations": many(OPERATION)}
                ),
                "flags": many(text()),
            },
            {"layers": free, "irregular": many(IRREGULAR)},
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}),
    },
)
