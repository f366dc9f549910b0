"""When requests of an open loop are due: pure functions of a seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def poisson(rate: float, seconds: float, seed: int) -> NDArray[np.int64]:
    """Times in ns from the window's begin at which users come who know nothing of each other.

    Args:
        rate: Arrivals a second, in the mean.
        seconds: Length of the window.
        seed: The same seed, the same times.
    """
    if not (rate > 0 and math.isfinite(rate) and seconds > 0):
        raise ValueError(f"no arrivals at {rate} a second in {seconds} s")
    generator = np.random.default_rng(seed)
    expected = rate * seconds
    times = np.zeros(0)
    while not times.size or times[-1] < seconds:
        gaps = generator.exponential(1 / rate, size=math.ceil(expected + 4 * math.sqrt(expected) + 16))
        times = np.concatenate([times, (times[-1] if times.size else 0.0) + np.cumsum(gaps)])
    return np.floor(times[times < seconds] * 1e9).astype(np.int64)
