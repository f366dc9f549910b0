"""One module a plot, each with ``draw(tables) -> Figure``."""

from __future__ import annotations

import importlib

from matplotlib.figure import Figure

from ceilings.errors import UserError
from ceilings.report.tables import Tables

PLOTS = {
    "configurations": "Median latency of every configuration at the common shape, sorted, with intervals",
    "precision_crossover": "INT8 and other lower precisions against FP32, with the crossover where there is one",
    "batch_sweep": "Latency against throughput along batches",
    "sequence_sweep": "Latency against sequence length",
    "latency_distributions": "Latencies of single iterations, a row a process",
}
"""Every plot by name, and what it shows; in the order of the summary."""


def draw(name: str, tables: Tables) -> Figure:
    """Draw one plot.

    Raises:
        UserError: There is no plot of this name.
    """
    if name not in PLOTS:
        raise UserError(f"unknown plot {name!r}; choose one of {', '.join(PLOTS)}")
    return importlib.import_module(f"{__name__}.{name}").draw(tables)
