"""What a user may choose as the iterations of a recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ceilings.errors import UserError

FLAGS = ("step", "graph", "period", "whole")
WAYS = ("range", *FLAGS, "between")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What makes the iterations; nothing chosen: what fits best.

    Attributes:
        by: One of ``WAYS``; None: automatic.
        name: Of ``range``, its name or a glob of it.
        between_ms: Of ``between``, from and to, in ms since the first record.
        process: Number of the process in the recording; None: the one with most work.
    """

    by: str | None = None
    name: str | None = None
    between_ms: tuple[float, float] | None = None
    process: int | None = None

    @classmethod
    def of(cls, wanted: Mapping[str, Any] | Choice | None) -> Choice:
        """A choice from a study's or a command's words: ``{"range": "step*"}``, ``{"graph": True}``.

        Raises:
            UserError: It has an unknown key, several ways at once, or a value that does not fit.
        """
        if isinstance(wanted, Choice):
            return wanted
        given = {key: value for key, value in (wanted or {}).items() if value is not None and value is not False}
        for key in given:
            if key not in (*WAYS, "process"):
                raise UserError(f"{key} is no choice of iterations; choose one of {', '.join(WAYS)}")
        ways = [key for key in WAYS if key in given]
        if len(ways) > 1:
            raise UserError(f"{' and '.join(ways)} are chosen at once as iterations; choose one")
        process = given.get("process")
        if process is not None and (type(process) is not int or process < 0):
            raise UserError(f"process is {process!r}; give the number of a process, from 0")
        if not ways:
            return cls(process=process)
        (by,) = ways
        value = given[by]
        if by in FLAGS and value is not True:
            raise UserError(f"{by} is {value!r}; it must be true")
        if by == "range" and (not isinstance(value, str) or not value.strip()):
            raise UserError(f"range is {value!r}; give the name of a range, or a glob such as 'step*'")
        return cls(by, value if by == "range" else None, _between(value) if by == "between" else None, process)


def _between(value: Any) -> tuple[float, float]:
    """Two times in ms, the first before the second."""
    fits = isinstance(value, list | tuple) and len(value) == 2
    if not fits or any(type(one) not in (int, float) or not 0 <= one < 1e12 for one in value) or value[0] >= value[1]:
        raise UserError(f"between is {value!r}; give two times in ms since the first record: [120, 180.5]")
    return float(value[0]), float(value[1])
