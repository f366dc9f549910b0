"""Decisions about two sets of processes: equal within a margin, different with a probability, and many such at once.

Pure functions, as in :mod:`ceilings.statistics.intervals`. Equivalence is two one-sided tests: the interval of the
ratio with confidence 1 - 2 alpha lies within 1/(1 + margin) and 1 + margin. A difference that is not established does
not show equality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ceilings.statistics.estimands import P50, Estimand
from ceilings.statistics.intervals import bootstrap_logs, contrast, process_logs
from ceilings.statistics.quantiles import Interval

ALPHA = 0.05
"""Of each one-sided test of equivalence."""


def equivalence_interval(
    groups_a: Sequence[ArrayLike], groups_b: Sequence[ArrayLike], estimand: Estimand = P50, alpha: float = ALPHA
) -> Interval:
    """The interval of the ratio a over b that :func:`within` judges: 90% for alpha 0.05."""
    return contrast([groups_a, groups_b], [1.0, -1.0], 1 - 2 * alpha, estimand=estimand)


def within(ratio: Interval, margin: float) -> bool:
    """Whether all of a ratio's interval differs from 1 by less than ``margin``, either way."""
    return 1 / (1 + margin) < ratio.low and ratio.high < 1 + margin


def beyond(ratio: Interval, margin: float) -> bool:
    """Whether none of a ratio's interval does."""
    return ratio.high < 1 / (1 + margin) or ratio.low > 1 + margin


def p_value(
    groups_a: Sequence[ArrayLike],
    groups_b: Sequence[ArrayLike],
    estimand: Estimand = P50,
    *,
    exact_up_to: float = 1.0,
) -> float:
    """Two-sided probability of a ratio as far from 1 as this one if there were no difference.

    Welch's t test on the processes' logs. Three processes may agree by chance, so the standard error is never taken
    for smaller than that of the hierarchical bootstrap, which knows the iterations too. 1 with a single process.

    Args:
        exact_up_to: Of a probability above it, something between it and the probability may come back: the bootstrap
            only raises a probability, so it is left out where t alone is above.
    """
    sides = [process_logs(groups, estimand) for groups in (groups_a, groups_b)]
    freedoms = [len(logs) - 1 for logs in sides]
    if not all(freedoms):
        return 1.0
    difference = abs(float(sides[0].mean()) - float(sides[1].mean()))
    squares = [float(logs.var(ddof=1)) / len(logs) for logs in sides]
    total = sum(squares)
    freedom = float(min(freedoms))
    if total:
        freedom = total**2 / sum(square**2 / free for square, free in zip(squares, freedoms, strict=True))
        least = _two_sided(difference, total, freedom)
        if least > exact_up_to:
            return least
    random = np.random.default_rng(0)
    drawn = sum(float(bootstrap_logs(groups, random, estimand).var()) for groups in (groups_a, groups_b))
    return _two_sided(difference, max(total, drawn), freedom)


def _two_sided(difference: float, square: float, freedom: float) -> float:
    """Of a difference with a squared standard error, by Student's t."""
    if not square:
        return 0.0 if difference else 1.0
    return min(1.0, 2 * t_tail(difference / math.sqrt(square), freedom))


def t_tail(t: float, freedom: float) -> float:
    """Probability of a Student t above ``t`` >= 0, to a few digits also far out.

    The integral of ``statistics.t_quantile`` from t's angle on, so that small tails are no difference of large numbers.
    """
    whole = np.linspace(0.0, math.pi / 2, 4001)
    tail = np.linspace(math.atan(t / math.sqrt(freedom)), math.pi / 2, 4001)
    areas = [np.trapezoid(np.cos(angle).clip(min=0.0) ** (freedom - 1), angle) for angle in (tail, whole)]
    return float(areas[0] / (2 * areas[1]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given.

    To call those up to alpha established is wrong even once with probability alpha at most, however many are compared
    and however they depend on each other (S. Holm, 1979).
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted.tolist()
