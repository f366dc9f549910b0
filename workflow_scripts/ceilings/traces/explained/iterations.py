"""The iterations of a recording: by what they are made out, how sure that is, and which of them are alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import UserError
from ceilings.traces import calls as kinds
from ceilings.traces.explained import groups as grouping
from ceilings.traces.explained import period as periods
from ceilings.traces.explained import ranges as named
from ceilings.traces.explained import request_loop
from ceilings.traces.explained.choice import Choice
from ceilings.traces.explained.extents import Extents, of_ranges, of_stretches
from ceilings.traces.explained.groups import Group
from ceilings.traces.explained.submissions import Submissions, process_of_work, submissions
from ceilings.traces.recording import Recording

Integers = NDArray[np.int64]

SURE = 0.3
"""A period that is less sure than this is not taken by itself; the recording is then one iteration."""

GRAPHS = 0.5
"""Launches of CUDA graphs can be the iterations if they contain this share of the device's work."""

ONLY_GRAPHS = 0.98
"""Graphs that are all of the work from the first to the last are no parts: between parts is other work."""

FEWEST_LOOPS, REGULAR = 3, 0.9
"""So many stretches with a further wait, and this share of them at equal distances, show a loop round the stretches."""

MIXED = 0.1
"""Stretches are of several threads if another thread than the usual one submits most of this share of them."""

WARM_UP_WORK = 1.3
"""A first iteration with so many times the operations of the later ones is warm-up (it tunes, or compiles)."""

WARM_UP_HOST = 2.0
"""A first iteration in which the device idles for so many times as long as in later ones is warm-up."""

APART = 0.1
"""Share of the time from the first to the last iteration that may lie between them without a doubt."""

FEW_WARM_UPS, MOST_WARM_UPS, MINOR = 3, 10, 1 / 3
"""Warm-up is at most so few iterations, or this share of all, and never more than the second number."""

RECORDED, NEARLY_RECORDED = 0.5, 0.95
"""An iteration counts only if the device half holds this share of its launches, as measured by the best recorded one;
beside one that does not count, the second share."""

WHOLE = 0.98
"""What lies before the first and after the last mark is an iteration if it shares this part with one."""


