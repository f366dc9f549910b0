"""Where the sequence of submissions begins anew: the period of what a program does, without any mark.

Iterations differ: some log, some tune, a prefill has other kernels than a decode step. And what repeats within an
iteration (layers) is none. So the search looks at every short run of submissions that occurs several times, takes each
as a mark that cuts the sequence, and compares what lies between: the sum of hashes says in one subtraction whether two
stretches hold the same kernels. Among the cuts that leave like stretches it goes from the longest to the shortest, as
long as the parts look like iterations of their own and not like layers (:func:`_finer`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.explained.submissions import Hashes, Integers, Submissions, mixed

RUNS = (1, 2, 4, 8, 16)
"""Lengths of the runs of submissions that are tried as marks."""

WINDOW = 1 << 20
"""The search looks at so many submissions in the middle of a longer recording, and applies what it sees to all."""

SAMPLED = 300
"""So many kinds of stretches of a cut are compared at most."""

COMPARED = 300_000
"""And so many submissions in them, but for three stretches at least."""

RECURRING = 0.4
"""A cut counts if stretches with the same kernels as another one hold at least this share of the work."""

ALIKE = 0.9
"""Two stretches are alike if they share this part of their work."""

HOST_MARKS = 0.7
"""A cut is bound to the host if this share of its stretches holds a wait or a copy from or to the host."""

DOUBTED = 0.7
"""A doubt leaves so much of how sure a cut is."""

LAYERS = 0.3
"""How sure a cut can be at most if its stretches look like layers."""

LITTLE, SOME = 0.08, 0.15
"""What some iterations do beside the others is at most such a share of an iteration (logging, a check)."""

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Cut:
    """Places where the sequence is cut.

    Attributes:
        at: First submission of each stretch, ascending; the first stretch begins with the first cut.
        certainty: How sure it is that the stretches are iterations, from 0 to 1.
        doubts: What speaks against it, in words.
        other: Counts of the cuts that could have been chosen.
    """

    at: Integers
    certainty: float
    doubts: tuple[str, ...] = ()
    other: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Mark:
    """A run of submissions that recurs, and how well it cuts.

    Attributes:
        run, hash: Its length and hash.
        at: Where it cuts: ``shift`` submissions after the run's first.
        recurring: Share of the work in stretches that hold the same kernels as another one.
        modal: Share of the work in the most frequent kind of stretch.
    """

    run: int
    hash: np.uint64
    at: Integers
    recurring: float
    modal: float
    shift: int = 0


class Sequence:
    """Submissions with what a comparison of stretches needs."""

    def __init__(self, submitted: Submissions) -> None:
        self.submitted = submitted
        computes = submitted.kernels != 0
        by_kernels = bool(computes.any())
        self.content: Hashes = np.where(by_kernels, submitted.kernels, submitted.symbol * ~submitted.waits)
        weight = np.where(computes, submitted.weight, 0) if by_kernels else submitted.weight
        # what lies before each submission, and at last everything
        self.hash_before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(self.content, dtype=np.uint64)])
        self.weight_before = np.concatenate([[0], np.cumsum(weight)])
        on_host = submitted.waits | submitted.uploads | submitted.downloads
        self.host_before = np.concatenate([[0], np.cumsum(on_host)])
        self.uploads_before = np.concatenate([[0], np.cumsum(submitted.uploads)])
        self.symbol = np.unique(self.content, return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.submitted)

    def runs(self, length: int) -> Hashes:
        """Hash of the run of submissions of this length that begins at each; runs reach over the end to the begin."""
        hashes, reach = mixed(self.submitted.symbol), 1
        while reach < length:
            hashes = mixed(hashes * np.uint64(3) + np.roll(hashes, -reach))
            reach *= 2
        return hashes

    def counts(self, begin: Integers, end: Integers) -> FloatArray:
        """How often each kernel occurs in each stretch, weighed by operations: (stretches, symbols)."""
        length = end - begin
        offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        place = np.repeat(begin, length) + offset
        symbols, packed = np.unique(self.symbol[place], return_inverse=True)
        owner = np.repeat(np.arange(len(begin)), length)
        weight = self.weight_before[place + 1] - self.weight_before[place]
        size = len(begin) * len(symbols)
        counted = np.bincount(owner * len(symbols) + packed, weight, size).astype(np.float64)
        return counted.reshape(len(begin), len(symbols))


def window(submitted: Submissions) -> slice:
    """The part of a sequence that is searched."""
    extra = max(len(submitted) - WINDOW, 0)
    return slice(extra // 2, len(submitted) - (extra - extra // 2))


def _sliced(submitted: Submissions, part: slice) -> Submissions:
    fields = [field.name for field in dataclasses.fields(submitted) if field.name != "of_work"]
    return dataclasses.replace(submitted, **{name: getattr(submitted, name)[part] for name in fields})


def period(submitted: Submissions) -> Cut | None:
    """The cut into iterations, or None where nothing repeats."""
    if len(submitted) < 2:
        return None
    whole = Sequence(submitted)
    part = window(submitted)
    if part.start == 0:
        return _searched(whole, whole)
    cut = _searched(whole, Sequence(_sliced(submitted, part)))
    if cut is None or (whole.host_before[-1] and _bound(whole, dataclasses.replace(_whole(), at=cut.at)) < HOST_MARKS):
        return _searched(whole, whole)  # an iteration may be longer than the window
    return cut


def _searched(whole: Sequence, part: Sequence) -> Cut | None:
    """The cut of the whole sequence that a part of it shows."""
    marks = _marks(part)
    if not marks:
        return None
    mark, doubts, others = _descend(part, marks)
    certainty = 1.0
    if mark is None:  # whatever repeats, it does not look like iterations
        mark, certainty = max(marks, key=lambda one: (one.modal, -len(one.at))), LAYERS
        doubts = ["what repeats may be a part of an iteration"]
    at = _applied(whole, part, _rotated(part, mark))
    return Cut(at, certainty * sure(whole, at, len(doubts)), tuple(doubts), tuple(others))


def _marks(sequence: Sequence) -> list[_Mark]:
    """For each number of stretches the mark that cuts best, from the fewest stretches to the most."""
    best: dict[tuple[int, bool], tuple[float, float, int, np.uint64]] = {}
    total = max(int(sequence.weight_before[-1]), 1)
    for run in RUNS:
        if run * 2 > len(sequence):
            break
        hashes = sequence.runs(run)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        opens = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        group = np.cumsum(opens) - 1
        size = np.bincount(group)
        kept = size[group] > 1
        if not kept.any():
            continue
        order, opens = order[kept], opens[kept]
        group = np.cumsum(opens) - 1
        first = np.flatnonzero(opens)
        size = np.diff(np.append(first, len(order)))
        following = np.append(order[1:], 0)
        last = np.append(first[1:], len(order)) - 1
        following[last] = order[first]  # the last stretch goes on at the begin: together they are one, if it is whole
        turn = np.zeros(len(order), bool)
        turn[last] = True
        content = sequence.hash_before[following] - sequence.hash_before[order]
        content = np.where(turn, content + sequence.hash_before[-1], content)
        weight = sequence.weight_before[following] - sequence.weight_before[order] + np.where(turn, total, 0)
        hosted = sequence.host_before[following] - sequence.host_before[order] + turn * sequence.host_before[-1] > 0
        bound = np.bincount(group, hosted) / size >= HOST_MARKS
        key = mixed(content + mixed(group))
        by_key = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], np.diff(key[by_key]) != 0]))
        same = np.diff(np.append(starts, len(by_key)))
        held = np.add.reduceat(weight[by_key], starts)
        owner = group[by_key[starts]]
        recurring = np.bincount(owner, np.where(same > 1, held, 0), len(first)) / total
        modal = np.zeros(len(first))
        np.maximum.at(modal, owner, np.where(same > 1, held, 0) / total)
        good = np.flatnonzero(recurring >= RECURRING)
        good = good[np.lexsort((-modal[good], -recurring[good], bound[good], size[good]))]
        for one in good[np.flatnonzero(np.diff(2 * size[good] + bound[good], prepend=-1))]:
            score = (float(recurring[one]), float(modal[one]), -run, ordered[kept][first[one]])
            kind = (int(size[one]), bool(bound[one]))
            if kind not in best or score[:3] > best[kind][:3]:
                best[kind] = score
    found = []
    cache: dict[int, Hashes] = {}
    for kind in _thinned(best):
        recurring_share, modal_share, run, value = best[kind]
        hashes = cache.setdefault(-run, sequence.runs(-run))
        found.append(_Mark(-run, value, np.flatnonzero(hashes == value), recurring_share, modal_share))
    return found


def _thinned(best: dict[tuple[int, bool], tuple]) -> list[tuple[int, bool]]:
    """Counts, ascending; of those within some percent of each other the one that cuts best."""
    kept: list[tuple[int, bool]] = []
    for kind in sorted(best, key=lambda kind: (-round(best[kind][0], 2), -round(best[kind][1], 2), kind)):
        near = [other for other, bound in kept if bound == kind[1] and abs(kind[0] - other) <= 0.03 * other]
        if not near:
            kept.append(kind)
        if len(kept) == 60:
            break
    return sorted(kept)


def _whole() -> _Mark:
    """The whole sequence as one stretch."""
    return _Mark(0, np.uint64(0), np.zeros(1, np.int64), 1, 1)


def _descend(sequence: Sequence, marks: list[_Mark]) -> tuple[_Mark | None, list[str], list[int]]:
    """From the fewest stretches to the most, as long as the parts are iterations; None: not even the fewest are."""
    whole = _whole()
    current, doubts, others = whole, list[str](), list[int]()
    for finer in marks:
        same_level = current is not whole and len(finer.at) < 1.5 * len(current.at)
        if same_level and finer.recurring + finer.modal / 10 <= current.recurring + current.modal / 10 + 0.001:
            continue
        accepted, doubt = _finer(sequence, current, finer)
        if accepted:
            if current is not whole:
                others.append(len(current.at))
            current = finer
            doubts += [doubt] if doubt else []
        elif doubt:
            others.append(len(finer.at))
            doubts.append(doubt)
    chosen = None if current is whole else current
    return chosen, list(dict.fromkeys(doubts)), sorted(set(others) - {len(current.at)})


@dataclasses.dataclass(frozen=True)
class _Kinds:
    """Kinds of stretches of a cut: each with other kernels. Most frequent first, and so many that they can be compared.

    Attributes:
        begin, end: Of the first stretch of each kind.
        content: Hash of its kernels.
        times: How many stretches are of it.
        weight: Operations in one of them.
        uploads: Share of them that copy from the host.
        empty: Share of all stretches that hold nothing, which are of no kind.
    """

    begin: Integers
    end: Integers
    content: Hashes
    times: Integers
    weight: Integers
    uploads: FloatArray
    empty: float


def _kinds(sequence: Sequence, mark: _Mark) -> _Kinds:
    """Kinds of stretches, of all stretches: those of some could miss what differs at every so many."""
    begin, end = mark.at[:-1], mark.at[1:]
    weight = sequence.weight_before[end] - sequence.weight_before[begin]
    held = weight > 0
    begin, end, weight = begin[held], end[held], weight[held]
    content = sequence.hash_before[end] - sequence.hash_before[begin]
    values, first, inverse, times = np.unique(content, return_index=True, return_inverse=True, return_counts=True)
    uploads = sequence.uploads_before[end] > sequence.uploads_before[begin]
    uploading = np.bincount(inverse, uploads, len(values)) / times
    most = max(3, min(SAMPLED, COMPARED * max(len(begin), 1) // max(len(sequence), 1)))
    kept = np.argsort(-times, kind="stable")[:most]
    at = first[kept]
    empty = float(1 - held.mean()) if len(held) else 1.0
    return _Kinds(begin[at], end[at], values[kept], times[kept], weight[at], uploading[kept], empty)


def _bound(sequence: Sequence, mark: _Mark) -> float:
    """Share of a cut's stretches in which the host waits or copies."""
    host = sequence.host_before
    inside = host[mark.at[1:]] - host[mark.at[:-1]]
    around = host[-1] - host[mark.at[-1]] + host[mark.at[0]]
    return float((np.append(inside, around) > 0).mean())


