"""The two kinds of trouble a program can report.

Anything else that is raised is a bug in the pipeline and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. The message names the thing, its value and the remedy."""


class CellFailure(Exception):
    """A cell that was tried and cannot run. It is a result: recorded, summarised, never a crash.

    Args:
        kind: One of ``FAILURE_KINDS``.
        message: What happened, in one line.
    """

    def __init__(self, kind: str, message: str) -> None:
        if kind not in FAILURE_KINDS:
            raise ValueError(f"unknown failure kind {kind!r}; known: {', '.join(FAILURE_KINDS)}")
        super().__init__(message)
        self.kind = kind


FAILURE_KINDS = {
    "out-of-memory": "the memory did not suffice",
    "damaged": "a file of the model (weights, configuration, tokenizer) is damaged, missing or of another model",
    "unsupported": "the runtime has no implementation for an operator or type of the graph",
    "parity": "the outputs differ from the FP32 reference by more than the tolerance, or cannot be compared with it",
    "fallback": "part of the graph would have run on another device than the cell names",
    "engine-incompatible": "the engine is damaged, or was built for another GPU or library version",
    "outside-profiles": "no optimisation profile of the engine takes the shape",
    "invalid-profile": "an optimisation profile cannot be (min above opt, or opt above max)",
    "missing-scales": "a quantised graph has Q/DQ pairs without usable scales",
    "workspace": "no implementation of some layer fits into the workspace",
    "build-failed": "the engine's builder gave up for another reason",
    "runtime-error": "the runtime gave up with an error of its own, in whose words the message is",
    "crashed": "the process was ended by a signal",
    "timed-out": "the time limit passed",
}
"""Failure kinds and what each one means."""
