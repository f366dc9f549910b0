"""One iteration as SVG: calls of each thread, work of each stream, launches, and the critical path over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from ceilings.report.render.explained import phrases, svg
from ceilings.report.render.explained.bars import PALETTE, PLAIN

Timeline = Mapping[str, Any]

LEFT, ROW, HEIGHT, STRIP = 140, 34, 20, 4
NARROW = 0.5
"""Boxes narrower than this are drawn together with what follows them: thousands of kernels stay some hundred boxes."""

MOST_ROWS = 12
"""Threads and streams that are drawn, those with most on the path first."""

PATH = ("path", 0)
"""What tells the row of the critical path."""

LEAST = 0.002
"""Part of the iteration for which a row is busy that is drawn without anything on the path."""

MOST_ARROWS = 60
"""Lines from launches to their work, evenly spread: more would hide the rows."""

WHOLE = 0.99
"""A path that ends before this part of the iteration was cut by its record."""

BESIDE = "0.4"
"""Opacity of what is not on the critical path."""


class Box(NamedTuple):
    """Something that a thread or a stream does, in ns from the iteration's begin."""

    begin: float
    end: float
    kind: str
    on_path: bool
    label: str


Row = tuple[tuple[str, int], str, list[Box]]
"""What tells a row from others, its name and what it shows."""


def drawn(timeline: Timeline, top: float) -> tuple[list[Markup], float]:
    """The parts of a picture, and where they end."""
    scale = (svg.WIDTH - LEFT - 10) / timeline["length"]
    rows = _shown(_rows(timeline), timeline["length"])
    height_of = {place: top + k * ROW for k, (place, _, _) in enumerate(rows)}
    parts = list(_arrows(timeline, height_of, scale))
    for place, label, boxes in rows:
        y = height_of[place]
        parts.append(svg.text(0, y + 14, label, class_="b"))
        parts.append(svg.line(LEFT, y + HEIGHT / 2, svg.WIDTH - 10, y + HEIGHT / 2))
        for box in _merged(boxes, timeline["length"], scale):
            look = {} if box.on_path or place == PATH else {"opacity": BESIDE}
            name = f"{box.label}, {phrases.time(box.end - box.begin)}"
            x, width = LEFT + box.begin * scale, max((box.end - box.begin) * scale, 0.2)
            parts.append(svg.rectangle(x, y, width, HEIGHT, PALETTE.get(box.kind, PLAIN), title=name, **look))
            if box.on_path:
                parts.append(svg.rectangle(x, y + HEIGHT, width, STRIP, "#111", class_="path"))
    bottom = top + len(rows) * ROW
    return [*parts, *_axis(timeline["length"], bottom)], bottom + 22


def _rows(timeline: Timeline) -> list[Row]:
    """The critical path, threads, then streams, that have something: what tells them, their name, what they do."""
    path = [Box(begin, end, label.partition(":")[0], False, label) for begin, end, label in timeline.get("path", ())]
    whole = not path or max(box.end for box in path) > WHOLE * timeline["length"]
    rows = [(PATH, "critical path" if whole else "path, its begin", sorted(path))] if path else []
    for side, names, each, flag in (("thread", "threads", "calls", 4), ("stream", "streams", "operations", 5)):
        for number, name in enumerate(timeline[names]):
            boxes = [Box(one[0], one[1], one[2], one[flag], one[2]) for one in timeline[each] if one[3] == number]
            if boxes:
                rows.append(((side, number), name, sorted(boxes)))
    return rows


def _shown(rows: list[Row], length: float) -> list[Row]:
    """The critical path, and the threads and streams with most on it, in their order."""

    def on_path(row: Row) -> float:
        return sum(box.end - box.begin for box in row[2] if box.on_path)

    def drawn_at_all(row: Row) -> bool:
        return on_path(row) > 0 or sum(box.end - box.begin for box in row[2]) > LEAST * length

    others = sorted(filter(drawn_at_all, (row for row in rows if row[0] != PATH)), key=on_path, reverse=True)
    kept = others[:MOST_ROWS]
    return [row for row in rows if row[0] == PATH or row in kept]


def _merged(boxes: Iterable[Box], length: float, scale: float) -> Iterator[Box]:
    """Boxes within the iteration; those that are too narrow to be seen alone as one with what follows them."""
    last: Box | None = None
    for box in boxes:
        now = box._replace(begin=max(box.begin, 0), end=min(box.end, length))
        if now.end < now.begin:
            continue
        if last is not None and (now.end - last.begin) * scale < NARROW:
            longer = last if last.end - last.begin >= now.end - now.begin else now
            last = Box(last.begin, max(last.end, now.end), longer.kind, last.on_path or now.on_path, longer.label)
            continue
        if last is not None:
            yield last
        last = now
    if last is not None:
        yield last


def _arrows(timeline: Timeline, height_of: Mapping[tuple[str, int], float], scale: float) -> Iterator[Markup]:
    """A line from each launch on the path to the first work on the path that it started."""
    threads = {one[0]: one[3] for one in timeline["calls"]}
    first: dict[int, tuple[float, int]] = {}
    for begin, _, _, stream, call, on_path in timeline["operations"]:
        if on_path and call is not None and call in threads and (call not in first or begin < first[call][0]):
            first[call] = (begin, stream)
    launches = sorted(first.items())
    for call, (begin, stream) in launches[:: -(-len(launches) // MOST_ARROWS) or 1]:
        from_, to = height_of.get(("thread", threads[call])), height_of.get(("stream", stream))
        if from_ is not None and to is not None and call >= 0:
            yield svg.line(LEFT + call * scale, from_ + HEIGHT + STRIP, LEFT + begin * scale, to, "arrow")


def _axis(length: float, y: float) -> Iterator[Markup]:
    """Five times below the rows."""
    for k in range(5):
        x = LEFT + (svg.WIDTH - LEFT - 10) * k / 4
        anchor = "start" if k == 0 else "end" if k == 4 else "middle"
        yield svg.text(x, y + 14, phrases.time(length * k / 4), class_="quiet", anchor=anchor)
