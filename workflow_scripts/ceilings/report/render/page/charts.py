"""The report's charts in Vega-Lite: what is drawn how. The page's scripts hand each the cells that it is to show.

Colours are the page's (``currentColor``), so that a chart follows light, dark and print without being drawn anew.
Runtimes differ in colour and in shape, precisions in dash: colour alone distinguishes nothing.
"""

from __future__ import annotations

from typing import Any

from ceilings.report.analysis.measured import Measured
from ceilings.report.render.axes import log_title
from ceilings.report.render.plots.style import COLOURS
from ceilings.report.tables.quantities import BY_COLUMN, heading
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES

Spec = dict[str, Any]

SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left"]
DASHES = {"fp32": [1, 0], "tf32": [9, 2], "bf16": [6, 2, 2, 2], "fp16": [6, 3], "fp8": [2, 2], "int8": [3, 3]}

PALE = ["#8fc1e0", "#f0b48a", "#8fd4bd", "#e8c6da", "#bfe2f6", "#c9c2e8", "#f6d999", "#d9a7a0"]
GREYS = ["#8a8a8a", "#a6a6a6", "#bfbfbf", "#d6d6d6"]
"""A budget's colours: work in the palette, then in its paler tints, idleness in grey."""

POINT: Spec = {"type": "point", "filled": True, "size": 80, "opacity": 1, "cursor": "pointer"}

STROKE: Spec = {
    "symbols": {
        "update": {
            "stroke": {"value": "currentColor"},
            "strokeWidth": {"value": 2},
            "fill": {"value": "transparent"},
        }
    }
}
"""A legend's symbol that is a line: Vega-Lite would give it the look of the points."""

ZOOM: Spec = {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"}
"""Drag to move, Shift and the wheel to zoom: the wheel alone scrolls the page."""

FIGURES: Spec = {"type": "quantitative", "format": ".3~r"}

CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "gridColor": "currentColor",
        "gridOpacity": 0.15,
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 12,
        "orient": "bottom",
        "columns": {"expr": "max(1, floor(width / 130))"},
        "layout": {"bottom": {"direction": "vertical", "anchor": "start"}},  # one below the other: none pushed out
        "labelLimit": 260,
        "symbolSize": 90,
    },
    "rule": {"color": "currentColor"},
    "tick": {"color": "currentColor"},
    "text": {"color": "currentColor"},
}


def charts(measured: Measured) -> dict[str, Any]:
    """All charts by name, with the settings they share."""
    runtimes = list(dict.fromkeys(runtime for runtime, _ in measured.configurations))
    units = " or ".join(sorted({f"{cell.unit}s" for cell in measured.cells})) or "inferences"
    title, tooltip = _latency_title(measured), _tooltip(units)
    return {
        "config": CONFIG,
        "pareto": _pareto(runtimes, units, title, tooltip),
        "configurations": _configurations(runtimes, title, tooltip),
        **{
            curve_name(axis): _curve(runtimes, _along(axis, units), axis, title, tooltip)
            for axis in measured.swept_axes
        },
        "budgets": _budgets("label"),
        "budget": _budgets("side"),
        "timeline": _timeline(),
        "distribution": _distribution(),
        "course": _course(),
    }


def _tooltip(units: str) -> list[Spec]:
    """Of a point of a cell; what the cells do not have is left out."""
    names = {name: heading(BY_COLUMN[name]) for name in ("p50_ms", "inferences_per_s", "floor_ms", "gap")}
    numbers = {"p50_ms": names.pop("p50_ms"), "low": "95% from", "high": "to", **names} | {
        "inferences_per_s": f"{units}/s"
    }
    return [
        {"field": "label"},
        {"field": "where", "title": "at"},
        *({"field": field, "title": title, **FIGURES} for field, title in numbers.items()),
    ]


def curve_name(axis: str) -> str:
    """What the chart along an axis is called."""
    return {"batch": "batches", "sequence": "sequences"}.get(axis, f"along-{axis}")


def _along(axis: str, units: str) -> Spec:
    """The horizontal axis of a chart along an axis of shapes: of batches, the throughput."""
    if axis == "batch":
        return _log("inferences_per_s", f"{units}/s in the closed loop (log scale)")
    return _log(axis, log_title(axis), values={"expr": "sizes"})


def _latency_title(measured: Measured) -> str:
    """What axes of latencies are called: of models that generate that of one output token."""
    tokens = {cell.phase is not None for cell in measured.cells}
    what = {(True,): "time of one output token", (False, True): "latency of one inference or output token"}
    return f"median {what.get(tuple(sorted(tokens)), 'latency')} (ms, log scale)"


