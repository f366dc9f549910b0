"""Whether the machine stayed as it was while a cell was measured, by the cell's series alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ceilings.statistics.levels import CHANGED, change
from ceilings.statistics.quantiles import quantile_interval

NS_PER_MS = 1e6

APART = 0.1
"""From this difference on, a token's time in ``latency`` and in ``requests`` is not the same."""


SEVERAL = 4
"""Times of the host's fixed work on each side of a change, from which on they say something."""


def level_flags(series: Mapping[str, Any]) -> list[str]:
    """What a median hides of the series of a record, in words with the numbers; empty of a steady cell.

    A series of iterations or of tokens changed its level within itself, or the time of a token differs between the
    series ``latency`` and ``requests``, which are measured one after the other.

    Args:
        series: Of the run record, by name.
    """
    flags = []
    for name, what, values in _timed(series):
        if changed := change(values):
            flags.append(
                f"{name} changed its level within the series: {_ms(changed.before)}, then {_ms(changed.after)} "
                f"from about {what} {changed.position} of {len(values)} on{_host(series[name], changed.position)}"
            )
    return flags + _two_series(series)


def _timed(series: Mapping[str, Any]) -> Iterator[tuple[str, str, list[int]]]:
    """Every series in which one thing follows another: its name, what it consists of, and times in ns."""
    for name, one in series.items():
        if not isinstance(one, Mapping):  # of a plug-in's measurement
            continue
        for field, what in (("latency_ns", "iteration"), ("token_ns", "token")):
            if one.get(field):
                yield name, what, one[field]
        if one.get("first_token_ns") and not one.get("token_ns"):
            yield name, "request", one["first_token_ns"]


def _host(one: Mapping[str, Any], position: int) -> str:
    """What the host's fixed work says of a change; empty where it was timed too seldom to say anything."""
    at, ns = (np.asarray(one.get(name) or [], dtype=np.float64) for name in ("host_at", "host_ns"))
    before, after = ns[at < position], ns[at >= position]
    if min(len(before), len(after)) < SEVERAL:
        return ""
    one_us, other_us = float(np.median(before)) / 1e3, float(np.median(after)) / 1e3
    same = abs(np.log(other_us / one_us)) < CHANGED
    verdict = "the host kept its speed" if same else "the host changed its speed"
    return f" ({verdict}: fixed work took {one_us:.3g} us before and {other_us:.3g} us after)"


def _two_series(series: Mapping[str, Any]) -> list[str]:
    steps = (series.get("latency") or {}).get("latency_ns")
    tokens = (series.get("requests") or {}).get("token_ns")
    if not steps or not tokens:
        return []
    one, other = (quantile_interval(np.asarray(values), 0.5) for values in (steps, tokens))
    if one is None or other is None:
        return []
    larger, smaller = max(one, other, key=_estimate), min(one, other, key=_estimate)
    # Both: a difference that is large, and not one of few tokens that scatter.
    if larger.estimate <= smaller.estimate * (1 + APART) or larger.low <= smaller.high:
        return []
    return [
        f"a token takes {_ms(one.estimate)} in the series latency and {_ms(other.estimate)} in the series requests "
        f"(medians, more than {APART:.0%} apart)"
    ]


def _estimate(interval: Any) -> float:
    return float(interval.estimate)


def _ms(nanoseconds: float) -> str:
    """Three digits, without an exponent.

    >>> _ms(2034567), _ms(1234567890)
    ('2.03 ms', '1235 ms')
    """
    value = nanoseconds / NS_PER_MS
    return f"{value:.0f} ms" if value >= 1000 else f"{value:.3g} ms"
