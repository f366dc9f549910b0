"""Named ranges of a recording that can be its iterations."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import UserError
from ceilings.traces.capture import ITERATION
from ceilings.traces.recording import FUNCTION, OPERATOR, RANGE, Recording

Integers = NDArray[np.int64]
STEP = "ProfilerStep#N"
"""The steps of PyTorch's profiler, their numbers left out."""

MOST = 0.8
"""Ranges can be the iterations if so much of the device's work from the first to the last is launched in them."""

LEAST, FEWEST = 0.25, 3
"""Where more work lies before the first (start-up) or after the last: this share of all work, and so many ranges."""

NUMBER = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class NamedRange:
    """Ranges of one name, numbers in it left out (``step N``), by begin; the outermost of nested ones.

    Attributes:
        name: Their name.
        spans: Indices into the recording's spans.
        share: Of the work of the process (time on the device), what was launched within them.
        between: The same of the work from the begin of the first to the end of the last of them.
        cyclic: Whether numbers in their names begin anew again and again, as those of layers do.
        counting: Whether a number in their names only grows, as that of steps does.
    """

    name: str
    spans: Integers
    share: float
    between: float
    cyclic: bool
    counting: bool

    @property
    def most(self) -> bool:
        """Whether they repeat and hold most of the work, or most of it but for what is before and after them."""
        if len(self.spans) < 2 or self.between < MOST:
            return False
        return self.share >= MOST or (self.share >= LEAST and len(self.spans) >= FEWEST)

    @property
    def project(self) -> bool:
        """Whether this project marked them."""
        return self.name == ITERATION

    @property
    def steps(self) -> bool:
        """Whether they are steps of PyTorch's profiler."""
        return self.name == STEP


def plain(name: str) -> str:
    """A name without the numbers in it.

    >>> plain("step 17"), plain("ProfilerStep#3")
    ('step N', 'ProfilerStep#N')
    """
    return NUMBER.sub("N", name)


def named_ranges(recording: Recording, process: int, launched: Integers, cost: Integers) -> list[NamedRange]:
    """All ranges of a process by name; those that contain the most work first, and of them the fewest.

    Args:
        launched: When each operation of the process was launched, ascending, in ns.
        cost: Its time on the device.
    """
    spans = recording.spans
    mine = _of_process(recording, process) & (spans.kind == RANGE)
    found = []
    plain_names, number = _plain_names(recording)
    places = np.flatnonzero(mine)
    of_name = number[spans.name[places]]
    order = np.argsort(of_name, kind="stable")
    for group in np.split(places[order], np.flatnonzero(np.diff(of_name[order])) + 1):
        if len(group):
            outer = outermost(recording, group)
            share, between = _shares(recording, outer, launched, cost)
            name = plain_names[number[spans.name[group[0]]]]
            found.append(NamedRange(name, outer, share, between, *_numbered(recording, outer)))
    return sorted(found, key=lambda one: (-round(one.share, 2), len(one.spans)))


def operators(recording: Recording, process: int) -> tuple[Integers, Integers]:
    """When each outermost operator of a process began, ascending, and how long it took, in ns.

    They are the work of a recording in which nothing was given to a device.
    """
    spans = recording.spans
    outer = outermost(recording, np.flatnonzero(_of_process(recording, process) & (spans.kind == OPERATOR)))
    return spans.start[outer], (spans.end - spans.start)[outer]


