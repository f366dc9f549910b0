"""What a curve of transfer times says: a floor and a rate, how well these two describe it, and the time of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GOOD = 0.25
"""Largest deviation, in parts of the measured time, up to which floor and rate describe a curve."""


@dataclass(frozen=True)
class Fit:
    """A transfer takes ``floor_us`` and its bytes at ``rate_gb_per_s``.

    Attributes:
        floor_us: What the smallest transfer takes.
        rate_gb_per_s: Rate of the bytes beyond it, in 10^9 bytes a second; None where times do not rise with size.
        worst: The largest deviation of a measured time from this, in parts of the measured time: above 0 where the
            transfer takes longer.
        worst_bytes: The size at which that is.
    """

    floor_us: float
    rate_gb_per_s: float | None
    worst: float
    worst_bytes: int

    @property
    def good(self) -> bool:
        """Whether floor and rate describe the curve."""
        return abs(self.worst) <= GOOD


def fitted(sizes: Sequence[int], times_us: Sequence[float]) -> Fit:
    """The floor and the rate, neither below 0, whose squared deviations in parts of the measured times are least.

    Args:
        sizes: Bytes; two or more.
        times_us: Time of each in us.
    """
    sizes_, times = np.asarray(sizes, float), np.asarray(times_us, float)
    columns = np.stack([1 / times, sizes_ / times], axis=1)
    ones = np.ones(len(times))
    choices = [np.linalg.lstsq(columns, ones, rcond=None)[0]]
    if (choices[0] < 0).any():  # then one of the two is 0 at the best that is allowed
        alone = (columns * ones[:, None]).sum(axis=0) / (columns**2).sum(axis=0)
        choices = [alone * (1, 0), alone * (0, 1)]
    floor, slope = min(choices, key=lambda one: float(((columns @ one - 1) ** 2).sum()))
    deviations = 1 - columns @ (floor, slope)
    at = int(np.abs(deviations).argmax())
    rate = 1 / slope / 1e3 if slope > 0 else None
    return Fit(float(floor), float(rate) if rate else None, float(deviations[at]), int(sizes[at]))


def time_at(nbytes: int, sizes: Sequence[int], times_us: Sequence[float]) -> float:
    """Time of a transfer in us, on the straight line between the two measured sizes around it.

    Below the smallest size it is that of the smallest, above the largest it goes on as between the last two.

    Args:
        nbytes: Its size.
        sizes: Measured sizes in bytes, rising; two or more.
        times_us: Time of each in us.
    """
    if nbytes <= sizes[-1]:
        return float(np.interp(nbytes, sizes, times_us))
    slope = (times_us[-1] - times_us[-2]) / (sizes[-1] - sizes[-2])
    return float(times_us[-1] + max(slope, 0.0) * (nbytes - sizes[-1]))
