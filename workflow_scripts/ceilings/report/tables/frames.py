"""The tables folder: written once a study, read by every plot and by the summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ceilings import foreign, records
from ceilings.errors import UserError
from ceilings.files import atomic, not_a_file, sha256
from ceilings.report.catalogue import TABLES
from ceilings.report.tables import consistent
from ceilings.report.tables.budget_rows import UNSTEADY_COLUMNS
from ceilings.report.tables.change_cost_rows import COST_COLUMNS, NAME_COLUMNS
from ceilings.report.tables.changing_rows import (
    CHANGING_COLUMNS,
    CHANGING_KEY,
    REQUEST_COLUMNS,
    RUN_COLUMNS,
    SHAPE_COLUMNS,
    TRANSITION_COLUMNS,
)
from ceilings.report.tables.colocation_rows import (
    COLOCATION_COLUMNS,
    COLOCATION_KEY,
    INSTANCE_COLUMNS,
    PAIR_COLUMNS,
)
from ceilings.report.tables.counted_rows import COUNTED_COLUMNS
from ceilings.report.tables.earlier import upgraded
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.overlap_rows import OVERLAP_COLUMNS, OVERLAP_KEY
from ceilings.report.tables.padded_rows import BUCKET_COLUMNS
from ceilings.report.tables.quality_rows import QUALITY_COLUMNS
from ceilings.report.tables.quantities import BY_COLUMN, CELL_COLUMNS
from ceilings.report.tables.search_rows import BATCH_COLUMNS, BEST_COLUMNS, SEARCH_KEY
from ceilings.report.tables.served_columns import SAMPLE_COLUMNS, WINDOW_COLUMNS
from ceilings.report.tables.served_quantities import SERVING_COLUMNS
from ceilings.report.tables.transfer_rows import (
    ALLOCATION_COLUMNS,
    ALLOCATOR_KEY,
    COPY_COLUMNS,
    GRAPH_COLUMNS,
    GRAPH_KEY,
    TRANSFER_COLUMNS,
    WAY_KEY,
)
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, OPERATOR_CLASSES, PATH_SHARES, SELDOM
from ceilings.workload.shape import Shape

SAMPLES = "samples"
"""The table that nobody would open as CSV."""

SERVING_SAMPLES = "serving_samples"
"""The same of requests to servers."""

ALONE = (SAMPLES, SERVING_SAMPLES)
"""Tables that are Parquet alone."""

VOUCHER = "tables.json"
"""Beside the tables: the digest of each, so that a table of another study is not taken for one of this."""

PATH = "path"
"""The column of the file that a row comes from."""

NUMBERS = {"number", "percent", "count"}
"""Forms of quantities whose columns hold numbers."""

CHANGING = {
    "changing": CHANGING_COLUMNS,
    "changing_runs": RUN_COLUMNS,
    "changing_shapes": SHAPE_COLUMNS,
    "changing_buckets": [*CHANGING_KEY, *BUCKET_COLUMNS],
    "transitions": TRANSITION_COLUMNS,
    "changing_requests": REQUEST_COLUMNS,
    "shape_changes": COST_COLUMNS,
    "shape_change_names": NAME_COLUMNS,
}
"""Tables of changing shapes."""

SEARCHES = {"best_batches": BEST_COLUMNS, "searched_batches": BATCH_COLUMNS}
"""Tables of searches for the best batch."""

COLOCATION = {"colocation": COLOCATION_COLUMNS, "colocated": INSTANCE_COLUMNS, "interference": PAIR_COLUMNS}
"""Tables of co-locations."""

OVERLAP = {"overlap": OVERLAP_COLUMNS}
"""The table of copies beside compute."""

TRANSFERS = {
    "transfers": TRANSFER_COLUMNS,
    "allocations": ALLOCATION_COLUMNS,
    "graph_costs": GRAPH_COLUMNS,
    "copies": COPY_COLUMNS,
}
"""Tables of transfers between a host and its GPU."""

FURTHER = {**CHANGING, **SEARCHES, **COLOCATION, **OVERLAP, **TRANSFERS}
"""Tables of what is no cell of one shape."""

KEYS = {
    **dict.fromkeys(CHANGING, CHANGING_KEY),
    **dict.fromkeys(SEARCHES, SEARCH_KEY),
    **dict.fromkeys(COLOCATION, COLOCATION_KEY),
    **dict.fromkeys(OVERLAP, OVERLAP_KEY),
    **{"transfers": WAY_KEY, "allocations": ALLOCATOR_KEY, "graph_costs": GRAPH_KEY},
    "quality": [column for column in KEY if column != "shape"],
}
"""Columns that name what a row is of, where these are others than those of a cell of one shape."""

LATER = {"quality", "counted_kernels", "serving", "serving_windows", SERVING_SAMPLES, *FURTHER}
"""Tables that those of an earlier schema do not have; they are empty then."""

BUDGET_COLUMNS = [
    *(*KEY, "source", "iterations", "iteration_ms", "iteration_low_ms", "iteration_high_ms"),
    *("untraced_p50_ms", "untraced_p50_low_ms", "untraced_p50_high_ms", "untraced_enqueue_ms", "tracing_ratio"),
    *(f"host_{part}_ms" for part in HOST_PARTS),
    *("host_residual_ms", "gpu_busy_ms"),
    *(f"gpu_{kind}_ms" for kind in KERNEL_CLASSES),
    *(f"idle_{cause}_ms" for cause in IDLE_CAUSES),
    *("gpu_residual_ms", "launches", "kernels", "kernel_mean_us", "launch_to_start_us"),
    *("replayed_ms", "node_gap_us", "no_work_ms", "no_host_ms"),
    *(*(f"path_{share}" for share in PATH_SHARES), "verdict"),
    *(*UNSTEADY_COLUMNS, "path"),
]
"""One row a cell with a capture: its median iteration, split on the host's side and on the device's.