def _pareto(runtimes: list[str], units: str, title: str, tooltip: list[Spec]) -> Spec:
    """Latency against throughput, a point a cell; a line through the cells that no other beats in both."""
    latency = _log("p50_ms", title)
    rate = _log("throughput", f"throughput ({units}/s, log scale)")
    runtime = _runtime(runtimes)
    front: Spec = {"transform": [{"filter": "datum.front"}]}
    return {
        "height": 260,
        "encoding": {"x": rate, "y": latency},
        "layer": [
            {
                **front,
                "mark": {"type": "line", "color": "currentColor", "opacity": 0.7, "strokeWidth": 1.5},
                "encoding": {"order": {"field": "throughput"}},
            },
            {
                "mark": {**POINT, "tooltip": True},
                "encoding": {
                    **runtime,
                    "tooltip": tooltip,
                    "opacity": {"condition": {"test": "datum.front", "value": 1}, "value": 0.55},
                },
            },
            {
                **front,
                "mark": {"type": "text", "align": "right", "dx": -8, "dy": -6, "fontSize": 11},
                "encoding": {"text": {"field": "short"}},
            },
        ],
    }


def _configurations(runtimes: list[str], latency: str, tooltip: list[Spec]) -> Spec:
    y = {"field": "label", "type": "nominal", "sort": {"field": "p50_ms", "op": "min"}, "title": None}
    return {
        **_rows("label", 24),
        "encoding": {"y": y},
        "layer": [
            *_intervals("x", latency),
            {
                "mark": POINT,
                "encoding": {"x": _log("p50_ms", latency), "tooltip": tooltip, **_runtime(runtimes, legend=False)},
            },
            {
                **_needs("floor_ms"),
                "mark": {"type": "tick", "thickness": 2, "size": 16},
                "encoding": {"x": _log("floor_ms", latency)},
            },
        ],
    }


def _curve(runtimes: list[str], x: Spec, along: str, latency: str, tooltip: list[Spec]) -> Spec:
    """Median latency along an axis of shapes, a line a configuration."""
    runtime = _runtime(runtimes)
    precision = {
        "field": "precision",
        "type": "nominal",
        "scale": {"domain": list(DASHES), "range": list(DASHES.values())},
        "legend": {
            "values": {"expr": "precisions"},
            "symbolType": "stroke",
            "encoding": {"symbols": {"update": STROKE}},
        },
    }
    return {
        "height": 380,
        "encoding": {
            "x": x,
            "y": _log("p50_ms", latency),
            "detail": {"field": "label"},
            "order": {"field": along},
            "color": runtime["color"],
        },
        "layer": [
            {"mark": "line", "encoding": {"strokeDash": precision}},
            *_intervals("y", latency),
            {"mark": POINT, "encoding": {"tooltip": tooltip, "shape": runtime["shape"]}},
            {
                "mark": {"type": "text", "align": "left", "dx": 8, "dy": -5, "fontSize": 11},
                "encoding": {"text": {"field": along}, "color": {"value": "currentColor"}},
            },
        ],
    }


def _intervals(side: str, latency: str) -> list[Spec]:
    """Intervals along ``x`` or ``y`` as far as the chart reaches, and an arrow where one goes on."""
    back, on = ("triangle-left", "triangle-right") if side == "x" else ("triangle-down", "triangle-up")
    ends = (("goes_below", back), ("goes_above", on))
    rule = {"mark": "rule", "encoding": {side: _log("drawn_from", latency), f"{side}2": {"field": "drawn_to"}}}
    return [
        {**_needs("low"), **rule},
        *(
            {
                **_needs(field),
                "transform": [{"filter": f"isValid(datum.{field})"}],
                "mark": {"type": "point", "filled": True, "shape": shape, "size": 60, "color": "currentColor"},
                "encoding": {side: _log(field, latency)},
            }
            for field, shape in ends
        ),
    ]


def _budgets(row: str) -> Spec:
    """Two bars, the host's and the device's, split into their parts; large parts are named on the bar."""
    side = {"field": "side", "type": "nominal", "title": None, "sort": ["host", "device"]}
    ms: Spec = {"field": "ms", "type": "quantitative", "stack": "zero", "title": "one iteration (ms)"}
    rows = {"y": side} if row == "side" else {"y": {"field": row, "title": None, "sort": None}, "yOffset": side}
    tooltip = [{"field": field} for field in dict.fromkeys((row, "side", "part", "ms"))]
    return {
        **_rows(row, 26 if row == "side" else 44),
        "encoding": {**rows, "x": ms, "order": {"field": "order"}},
        "layer": [
            {
                "mark": {"type": "bar", "stroke": "Canvas", "strokeWidth": 1, "cursor": "pointer"},
                "encoding": {"color": _part(), "tooltip": tooltip},
            },
            {
                "mark": {"type": "text", "color": "black", "fontSize": 11},
                "encoding": {"x": {**ms, "bandPosition": 0.5}, "text": {"field": "large"}},
            },
        ],
    }


