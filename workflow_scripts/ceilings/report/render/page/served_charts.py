"""Models behind servers in the report: what is drawn how, and the loads to draw, of each model and device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.analysis.served import Line, Served, ServedLoads, tail_of
from ceilings.report.render.plots.style import COLOURS
from ceilings.report.tables.served_quantities import PARTS

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

PART_COLOURS = ["#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#a6a6a6", "#d6d6d6"]
"""Of the parts of a request, in their order, and of a request that the server does not split."""

WHOLE = "whole request, not split by the server"

SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down"]

FIGURES: Spec = {"type": "quantitative", "format": ".3~r"}

LOAD: Spec = {"field": "row", "type": "nominal", "title": None, "sort": None}
"""A bar's row: loads in the order of the table."""


def served_charts() -> dict[str, Spec]:
    """The charts of loads by name."""
    return {"served-latency": _latency(), "served-throughput": _throughput(), "served-batches": _batches()}


def served_panels(measured: Measured) -> list[dict[str, Any]]:
    """Of each model and device that was served: its title, what is left out, and the rows of each chart."""
    if not (measured.tables.serving["status"] == "ok").any():
        return []
    loads = ServedLoads(measured)
    panels = group_by(loads.lines, lambda line: (line.head.model, line.head.device))
    return [
        {
            "number": number,
            "title": f"{model} on {device}",
            "gone": _gone(lines),
            "tail": tail_of(_settled(lines))[1],
            "latency": [row for one in _settled(lines) for row in _parts(one)],
            "throughput": _points(lines),
            "batches": [row for line in lines if line.batches for one in line.loads for row in _formed(one)],
        }
        for number, ((model, device), lines) in enumerate(panels.items())
    ]


# --- rows ------------------------------------------------------------------------------------------------------------


def _settled(lines: Sequence[Line]) -> list[Served]:
    """Loads with a latency."""
    return [one for line in lines for one in line.loads if one.settled]


def _row(one: Served) -> str:
    return f"{one.deployment}, {one.label}: {one.load}{' *' if one.row['flagged'] else ''}"


def _parts(one: Served) -> Rows:
    """A bar's parts, the median with its interval, and the bare runtime at the batch sizes that were executed."""
    named = {"row": _row(one)}
    known = {part.label: value for part in PARTS if (value := one.known(part.column)) is not None and value > 0}
    parts = known or {WHOLE: one.known("client_ms") or 0.0}
    rows: Rows = [{**named, "part": part, "ms": ms, "order": order} for order, (part, ms) in enumerate(parts.items())]
    median = one.p50
    bounded = {"low": median.low, "high": median.high} if median.bounded else {}
    rows.append({**named, "p50_ms": median.estimate, **bounded})
    bare = one.known("bare_ms")
    return [*rows, *([{**named, "bare_ms": bare}] if bare is not None else [])]


def _points(lines: Sequence[Line]) -> Rows:
    every = _settled(lines)
    column, _ = tail_of(every)
    return [
        {
            **{"deployment": one.deployment, "cell": one.label, "load": one.load, "kind": one.row["kind"]},
            **{"ms": one.interval(column).estimate, "per_s": one.throughput.estimate, "order": order},
            "short": f"{one.clients if one.closed else ''}{' *' if one.row['flagged'] else ''}",
        }
        for order, one in enumerate(every)
    ]


def _formed(one: Served) -> Rows:
    return [
        {"row": _row(one), "size": f"batch {size}", "order": size, "share": share}
        for size, share in sorted(one.formed.items())
        if share > 0
    ]


def _gone(lines: Sequence[Line]) -> str:
    """Loads that have no latency, in words."""
    every = [one for line in lines for one in line.loads]
    words: Mapping[str, list[str]] = {
        "the queue grows": [_row(one) for one in every if one.overloaded],
        "the windows are too short": [_row(one) for one in every if one.short],
    }
    return "; ".join(f"{why}: {text.cut(rows)}" for why, rows in words.items() if rows)


# --- charts ----------------------------------------------------------------------------------------------------------


