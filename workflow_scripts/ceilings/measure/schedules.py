"""How requests copy and compute beside each other: the schedules that are held against one stream.

A request is three things: its inputs are copied in, it is computed, its outputs are copied out. A schedule says on
which stream each of them is enqueued, with which buffers, and what waits for what. Standard library only: plans are
made of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

COPY_IN, COMPUTE, COPY_OUT, AFTER, MARK = "copy-in", "compute", "copy-out", "after", "mark"
"""What a step enqueues: one of the three parts of a request, a wait for an event, or the recording of an event."""

PARTS = (COPY_IN, COMPUTE, COPY_OUT)

IN, OUT = -1, -2
"""Numbers of the streams that only copy; streams that compute count from 0."""

FILLED, COMPUTED, ARRIVED = "filled", "computed", "arrived"
"""Events: a buffer set has its inputs, a buffer set was computed, the outputs of a request are home."""

IN_FLIGHT = 8
"""Requests that are submitted and not home yet, in all schedules but the sequential one: streams alone differ."""

BUFFERS = 3
"""Buffer sets where one stream computes: one that fills, one that is computed, one that is emptied. One stream has as
many, so that it differs from three by streams alone: a runtime may keep weights with each set, which a cache holds."""

STREAMS = (2, 4, 8)
"""How many streams with everything of a request on one of them, unless a study says otherwise."""

ROUNDS = 3
"""Rounds of windows, one of each schedule and two of the reference."""

SEQUENTIAL, ONE, THREE, PAGEABLE = "sequential", "one-stream", "three-streams", "three-streams-pageable"
"""Names of the schedules that every measurement has. ``ONE`` is the reference."""


@dataclasses.dataclass(frozen=True)
class Buffers:
    """A set of buffers on the device, and where it is computed: what one loaded model brings.

    Attributes:
        stream: Number of the stream that computes.
        copy: Tells sets of one stream apart.
    """

    stream: int
    copy: int = 0


Event = tuple[str, int]
"""Which kind of event, and of which buffer set or request."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that is enqueued.

    Attributes:
        do: One of ``PARTS``, ``AFTER`` or ``MARK``.
        stream: Where.
        event: What is waited for or recorded; of a part None.
    """

    do: str
    stream: int
    event: Event | None = None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One way to run requests.

    Attributes:
        name: As records and tables call it.
        buffers: The buffer sets that requests use in turn.
        in_flight: Requests that are submitted and not home yet, at most.
        apart: Whether copies have a stream in each direction; else a request is on one stream as a whole.
        pinned: Whether the host's memory is page-locked.
    """

    name: str
    buffers: tuple[Buffers, ...]
    in_flight: int = IN_FLIGHT
    apart: bool = False
    pinned: bool = True

    @property
    def streams(self) -> tuple[int, ...]:
        """Numbers of its streams: those that compute, then those that only copy."""
        computing = tuple(dict.fromkeys(one.stream for one in self.buffers))
        return (*computing, IN, OUT) if self.apart else computing

    @property
    def cycle(self) -> int:
        """After so many requests the same buffers and events meet again."""
        return math.lcm(len(self.buffers), self.in_flight)

    def steps(self, number: int) -> list[Step]:
        """What request ``number`` enqueues, in this order.

        Three streams: its inputs are copied into a buffer set once the request before it in the set was computed. It is
        computed once they are there and the outputs of that request are home. Its outputs are copied once it is
        computed.
        """
        at, room = number % len(self.buffers), number % self.in_flight
        stream = self.buffers[at].stream
        if not self.apart:
            return [*(Step(part, stream) for part in PARTS), Step(MARK, stream, (ARRIVED, room))]
        filled, computed = (FILLED, at), (COMPUTED, at)
        emptied = (ARRIVED, (number - len(self.buffers)) % self.in_flight)
        return [
            Step(AFTER, IN, computed),
            Step(COPY_IN, IN),
            Step(MARK, IN, filled),
            Step(AFTER, stream, filled),
            Step(AFTER, stream, emptied),
            Step(COMPUTE, stream),
            Step(MARK, stream, computed),
            Step(AFTER, OUT, computed),
            Step(COPY_OUT, OUT),
            Step(MARK, OUT, (ARRIVED, room)),
        ]


def schedules(streams: Iterable[int] = STREAMS) -> list[Schedule]:
    """Every schedule of a measurement, the reference first.

    >>> [each.name for each in schedules([2])]
    ['one-stream', 'sequential', 'three-streams', 'three-streams-pageable', 'streams-2']
    """
    rotating = tuple(Buffers(0, copy) for copy in range(BUFFERS))
    return [
        Schedule(ONE, rotating),
        Schedule(SEQUENTIAL, rotating, in_flight=1),
        Schedule(THREE, rotating, apart=True),
        Schedule(PAGEABLE, rotating, apart=True, pinned=False),
        *(Schedule(f"streams-{count}", tuple(map(Buffers, range(count)))) for count in streams),
    ]


def order(every: list[Schedule], number: int) -> list[Schedule]:
    """The windows of a round: the reference, the others, the reference; from round to round the others turn round.

    >>> [each.name for each in order(schedules([]), 2)]
    ['one-stream', 'three-streams-pageable', 'three-streams', 'sequential', 'one-stream']
    """
    reference, *others = every
    return [reference, *(others if number % 2 else reversed(others)), reference]


def elements_used(pool: int) -> int:
    """How many elements of a pool requests go through, in turn.

    Buffers and rooms are used again after 1, 2, 3, 4, 6 or 8 requests. With 5 elements, 7, or another number that
    shares no factor with these, none of them has the same element twice in a row: an answer that came too early or too
    late is another one than is expected.

    >>> elements_used(8), elements_used(5), elements_used(4), elements_used(1)
    (7, 5, 1, 1)
    """
    return max(count for count in range(1, pool + 1) if count == 1 or (count > 3 and math.gcd(count, 6) == 1))
