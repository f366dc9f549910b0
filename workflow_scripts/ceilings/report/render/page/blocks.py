"""What the page's scripts get of the cells. A large study is taken apart, so that its page opens at once.

Of up to ``LARGE`` cells the table stands in the page and the scripts get everything at once. Of more they get what the
table is filtered, sorted and drawn by, a column a value; they make the rows that are in sight, and what opens for a
cell lies in compressed blocks, which a browser decodes (``DecompressionStream``) when a reader asks for one. The page
stays one file.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Sequence
from typing import Any

from ceilings.quantity import Quantity
from ceilings.report.render.page.rows import Shown

LARGE = 1000
"""Cells from which on a page is taken apart."""

BLOCK = 100
"""Cells a block: a reader who opens one most likely opens others beside it."""

OPENED = ("facts", "processes", "quantiles", "stretches", "timeline", "kernels", "paths")
"""What only shows once a cell is opened."""


def is_large(cells: Sequence[Shown]) -> bool:
    """Whether a page of these cells is taken apart."""
    return len(cells) > LARGE


def scripted(cells: Sequence[Shown], shown: Sequence[Quantity]) -> dict[str, Any]:
    """What the scripts get at once: all ``cells``, or of a large study ``columns`` and the cells a ``block``.

    Args:
        cells: The rows of the table.
        shown: The table's columns behind the axes, whose texts are in ``texts`` then.
    """
    if not is_large(cells):
        return {"cells": [cell.data for cell in cells]}
    rows = [{**cell.data, **_row(cell, shown)} for cell in cells]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in OPENED]
    return {"columns": {name: [row.get(name) for row in rows] for name in names}, "block": BLOCK}


def compressed(cells: Sequence[Shown], text: Callable[[Any], str]) -> list[str]:
    """What opens for each cell of a large study, ``BLOCK`` cells a text: JSON, compressed by gzip, as base64.

    Args:
        cells: The rows of the table.
        text: Writes a value as JSON.
    """
    if not is_large(cells):
        return []
    opened = [{name: cell.data[name] for name in OPENED if name in cell.data} for cell in cells]
    parts = (opened[start : start + BLOCK] for start in range(0, len(opened), BLOCK))
    return [base64.b64encode(gzip.compress(text(part).encode(), mtime=0)).decode() for part in parts]


def _row(cell: Shown, shown: Sequence[Quantity]) -> dict[str, Any]:
    """What the table shows in a row beside the cell's names."""
    row = {"sizes": cell.axes, "flags": cell.row.get("flags")}
    if cell.row["status"] == "ok":
        return row | {"texts": cell.texts(shown)}
    return row | {name: cell.row.get(name) for name in ("reason", "remedy")}
