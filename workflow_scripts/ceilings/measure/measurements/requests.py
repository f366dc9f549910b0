"""Whole requests of a model that generates, one after another: what their readers wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ceilings.measure.bench import Bench

SPREAD = (0.25, 0.75)
"""The quantiles of a request's gaps whose distance is called jitter, as of the iterations of a closed loop."""


def measure(bench: Bench) -> dict[str, Any]:
    """The series ``requests``.

    Raises:
        RuntimeError: A request gave another number of tokens than it was asked for.
    """
    times, ended = bench.requests()
    generated = int(bench.runner.shape["generated"])
    if wrong := [len(each) - 1 for each in times if len(each) != generated + 1]:
        raise RuntimeError(f"a request gave {wrong[0]} tokens, and was asked for {generated}")
    return {"requests": {**series(times), **facts(bench, len(times), generated), **ended}}


def facts(bench: Bench, requests: int, generated: int) -> dict[str, int]:
    """How much was generated, and what it is kept in."""
    return {
        "batch": bench.batch,
        "generated": generated,
        "tokens": requests * bench.batch * generated,
        "cache_bytes": int(bench.runner.cache_bytes()),
    }


def series(times: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    """What follows from the times of requests, a value a request but for ``token_ns``, all in ns.

    Returns:
        ``request_ns``: from begin to last token. ``first_token_ns``: to the first one. ``token_ns``: every gap between
        two tokens, request by request. ``per_token_ns``: mean gap. ``worst_gap_ns``: longest gap. ``jitter_ns``:
        interquartile range of the gaps. What is made of gaps is empty where a request has too few: none, of jitter one.

    >>> series([[0, 10, 13, 20]])["per_token_ns"], series([[0, 10]])["per_token_ns"]
    ([5], [])
    """
    gaps = [np.diff(each[1:]) for each in times]
    enough = [each for each in gaps if len(each)]
    several = [each for each in gaps if len(each) > 1]
    return {
        "request_ns": [each[-1] - each[0] for each in times],
        "first_token_ns": [each[1] - each[0] for each in times],
        "token_ns": [int(gap) for each in gaps for gap in each],
        "per_token_ns": [round(float(each.mean())) for each in enough],
        "worst_gap_ns": [int(each.max()) for each in enough],
        "jitter_ns": [round(float(np.subtract(*np.quantile(each, SPREAD[::-1])))) for each in several],
    }
