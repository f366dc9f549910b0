"""The tables folder: written once a study, read by every plot and by the summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ceilings.errors import UserError
from ceilings.files import atomic

KEY = ["device", "runtime", "model", "precision", "batch", "sequence"]
"""The columns that name a cell."""

PERCENTILES = {"p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
"""Column stem and quantile of the percentiles that need a minimum of samples."""

COLD_START = ["import", "load", "compile", "capture", "first_run"]
"""Stages before the steady state, in the order they happen; not every runtime has all."""


@dataclass(frozen=True)
class Tables:
    """The study as data.

    Attributes:
        cells: One row a planned cell, measured or not.
        runs: One row a process.
        samples: One row an iteration (``latency_ns``).
    """

    cells: pd.DataFrame
    runs: pd.DataFrame
    samples: pd.DataFrame

    def write(self, folder: Path | str) -> None:
        """Write Parquet for programs, and CSV for people where a person would open it."""
        folder = Path(folder)
        for name in ("cells", "runs", "samples"):
            with atomic(folder / f"{name}.parquet") as temporary:
                getattr(self, name).to_parquet(temporary, index=False)
        for name in ("cells", "runs"):
            with atomic(folder / f"{name}.csv") as temporary:
                getattr(self, name).to_csv(temporary, index=False)


def read_tables(folder: Path | str) -> Tables:
    """Read the tables folder.

    Raises:
        UserError: A table is missing or damaged.
    """
    return Tables(**{name: _read(Path(folder) / f"{name}.parquet") for name in ("cells", "runs", "samples")})


def _read(path: Path) -> pd.DataFrame:
    remedy = "run collect_cells.py again to make it anew"
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {remedy}") from None
    except (ValueError, OSError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None
