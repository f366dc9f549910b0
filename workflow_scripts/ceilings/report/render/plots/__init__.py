"""One module a plot, each with ``draw(tables) -> Figure``."""

from __future__ import annotations

import importlib

from matplotlib.figure import Figure

from ceilings.errors import UserError
from ceilings.report.catalogue import PLOTS
from ceilings.report.tables.frames import Tables


def draw(name: str, tables: Tables) -> Figure:
    """Draw one plot.

    Raises:
        UserError: There is no plot of this name.
    """
    if name not in PLOTS:
        raise UserError(f"unknown plot {name!r}; choose one of {', '.join(PLOTS)}")
    return importlib.import_module(f"{__name__}.{name}").draw(tables)
