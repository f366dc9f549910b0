"""The results, best first: a table a device and model, cut where it is long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.baselines import baseline_of, baselines
from ceilings.report.analysis.decision import rate
from ceilings.report.analysis.limiter import limiter
from ceilings.report.analysis.measured import Cell, Measured, configuration_label, group_by
from ceilings.report.analysis.narrow_products import float_only
from ceilings.report.tables.quantities import BY_COLUMN, show
from ceilings.workload.shape import Shape

MOST_ROWS = 32
"""Of all tables together; they are shortened shape by shape."""

LEAST = 3
"""Of a shape: the best are always of interest."""

MOST_TABLES = 5

HEADERS = ["configuration", "p50, ms [95%]", "p99, ms", "throughput, /s", "speed-up", "bound by", "gap to floor"]

LEGEND = (
    "Latency of one request in the closed loop; throughput with requests queued where that was measured. Speed-up: "
    "*same* is within the noise, *undecided* is too noisy to say. [too noisy]: the upper end of the interval is more "
    "than ten times the lower one. Empty: not measured, or too few iterations for a p99."
)


def results(measured: Measured, plan: Mapping[str, Any]) -> str:
    """The section, of models that do not generate; ``generation_section`` has the others."""
    if not measured.cells:
        return "## Results\n\nNo cell was measured."
    if all(cell.phase for cell in measured.cells):
        return ""
    chosen = baselines(measured, plan.get("baseline") or ())
    panels = [(panel, cells) for panel, cells in measured.panels.items() if not cells[0].phase]
    shown, left = panels[:MOST_TABLES], MOST_ROWS
    parts = ["## Results"]
    rows_shown = 0
    for number, (panel, cells) in enumerate(shown):
        budget = left // (len(shown) - number)
        kept = kept_rows(cells, measured.common_shapes[panel], budget)
        count = sum(map(len, kept.values()))
        left, rows_shown = left - count, rows_shown + count
        parts.append(table_heading(panel, chosen.get(panel)))
        parts.append(_table(measured, kept, chosen))
    parts.append(LEGEND)
    if rows_shown < (every := sum(len(cells) for _, cells in panels)):
        parts.append(
            f"The best {rows_shown} of {every} measured cells; all are in [summary_table.md](summary_table.md)."
        )
    return "\n\n".join(parts)


def table_heading(panel: tuple[str, str], base: tuple[str, str] | None, what: str = "") -> str:
    """A line above a table: whose it is, of what, and what its speed-ups are over."""
    device, model = panel
    what = f", {what}" if what else ""
    against = f", speed-up over {configuration_label(*base)}" if base else ""
    return f"**{model}** on `{device}`{what}{against}, best first:"


def kept_rows(cells: Sequence[Cell], common: Shape, most: int) -> dict[Shape, list[Cell]]:
    """Cells by shape, the common one first, best first within a shape; of many the best of each shape."""
    by_shape = group_by(sorted(cells, key=lambda cell: cell.p50.estimate), lambda cell: cell.shape)
    order = sorted(by_shape, key=lambda shape: (shape != common, shape))
    kept: dict[Shape, list[Cell]] = {}
    left = max(most, LEAST)
    for number, shape in enumerate(order):
        rest = len(order) - number - 1
        count = max(min(LEAST, left), left - rest * LEAST) if rest else left
        kept[shape] = by_shape[shape][:count]
        left -= len(kept[shape])
        if left <= 0:
            break
    return kept


def _table(measured: Measured, kept: Mapping[Shape, Sequence[Cell]], chosen: dict[Any, Any]) -> str:
    rows = []
    for shape, cells in kept.items():
        for place, cell in enumerate(cells):
            rows.append([str(shape) if place == 0 else "", *_row(measured, cell, baseline_of(measured, chosen, cell))])
    headers = ["shape", *HEADERS]
    used = [i for i in range(len(headers)) if i < 3 or any(row[i] not in ("", "n/a") for row in rows)]
    align = "ll" + "rrrr" + "lr"
    return text.table(
        [[row[i] for i in used] for row in rows], [headers[i] for i in used], "".join(align[i] for i in used)
    )


def _row(measured: Measured, cell: Cell, base: Cell | None) -> list[str]:
    floor = measured.hardware_floor(cell)
    bound = limiter(measured, cell)
    return [
        f"{cell.label}{' (no product ran in it)' if float_only(cell) else ''}",
        text.interval(cell.p50),
        show(BY_COLUMN["p99_ms"], cell.row) if pd.notna(cell.row["p99_ms"]) else "",
        text.number(rate(cell)),
        speedup(measured, cell, base),
        bound.name if bound.known else "",
        f"{text.number(floor['gap'])}×" if floor else "",
    ]


def speedup(measured: Measured, cell: Cell, base: Cell | None) -> str:
    """Over the baseline; a word where no difference is shown."""
    if base is None:
        return ""
    if cell is base:
        return "baseline"
    pair = measured.compare(cell, base)
    if pair.decided:
        return f"{text.number(1 / pair.ratio.estimate)}×"
    return "undecided" if pair.verdict == "undecided" else "same"
