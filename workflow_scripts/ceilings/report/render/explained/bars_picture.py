"""The bars of an iteration as SVG, with the parts of each named below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from ceilings.report import text
from ceilings.report.render.explained import phrases, svg
from ceilings.report.render.explained.bars import Bar, Part

LEFT = 140
"""Where bars begin; their names stand before."""

HEIGHT, LINE, GAP = 26, 17, 14
INSIDE = 0.09
"""Share of an iteration from which on a part has its percentage on it."""

FAINT = 0.001
"""Share below which a part is drawn but not named."""


def drawn(bars: Sequence[Bar], top: float) -> tuple[list[Markup], float]:
    """The parts of a picture, and where they end.

    Args:
        bars: Of one iteration, to one scale.
        top: Where they begin.
    """
    scale = (svg.WIDTH - LEFT - 10) / max([1.0, *(bar.total for bar in bars)])
    parts: list[Markup] = []
    for bar in bars:
        parts += [svg.text(0, top + 17, bar.label, class_="b"), *_bar(bar, top, scale)]
        top += HEIGHT + 4
        for words in _lines(bar):
            x = float(LEFT)
            for part, label in words:
                parts.append(svg.rectangle(x, top + 3, 9, 9, part.colour))
                parts.append(svg.text(x + 13, top + 12, label, class_="quiet"))
                x += _room(label)
            top += LINE
        top += GAP
    return parts, top


def _bar(bar: Bar, top: float, scale: float) -> Iterator[Markup]:
    x = float(LEFT)
    for part in bar.parts:
        width = part.share * scale
        name = f"{part.label}: {phrases.time(part.ns)}, {text.percent(part.share)}"
        yield svg.rectangle(x, top, width, HEIGHT, part.colour, title=name)
        if part.share >= INSIDE:
            colour = "" if part.idle else svg.contrast(part.colour)
            yield svg.text(x + width / 2, top + 17, text.percent(part.share), anchor="middle", fill=colour)
        x += width


def _lines(bar: Bar) -> list[list[tuple[Part, str]]]:
    """The names of a bar's parts, the largest first, as many on a line as have room there."""
    lines: list[list[tuple[Part, str]]] = [[]]
    x = float(LEFT)
    for part in sorted(bar.parts, key=lambda part: -part.share):
        if part.share < FAINT:
            continue
        label = f"{part.label} {phrases.time(part.ns)} ({text.percent(part.share)})"
        if lines[-1] and x + _room(label) > svg.WIDTH:
            lines.append([])
            x = float(LEFT)
        lines[-1].append((part, label))
        x += _room(label)
    return lines


def _room(label: str) -> float:
    return 13 + svg.width_of(label) + 12
