"""One run of a co-location: its instances, and what each answered alone and in company (``measure_colocation.py``)."""

from typing import Any

from ceilings.schemas.common import FAILURE, FULL_PARITY, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE
from ceilings.schemas.terms import anything, by, flag, free, many, maybe, numbers, one_of, record, table, text, whole

INSTANCE = record(
    {
        "cell": record(dict.fromkeys(("runtime", "model", "precision", "shape"), NAME)),
        "threads": whole(1),
        "processors": many(whole()),
        "member": flag,
        "batch": whole(1),
        "parity": record({**FULL_PARITY, "tolerance": POSITIVE}, rest=anything),
        "answers": whole(1),
        "memory": free,
    }
)

WINDOW = record(
    {
        "round": whole(),
        "reference": flag,
        "instances": many(whole(), 1),
        "opened_ns": whole(),
        "closed_ns": whole(),
        "cores_busy": NOT_NEGATIVE,
        "gpu": maybe(free),
        "answers": table(record({"latency_ns": numbers(low=1, least=1, integral=True), "completions": POSITIVE}), 1),
    }
)

COMMON = {
    "device": NAME,
    "group": NAME,
    "how": one_of("threads", "processes", "mps", "cards"),
    "cores": one_of("shared", "split"),
    "run": whole(1),
    "log": maybe(text()),
    "cells": many(NAME, 2),
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
                "instances": many(INSTANCE, 2),
                "windows": many(WINDOW, 1),
                "physical_cores": whole(1),
                "neighbours": free,
                "gpu": maybe(free),
                "provenance": PROVENANCE,
            }
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}),
    },
)


def SCHEMA(value: Any) -> str | None:
    """A record whose windows hold answers of its instances, and whose company lies between references of all."""
    if flaw := CONTENT(value):
        return flaw
    return _windows(value) if value["status"] == "ok" else None


def _windows(value: Any) -> str | None:
    count = len(value["instances"])
    references: dict[int, list[int]] = {}
    company: set[int] = set()
    for index, window in enumerate(value["windows"]):
        of = window["instances"]
        if len(set(of)) != len(of) or max(of) >= count or set(window["answers"]) != set(map(str, of)):
            return f".windows[{index}] does not have the answers of each of its instances, of which there are {count}"
        if window["reference"]:
            references.setdefault(window["round"], []).extend(of)
        else:
            company.add(window["round"])
    if sorted(references) != list(range(len(references))) or company != {*references} - {0} or not company:
        return ".windows has no references before and after each round of company"
    if bad := [number for number, of in references.items() if sorted(of) != list(range(count))]:
        return f".windows has no reference of each instance in round {bad[0]}"
    if [one for one in value["instances"] if one["member"]] != value["instances"][: len(value["cells"])]:
        return ".instances does not begin with the members of the group"
    return None
