"""Where the time of a trace went that others made (``explain_capture.py``)."""

from typing import Any

from ceilings.schemas.common import NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE, SHA256, SHARE
from ceilings.schemas.terms import flag, many, maybe, number, numbers, one_of, record, row, table, text, whole
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, RECORDING_SHARES, SAMPLING

RECORDINGS = ("nsight-systems", "pytorch-profiler", "ceilings")
"""Formats that hold calls and operations with their times; only these can be drawn in time."""

FORMATS = (
    *RECORDINGS,
    *("onnxruntime-profile", "trtexec-times", "trtexec-profile", "trtexec-layers"),  # what one program says of itself
)
BY = ("range", "step", "graph", "period", "interval", "run", "whole")
"""How iterations were made out: a named range, the profiler's steps, launches of one CUDA graph, the period of the
kernels, an interval of time that the user gave, runs that the program counts; the whole recording as one."""

CHANGES = ("host", "graph", "copies", "kernels", "communication")
"""What a replay changes: the host takes no time; one launch submits everything; copies between host and device take no
time; kernels take half the time; communication takes no time."""

MEDIAN = record({"median": NOT_NEGATIVE, "low": maybe(NOT_NEGATIVE), "high": maybe(NOT_NEGATIVE)})
PART = record({"part": NAME, "ns": NOT_NEGATIVE, "share": number(low=0)})
"""A named part, its median in an iteration, and its share of the iteration's length."""

KERNEL = record(
    {
        **{"name": text(), "short": text(), "class": one_of(*KERNEL_CLASSES)},
        # an iteration: how many, their time, and what of it lies on the critical path
        **{"count": POSITIVE, "ns": NOT_NEGATIVE, "path_ns": maybe(NOT_NEGATIVE)},
    }
)
CALL = record({"name": text(), "kind": NAME, "count": POSITIVE, "ns": NOT_NEGATIVE, "path_ns": maybe(NOT_NEGATIVE)})
TIME = whole(-(10**15), 10**18)

WHAT_IF = record(
    {
        "change": one_of(*CHANGES),
        "ns": maybe(NOT_NEGATIVE),  # the iteration's length then; None where no replay says it
        "gain": maybe(number(high=1)),  # the share of the iteration that goes
        "why_not": maybe(text()),  # why there is no number
    }
)

GROUP = record(
    {
        "label": NAME,  # what its iterations have in common: "412 kernels", or the range's name
        "count": whole(1),
        "share": SHARE,  # of the time of all iterations
        "length_ns": record(
            {"median": POSITIVE, "low": maybe(POSITIVE), "high": maybe(POSITIVE), "least": POSITIVE, "most": POSITIVE}
        ),
        # None where the format has nothing of it
        "verdict": maybe(record({"name": NAME, "meaning": text(), "majority": SHARE})),
        "shares": maybe(record(dict.fromkeys(RECORDING_SHARES, number(0, 2)))),
        "path": many(
            PART
        ),  # the critical path, finer: "kernel: gemm", "launch: calls of thread 1", "host: aten::linear"
        "host": many(record({"thread": NAME, "parts": record(dict.fromkeys(HOST_PARTS, MEDIAN)), "launches": SHARE})),
        "devices": many(
            record(
                {
                    "device": whole(-1),
                    "busy_ns": MEDIAN,
                    "classes": record(dict.fromkeys(set(KERNEL_CLASSES) - {SAMPLING}, MEDIAN), {SAMPLING: MEDIAN}),
                    "idle": record(dict.fromkeys(IDLE_CAUSES, MEDIAN)),
                    "idle_unexplained_ns": MEDIAN,
                    "overlap_ns": MEDIAN,  # at least two operations run
                    "hidden_transfer_ns": MEDIAN,  # copies between host and device beside a kernel
                    "hidden_communication_ns": MEDIAN,
                }
            )
        ),
        # what does not fit the exact account, by name and size: work of other processes, of the iteration before, ...
        "parts": many(PART),
        "residual_ns": maybe(record({"host": number(), "device": number()})),
        "counts": table(NOT_NEGATIVE),  # medians of an iteration: launches, graphs, kernels, copies, syncs, ...
        "kernels": many(KERNEL),
        "calls": many(CALL),
        "layers": many(record({"name": text(), "kind": text(), "count": POSITIVE, "ns": NOT_NEGATIVE})),  # or nodes
        "what_if": many(WHAT_IF),
        "levers": many(record({"lever": NAME, "why": text(), "gain": maybe(SHARE)})),
        "lengths_ns": numbers(low=0),  # of each of its iterations in their order, at most 2,000 of them
        "timeline": maybe(
            record(
                {
                    "iteration": whole(),
                    "length": whole(1),
                    # begin, end, kind, thread's place in "threads", whether on the path
                    "calls": many(row(TIME, TIME, text(), whole(), flag)),
                    # begin, end, class, stream's place in "streams", begin of its call, whether on the path
                    "operations": many(row(TIME, TIME, one_of(*KERNEL_CLASSES), whole(), maybe(TIME), flag)),
                    "threads": many(text()),
                    "streams": many(text()),
                },
                {"path": many(row(TIME, TIME, text()))},  # the critical path as segments: begin, end, label
            )
        ),
    }
)

UNREADABLE = record({"name": NAME, "failure": text(empty=False), "provenance": PROVENANCE})
"""Of a capture of a study that cannot be read: why, in one line. The other captures go on."""

EXPLANATION = record(
    {
        "name": NAME,
        "source": record(
            {
                "format": one_of(*FORMATS),
                "tool": maybe(text()),
                "bytes": whole(),
                "sha256": SHA256,
                "counts": table(whole()),
                "lacks": many(text()),
            }
        ),
        "health": many(record({"level": one_of("error", "warning", "note"), "text": text()})),
        "span_ns": NOT_NEGATIVE,
        # the whole recording, by device
        "devices": many(
            record(
                {
                    **{"device": whole(-1), "name": maybe(text()), "processes": whole(), "streams": whole()},
                    **dict.fromkeys(("kernels", "copies", "fills", "graphs"), whole()),
                    **{"busy_ns": NOT_NEGATIVE, "span_ns": NOT_NEGATIVE},
                }
            )
        ),
        "iterations": record(
            {
                "by": one_of(*BY),
                "name": maybe(text()),
                "count": whole(),
                "certainty": SHARE,
                "why": text(),
                "inside_ns": NOT_NEGATIVE,
                "between_ns": NOT_NEGATIVE,
                "others": many(record({"by": one_of(*BY), "name": maybe(text()), "count": whole(1)})),
            }
        ),
        "groups": many(GROUP),
        "provenance": PROVENANCE,
    },
    {
        # the latency measured without the recorder, and the speed of the host at which a replay takes as long
        "untraced": record(
            {
                "how": one_of("fitted", "any", "none"),
                "host": maybe(NOT_NEGATIVE),
                "latency_ns": POSITIVE,
                "replayed_ns": maybe(NOT_NEGATIVE),
            }
        ),
    },
)


def SCHEMA(value: Any) -> str | None:
    """An explanation, or why there is none."""
    return (UNREADABLE if isinstance(value, dict) and "failure" in value else EXPLANATION)(value)
