"""What a reader notices about a file while it reads it."""

from __future__ import annotations

import dataclasses

import numpy as np

from ceilings.traces.capture import Integers

LATEST = 1 << 61
"""Nanoseconds, 73 years: what lies further from the recorder's zero would overflow where times are added."""


@dataclasses.dataclass
class Findings:
    """Events by what became of them, and sentences about what is wrong or missing; see ``recording.Source``."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    lacks: list[str] = dataclasses.field(default_factory=list)

    def count(self, what: str, number: int) -> None:
        """Add to a count; what is not there, is not counted."""
        if number:
            self.counts[what] = self.counts.get(what, 0) + number

    def problem(self, number: int, sentence: str) -> None:
        """Say a sentence that begins with a number, if the number is not 0."""
        if number:
            self.problems.append(f"{number:,} {sentence}")

    def sound(self, rows: Integers, what: str) -> Integers:
        """The rows with a begin and an end, columns 0 and 1; -1, two zeros, and what no clock shows, are none."""
        start, end = rows[:, 0], rows[:, 1]
        endless = end == -1
        backwards = ~endless & (end < start)
        timeless = ((start == 0) & (end == 0)) | (np.minimum(start, end) < -LATEST) | (np.maximum(start, end) > LATEST)
        self.count(what, len(rows))
        self.problem(int(endless.sum()), f"{what} have no end: left out.")
        self.problem(int(backwards.sum()), f"{what} end before they begin: left out.")
        self.problem(int(timeless.sum()), f"{what} have no time: left out.")
        bad = endless | backwards | timeless
        self.count(f"{what} left out", int(bad.sum()))
        return rows[~bad] if bad.any() else rows
