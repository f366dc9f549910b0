"""Trends as Markdown, and as a page with a picture a cell that needs nothing else: no script, no network."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from tabulate import tabulate

from ceilings import foreign
from ceilings.report import text
from ceilings.report.analysis.comparison import ALPHA
from ceilings.report.analysis.trends import ENOUGH, ChangePoint, Series, Trends

HEADERS = ("cell", "where", "before, ms", "after, ms", "after / before [95%]", "verdict", "what changed with it")
MOST_PICTURES = 200
"""Pictures of cells without a change; the table has all of them."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 170, 60, 12, 10, 34
"""Of a picture and of its margins, in pixels."""

MOST_NAMES = 8
"""Trees that a picture names below its axis."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #8886; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(36rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .9em; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; font-size: 11px; fill: currentColor; }
svg .line { fill: none; stroke: #0072b2; stroke-width: 1.6; } svg .interval { stroke: #0072b2; stroke-width: 1; }
svg .point { fill: #0072b2; } svg .axis { stroke: #8888; } svg text { opacity: .8; }
svg .slower { stroke: #d55e00; fill: #d55e00; } svg .faster { stroke: #009e73; fill: #009e73; }
svg line.slower, svg line.faster { stroke-width: 1.6; stroke-dasharray: 4 3; }
"""


def as_markdown(trends: Trends) -> str:
    """The page for a terminal or a pull request, without pictures."""
    parts = ["# Trends", *_sentences(trends, foreign.marked)]
    if trends.broken:
        parts += [f"## {BROKEN}", text.table(foreign.marked(_broken(trends)), BROKEN_HEADERS)]
    if trends.changes:
        parts += ["## Change-points", text.table(foreign.marked(_rows(trends)), HEADERS)]
    if trends.apart:
        parts += ["## Not compared: other conditions", text.table(foreign.marked(list(map(list, trends.apart))), APART)]
    return foreign.markdown("\n\n".join(parts) + "\n")


APART = ("cell", "what differs")
BROKEN, BROKEN_HEADERS = "Measured before, failed after", ("cell", "where", "why")


def as_html(trends: Trends) -> str:
    """The same with a picture of each cell; those with a change first."""
    parts = [
        "<h1>Trends</h1>",
        *(f"<p>{html.escape(sentence)}</p>" for sentence in _sentences(trends, foreign.one_line)),
    ]
    if trends.broken:
        parts += [f"<h2>{BROKEN}</h2>", _table(_broken(trends), BROKEN_HEADERS)]
    if trends.changes:
        parts += ["<h2>Change-points</h2>", _table(_rows(trends), HEADERS)]
    changed = [series for series in trends.series if series.changes]
    steady = [series for series in trends.series if not series.changes and len(series.points) > 1]
    parts += _pictures("Cells with a change", changed, trends)
    parts += _pictures("Cells without an established change", steady[:MOST_PICTURES], trends)
    if len(steady) > MOST_PICTURES:
        parts.append(f"<p>{len(steady) - MOST_PICTURES} more cells without one have no picture here.</p>")
    if trends.apart:
        parts += ["<h2>Not compared: other conditions</h2>", _table(list(map(list, trends.apart)), APART)]
    body = "\n".join(parts)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>Trends</title><style>{STYLE}</style></head>'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _broken(trends: Trends) -> list[list[str]]:
    return [[one.cell, f"{one.before} to {one.after}", one.why] for one in trends.broken]