@dataclasses.dataclass(frozen=True)
class Other:
    """Another way to make out iterations, and how many these would be."""

    by: str
    name: str | None
    count: int


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Iterations that count for nothing: how many, their time in ns, and why; ``in_words`` says it."""

    count: int
    ns: int
    why: str

    @property
    def in_words(self) -> str:
        """As a page says it: ``left out: 3 warm-up iterations, 812 ms``."""
        length = f"{self.ns / 1e6:,.0f}" if self.ns >= 1e9 else f"{self.ns / 1e6:.3g}"
        why = self.why if self.count == 1 else self.why.replace("iteration", "iterations", 1)
        return f"left out: {self.count} {why}, {length} ms"


@dataclasses.dataclass(frozen=True)
class Iterations:
    """Iterations by begin, in ns since the recording's first record.

    Attributes:
        begin, end: Of each. They do not overlap, unless ``overlapping``.
        thread: The thread that waits for it, an index into the recording's threads; -1 where none does.
        group: Index into ``groups`` of each.
        of_work: For each operation of the recording, the iteration that launched it, wherever it runs; -1 for none.
        groups: Iterations of like work, those of most iterations first.
        process: Number of the process that they are of; -1 where the recording does not say.
        by: How they were made out: one of ``ceilings.schemas.explanation.BY``.
        name: Of a range, its name, numbers in it left out.
        certainty: How sure it is that these are iterations, from 0 to 1; 1 for what the user chose,
            but for a period.
        why: By what they were made out, how sure, and from where to where each lasts, in sentences.
        overlapping: Whether they overlap in time, as requests on several threads do.
        left_out: Warm-up and partial iterations, which are not among these.
        others: What else could have been chosen.
        inside_ns: Time in at least one iteration.
        between_ns: Time from the first begin to the last end that is in none.
        notes: What a reader should know beside, in sentences: other processes, trends.
    """

    begin: Integers
    end: Integers
    thread: Integers
    group: Integers
    of_work: Integers
    groups: tuple[Group, ...]
    process: int
    by: str
    name: str | None
    certainty: float
    why: str
    overlapping: bool
    left_out: tuple[LeftOut, ...]
    others: tuple[Other, ...]
    inside_ns: int
    between_ns: int
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.begin)


@dataclasses.dataclass(frozen=True)
class _Found:
    """Iterations before warm-up is left out. ``owner``: of each submission; -1 for none."""

    by: str
    name: str | None
    certainty: float
    why: str
    extents: Extents
    owner: Integers
    left_out: tuple[LeftOut, ...] = ()
    others: tuple[Other, ...] = ()


def choose(recording: Recording, choice: Choice | Mapping[str, Any] | None = None) -> Iterations:
    """The iterations of a recording.

    Args:
        choice: What the user wants (:class:`Choice`, or its words: ``{"range": "step*"}``); None: what fits best.

    Raises:
        UserError: The recording has nothing of what was chosen.
    """
    choice = Choice.of(choice)
    return _Chooser(recording, choice).iterations()


class _Chooser:
    """Looks at one recording for one choice."""

    def __init__(self, recording: Recording, choice: Choice) -> None:
        self.recording, self.choice = recording, choice
        work = recording.work
        of_work = process_of_work(recording)
        self.process, self.notes = _process(recording, of_work, choice.process)
        self.mine = (of_work == self.process) | (self.process == -1)
        self.submitted: Submissions = submissions(recording, self.mine)
        real = ~self.submitted.waits
        self._launched, self._busy = self.submitted.begin[real], self.submitted.busy[real]
        self.held = "of the device's work is launched"
        if not len(self.submitted):
            self._launched, self._busy = named.operators(recording, self.process)
            self.held = "of the time in the host's operators lies"
        self.span = _span(recording)
        self.has_work = bool(len(work.start))

    def iterations(self) -> Iterations:
        """What was chosen, or what fits best."""
        ways = {
            None: self._automatic,
            "range": self._range,
            "step": self._step,
            "graph": self._graph,
            "period": self._period,
            "between": self._between,
            "whole": self._whole,
        }
        return self._made(ways[self.choice.by]())

    def _automatic(self) -> _Found:
        """The project's ranges, the profiler's steps, ranges that hold most work, graphs, the period; else all."""
        ranges = named.named_ranges(self.recording, self.process, self._launched, self._busy)
        others = [
            Other("step" if one.steps else "range", one.name, len(one.spans)) for one in ranges if one.share >= 0.5
        ]
        for one in ranges:
            if one.project:
                return self._of_ranges(one.name, one.spans, 1.0, "Ranges of this project mark them.", others=others)
        for one in ranges:
            if one.steps:
                return self._of_ranges(
                    one.name, one.spans, 1.0, "The steps of PyTorch's profiler mark them.", by="step", others=others
                )
        for one in ranges:
            if one.most:
                layers, perhaps = self._layers(one)
                if layers:
                    continue
                why = f"A range of one name repeats, and {one.share:.0%} {self.held} in it"
                why += "." if one.share >= named.MOST else f", {one.between:.0%} from the first to the last of them."
                certainty = min(one.between, 1.0) * (periods.DOUBTED if perhaps else 1)
                why += " The host waits in hardly any of them, so they may be parts of iterations." if perhaps else ""
                return self._of_ranges(one.name, one.spans, certainty, why, others=others)
        graphs = np.flatnonzero(self.submitted.graph)
        if len(graphs) > 1:
            others.append(Other("graph", None, len(graphs)))
        found = self._by_graph(graphs, others)
        found = found or self._by_period(others)
        marks = "No mark holds most of the work" if ranges else "No mark"
        return found or self._all(f"{marks} and no period can be seen in it: the whole recording is one.", others)

    def _layers(self, one: named.NamedRange) -> tuple[bool, bool]:
        """Whether these ranges are parts of iterations; whether they may be."""
        if one.cyclic or one.counting or not len(self.submitted):
            return one.cyclic, False
        at = np.unique(np.searchsorted(self.submitted.begin, self.recording.spans.start[one.spans]))
        return periods.parts(self.submitted, at[at < len(self.submitted)])

    def _range(self) -> _Found:
        name, spans = named.chosen_ranges(self.recording, self.process, str(self.choice.name))
        return self._of_ranges(name, spans, 1.0, "The user chose this range.")

    def _step(self) -> _Found:
        ranges = named.named_ranges(self.recording, self.process, self._launched, self._busy)
        for one in ranges:
            if one.steps:
                return self._of_ranges(one.name, one.spans, 1.0, "The user chose the profiler's steps.", by="step")
        raise UserError("step is chosen, and the recording has no ProfilerStep; call profiler.step(), or leave it out")

    def _graph(self) -> _Found:
        graphs = np.flatnonzero(self.submitted.graph)
        if not len(graphs):
            raise UserError("graph is chosen, and the recording has no launch of a CUDA graph; leave it out")
        found = self._by_graph(graphs, [], asked=True)
        return found or self._all("One CUDA graph is launched once.", [])

    def _period(self) -> _Found:
        found = self._by_period([], asked=True)
        if found is None:
            raise UserError("period is chosen, and nothing repeats in the recording; leave it out, or use between")
        return found

    def _between(self) -> _Found:
        assert self.choice.between_ms is not None
        begin, end = (round(one * 1e6) for one in self.choice.between_ms)
        if begin >= self.span[1] or end <= self.span[0]:
            raise UserError(
                f"between is {list(self.choice.between_ms)}, and the recording lasts from {self.span[0] / 1e6:.3f} to "
                f"{self.span[1] / 1e6:.3f} ms; choose an interval in it"
            )
        clipped = max(begin, self.span[0]), min(end, self.span[1])
        why = "The user chose this interval of time"
        if clipped != (begin, end):
            kept = f"{clipped[0] / 1e6:.3f} to {clipped[1] / 1e6:.3f} ms"
            why += f", {begin / 1e6:g} to {end / 1e6:g} ms; the recording has {kept} of it, and that alone counts"
        return self._one("interval", *clipped, f"{why}.", [])

    def _whole(self) -> _Found:
        return self._all("The user chose the whole recording.", [])

    def _all(self, why: str, others: list[Other]) -> _Found:
        return self._one("whole", *self.span, why, others)

    def _one(self, by: str, begin: int, end: int, why: str, others: list[Other]) -> _Found:
        submitted = self.submitted
        inside = (submitted.begin >= begin) & (submitted.begin < max(end, begin + 1))
        threads = submitted.thread[inside & submitted.waits]
        threads = threads if len(threads) else submitted.thread[inside]
        threads = threads[threads >= 0]
        thread = int(np.bincount(threads).argmax()) if len(threads) else -1
        one = Extents(np.array([begin]), np.array([max(end, begin + 1)]), np.array([thread]), False, "")
        certainty = 1.0 if self.choice.by else 0.0
        return _Found(by, None, certainty, why, one, np.where(inside, 0, -1), (), tuple(others))

    def _of_ranges(
        self,
        name: str,
        places: Integers,
        certainty: float,
        why: str,
        *,
        by: str = "range",
        others: list[Other] | None = None,
    ) -> _Found:
        spans = self.recording.spans
        begin, end, thread = spans.start[places], spans.end[places], spans.thread[places]
        overlapping = named.overlapping(self.recording, places)
        kept = self._recorded(begin, end, thread, overlapping)
        left_out: tuple[LeftOut, ...] = ()
        if not kept.all():
            lost = int((end - begin)[~kept].sum())
            left_out = (LeftOut(int((~kept).sum()), lost, "iteration without device records"),)
            begin, end, thread = begin[kept], end[kept], thread[kept]
        owner = _owners(self.submitted.begin, self.submitted.thread, begin, end, thread=thread, same_thread=overlapping)
        extents = of_ranges(self.submitted, begin, end, thread, owner=owner, overlapping=overlapping)
        rest = [one for one in others or [] if (one.by, one.name) != (by, name)]
        return _Found(by, name, certainty, why, extents, owner, left_out, tuple(rest))

    def _recorded(self, begin: Integers, end: Integers, thread: Integers, overlapping: bool) -> NDArray[np.bool_]:
        """The ranges whose work is in the device half of the recording, which may begin later and end earlier.

        All, where no launch has its work: then nothing tells them apart.
        """
        calls, count = self.recording.calls, len(begin)
        answered = np.zeros(len(calls.start) + 1, bool)
        answered[self.recording.work.call] = True
        made = np.flatnonzero(kinds.served(calls, self.recording.names, answered[:-1]))
        owner = _owners(calls.start[made], calls.thread[made], begin, end, thread=thread, same_thread=overlapping)
        mine = owner >= 0
        launches = np.bincount(owner[mine], minlength=count)
        with_work = np.bincount(owner[mine], answered[made[mine]], count)
        share = np.divide(with_work, launches, out=np.ones(count), where=launches > 0)
        owner = _owners(self.submitted.begin, self.submitted.thread, begin, end, thread=thread, same_thread=overlapping)
        working = np.bincount(owner[owner >= 0], self.submitted.weight[owner >= 0], count) > 0
        if not working.any():
            return np.ones(count, bool)
        first, last = np.flatnonzero(working)[[0, -1]]
        inside = (np.arange(count) >= first) & (np.arange(count) <= last)
        best = float(share[working].max())
        lost = ~inside | ((launches > 0) & (share < RECORDED * best))
        beside = np.convolve(lost, [1, 1, 1], "same") > 0
        return ~(lost | (beside & (share < NEARLY_RECORDED * best)))

    def _by_graph(self, graphs: Integers, others: list[Other], asked: bool = False) -> _Found | None:
        """Launches of CUDA graphs, one an iteration; None where they are few, or parts of iterations."""
        submitted = self.submitted
        share = submitted.busy[graphs].sum() / max(submitted.busy.sum(), 1)
        if len(graphs) < 2 or (share < GRAPHS and not asked):
            return None
        variants = len(np.unique(submitted.symbol[graphs]))
        between = submitted.busy[graphs[0] : graphs[-1] + 1].sum()
        only = submitted.busy[graphs].sum() >= ONLY_GRAPHS * between
        if not only and any(periods.parts(submitted, graphs)):
            found = self._by_period(others, asked)
            if found is None:
                return None
            launches = len(graphs) / max(len(found.extents.begin), 1)
            return dataclasses.replace(
                found,
                by="graph" if asked else found.by,
                why=f"{found.why} CUDA graphs are parts of an iteration: {launches:.3g} launches in each.",
            )
        cut = periods.begun(submitted, graphs)
        variety = "the same CUDA graph" if variants == 1 else f"one of {variants} CUDA graphs"
        why = f"Each launches {variety}, which is {share:.0%} of the device's work."
        return self._of_cut("graph", cut, min(1.0, cut.certainty), why, [o for o in others if o.by != "graph"])

    def _by_period(self, others: list[Other], asked: bool = False) -> _Found | None:
        """What the sequence of kernels repeats; None where it does not, or too little."""
        cut = request_loop.refined(self.submitted, periods.period(self.submitted), SURE)
        if cut is None or cut.certainty < SURE:
            coarse = periods.period(submissions(self.recording, self.mine, coarse=True))
            if coarse is not None and (cut is None or coarse.certainty * 0.9 > cut.certainty):
                certainty = coarse.certainty * 0.9
                cut = dataclasses.replace(
                    coarse,
                    certainty=certainty,
                    doubts=(*coarse.doubts, "kernels are alike by their names without numbers only"),
                )
        if cut is None:
            return None
        every, phase = self._waits_more(cut.at)
        begins = cut.at[phase::every] if every else request_loop.inputs(self.submitted)
        if not every:
            every, _ = _regular(np.searchsorted(cut.at, begins), len(cut.at))
        if every:
            cut = request_loop.gathered(self.submitted, cut, every, begins)
        if words := self._threads(cut.at):
            cut = dataclasses.replace(cut, certainty=cut.certainty * periods.DOUBTED**2, doubts=(*cut.doubts, words))
        others += [Other("period", None, count) for count in cut.other if count != len(cut.at)]
        if cut.certainty < SURE and not asked:
            others.append(Other("period", None, len(cut.at)))
            return None
        why = "What is submitted to the device repeats."
        if cut.doubts:
            why += f" Doubts: {'; '.join(cut.doubts)}."
        return self._of_cut("period", cut, cut.certainty, why, others)

    def _threads(self, at: Integers) -> str:
        """That stretches are of several threads, which is a doubt; empty where each is of the same ones.

        What threads submit at the same time is one sequence here only by chance.
        """
        threads, number = np.unique(self.submitted.thread[at[0] : at[-1]], return_inverse=True)
        if len(at) < FEWEST_LOOPS or len(threads) < 2:
            return ""
        owner = np.searchsorted(at, np.arange(at[0], at[-1]), "right") - 1
        places, times = np.unique(owner * len(threads) + number, return_counts=True)
        of, whose = places // len(threads), places % len(threads)
        order = np.lexsort((times, of))
        main = whose[order][np.flatnonzero(np.diff(of[order], append=-1))]
        rest = 1 - np.bincount(main).max() / len(main)
        return f"{len(np.unique(main))} threads submit them, which may be parts of one" if rest > MIXED else ""

    def _waits_more(self, at: Integers) -> tuple[int, int]:
        """At each how manieth stretch of a cut the host waits more often, and the first one after such a one.

        0: at none, or at any distance.

        Waits that follow each other are one submission: a loop over equal layers that waits after each, and at its end
        once more, shows its length by this alone.
        """
        calls = self.recording.calls
        waits = np.array([*("Synchronize" in name for name in self.recording.names), False], bool)[calls.name]
        process = np.array([thread.process for thread in self.recording.threads] + [-1], np.int64)[calls.thread]
        starts = calls.start[waits & (process == self.process)]
        owner = np.searchsorted(self.submitted.begin[at], starts, "right") - 1
        counts = np.bincount(owner[owner >= 0], minlength=len(at))[:-1]  # after the last one lies what ends it all
        more = np.flatnonzero(counts > np.median(counts)) if len(counts) else counts
        every, last = _regular(more, len(counts))
        return every, (last + 1) % every if every else 0

    def _of_cut(self, by: str, cut: periods.Cut, certainty: float, why: str, others: list[Other]) -> _Found | None:
        """Iterations from cut to cut; what lies before the first and after the last is one only if it is whole."""
        submitted = self.submitted
        edges = np.unique(np.concatenate([[0], cut.at, [len(submitted)]]))
        head, tail = periods.whole_ends(submitted, edges, WHOLE)
        left_out: list[LeftOut] = []
        if len(edges) - 1 - (not head) - (not tail) < 2:
            return None
        first, last = 0 if head else 1, len(edges) - 1 if tail else len(edges) - 2
        for missing, low, high in ((not head, 0, 1), (not tail, len(edges) - 2, len(edges) - 1)):
            if missing and (submitted.weight[edges[low] : edges[high]] > 0).any():
                begun = int(submitted.begin[edges[low]])
                over = int(submitted.begin[edges[high]]) if edges[high] < len(submitted) else int(submitted.end[-1])
                what = "stretch before the first whole iteration" if low == 0 else "partial iteration at the end"
                left_out.append(LeftOut(1, max(over - begun, 0), what))
        edges = edges[first : last + 1]
        owner = np.searchsorted(edges, np.arange(len(submitted)), "right") - 1
        owner[(owner >= len(edges) - 1)] = -1
        extents = of_stretches(submitted, edges)
        return _Found(by, None, certainty, why, extents, owner, tuple(left_out), tuple(others))

    def _made(self, found: _Found) -> Iterations:
        """Without warm-up, in groups."""
        submitted, extents = self.submitted, found.extents
        work = _work(submitted, found.owner, len(extents.begin))
        length = extents.end - extents.begin
        left_out = list(found.left_out)
        warm = 0
        if found.name != named.ITERATION and found.by not in ("interval", "whole"):
            warm = _warm_up(length, work)
        if warm:
            left_out.insert(0, LeftOut(warm, int(length[:warm].sum()), "warm-up iteration"))
            kept = np.arange(warm, len(length))
            extents = extents.only(kept)
            owner = np.where(found.owner >= warm, found.owner - warm, -1)
            work, length = _work(submitted, owner, len(kept)), length[warm:]
        else:
            owner = found.owner
        group, groups = grouping.groups(work, length)
        inside, between = _inside(extents.begin, extents.end)
        notes = [*self.notes, *(one.in_words for one in left_out)]
        notes += [f"of {one.count:,} iterations with {one.label}: {one.trend}" for one in groups if one.trend]
        of_work = np.append(owner, -1)[submitted.of_work]
        detected = self.choice.by in (None, "period")
        apart, certainty = between / max(inside + between, 1), float(found.certainty)
        if apart > APART and found.by in ("period", "graph"):
            certainty *= (1 - apart) / (1 - APART)
        certain = "" if not detected else f" Certainty {certainty:.0%}."
        return Iterations(
            begin=extents.begin,
            end=extents.end,
            thread=extents.thread,
            group=group,
            of_work=of_work,
            groups=groups,
            process=self.process,
            by=found.by,
            name=found.name,
            certainty=certainty if detected else 1.0,
            why=f"{found.why}{certain} {extents.definition}".strip(),
            overlapping=extents.overlapping,
            left_out=tuple(left_out),
            others=tuple(dict.fromkeys(found.others)),
            inside_ns=inside,
            between_ns=between,
            notes=tuple(notes),
        )


def _process(recording: Recording, of_work: Integers, wanted: int | None) -> tuple[int, list[str]]:
    """The process that is looked at, and a note on the others."""
    work = recording.work
    known = of_work >= 0
    processes = sorted({int(one) for one in np.unique(of_work[known])} | {t.process for t in recording.threads})
    if wanted is not None:
        if wanted not in processes:
            raise UserError(f"process is {wanted}; the recording has {', '.join(map(str, processes)) or 'none'}")
        return wanted, []
    if not processes:
        return -1, []
    time = np.bincount(of_work[known], (work.end - work.start)[known], max(processes) + 1)
    process = int(np.argmax(time))
    working = [one for one in processes if time[one] > 0 and one != process]
    if not working and len(processes) > 1 and not time.any():
        process = processes[0]
    if not working:
        return process, []
    listed = ", ".join(f"process {one} ({time[one] / max(time.sum(), 1):.0%})" for one in working[:8])
    more = f" and {len(working) - 8} more" if len(working) > 8 else ""
    return process, [
        f"Iterations are those of process {process}, with {time[process] / max(time.sum(), 1):.0%} of the device's "
        f"work; others worked too: {listed}{more}"
    ]


def _span(recording: Recording) -> tuple[int, int]:
    """First begin and last end of what was recorded."""
    parts = [(one.start, one.end) for one in (recording.calls, recording.work, recording.spans) if len(one.start)]
    if not parts:
        return 0, 1
    return min(int(start.min()) for start, _ in parts), max(int(end.max()) for _, end in parts)


def _owners(
    at: Integers, caller: Integers, begin: Integers, end: Integers, *, thread: Integers, same_thread: bool
) -> Integers:
    """The range in which each call at a time was made: of its own thread where ranges overlap; -1 for none.

    Args:
        caller: Thread of each call.
    """
    owner = np.full(len(at), -1, np.int64)
    for one in np.unique(thread) if same_thread else [None]:
        ranges = np.flatnonzero(thread == one) if same_thread else np.arange(len(begin))
        calls = np.flatnonzero(caller == one) if same_thread else np.arange(len(at))
        place = np.searchsorted(begin[ranges], at[calls], "right") - 1
        inside = (place >= 0) & (at[calls] < end[ranges][place])
        owner[calls[inside]] = ranges[place[inside]]
    return owner


def _regular(places: Integers, count: int) -> tuple[int, int]:
    """The distance at which places follow each other, and the first one's within it; 0: at several, or few."""
    if len(places) < FEWEST_LOOPS or len(places) > count / 2 + 1:
        return 0, 0
    distances, times = np.unique(np.diff(places), return_counts=True)
    every = int(distances[np.argmax(times)])
    return (every, int(places[0]) % every) if every > 1 and times.max() >= REGULAR * times.sum() else (0, 0)


