"""Time per output token of models that generate: against the batch, with the tokens a second, and the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ceilings.report import text
from ceilings.report.analysis.measured import Cell, Measured, group_by, most_swept, without_axis
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.statistics.quantiles import Interval
from ceilings.workload.generation import step_shape

CONTEXT = "tokens in the cache (log scale)"


@dataclass(frozen=True)
class Picture:
    """What is drawn along which axis of shapes: the size of a cell and its value, and what both are called."""

    along: str
    x: Callable[[Cell], int]
    y: Callable[[Cell], Interval]
    size: str
    quantity: str


def _batch(cell: Cell) -> int:
    return cell.batch


def _cached(cell: Cell) -> int:
    return step_shape(cell.shape)["past"]


def _time(cell: Cell) -> Interval:
    return cell.p50


def _rate(cell: Cell) -> Interval:
    return cell.p50.inverted(cell.batch * 1e3)


TIME = "time per output token (ms, log scale)"
PICTURES = (
    Picture("batch", _batch, _time, "batch (log scale)", TIME),
    Picture("batch", _batch, _rate, "batch (log scale)", "tokens/s of all rows (log scale)"),
    Picture("prompt", _cached, _time, CONTEXT, TIME),
)


@style.settled
def draw(tables: Tables) -> Figure:
    """A row a device and model. Along the batch: a token's time, and all rows' tokens a second. Along the context, the
    prompt and half of the generated tokens: a token's time. The floor in grey. What no row has is left out."""
    measured = Measured(tables)
    rows = {}
    for panel, cells in measured.panels.items():
        steps = [cell for cell in cells if cell.phase == "decode"]
        lines = {along: _lines(steps, along) for along in ("batch", "prompt")} if steps else {}
        if any(lines.values()):
            rows[panel] = lines
    if not rows:
        return style.nothing("Time per output token", "no decoder was measured at more than one batch or context")
    pictures = [picture for picture in PICTURES if any(lines[picture.along] for lines in rows.values())]
    drawn = [cell for lines in rows.values() for along in lines.values() for line in along for cell in line]
    floors = any(map(measured.hardware_floor, drawn))
    heading = f"Time per output token (95% intervals{'; grey: the hardware floor' if floors else ''})"
    figure, axes = style.panels(len(rows), len(pictures), 4.2, heading)
    for row, ((device, model), lines) in zip(axes, rows.items(), strict=True):
        for axis, picture, before in zip(row, pictures, [None, *pictures], strict=False):
            _draw(axis, measured, lines[picture.along], picture)
            title = [f"{model} on {device}"] if before is None else []
            if before is None or before.along != picture.along:
                title.append(_rest(lines[picture.along], picture.along))
            axis.set_title("\n".join(title))
            axis.set_xlabel(picture.size)
            axis.set_ylabel(picture.quantity)
    style.legend(figure, [axis for row in axes for axis in row], columns=3)
    return figure


def _lines(cells: list[Cell], along: str) -> list[list[Cell]]:
    """Cells of each configuration along an axis, at the rest of the shape that most were measured at."""
    rest = most_swept(cells, along)
    same = group_by(
        [cell for cell in cells if without_axis(cell.shape, along) == rest], lambda cell: cell.configuration
    )
    return [sorted(line, key=lambda cell: cell.axis(along)) for line in same.values() if len(line) > 1]


def _rest(lines: Sequence[Sequence[Cell]], along: str) -> str:
    return text.sizes(without_axis(lines[0][0].shape, along)) if lines else ""


def _draw(axis: Axes, measured: Measured, lines: Sequence[Sequence[Cell]], picture: Picture) -> None:
    """Lines of configurations, and of each precision the floor, as the same quantity."""
    if not lines:
        axis.text(0.5, 0.5, "one size only", ha="center", va="center", color="0.3", transform=axis.transAxes)
        axis.set_xticks([])
        axis.set_yticks([])
        return
    looks, x, y = style.looks(measured), picture.x, picture.y
    for line in lines:
        values = [y(cell) for cell in line]
        look = looks[line[0].configuration]
        axis.errorbar(
            *([x(cell) for cell in line], [value.estimate for value in values]),
            yerr=style.error(values),
            capsize=3,
            **look,
        )
    floors: dict[str, dict[int, float]] = {}
    cells = [cell for line in lines for cell in line]
    for cell in cells:
        if floor := measured.hardware_floor(cell):
            scale = y(cell).estimate / cell.p50.estimate  # 1 for a time
            ms = floor["floor_ms"]
            rate = cell.batch * 1e3 / ms
            floors.setdefault(cell.precision, {})[x(cell)] = ms if scale == 1 else rate
    marks = [value for known in floors.values() for value in known.values()]
    style.within_reach(axis, "y", [(y(cell), x(cell), looks[cell.configuration]["color"]) for cell in cells], marks)
    for precision, known in floors.items():
        label = f"floor {precision}" if len(floors) > 1 else "floor"
        axis.plot(
            sorted(known),
            [known[size] for size in sorted(known)],
            "-",
            color=style.GREY,
            linewidth=3,
            alpha=0.6,
            label=label,
        )
    style.plain_log(axis, "x", sorted({*map(x, cells)}))
    style.plain_log(axis, "y")
