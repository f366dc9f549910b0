"""A recording as it would be without its recorder: the host's time scaled until an iteration takes as long as measured.

A recorder makes calls and framework code of the host longer and leaves kernels as they are. So verdict, path and
what-ifs of a recorded iteration may be those of the recorder. :mod:`ceilings.traces.replay` runs an iteration at
another speed of the host; here the replays become a recording again, and all that is known of recordings applies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ceilings.traces.capture import Calls, Integers
from ceilings.traces.explained.account import Accounted, Accounts
from ceilings.traces.explained.what_if import CLOSE
from ceilings.traces.recording import Recording, Spans, Waits, Work
from ceilings.traces.replay import Replay

FASTEST, SLOWEST = 0.02, 1.5
"""The host's own time as recorded, times at least and at most this."""

FITS = 0.1
"""A replay explains a latency if it differs by no more than this share of it."""

STEPS = 30
BETWEEN_NS = 1_000

FITTED, ANY, NONE = "fitted", "any", "none"


@dataclasses.dataclass(frozen=True)
class Fit:
    """The speed of the untraced host.

    Attributes:
        how: ``FITTED``; ``ANY``: a host that takes nearly no time and the recorded one both fit, so the device decides;
            ``NONE``: no speed gives the latency.
        host: The host's own time as recorded, times this; None where no speed or any one fits.
        latency: The median iteration as measured without the recorder, in ns.
        replayed: What the replay at this speed takes, in ns; None as above.
        text: What a reader should know, in a sentence or two.
    """

    how: str
    host: float | None
    latency: float
    replayed: float | None
    text: str

    def record(self) -> dict[str, Any]:
        """As an explanation has it."""
        return {"how": self.how, "host": self.host, "latency_ns": self.latency, "replayed_ns": self.replayed}


def fit(groups: Sequence[tuple[Sequence[Accounted], int]], latency: float) -> Fit:
    """The speed of the host at which the median iteration takes as long as measured.

    Args:
        groups: Of each group of iterations those to replay, and how many iterations it has.
        latency: Median of an iteration without the recorder, in ns.
    """
    replays, weights, why = list[Replay](), list[float](), "there is no iteration"
    for accounted, count in groups:
        known = list[Replay]()
        for one in accounted:
            replay = _replay(one)
            if replay is None:
                why = one.why_not or "at the recorded speed the replay is not the recording"
            else:
                known.append(replay)
        if 2 * len(known) >= len(accounted):
            replays += known
            weights += [count / len(known)] * len(known)
    measured = f"{latency / 1e6:.4g} ms without the recorder"
    if not replays:
        return Fit(NONE, None, latency, None, f"{measured}: not used, since no iteration can be replayed: {why}.")

    def length(host: float) -> float:
        return _middle([replay.run(host).length for replay in replays], weights)

    least, recorded, most = length(FASTEST), length(1.0), length(SLOWEST)
    if latency < least * (1 - FITS) or latency > most * (1 + FITS):
        side = (
            f"a host that took no time would still need {least / 1e6:.4g} ms"
            if latency < least
            else f"a host {SLOWEST:g} times as slow would need {most / 1e6:.4g} ms"
        )
        text = (
            f"{measured}: no speed of the host explains it, {side}. Is it of the same iteration? "
            "All times are as recorded."
        )
        return Fit(NONE, None, latency, None, text)
    low, high = FASTEST, SLOWEST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if length(middle) < latency else (low, middle)
    host, found = (low + high) / 2, length((low + high) / 2)
    said = f"{measured}, {recorded / 1e6:.4g} ms recorded"
    if abs(least - latency) <= FITS * latency and abs(recorded - latency) <= FITS * latency:
        text = (
            f"{said}: the device decides, and any speed of the host fits within {FITS:.0%}. Times are as recorded. How "
            "fast the host is without the recorder is not known: what the host would decide then has no number."
        )
        return Fit(ANY, None, latency, recorded, text)
    text = (
        f"{said}: path, verdict, what-ifs and levers are of a replay with {host:.0%} of the recorded host time, which "
        f"takes {found / 1e6:.4g} ms. Lengths of kernels and copies are as recorded."
    )
    return Fit(FITTED, host, latency, found, text)


def _replay(one: Accounted) -> Replay | None:
    """What runs again as it was recorded, or None."""
    if one.recorded is None:
        return None
    replay = Replay(one.recorded)
    return replay if abs(replay.run(1).length - one.length) <= CLOSE * one.length else None


