"""The two kinds of trouble a program can report.

Anything else that is raised is a bug in the pipeline and keeps its traceback.
"""

from __future__ import annotations

from ceilings import foreign
from ceilings.failure_kinds import FAILURE_KINDS


class UserError(Exception):
    """Something the user can mend. The message names the thing, its value and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(foreign.visible(message))


class CellFailure(Exception):
    """A cell that was tried and cannot run. It is a result: recorded, summarised, never a crash.

    Args:
        kind: One of ``FAILURE_KINDS``.
        message: What happened, in one line; a record of it leaves out folders of this machine and names of its user.
    """

    def __init__(self, kind: str, message: str) -> None:
        if kind not in FAILURE_KINDS:
            raise ValueError(f"unknown failure kind {kind!r}; known: {', '.join(FAILURE_KINDS)}")
        super().__init__(foreign.visible(message))
        self.kind = kind
