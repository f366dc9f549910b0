"""Whether cells of separate cards of a host may be timed side by side (``judge_side_by_side.py``)."""

from ceilings.schemas.common import NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE
from ceilings.schemas.terms import many, maybe, one_of, record, text

ALLOWED, FORBIDDEN, UNDECIDED = "allowed", "forbidden", "undecided"

VERDICT = one_of(ALLOWED, FORBIDDEN, UNDECIDED)

SLOWDOWN = record({"estimate": POSITIVE, "low": maybe(POSITIVE), "high": maybe(POSITIVE)})

GROUP = record(
    {
        "group": NAME,
        "cells": many(NAME, 2),
        "verdict": VERDICT,
        "slowdowns": many(SLOWDOWN),
        "noise": maybe(NOT_NEGATIVE),
        "reason": maybe(text()),
    }
)

SCHEMA = record(
    {
        "device": NAME,
        "verdict": VERDICT,
        "cards": many(NAME),  # UUIDs of those that every run had: the verdict is theirs
        "groups": many(GROUP, 1),
        "provenance": PROVENANCE,
    }
)