def chosen_ranges(recording: Recording, process: int, pattern: str) -> tuple[str, Integers]:
    """Name and spans of the ranges that a user asks for: a name, a name without its numbers, or a glob.

    Raises:
        UserError: No range, operator or function has such a name.
    """
    spans = recording.spans
    mine = _of_process(recording, process)
    for kinds in ((RANGE,), (OPERATOR, FUNCTION)):
        of_kind = mine & np.isin(spans.kind, kinds)
        for fits in (
            lambda name: name == pattern,
            lambda name: plain(name) == pattern,
            lambda name: fnmatch.fnmatchcase(name, pattern),
        ):
            numbers = [number for number in np.unique(spans.name[of_kind]) if fits(recording.names[number])]
            if numbers:
                return pattern, outermost(recording, np.flatnonzero(of_kind & np.isin(spans.name, numbers)))
    names = sorted({plain(recording.names[number]) for number in np.unique(spans.name[mine & (spans.kind == RANGE)])})
    near = difflib.get_close_matches(pattern, names, 5, 0.3) or names[:5]
    known = "; ".join(name[:80] for name in near)
    raise UserError(
        f"range is {pattern!r}, and no range of the recording has that name; "
        + (f"it has {known}" if near else "it has no ranges: leave the choice out")
    )


def outermost(recording: Recording, places: Integers) -> Integers:
    """Of spans those that lie in no other one of them on their thread; by begin."""
    spans = recording.spans
    kept = []
    for thread in np.unique(spans.thread[places]):
        mine = places[spans.thread[places] == thread]
        mine = mine[np.lexsort((-spans.end[mine], spans.start[mine]))]
        reach = np.maximum.accumulate(spans.end[mine])
        kept.append(mine[np.concatenate([[True], spans.end[mine][1:] > reach[:-1]])])
    every = np.concatenate(kept) if kept else places
    return every[np.argsort(spans.start[every], kind="stable")]


def overlapping(recording: Recording, places: Integers) -> bool:
    """Whether spans overlap each other in time, on different threads."""
    spans = recording.spans
    order = places[np.argsort(spans.start[places], kind="stable")]
    return bool((spans.start[order][1:] < np.maximum.accumulate(spans.end[order])[:-1]).any())


def _of_process(recording: Recording, process: int) -> NDArray[np.bool_]:
    of_thread = np.array([process in (-1, thread.process) for thread in recording.threads] + [process == -1])
    return of_thread[recording.spans.thread]


def _plain_names(recording: Recording) -> tuple[list[str], Integers]:
    """Names without numbers, and for each name of the recording the place of its own there."""
    used = np.unique(recording.spans.name[recording.spans.kind == RANGE])
    number = np.full(len(recording.names) + 1, -1, np.int64)
    places: dict[str, int] = {}
    for index in used:
        number[index] = places.setdefault(plain(recording.names[index]), len(places))
    return list(places), number


def _shares(recording: Recording, places: Integers, launched: Integers, cost: Integers) -> tuple[float, float]:
    """Shares of all work, and of that from the first to the last span, that is launched while a span is open."""
    spans = recording.spans
    edges = np.concatenate([[0], np.cumsum(cost)])
    order = places[np.argsort(spans.start[places], kind="stable")]
    begin, end = spans.start[order], np.maximum.accumulate(spans.end[order])
    begin = np.maximum(begin, np.concatenate([begin[:1], end[:-1]]))
    low = np.searchsorted(launched, begin)
    high = np.maximum(np.searchsorted(launched, end), low)
    inside = float((edges[high] - edges[low]).sum())
    return inside / max(edges[-1], 1), inside / max(edges[high[-1]] - edges[low[0]], 1)


def _numbered(recording: Recording, places: Integers) -> tuple[bool, bool]:
    """Whether a number in the names counts up and begins anew, at least twice; whether one only grows."""
    names = [recording.names[number] for number in recording.spans.name[places[:10_000]]]
    numbers = [[int(text[:15]) for text in NUMBER.findall(name)] for name in names]
    alike = len({len(each) for each in numbers}) == 1
    steps = np.diff(np.array(numbers, np.int64) if alike else np.empty((0, 0), np.int64), axis=0)
    cyclic = False
    for step in steps.T:
        back = step < 0
        cyclic |= bool(back.sum() >= 2 and (step[~back] == 1).mean() > 0.9 and len(np.unique(step[back])) == 1)
    return cyclic, len(steps) > 0 and bool((steps > 0).all(axis=0).any())