def _finer(sequence: Sequence, coarse: _Mark, fine: _Mark) -> tuple[bool, str]:
    """Whether the stretches of the finer cut are iterations, and what leaves a doubt.

    They are none if they are layers: then some of them, at regular distances, hold the rest of an iteration beside
    (embedding, head, copies, the wait).
    """
    bound, bound_coarse = _bound(sequence, fine), _bound(sequence, coarse)
    kinds = _kinds(sequence, fine)
    if kinds.empty > 0.3 or not len(kinds.times):
        return False, ""  # it cuts where nothing is between
    times = kinds.times
    modal = int(np.argmax(kinds.weight * times))
    counts = sequence.counts(kinds.begin, kinds.end)
    usual, held = counts[modal], counts.sum(1)
    size = max(usual.sum(), 1.0)
    shared = np.minimum(counts, usual).sum(1)
    unlike = shared / np.maximum(held, size) < ALIKE
    # what deviates only once in a while and never again the same way is no structure
    once = unlike & (times == 1)
    if times[once].sum() <= 0.05 * times.sum() and not (unlike & ~once).any():
        unlike &= ~once

    if bound < HOST_MARKS <= bound_coarse:
        little = (held - shared <= LITTLE / 2 * size).all() and (shared >= size).all()
        if little and _layered(sequence, kinds, modal):
            return True, "the host waits in some iterations only"
        return False, ""
    deviating = np.arange(len(times)) != modal
    other = deviating & (unlike | (held > size * (1 + LITTLE / 8)))
    if not other.any():
        return True, ""
    each = np.repeat(np.flatnonzero(other), times[other])
    part = len(each) / times.sum()
    extra = float(np.median(held[each] - size)) / size
    complete = float(np.median(shared[each])) / size  # the share of what is usual that the others hold too
    if complete < ALIKE:  # other work in its place: a prefill; or another kind of layer
        iterates = _layered(sequence, kinds, modal, 0.6) or _launches_graph(sequence, fine)
        if bound >= HOST_MARKS and part <= 0.4 and iterates:
            return True, "" if bound_coarse >= HOST_MARKS else "few waits or copies mark an iteration"
        return False, "shorter parts wait or copy too" if bound >= HOST_MARKS and part <= 0.4 else ""
    if bound >= HOST_MARKS:
        others_upload = np.average(kinds.uploads[other], weights=times[other]) > 0.8
        usual_uploads = np.average(kinds.uploads[~other], weights=times[~other]) > 0.2
        if extra <= (LITTLE / 2 if others_upload and not usual_uploads else SOME):
            return True, "" if extra <= LITTLE else "some do more than others"
        return False, "shorter parts wait or copy too"
    if extra <= LITTLE:
        doubt = "nothing but kernels tells iterations from what they consist of"
        return True, doubt if times[unlike].sum() > 0.05 * times.sum() or extra > LITTLE / 4 else ""
    return False, ""