def _middle(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted median."""
    order = np.argsort(values)
    over = np.cumsum(np.array(weights)[order])
    return float(np.array(values)[order][np.searchsorted(over, over[-1] / 2)])


@dataclasses.dataclass(frozen=True)
class Span:
    """Where an iteration lies in the new recording."""

    begin: int
    end: int
    thread: int


def untraced(accounts: Accounts, accounted: Sequence[Accounted], host: float) -> tuple[Accounts, dict[int, Span]]:
    """A recording of iterations with the host's own time scaled, and where each lies in it, by its place.

    Those that cannot be replayed are left out.
    """
    pieces, spans = list[_Piece](), dict[int, Span]()
    now = BETWEEN_NS
    for place, one in enumerate(accounted):
        replay = _replay(one)
        if replay is None:
            continue
        piece = _Piece(accounts, one, replay, host, now)
        pieces.append(piece)
        spans[place] = Span(now, now + piece.length, one.thread)
        now += piece.length + BETWEEN_NS
    return Accounts(_joined(accounts.recording, pieces), accounts.alone), spans


class _Piece:
    """An iteration at the other speed, at its place in the new recording: columns of calls, work, spans and waits."""

    def __init__(self, accounts: Accounts, one: Accounted, replay: Replay, host: float, at: int) -> None:
        recording, recorded = accounts.recording, one.recorded
        assert recorded is not None
        run = replay.run(host)
        self.length = max(run.length, 1)
        calls, work = recording.calls, recording.work
        line = one.lines.calls[0][1]
        x = np.column_stack([recorded.calls.begin, recorded.calls.end]).ravel()
        y = np.column_stack([run.calls.begin, run.calls.end]).ravel()
        last = max(self.length, int(y.max(initial=0)))
        x = np.maximum.accumulate(np.concatenate([[0], x, [recorded.length]]))
        y = np.maximum.accumulate(np.concatenate([[0], y, [last]]))

        def mapped(times: Integers) -> Integers:
            return at + np.round(np.interp(times - one.begin, x, y)).astype(np.int64)

        followed = one.followed
        early = np.setdiff1d(work.call[followed][work.call[followed] >= 0], one.called)
        chosen = np.union1d(one.called, early)
        start, end = mapped(calls.start[chosen]), mapped(calls.end[chosen])
        place = np.searchsorted(chosen, line)
        start[place], end[place] = at + run.calls.begin, at + run.calls.end
        before = calls.start[chosen] < one.begin
        start[before] = at - 1
        end[before & (calls.end[chosen] <= one.begin)] = at - 1
        order = np.argsort(start, kind="stable")
        self.calls, self.call_times = chosen[order], (start[order], np.maximum(start, end)[order])

        begin, finish = np.empty_like(followed), np.empty_like(followed)
        begin[run.order], finish[run.order] = run.work.begin, run.work.end
        order = np.argsort(begin, kind="stable")
        self.work, self.work_times = followed[order], (at + begin[order], at + finish[order])

        threads = {*one.hosts, *np.unique(calls.thread[chosen]).tolist()}
        spans = [accounts.spans.within(thread, one.begin, one.end) for thread in sorted(threads)]
        self.spans = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        times = mapped(recording.spans.start[self.spans]), mapped(recording.spans.end[self.spans])
        order = np.argsort(times[0], kind="stable")
        self.spans, self.span_times = self.spans[order], (times[0][order], times[1][order])
        self.waits = np.flatnonzero(np.isin(recording.waits.call, self.calls))


def _joined(recording: Recording, pieces: Sequence[_Piece]) -> Recording:
    """The pieces as one recording, by time."""
    none = np.zeros(0, np.int64)

    def column(values: Sequence[Integers]) -> Integers:
        return np.concatenate([none, *values])

    def times(name: str) -> tuple[Integers, Integers]:
        both = [getattr(piece, name) for piece in pieces]
        return column([one[0] for one in both]), column([one[1] for one in both])

    edges = np.concatenate([[0], np.cumsum([len(piece.calls) for piece in pieces])]).astype(np.int64)

    def renumbered(piece: int, which: Integers) -> Integers:
        """Calls of the recording as calls of the new one; -1 where they are not in the piece."""
        mine = pieces[piece].calls
        order = np.argsort(mine, kind="stable")
        at = np.minimum(np.searchsorted(mine[order], which), max(len(mine) - 1, 0))
        if not len(mine):
            return np.full(len(which), -1)
        return np.where(mine[order][at] == which, edges[piece] + order[at], -1)

    called, ran, said = (column([getattr(piece, name) for piece in pieces]) for name in ("calls", "work", "spans"))
    calls, work, spans, waits = recording.calls, recording.work, recording.spans, recording.waits
    rows = [piece.waits for piece in pieces]
    waiting = column(rows)
    call = column([renumbered(k, waits.call[mine]) for k, mine in enumerate(rows)])
    after = column([renumbered(k, waits.after_call[mine]) for k, mine in enumerate(rows)])
    # An event of an iteration before is over: nothing waits for it.
    call = np.where((waits.after_call[waiting] >= 0) & (after < 0), -1, call)
    launched = column([renumbered(k, work.call[piece.work]) for k, piece in enumerate(pieces)])
    return dataclasses.replace(
        recording,
        calls=Calls(*times("call_times"), calls.thread[called], calls.name[called], calls.failed[called]),
        work=Work(
            *times("work_times"),
            **{name: getattr(work, name)[ran] for name in _WORK},
            call=launched,
            pageable=None if work.pageable is None else work.pageable[ran],
        ),
        spans=Spans(*times("span_times"), spans.thread[said], spans.name[said], spans.kind[said]),
        waits=Waits(waits.stream[waiting], call, waits.after_stream[waiting], after),
    )


_WORK = ("stream", "kind", "name", "node", "bytes", "copy_kind", "device")