def _sentences(trends: Trends, shown: Callable[[str], str]) -> list[str]:
    counts = {kind: sum(one.change.verdict == kind for one in trends.changes) for kind in ("slower", "faster")}
    sentences = [
        f"{text.plural(len(trends.trees), 'tree')} in this order: {', '.join(map(shown, trends.trees))}.",
        f"{len(trends.series)} series of medians, {text.plural(trends.steps, 'comparison')}: "
        f"{counts['slower']} slower, {counts['faster']} faster, {len(trends.broken)} stopped working. "
        f"{text.plural(trends.undecided, 'step')} undecided: more processes narrow the intervals.",
        f"A change-point has p at most {ALPHA} after Holm's adjustment for all comparisons, a 95% interval without 1, "
        "and a ratio beyond the noise floors of both trees.",
    ]
    for device, scatter in trends.scatter.items():
        sentences.append(
            f"Trees of {device} scatter: a step there must also exceed {text.percent(scatter)}, six standard "
            "deviations of its steps."
        )
    if trends.carried:
        sentences.append(
            f"{text.plural(trends.carried, 'cell')} of later trees were not measured again: they hold samples of an "
            "earlier tree, which count once, there."
        )
    if not trends.scatter:
        sentences.append(
            f"No cell is in {ENOUGH} trees, so it is not known how much trees differ without cause. Measure a step "
            "again before you believe it."
        )
    return sentences


def _rows(trends: Trends) -> list[list[str]]:
    return [_row(series, change) for series in trends.series for change in series.changes]


def _row(series: Series, change: ChangePoint) -> list[str]:
    before, after = (text.number(one.cell.p50.estimate) for one in (change.before, change.after))
    where = f"{change.before.tree} to {change.after.tree}" + (" (drift)" if change.kind == "drift" else "")
    because = "; ".join(f"{what}: {old} to {new}" for what, old, new in change.because)
    nothing = "nothing that the records know"
    return [
        series.name,
        where,
        before,
        after,
        text.interval(change.change.ratio),
        change.change.verdict,
        because or nothing,
    ]


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return str(tabulate(rows, headers, tablefmt="html", disable_numparse=True))  # which escapes what stands in a cell


def _pictures(title: str, series: Sequence[Series], trends: Trends) -> list[str]:
    if not series:
        return []
    figures = (
        f"<figure><figcaption>{html.escape(_caption(one))}</figcaption>{picture(one, trends.trees)}</figure>"
        for one in series
    )
    return [f"<h2>{title}</h2>", '<div class="pictures">', *figures, "</div>"]


def _caption(series: Series) -> str:
    conditions = ", ".join(f"{name} {value}" for name, value in series.conditions)
    return f"{series.name}, median in ms" + (f" ({conditions})" if conditions else "")


def picture(series: Series, trees: Sequence[str]) -> str:
    """An SVG of the medians with their intervals over all trees; a dashed line where one changed."""
    ends = [min(point.cell.p50.high, 2 * point.cell.p50.estimate) for point in series.points]
    starts = [max(point.cell.p50.low, point.cell.p50.estimate / 2) for point in series.points]
    low, high = min(starts), max(ends)
    room = 0.08 * (high - low) or 0.05 * high
    low, high = low - room, high + room

    def x(tree: str) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (trees.index(tree) + 0.5) / len(trees)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>']
    for value in (low + room, high - room):
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{text.number(value)}</text>')
    every = -(-len(trees) // MOST_NAMES)
    for tree in trees[::every]:
        name = html.escape(foreign.one_line(tree, 14))
        parts.append(f'<text x="{x(tree):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{name}</text>')
    for change in series.changes:
        at, kind = x(change.after.tree), change.change.verdict
        parts.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    line = " ".join(f"{x(point.tree):.1f},{y(point.cell.p50.estimate):.1f}" for point in series.points)
    parts.append(f'<polyline class="line" points="{line}"/>')
    kinds = {change.after.tree: change.change.verdict for change in series.changes}
    for point, start, end in zip(series.points, starts, ends, strict=True):
        at, name = x(point.tree), html.escape(foreign.one_line(point.tree))
        shown = f"{name}: {text.interval(point.cell.p50, 'ms')}"
        parts += [
            f'<line class="interval" x1="{at:.1f}" x2="{at:.1f}" y1="{y(start):.1f}" y2="{y(end):.1f}"/>',
            f'<circle class="{kinds.get(point.tree, "point")}" cx="{at:.1f}" cy="{y(point.cell.p50.estimate):.1f}" '
            f'r="4"><title>{shown}</title></circle>',
        ]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
