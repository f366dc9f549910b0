"""Whether cells of separate cards may be timed side by side, from what instances on them did alone and in company."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ceilings.schemas.side_by_side import ALLOWED, FORBIDDEN, UNDECIDED
from ceilings.statistics.interference import log_slowdowns, noise
from ceilings.statistics.intervals import paired_over_processes
from ceilings.statistics.quantiles import Interval

APART = 0.05
"""Up to this fraction a busy neighbour may slow a cell that is still called undisturbed."""


@dataclass(frozen=True)
class Check:
    """What one group of instances on separate cards says.

    Attributes:
        verdict: ``allowed``, ``forbidden`` or ``undecided``.
        slowdowns: Of each instance, with its interval.
        noise: By what fraction references differ from those before them; None of one process.
    """

    verdict: str
    slowdowns: tuple[Interval, ...]
    noise: float | None


def checked(records: Sequence[Mapping[str, Any]]) -> Check:
    """The check of a group.

    Args:
        records: Its runs, all of status ok.
    """
    members = [at for at, one in enumerate(records[0]["instances"]) if one["member"]]
    slowdowns = [paired_over_processes([log_slowdowns(record, members, at) for record in records]) for at in members]
    between = noise(records, members)
    return Check(verdict(slowdowns, between), tuple(slowdowns), between)


def verdict(slowdowns: Sequence[Interval], between: float | None) -> str:
    """``allowed`` where every slowdown ends within ``APART``, ``forbidden`` where one is certain and beyond the noise.

    Args:
        slowdowns: With their intervals.
        between: The noise; None where nothing says it.
    """
    if not all(one.bounded for one in slowdowns):
        return UNDECIDED
    if all(one.high <= 1 + APART for one in slowdowns):
        return ALLOWED
    certain = between is not None and any(one.low > 1 and one.estimate > 1 + between for one in slowdowns)
    return FORBIDDEN if certain else UNDECIDED


def overall(verdicts: Iterable[str]) -> str:
    """Of several groups: all must allow it, and one forbids it.

    >>> overall(["allowed", "undecided"]), overall(["allowed", "forbidden"]), overall([])
    ('undecided', 'forbidden', 'undecided')
    """
    known = set(verdicts)
    return FORBIDDEN if FORBIDDEN in known else ALLOWED if known == {ALLOWED} else UNDECIDED
