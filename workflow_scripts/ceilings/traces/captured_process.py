"""What each process under a recorder does around its work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ceilings import lifetime
from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json, write_json


def answer_task(run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Read the task, run it, and write what became of it; the capture itself is the recorder's.

    Unlike :func:`ceilings.program.answer_task` it returns: a profiler outside writes its file while the process ends.
    """
    task_path, result_path = sys.argv[1:]
    task = read_json(task_path)
    lifetime.end_after(task["alarm_seconds"])  # whatever becomes of the profiler round it
    try:
        result = run(task)
    except CellFailure as failure:
        result = {"failure": {"kind": failure.kind, "message": str(failure)}}
    except UserError as error:
        result = {"error": str(error)}
    write_json(result_path, result)