def _latency() -> Spec:
    """What a request waits for: its parts as a bar, the median at the client as a point, the bare runtime as a tick."""
    labels = [*(part.label for part in PARTS), WHOLE]
    part = {
        "field": "part",
        "type": "nominal",
        "title": None,
        "scale": {"domain": labels, "range": PART_COLOURS},
        "legend": {"values": {"expr": "parts"}},
    }
    ms: Spec = {"field": "ms", "type": "quantitative", "stack": "zero", "title": "latency of a request (ms)"}
    shown = [{"field": "row"}, {"field": "part"}, {"field": "ms", "title": "ms in the mean", **FIGURES}]
    return {
        "usermeta": {"rows": "row", "height": 24},
        "encoding": {"y": LOAD},
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.part)"}],
                "mark": {"type": "bar", "stroke": "Canvas", "strokeWidth": 1},
                "encoding": {"x": ms, "order": {"field": "order"}, "color": part, "tooltip": shown},
            },
            _over("low", {"mark": "rule", "encoding": {"x": _x("low"), "x2": {"field": "high"}}}),
            _over(
                "p50_ms",
                {
                    "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1, "color": "currentColor"},
                    "encoding": {"x": _x("p50_ms"), "tooltip": [{"field": "p50_ms", "title": "median, ms", **FIGURES}]},
                },
            ),
            _over(
                "bare_ms",
                {
                    "mark": {"type": "tick", "thickness": 2, "size": 20},
                    "encoding": {"x": _x("bare_ms"), "tooltip": [{"field": "bare_ms", "title": "bare, ms", **FIGURES}]},
                },
            ),
        ],
    }


def _over(field: str, layer: Spec) -> Spec:
    """A layer of the rows that have a field; it is left out where none has."""
    return {"usermeta": {"needs": field}, "transform": [{"filter": f"isValid(datum.{field})"}], **layer}


def _x(field: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": "latency of a request (ms)"}


def _throughput() -> Spec:
    """Requests a second against the tail: a line through the closed loops of a cell, open loops hollow."""
    x: Spec = {
        "field": "ms",
        "type": "quantitative",
        "title": "latency at the client (ms, log scale)",
        "scale": {"type": "log", "nice": False, "padding": 16},
        "axis": {"format": "~r"},
    }
    y = {"field": "per_s", "type": "quantitative", "title": "requests answered a second"}
    colour = {"field": "deployment", "type": "nominal", "title": None, "scale": {"range": [*COLOURS[:-1], "#8a8a8a"]}}
    shape = {"field": "cell", "type": "nominal", "title": None, "scale": {"range": SHAPES}}
    shown = [
        *({"field": name} for name in ("deployment", "cell", "load")),
        {"field": "ms", "title": "ms", **FIGURES},
        {"field": "per_s", "title": "requests/s", **FIGURES},
    ]
    closed, opened = ({"transform": [{"filter": f"datum.kind === '{kind}'"}]} for kind in ("closed", "open"))
    points = {"shape": shape, "tooltip": shown}
    return {
        "height": 320,
        "encoding": {"x": x, "y": y, "color": colour},
        "layer": [
            {**closed, "mark": "line", "encoding": {"detail": {"field": "cell"}, "order": {"field": "order"}}},
            {**closed, "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1}, "encoding": points},
            {**opened, "mark": {"type": "point", "filled": False, "size": 70}, "encoding": points},
            {
                "mark": {"type": "text", "align": "left", "dx": 8, "dy": 8, "fontSize": 11},
                "encoding": {"text": {"field": "short"}, "color": {"value": "currentColor"}},
            },
        ],
    }


def _batches() -> Spec:
    """Sizes of the batches that a server formed, as shares of its executions."""
    x = {
        "field": "share",
        "type": "quantitative",
        "stack": "zero",
        "title": "share of executions",
        "axis": {"format": "%"},
    }
    size = {
        "field": "size",
        "type": "nominal",
        "title": None,
        "sort": {"field": "order"},
        "scale": {"scheme": "viridis"},
    }
    shown = [{"field": "row"}, {"field": "size"}, {"field": "share", "type": "quantitative", "format": ".0%"}]
    return {
        "usermeta": {"rows": "row", "height": 24},
        "encoding": {"y": LOAD, "x": x, "order": {"field": "order"}, "color": size, "tooltip": shown},
        "mark": {"type": "bar", "stroke": "Canvas", "strokeWidth": 1},
    }
