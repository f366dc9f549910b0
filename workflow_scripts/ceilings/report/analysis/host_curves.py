"""The curves of transfers between a host and its GPU, out of their table, and the words for ways and sizes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.tables.frames import Tables
from ceilings.statistics.quantiles import Interval
from ceilings.statistics.transfer_model import Fit, fitted

KINDS = {
    "pageable": "pageable memory",
    "pinned": "pinned memory",
    "write-combined": "write-combined memory",
    "mapped": "mapped memory, read or written by a kernel",
    "managed": "managed memory, pages move on demand",
    "managed-prefetch": "managed memory, prefetched",
    "managed-read-mostly": "managed memory, advised read-mostly",
    "managed-on-host": "managed memory, advised to stay on the host",
    "kernel": "a kernel on the device alone",
    "staged": "without peer access",
    "direct": "with peer access",
}
"""What a way goes through, in words."""

DIRECTIONS = {"h2d": "to the device", "d2h": "to the host", "d2d": "on the device", "p2p": "to another GPU"}

UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True)
class Curve:
    """What one way takes over size, on the host until the transfer is done.

    Attributes:
        device: The GPU.
        way: Direction and kind, as ``h2d.pinned``.
        sizes: In bytes, rising.
        host: Time of each in us, with its range over rounds.
    """

    device: str
    way: str
    sizes: tuple[int, ...]
    host: tuple[Interval, ...]

    @property
    def direction(self) -> str:
        return self.way.partition(".")[0]

    @property
    def kind(self) -> str:
        return self.way.partition(".")[2]

    @functools.cached_property
    def fit(self) -> Fit:
        """Floor and rate over all sizes."""
        return fitted(self.sizes, [time.estimate for time in self.host])

    def at(self, nbytes: int) -> Interval | None:
        """Time at a measured size."""
        return self.host[self.sizes.index(nbytes)] if nbytes in self.sizes else None

    @property
    def largest_rate(self) -> Interval:
        """Rate of the largest transfer, call and wait included, in 10^9 bytes a second."""
        time = self.host[-1]
        return Interval(*(self.sizes[-1] / end / 1e3 for end in (time.high, time.estimate, time.low)))


def curves(tables: Tables) -> dict[tuple[str, str], Curve]:
    """The curves by device and way; those of a single size are none."""
    known = tables.transfers[tables.transfers["bytes"].notna()]
    made = {}
    for (device, way), rows in known.groupby(["device", "way"], sort=False):
        ordered = rows.sort_values("bytes")
        times = tuple(map(time_of, ordered.to_dict("records")))
        if len(times) > 1:
            made[str(device), str(way)] = Curve(str(device), str(way), tuple(map(int, ordered["bytes"])), times)
    return made


def time_of(row: dict[str, Any], stem: str = "host") -> Interval:
    """A time of a row with its range over rounds."""
    return Interval(row[f"{stem}_low_us"], row[f"{stem}_us"], row[f"{stem}_high_us"])


def ratio_of(above: Interval, below: Interval) -> Interval:
    """The ratio of two times, as wide as their ranges allow."""
    return Interval(above.low / below.high, above.estimate / below.estimate, above.high / below.low)


def bytes_in_words(nbytes: float) -> str:
    """``64 KiB``, ``602 kB`` where it is no such number, ``4 B``."""
    if nbytes >= 1e5 and not any(nbytes % unit == 0 for unit, _ in UNITS):
        return f"{text.number(nbytes / 1e6)} MB" if nbytes >= 1e6 else f"{text.number(nbytes / 1e3)} kB"
    unit, name = next(((unit, name) for unit, name in UNITS if nbytes >= unit and nbytes % unit == 0), (1, "B"))
    return f"{nbytes / unit:,.0f} {name}"


def microseconds(value: float) -> str:
    """A time in us or, where it is long, in ms."""
    return f"{text.number(value / 1e3)} ms" if value >= 1e4 else f"{text.number(value)} µs"


def in_words(fit: Fit) -> str:
    """How floor and rate describe a curve, or by how much they do not."""
    if fit.rate_gb_per_s is None:
        return "times do not rise with size"
    words = f"{microseconds(fit.floor_us)} and {text.number(fit.rate_gb_per_s)} GB/s"
    which = "longer" if fit.worst > 0 else "shorter"
    off = f"{text.percent(abs(fit.worst))} {which} at {bytes_in_words(fit.worst_bytes)}"
    return f"{words} (at most {off})" if fit.good else f"no floor and rate describe it: of {words}, {off}"


def devices(tables: Tables) -> Sequence[str]:
    """Devices with transfers, in the order of their records."""
    return list(dict.fromkeys(tables.transfers["device"].astype(str)))


def unavailable(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table of transfers or allocations that say why there is no number."""
    return rows[rows["bytes"].isna()].to_dict("records")