def _part() -> Spec:
    """A part's colour: the same wherever an iteration is split."""
    work = list(dict.fromkeys([*HOST_PARTS, *KERNEL_CLASSES, "residual"]))
    idle = [f"idle: {cause}" for cause in IDLE_CAUSES]
    colours = [*(COLOURS[:6] + PALE)[: len(work)], *GREYS[: len(idle)]]
    scale = {"domain": [*work, *idle], "range": colours}
    return {"field": "part", "type": "nominal", "title": None, "scale": scale, "legend": {"values": {"expr": "parts"}}}


def _timeline() -> Spec:
    """The host's calls above, the device's work below, a line from a launch to the first thing it started.

    A line stands at either end of the iteration. Rows are in ``y`` to ``y2``: the host from 0 to 1, the device from 2
    to 3.
    """
    x = {"field": "begin", "type": "quantitative", "title": "from the iteration's start (µs)", "scale": {"nice": False}}
    sides = {"values": [0.5, 2.5], "labelExpr": "datum.value < 1 ? 'host' : 'device'", "grid": False, "ticks": False}
    y: Spec = {"field": "y", "type": "quantitative", "title": None, "axis": {**sides, "domain": False}}
    tooltip = [{"field": "part"}, *({"field": field, "format": ",.1f"} for field in ("begin", "end", "µs"))]
    return {
        "height": 130,
        "encoding": {"x": x, "x2": {"field": "end"}, "y": {**y, "scale": {"reverse": True}}, "y2": {"field": "y2"}},
        "layer": [
            {
                "transform": [{"filter": "!isValid(datum.part)"}],
                "mark": {"type": "rule", "strokeWidth": 0.7, "opacity": 0.6, "clip": True},
            },
            {
                "transform": [{"filter": "isValid(datum.part)"}],
                "mark": {"type": "rect", "clip": True},
                "encoding": {"color": _part(), "tooltip": tooltip},
                "params": [{"name": "view", "select": ZOOM, "bind": "scales"}],
            },
        ],
    }


def _distribution() -> Spec:
    """The share of a process's iterations that took no longer, a line a process."""
    process = _process()
    return {
        "height": 240,
        "encoding": {
            "x": _log("ms", "latency of one iteration (ms, log scale)"),
            "y": {"field": "share", "type": "quantitative", "title": "share of iterations", "axis": {"format": "%"}},
            "order": {"field": "share"},
            "color": process["color"],
        },
        "layer": [
            {"mark": "line"},
            {"mark": {**POINT, "size": 30, "tooltip": True}, "encoding": {"shape": process["shape"]}},
        ],
    }


def _course() -> Spec:
    """Medians (filled) and maxima (open) of stretches of the iterations, in the order they were measured."""
    x = {"field": "iteration", "type": "quantitative", "title": "iteration of the process"}
    latency = "a stretch's median (filled) and maximum (ms, log scale)"
    return {
        "height": 240,
        "encoding": {"x": x, **_process()},
        "layer": [
            {
                "mark": {"type": "point", "filled": filled, "size": 30, "tooltip": True},
                "encoding": {"y": _log(field, latency)},
            }
            for field, filled in (("median", True), ("max", False))
        ],
    }


def _process() -> Spec:
    named: Spec = {"field": "process", "type": "nominal", "title": "process"}
    return {"color": {**named, "scale": {"range": COLOURS[:6]}}, "shape": {**named, "scale": {"range": SHAPES}}}


def _runtime(runtimes: list[str], legend: bool = True) -> Spec:
    """A runtime's colour and shape: the same in every chart, whatever a filter leaves."""
    # Black, the last of the palette, is the page's colour of text.
    palette = [*COLOURS[:-1], "currentColor"]
    named: Spec = {"field": "runtime", "type": "nominal", "title": None}
    longest = 7 * max(map(len, runtimes), default=0) + 30  # a symbol and the letters, in pixels
    columns = {"expr": f"max(1, floor(width / {longest}))"}
    named["legend"] = {"values": {"expr": "runtimes"}, "columns": columns} if legend else None
    colours = [palette[i % len(palette)] for i in range(len(runtimes))]
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(runtimes))]
    return {
        "color": {**named, "scale": {"domain": runtimes, "range": colours}},
        "shape": {**named, "scale": {"domain": runtimes, "range": shapes}},
    }


def _log(field: str, title: str, **axis: Any) -> Spec:
    """A log axis. Layers that share it share its title too: Vega-Lite joins titles that differ."""
    scale = {"type": "log", "nice": False, "padding": 16}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": {"format": "~r", **axis}}


def _rows(field: str, height: int) -> Spec:
    """Makes a chart ``height`` pixels high for each value of a field."""
    return {"usermeta": {"rows": field, "height": height}}


def _needs(field: str) -> Spec:
    """Marks a layer that is left out where no cell has the field."""
    return {"usermeta": {"needs": field}}