def _launches_graph(sequence: Sequence, mark: _Mark) -> bool:
    """Whether nearly every stretch launches exactly one CUDA graph."""
    graphs = np.concatenate([[0], np.cumsum(sequence.submitted.graph)])
    return float((graphs[mark.at[1:]] - graphs[mark.at[:-1]] == 1).mean()) > HOST_MARKS


def _layered(sequence: Sequence, kinds: _Kinds, kind: int, parts: float = 0.4) -> bool:
    """Whether stretches of a kind consist of repeated parts, as an iteration of several layers does.

    Args:
        parts: At most this share of its runs of four kernels are different: a half for two equal layers.
    """
    return layered(sequence, int(kinds.begin[kind]), int(kinds.end[kind]), parts)


def layered(sequence: Sequence, begin: int, end: int, parts: float = 0.4) -> bool:
    """Whether a stretch consists of repeated parts, as an iteration of several layers does."""
    symbols = sequence.symbol[begin:end][sequence.content[begin:end] != 0]
    if len(symbols) < 12:
        return False
    quads = np.lib.stride_tricks.sliding_window_view(symbols, 4)
    return len(np.unique(quads, axis=0)) <= parts * len(quads)


def _rotated(sequence: Sequence, mark: _Mark) -> _Mark:
    """The mark moved within the iteration to where a program would begin one.

    After a wait, before the inputs are copied, after a result was copied; else where the host makes the longest pause.
    """
    submitted = sequence.submitted
    begin, end = mark.at[:-1], mark.at[1:]
    if not len(begin):
        return mark
    content = sequence.hash_before[end] - sequence.hash_before[begin]
    values, inverse, times = np.unique(content, return_inverse=True, return_counts=True)
    length = end - begin
    usual = inverse == np.argmax(times)
    lengths, number = np.unique(length[usual], return_counts=True)
    unit = int(lengths[np.argmax(number)])
    chosen = begin[usual & (length == unit)]
    chosen = chosen[(chosen > 0)][:SAMPLED]
    if not len(chosen) or unit > 2_000_000 // len(chosen) + 1:
        chosen = chosen[: max(1, 2_000_000 // max(unit, 1))]
    if not len(chosen):
        return mark
    at = chosen[:, None] + np.arange(unit)
    pause = submitted.begin[at] - submitted.end[at - 1]
    pause = np.maximum(np.median(pause, axis=0), 0)
    score = pause / max(float(pause.max()), 1.0)
    score = score + 3 * submitted.waits[at - 1].mean(0)
    score += 2 * (submitted.uploads[at] & ~submitted.uploads[at - 1]).mean(0)
    score += 1.5 * (submitted.downloads[at - 1] & ~submitted.downloads[at]).mean(0)
    score -= 9 * submitted.waits[at].mean(0)  # a wait ends an iteration and never begins one
    pairs = sequence.runs(2)
    _, place, times_inside = np.unique(pairs[at[0] - 1], return_inverse=True, return_counts=True)
    score += 0.5 * (times_inside[place] == 1)
    ends = sequence.hash_before[[0, mark.at[0], mark.at[-1], -1]]
    around = np.diff(ends)[[0, 2]].sum()
    if around == values[np.argmax(times)] and mark.at[0] < unit:
        score[-mark.at[0] % unit] += 4  # the recording holds whole iterations only, so it begins with one
    for offset in np.argsort(-score, kind="stable")[:5]:
        if (moved := _marked_at(sequence, chosen + offset, len(mark.at))) is not None:
            return moved
        if score[offset] < score.max() - 1:
            break
    return dataclasses.replace(mark, at=np.append(begin, end[-1]))


def _marked_at(sequence: Sequence, places: Integers, count: int) -> _Mark | None:
    """A run that begins at these places, or just before, and hardly anywhere else."""
    best: _Mark | None = None
    for run in RUNS:
        if 2 * run > len(sequence):
            break
        hashes = sequence.runs(run)
        for shift in range(min(run, 2) + 1):
            values, times = np.unique(hashes[places - shift], return_counts=True)
            value = values[np.argmax(times)]
            at = np.flatnonzero(hashes == value) + shift
            at = at[at < len(sequence)]
            off = abs(len(at) - count)
            if times.max() < 0.8 * len(places) or off > 1 + 0.2 * count:
                continue
            if best is None or off < abs(len(best.at) - count):
                best = _Mark(run, value, at, 0, 0, shift)
    return best


def _applied(whole: Sequence, sequence: Sequence, mark: _Mark) -> Integers:
    """The mark's places in the whole sequence."""
    if whole is sequence:
        return mark.at
    at = np.flatnonzero(whole.runs(mark.run) == mark.hash) + mark.shift
    return at[at < len(whole)]


def parts(submitted: Submissions, at: Integers) -> tuple[bool, bool]:
    """Whether a cut at these places makes layers rather than iterations; whether it may do so.

    The first: a coarser cut is there whose stretches hold several of these, and something beside. The second: the host
    waits or copies somewhere, but hardly between these.
    """
    part = window(submitted)
    sequence = Sequence(submitted if part.start == 0 else _sliced(submitted, part))
    at = at[(at >= part.start) & (at < part.stop)] - part.start
    if len(at) < 3:
        return False, False
    fine = _Mark(0, np.uint64(0), at, 0, 0)
    coarser = [mark for mark in _marks(sequence) if 2 <= len(mark.at) <= len(at) / 1.8]
    surely = any(mark.modal > 0.6 and not _finer(sequence, mark, fine)[0] for mark in coarser)
    return surely, not _finer(sequence, _whole(), fine)[0]


def sure(whole: Sequence, at: Integers, doubts: int) -> float:
    """Share of the work that lies in stretches that hold the same kernels as another, lowered by doubts."""
    edges = np.unique(np.concatenate([[0], at, [len(whole)]]))
    weight = np.diff(whole.weight_before[edges])
    content = np.diff(whole.hash_before[edges])
    _, inverse, times = np.unique(content, return_inverse=True, return_counts=True)
    total = max(float(whole.weight_before[-1]), 1.0)
    share = float(weight[times[inverse] > 1].sum()) / total
    few = {1: 0.2, 2: 0.6, 3: 0.8}.get(len(at), 1.0)
    return share * few * DOUBTED**doubts


def begun(submitted: Submissions, at: Integers) -> Cut:
    """A cut at given submissions, moved to where each iteration begins: before its inputs are copied, after a wait."""
    sequence = Sequence(submitted)
    mark = _rotated(sequence, _Mark(0, np.uint64(0), at, 0, 0))
    at = mark.at[mark.at < len(submitted)]
    return Cut(at, sure(sequence, at, 0))


def whole_ends(submitted: Submissions, edges: Integers, least: float) -> tuple[bool, bool]:
    """Whether the first and the last stretch between edges share that part of their work with another one."""
    if len(edges) < 3:
        return True, True
    sequence = Sequence(submitted)
    begin, end = edges[:-1], edges[1:]
    content = sequence.hash_before[end] - sequence.hash_before[begin]
    _, first, times = np.unique(content[1:-1], return_index=True, return_counts=True)
    usual = first[np.argsort(-times, kind="stable")][:8] + 1
    ends = (0, len(edges) - 2)
    wholes = []
    for place, other in (ends, ends[::-1]):
        counts = sequence.counts(begin[[*usual, other, place]], end[[*usual, other, place]])
        mine, size = counts[-1], counts[:-1].sum(1)
        share = np.minimum(counts[:-1], mine).sum(1) / np.maximum(np.maximum(size, mine.sum()), 1)
        wholes.append(bool((share >= least).any()))
    return wholes[0], wholes[1]
