"""The plots of a study as links: the one that answers best, and all that show anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ceilings.report.analysis.measured import phase_of
from ceilings.report.analysis.measured_cell import GENERATED
from ceilings.report.catalogue import PLOTS
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import axes_of
from ceilings.workload.shape import Shape


def swept(tables: Tables, which: Callable[[str], bool]) -> bool:
    """Whether a model was measured at several sizes along one of the axes."""
    measured = tables.cells[tables.cells["status"] == "ok"]
    for _, names in measured.groupby("model")["shape"]:
        shapes = [Shape.parse(name) for name in names.unique()]
        if any(len({shape.get(axis) for shape in shapes}) > 1 for axis in axes_of(shapes) if which(axis)):
            return True
    return False


def _nothing_served(tables: Tables) -> bool:
    return not (tables.serving["status"] == "ok").any()


NOTHING_TO_SHOW: dict[str, Callable[[Tables], bool]] = {
    "latency_budget": lambda tables: tables.budgets.empty,
    "iteration_timeline": lambda tables: tables.budgets.empty,
    "roofline": lambda tables: tables.floors.empty,
    "launch_to_kernel_map": lambda tables: bool(tables.cells["enqueue_p50_ms"].isna().all()),
    "precision_crossover": lambda tables: tables.cells["precision"].nunique() < 2,
    "batch_sweep": lambda tables: not swept(tables, lambda axis: axis == "batch"),
    "sequence_sweep": lambda tables: not swept(tables, lambda axis: axis not in ("batch", GENERATED)),
    "token_time": lambda tables: (
        not swept(
            replace(
                tables, cells=tables.cells[[phase_of(Shape.parse(name)) == "decode" for name in tables.cells["shape"]]]
            ),
            lambda axis: axis in ("batch", "prompt"),
        )
    ),
    "serving_latency": _nothing_served,
    "serving_throughput": _nothing_served,
    "shape_transitions": lambda tables: tables.transitions.empty,
    "latency_over_buckets": lambda tables: tables.changing_buckets.empty,
    "latency_over_sequence": lambda tables: tables.changing_requests.empty,
    "best_batch": lambda tables: not (tables.best_batches["status"] == "ok").any(),
    "transfer_curves": lambda tables: bool(tables.transfers["bytes"].isna().all()),
    "interference": lambda tables: tables.interference.empty,
    "overlap_gain": lambda tables: not (tables.overlap["status"] == "ok").any(),
    "overlap_timeline": lambda tables: bool(tables.overlap["hidden"].isna().all()),
    "batches_formed": lambda tables: _nothing_served(tables) or not tables.serving["batching"].fillna("").any(),
}
"""Plots that stay empty without captures, a GPU, a sweep, a server or changing shapes: the pages leave them out."""


def picture(folder: str, tables: Tables) -> str:
    """Latency against throughput where there are several batches, else the configurations side by side.

    Where every model generates and there are several batches or contexts: the time per output token along both.
    """
    if (tables.cells["status"] == "ok").sum() == 0:
        return ""
    if all(phase_of(Shape.parse(name)) for name in tables.cells["shape"]) and not NOTHING_TO_SHOW["token_time"](tables):
        return _link(folder, "token_time")
    return _link(folder, "configurations" if NOTHING_TO_SHOW["batch_sweep"](tables) else "batch_sweep")


def pictures(folder: str, tables: Tables) -> str:
    """A section of all plots that show anything."""
    return "\n\n".join(["## Pictures", *(_link(folder, name) for name in shown(tables))])


def shown(tables: Tables) -> list[str]:
    """The plots that show anything."""
    return [name for name in PLOTS if not NOTHING_TO_SHOW.get(name, lambda _: False)(tables)]


def _link(folder: str, name: str) -> str:
    """PNG in the page, SVG behind it: not every Markdown viewer shows SVG, and SVG text is lost on a dark page."""
    return f"[![{PLOTS[name]}]({folder}/{name}.png)]({folder}/{name}.svg)"
