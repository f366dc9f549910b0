"""From a trace of any form to the content of its explanation, and to a trace for Perfetto."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.errors import UserError
from ceilings.files import sha256
from ceilings.provenance import provenance
from ceilings.traces import perfetto
from ceilings.traces.explained.account import Accounts
from ceilings.traces.explained.drawn import labelled
from ceilings.traces.explained.explanation import explanation
from ceilings.traces.explained.iterations import Iterations, choose
from ceilings.traces.readers import read
from ceilings.traces.recording import Progress, Recording

MOST_EVENTS = 1_000_000
"""Calls, operations and spans up to which all of a trace is written for Perfetto; else the marked iterations are."""

MOST_MARKED = 50
"""Iterations whose critical path is marked, evenly spread."""


def explain(
    path: Path,
    name: str,
    choice: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    for_perfetto: Path | None = None,
    *,
    latency: float | None = None,
) -> dict[str, Any]:
    """The content of a record of kind ``explanation``.

    Args:
        path: The trace.
        name: How pages call it.
        choice: What its iterations are, as :class:`ceilings.traces.explained.choice.Choice` takes it.
        progress: Called with the share of the file that was read.
        for_perfetto: Where the trace is also written for Perfetto, with the critical path as a track; nothing is
            written there of a file that is none of :data:`ceilings.schemas.explanation.RECORDINGS`.
        latency: Of the median iteration as measured without the recorder, in ms.

    Raises:
        UserError: It is no trace, is damaged, or has nothing of what was chosen.
    """
    made = read(path, progress)
    if isinstance(made, Recording):
        iterations = choose(made, choice)
        content = explanation(made, iterations, latency=None if latency is None else latency * 1e6)
        if for_perfetto:
            mark(made, iterations, for_perfetto)
    else:
        content = made
        if latency is not None:
            raise UserError(f"{path} has no calls and no kernels with their times, so a latency changes nothing of it")
    source = {**content["source"], "bytes": path.stat().st_size, "sha256": sha256(path)}
    return {**content, "name": name, "source": source, "provenance": provenance(("numpy",), {"capture": path})}


def mark(recording: Recording, iterations: Iterations, output: Path) -> None:
    """Write a recording for Perfetto, with its iterations and their critical paths as tracks above it."""
    count = len(iterations.begin)
    chosen = np.unique(np.linspace(0, max(count - 1, 0), min(count, MOST_MARKED)).astype(int))
    spans = [(int(iterations.begin[k]), int(iterations.end[k])) for k in chosen]
    accounts = Accounts(recording, iterations.overlapping)
    accounted = (accounts.of(*span, int(iterations.thread[k])) for span, k in zip(spans, chosen, strict=True))
    path = [segment for one in accounted for segment in labelled(accounts, one)]
    events = sum(len(part.start) for part in (recording.calls, recording.work, recording.spans))
    perfetto.write(output, recording, spans if events > MOST_EVENTS else (), path)