``replayed_ms``: with the host as fast as untraced, empty where that cannot be replayed; ``no_work_ms``, ``no_host_ms``:
if besides the device's work took no time, or the host none (at most). ``path_*``: shares of the critical path. Where
the replay is not as long as the untraced latency, these two are empty, and the path is the recorded iteration's.
``node_gap_us``: the most that lies between nodes of a CUDA graph, where the replay has them closer than recorded.
``irregular``: kernels, copies and calls that the iterations do not have alike; ``irregular_host_ms``,
``irregular_gpu_ms``: time in such calls, and in such kernels and copies, a mean over all iterations.
"""

SELDOM_MS = [f"gpu_{kind}_ms" for kind in SELDOM]

KERNEL_COLUMNS = [*KEY, "kernel", "class", "count", "us", "name"]
"""One row a kernel of a captured cell, per iteration; the longest in sum first. ``kernel`` is ``name`` in short."""

FLOOR_COLUMNS = [
    *(*KEY, "flops", "bytes", "compute_floor_ms", "memory_floor_ms", "floor_ms", "limited_by", "gap", "mfu"),
    *("launch_floor_ms", "cold_memory_floor_ms", "gemm_library_ms", "weight_bytes", "cache_bytes"),
    *(f"{kind}_unfused_ms" for kind in OPERATOR_CLASSES),
]
"""One row a measured cell of a device with measured peaks: the least time that they allow, and how far it is.