def _work(submitted: Submissions, owner: Integers, count: int) -> grouping.Work:
    """What each iteration launched."""
    mine = np.flatnonzero(owner >= 0)
    mine = mine[np.argsort(owner[mine], kind="stable")]
    of = owner[mine]
    content = np.zeros(count, np.uint64)
    opens = np.flatnonzero(np.diff(of, prepend=-1))
    if len(mine):
        content[of[opens]] = np.add.reduceat(submitted.kernels[mine], opens)
    computes = submitted.kernels[mine] != 0
    weight = np.where(computes, submitted.weight[mine], 0)
    kernels = np.bincount(of, weight, count).astype(np.int64)
    busy = np.bincount(of, submitted.busy[mine], count).astype(np.int64)
    symbol = submitted.kernels[mine][computes]
    return grouping.Work(content, kernels, busy, of[computes], symbol, weight[computes])


def _warm_up(length: Integers, work: grouping.Work) -> int:
    """How many of the first iterations are warm-up: they tune, compile, or wait for what later ones have."""
    count = len(length)
    if count < 3:
        return 0
    idle = np.maximum(length - work.busy, 0)
    rest = slice(max(1, count // 2), None)
    usual_length, usual_idle = float(np.median(length[rest])), float(np.median(idle[rest]))
    more = work.kernels > WARM_UP_WORK * np.max(work.kernels[rest])
    slow = (length > 1.5 * usual_length) & (idle > WARM_UP_HOST * usual_idle + 0.2 * usual_length)
    slow &= idle > np.quantile(idle[rest], 0.9)
    odd = (more | slow)[: rest.start]
    # one of them may look like the others: what compiles next is another shape, say
    so_far = np.cumsum(odd) / np.arange(1, len(odd) + 1)
    ends = np.flatnonzero(odd & (so_far >= 0.5))
    warm = int(ends[-1]) + 1 if len(ends) else 0
    return warm if warm <= min(max(FEW_WARM_UPS, MINOR * count), MOST_WARM_UPS) else 0


def _inside(begin: Integers, end: Integers) -> tuple[int, int]:
    """Time in iterations, and between the first and the last outside of all."""
    if not len(begin):
        return 0, 0
    reach = np.concatenate([begin[:1], np.maximum.accumulate(end)[:-1]])
    inside = int(np.maximum(end - np.maximum(begin, reach), 0).sum())
    return inside, int(end.max() - begin[0]) - inside
