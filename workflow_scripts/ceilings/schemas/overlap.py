"""One run of a cell's schedules of copies and compute (``measure_overlap.py``)."""

from typing import Any

from ceilings.schemas.common import CELL, FAILURE, FULL_PARITY, NAME, POSITIVE, PROVENANCE, SHARE
from ceilings.schemas.terms import by, flag, free, many, maybe, numbers, one_of, record, table, text, whole

SCHEDULE = record({"name": NAME, **dict.fromkeys(("streams", "buffers", "in_flight"), whole(1)), "pinned": flag})

WINDOW = record(
    {
        "round": whole(1),
        "schedule": NAME,
        "latency_ns": numbers(low=1, least=1, integral=True),
        "submit_ns": POSITIVE,
        "completions": whole(1),
        "elapsed_ns": whole(1),
        "activity": maybe(table(maybe(SHARE))),
    }
)

SPANS = numbers(low=0, least=1, integral=True)

COMMON = {
    "cell": CELL,
    "run": whole(1),
    "log": maybe(text()),
    "streams": many(whole(2)),
    "flags": many(text()),
    "protocol": free,
}

CONTENT = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "schedules": many(SCHEDULE, 1),
                **dict.fromkeys(("batch", "bytes_in", "bytes_out", "elements", "checked"), whole(1)),
                "parity": record({**FULL_PARITY, "tolerance": POSITIVE}),
                "parts": record(dict.fromkeys(("copy_in_ns", "compute_ns", "copy_out_ns"), SPANS)),
                "windows": many(WINDOW, 1),
                **dict.fromkeys(("memory", "neighbours", "gpu"), free),
                "provenance": PROVENANCE,
            }
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}),
    },
)


def SCHEMA(value: Any) -> str | None:
    """A record whose every round has a window of each schedule, and of the first one at its begin and its end."""
    if flaw := CONTENT(value):
        return flaw
    return _rounds(value) if value["status"] == "ok" else None


def _rounds(value: Any) -> str | None:
    reference, *others = (one["name"] for one in value["schedules"])
    rounds: dict[int, list[str]] = {}
    for window in value["windows"]:
        rounds.setdefault(window["round"], []).append(window["schedule"])
    if sorted(rounds) != list(range(1, len(rounds) + 1)):
        return ".windows has rounds that do not count from 1"
    for number, names in rounds.items():
        if names[0] != reference or names[-1] != reference or sorted(names[1:-1]) != sorted(others):
            return f".windows does not have each schedule in round {number}, {reference} first and last"
    if len({len(spans) for spans in value["parts"].values()}) > 1:
        return ".parts does not have each part of each request"
    return None