``gemm_library_ms`` is empty where the library was not measured at the sizes of nearly all of its products,
``cache_bytes`` (what a step reads of keys and values, beside the weights) where no text is generated.
"""


def _empty(columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=columns)


@dataclass(frozen=True)
class Tables:
    """The study as data.

    Attributes:
        cells: One row a planned cell, measured or not.
        runs: One row a process.
        samples: One row an iteration (``latency_ns``).
        budgets: One row a captured cell; columns ``BUDGET_COLUMNS``.
        kernels: One row a kernel of a captured cell; columns ``KERNEL_COLUMNS``.
        counted_kernels: One row a kernel of a cell whose kernels were counted; columns ``COUNTED_COLUMNS``.
        floors: One row a measured cell whose device has measured peaks; columns ``FLOOR_COLUMNS``.
        quality: One row a configuration whose answers were evaluated; columns ``QUALITY_COLUMNS``.
        changing, changing_runs, changing_shapes, changing_buckets, transitions, changing_requests: One row a cell of
            changing shapes, a process of it, a shape, a number of buckets, a pair of shapes, a request of its first
            process.
        shape_changes, shape_change_names: One row a part of what a change costs a captured cell, and a name there.
        best_batches, searched_batches: One row a search for the best batch, one a batch that it measured.
        colocation, colocated, interference: One row a co-location, an instance of it, a pair of neighbours.
        overlap: One row a schedule of a cell whose copies are run beside its compute.
        transfers, allocations: One row a way between host and device and a size, one an allocator and a size.
        graph_costs: One row a number of kernels in a CUDA graph.
        copies: One row a cell whose inputs and outputs were copied: what its device's curves say of that.
        serving: One row a load of a cell behind a server; columns ``SERVING_COLUMNS``.
        serving_windows: One row a window of such a load; columns ``WINDOW_COLUMNS``.
        serving_samples: One row a request to a server (``latency_ns``).
    """

    cells: pd.DataFrame
    runs: pd.DataFrame
    samples: pd.DataFrame
    budgets: pd.DataFrame = field(default_factory=lambda: _empty(BUDGET_COLUMNS))
    kernels: pd.DataFrame = field(default_factory=lambda: _empty(KERNEL_COLUMNS))
    counted_kernels: pd.DataFrame = field(default_factory=lambda: _empty(COUNTED_COLUMNS))
    floors: pd.DataFrame = field(default_factory=lambda: _empty(FLOOR_COLUMNS))
    quality: pd.DataFrame = field(default_factory=lambda: _empty(QUALITY_COLUMNS))
    changing: pd.DataFrame = field(default_factory=lambda: _empty(CHANGING_COLUMNS))
    changing_runs: pd.DataFrame = field(default_factory=lambda: _empty(RUN_COLUMNS))
    changing_shapes: pd.DataFrame = field(default_factory=lambda: _empty(SHAPE_COLUMNS))
    changing_buckets: pd.DataFrame = field(default_factory=lambda: _empty([*CHANGING_KEY, *BUCKET_COLUMNS]))
    transitions: pd.DataFrame = field(default_factory=lambda: _empty(TRANSITION_COLUMNS))
    changing_requests: pd.DataFrame = field(default_factory=lambda: _empty(REQUEST_COLUMNS))
    shape_changes: pd.DataFrame = field(default_factory=lambda: _empty(COST_COLUMNS))
    shape_change_names: pd.DataFrame = field(default_factory=lambda: _empty(NAME_COLUMNS))
    best_batches: pd.DataFrame = field(default_factory=lambda: _empty(BEST_COLUMNS))
    searched_batches: pd.DataFrame = field(default_factory=lambda: _empty(BATCH_COLUMNS))
    colocation: pd.DataFrame = field(default_factory=lambda: _empty(COLOCATION_COLUMNS))
    colocated: pd.DataFrame = field(default_factory=lambda: _empty(INSTANCE_COLUMNS))
    interference: pd.DataFrame = field(default_factory=lambda: _empty(PAIR_COLUMNS))
    overlap: pd.DataFrame = field(default_factory=lambda: _empty(OVERLAP_COLUMNS))
    transfers: pd.DataFrame = field(default_factory=lambda: _empty(TRANSFER_COLUMNS))
    allocations: pd.DataFrame = field(default_factory=lambda: _empty(ALLOCATION_COLUMNS))
    graph_costs: pd.DataFrame = field(default_factory=lambda: _empty(GRAPH_COLUMNS))
    copies: pd.DataFrame = field(default_factory=lambda: _empty(COPY_COLUMNS))
    serving: pd.DataFrame = field(default_factory=lambda: _empty(SERVING_COLUMNS))
    serving_windows: pd.DataFrame = field(default_factory=lambda: _empty(WINDOW_COLUMNS))
    serving_samples: pd.DataFrame = field(default_factory=lambda: _empty(SAMPLE_COLUMNS))

    @property
    def planned(self) -> pd.DataFrame:
        """The cells that the study asks for: all rows but the second cells of A/A pairs."""
        return self.cells[self.cells["aa_of"].isna()]

    @property
    def iterations(self) -> int:
        """Timed iterations of the closed loop, over all cells."""
        return int((self.samples["series"] == "latency").sum())

    def with_texts(self, change: Callable[[Any], Any]) -> Tables:
        """The same with each text changed; paths, by which files are read, and names in categories stay."""
        return replace(self, **{one.name: _with_texts(getattr(self, one.name), change) for one in fields(self)})

    def write(self, folder: Path | str) -> None:
        """Write Parquet for programs, and CSV for people where a person would open it."""
        folder = Path(folder)
        for name in (*TABLES, *ALONE):
            with atomic(folder / f"{name}.parquet") as temporary:
                getattr(self, name).to_parquet(temporary, index=False)
        for name in TABLES:
            with atomic(folder / f"{name}.csv") as temporary:
                _with_texts(getattr(self, name), foreign.csv_cell).to_csv(temporary, index=False)
        files = {f"{name}.parquet": sha256(folder / f"{name}.parquet") for name in (*TABLES, *ALONE)}
        records.write(folder / VOUCHER, "tables", {"files": files})


def _with_texts(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    if frame.empty:
        return frame
    texts = {
        str(name): [change(value) if isinstance(value, str) else value for value in column]
        for name, column in frame.items()
        if name != PATH and column.dtype.kind == "O" and not isinstance(column.dtype, pd.CategoricalDtype)
    }
    columns = {name: pd.Series(values, frame.index, frame[name].dtype) for name, values in texts.items()}
    return frame.assign(**columns)


def in_order(budgets: pd.DataFrame) -> pd.DataFrame:
    """Captured cells in the order of every list and picture: what may be compared together, the fastest first."""
    order = {name: i for i, name in enumerate(sorted(budgets["shape"].unique(), key=Shape.parse))}
    by = ["device", "model", "shape", "iteration_ms"]
    return budgets.sort_values(by, key=lambda column: column.map(order) if column.name == "shape" else column)


def read_tables(folder: Path | str, remedy: str | None = None) -> Tables:
    """Read the tables folder; tables of an earlier schema become those of today.

    Tables that were published earlier have nothing that vouches for them; they are taken as they are.

    Args:
        folder: It.
        remedy: What mends a table that cannot be used; None: to make it anew here.

    Raises:
        UserError: A table is missing or damaged, another one than was written with the others, or holds other numbers
            than follow from the samples.
    """
    folder = Path(folder)
    vouched = records.read(folder / VOUCHER, "tables", remedy)["files"] if (folder / VOUCHER).exists() else {}
    names = [
        name
        for name in (*TABLES, *ALONE)
        if name not in LATER or f"{name}.parquet" in vouched or (folder / f"{name}.parquet").is_file()
    ]
    tables = {name: _read(folder / f"{name}.parquet", name, vouched.get(f"{name}.parquet"), remedy) for name in names}
    # Tables may be older than a quantity, or made without a plug-in that is here now.
    known = {"cells": CELL_COLUMNS, "quality": QUALITY_COLUMNS, "serving": SERVING_COLUMNS, **FURTHER}
    known["counted_kernels"] = COUNTED_COLUMNS
    for name, columns in known.items():
        if name in tables:
            missing = [column for column in columns if column not in tables[name].columns]
            beside = pd.DataFrame(dict.fromkeys(missing), index=tables[name].index)
            tables[name] = pd.concat([tables[name], beside], axis=1)
    # Older than a class, than replays with nodes closer together, or than the check whether iterations are alike.
    since = dict.fromkeys(SELDOM_MS, 0.0) | dict.fromkeys(("node_gap_us", *UNSTEADY_COLUMNS))
    tables["budgets"] = tables["budgets"].assign(
        **{column: value for column, value in since.items() if column not in tables["budgets"].columns}
    )
    problem = consistent.flaw(tables["cells"], tables["runs"], tables[SAMPLES])
    if not problem and SERVING_SAMPLES in tables:
        problem = consistent.served_flaw(tables["serving"], tables[SERVING_SAMPLES])
    if problem:
        anew = f"delete {folder / VOUCHER} and run `snakemake --cores 1 {folder / VOUCHER}`, or collect_cells.py"
        raise UserError(f"the tables in {folder} contradict each other ({problem}); {remedy or anew}")
    return Tables(**tables)


def _read(path: Path, name: str, digest: str | None, remedy: str | None) -> pd.DataFrame:
    """One table, as today's; ``digest`` is of its file, None where nobody knows it."""
    anew = f"run `snakemake --cores 1 {path}`, or collect_cells.py, to make it anew"
    if problem := not_a_file(path):
        raise UserError(f"{path} {problem}; {remedy or anew}")
    remedy = remedy or f"delete it and {anew}"
    if digest is not None and digest != sha256(path):
        raise UserError(f"{path} is not the table that {VOUCHER} beside it vouches for; {remedy}")
    try:
        frame = upgraded(name, pd.read_parquet(path))
        problem = _flaw(name, frame)
    except Exception as error:  # of pyarrow and pandas, of any class
        problem = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    if problem:
        raise UserError(f"{path} is damaged ({problem}); {remedy}")
    return frame


