"""Says about how long the rest of a run will take. Standard library only.

Snakemake counts steps; it does not know how long one takes. This listens to its log events and completes its line.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping


class TimeLeft(logging.Filter):
    """Turns Snakemake's ``38 of 118 steps (32%) done`` into ``..., about 3 min left``; passes everything else on.

    Args:
        expected_seconds: A first guess per rule, used until a job of the rule has ended.
    """

    def __init__(self, expected_seconds: Mapping[str, float]) -> None:
        super().__init__()
        self.expected_seconds = dict(expected_seconds)
        self.remaining: Counter[str] = Counter()
        self.started: dict[int, tuple[str, float]] = {}
        self.spent: dict[str, tuple[int, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Follow one log event of Snakemake."""
        fields = record.__dict__
        match fields.get("event"):
            case "run_info":
                self.remaining = Counter({rule: n for rule, n in fields["stats"].items() if rule != "total"})
            case "job_info":
                self.started[fields["jobid"]] = (fields["rule_name"], time.monotonic())
            case "job_finished" if fields["job_id"] in self.started:
                rule, start = self.started.pop(fields["job_id"])
                count, seconds = self.spent.get(rule, (0, 0.0))
                self.spent[rule] = (count + 1, seconds + time.monotonic() - start)
                self.remaining[rule] -= 1
            case "progress" if fields["done"] < fields["total"]:
                done, total = fields["done"], fields["total"]
                record.msg = f"{done} of {total} steps ({done / total:.0%}) done, about {duration(self.seconds())} left"
                fields["event"] = None  # a plain message: Snakemake would format the event without the time
        return True

    def seconds(self) -> float:
        """Sum over the remaining jobs of what one of their rule has taken so far, else of the first guess."""
        return sum(count * self._mean(rule) for rule, count in self.remaining.items())

    def _mean(self, rule: str) -> float:
        if rule in self.spent:
            count, seconds = self.spent[rule]
            return seconds / count
        return self.expected_seconds.get(rule, 3.0)


def show(expected_seconds: Mapping[str, float]) -> None:
    """Complete the log of the Snakemake process that calls this, once however often it parses the workflow."""
    logger = logging.getLogger("snakemake.logging")
    if not any(isinstance(known, TimeLeft) for known in logger.filters):
        logger.addFilter(TimeLeft(expected_seconds))


def duration(seconds: float) -> str:
    """A span in words, as exact as an estimate deserves.

    >>> duration(8), duration(100), duration(4000)
    ('10 s', '1 min 40 s', '1 h 7 min')
    """
    tens = max(round(seconds / 10) * 10, 10)
    if tens < 60:
        return f"{tens} s"
    minutes, rest = divmod(tens, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
