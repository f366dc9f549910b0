"""Nodes of an ONNX Runtime session beside a capture of CUDA calls: they name the host's time between the calls.

Calls and kernels do not say what a library does on the processor alone, such as to choose a convolution anew. The
session's profiler says in which node it is. The provider's own CUDA profiler is in no published package, so nothing
competes for CUPTI. Each request is read on both clocks, from outside of the mark: its begin and its end bound by how
much they differ, and the requests near by give the tightest bounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.errors import UserError
from ceilings.traces.capture import Capture, Integers, Marks, Ranges
from ceilings.traces.cpu_recorders import OnnxRuntimeRecorder

FILE = "nodes.sqlite"
"""Beside what the other recorder writes."""

NEAR = 10
"""Requests before and after one whose marks count for it: clocks drift, and one mark may be slow."""

Mark = Callable[[], Any]


class WithNodes:
    """Another recorder, and the nodes beside it.

    Args:
        recorder: It.
        raw: Where it writes.
    """

    def __init__(self, recorder: Any, raw: Path) -> None:
        self._recorder, self._nodes = recorder, OnnxRuntimeRecorder(raw.with_name(FILE))

    def attach(self, runner: Any) -> None:
        """Have the session that a runner will open profile itself."""
        self._nodes.attach(runner)

    def start(self) -> tuple[Mark, Mark]:
        """Begin; returns what marks a request's begin and its end, for both."""
        enter, leave = self._recorder.start()
        begin, end = self._nodes.start()

        def enter_both() -> None:
            begin()
            enter()

        def leave_both() -> None:
            leave()
            end()

        return enter_both, leave_both

    def stop(self) -> None:
        """End both and write what they have."""
        self._recorder.stop()
        self._nodes.stop()


def joined(capture: Capture, nodes: Capture) -> Capture:
    """A capture with the nodes as its ranges, each at its place in its request.

    Args:
        capture: Of CUDA calls.
        nodes: Of the same requests, on another clock.

    Raises:
        UserError: They hold different numbers of requests.
    """
    marks, theirs, ranges = capture.marks, nodes.marks, nodes.ranges
    if len(marks.start) != len(theirs.start):
        raise UserError(
            f"the capture holds {len(marks.start)} requests, and ONNX Runtime's profile {len(theirs.start)}; "
            "capture it anew"
        )
    at = np.searchsorted(theirs.start, ranges.start, "right") - 1
    inside = (at >= 0) & (ranges.start < theirs.end[np.maximum(at, 0)])
    at = at[inside]
    shift = _shift(marks, theirs)[at]
    placed = Ranges(ranges.start[inside] + shift, ranges.end[inside] + shift, marks.thread[at], ranges.text[inside])
    return dataclasses.replace(capture, ranges=placed)


def _shift(marks: Marks, outer: Marks) -> Integers:
    """Of each request the difference of two clocks, where the second one is read before its begin and after its end."""
    most, least = marks.start - outer.start, marks.end - outer.end
    tightest = np.lib.stride_tricks.sliding_window_view(np.pad(most, NEAR, "edge"), 2 * NEAR + 1).min(axis=1)
    highest = np.lib.stride_tricks.sliding_window_view(np.pad(least, NEAR, "edge"), 2 * NEAR + 1).max(axis=1)
    shift: Integers = (tightest + highest) // 2
    return shift