def _flaw(name: str, frame: pd.DataFrame) -> str | None:
    """Why a frame is not the table of this name; None where nothing is wrong."""
    key = KEYS.get(name, KEY)
    needed = {
        SAMPLES: [*key, "run", "series", "latency_ns"],
        "cells": [*key, "aa_of", "status"],
        "runs": [*key, "run", "status", "flags"],
    }.get(name, key)
    if missing := [column for column in needed if column not in frame.columns]:
        return f"it has no column {missing[0]}"
    for shape in frame["shape"].astype(str).unique() if "shape" in frame.columns else ():
        Shape.parse(shape)  # or it raises
    if name == SAMPLES and len(frame) and not (frame["latency_ns"].dtype.kind == "i" and frame["latency_ns"].min() > 0):
        return "latency_ns holds other than positive whole numbers"
    if name == "cells" and not frame["status"].isin(["ok", "failed", "unavailable"]).all():
        return "status holds other than ok, failed and unavailable"
    numbers = [
        column
        for column in frame.columns
        if column.endswith(("_ms", "_us", "_ns", "_per_s"))
        or (column in BY_COLUMN and BY_COLUMN[column].form in NUMBERS)
    ]
    wrong = (one for one in numbers if frame[one].dtype.kind not in "iuf" and not frame[one].isna().all())
    return next((f"{column} holds other than numbers" for column in wrong), None)
