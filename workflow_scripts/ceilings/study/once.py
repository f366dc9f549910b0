"""Lets Snakemake plan a large study in less time: what it would work out again for each job is worked out once.

A tenth of the time went into reading the parameters of the same few functions, a tenth into writing each job's command
three times, and a fifth into looking for garbage among objects that live to the end, and once more at the end. The plan
is the same (``tests/unit/study/test_once.py``). What a version of Snakemake does not have is left alone.
"""

from __future__ import annotations

import atexit
import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

OBJECTS = 200_000
"""New objects after which Python looks for garbage; its default is 700, and a plan makes millions that stay."""


def plan() -> None:
    """Make the Snakemake process that calls this plan faster."""
    gc.set_threshold(OBJECTS, 50, 100)
    atexit.register(gc.freeze)  # the process ends: nothing needs to be told apart any more
    _read_parameters_once()
    _write_commands_once()
    _know_tables_without_pandas()


def _read_parameters_once() -> None:
    """What parameters a function of a rule has is asked several times a job."""
    from snakemake import common, rules

    plain = getattr(common, "get_function_params", None)
    if plain is None or hasattr(plain, "__wrapped__"):  # however often the workflow is parsed
        return
    known: dict[Any, Any] = {}

    @functools.wraps(plain)
    def get_function_params(function: Callable[..., Any]) -> Any:
        inner = getattr(function, "__func__", None)  # of a method: one for all objects
        try:
            key = (inner or function, inner is None)
            if key not in known:
                known[key] = plain(function)
            return known[key]
        except TypeError:  # it cannot be a key
            return plain(function)

    for module in (common, rules):
        if getattr(module, "get_function_params", None) is plain:
            module.get_function_params = get_function_params


def _write_commands_once() -> None:
    """A dry run asks for the command of a job three times in a row."""
    from snakemake.jobs import Job

    plain = getattr(Job, "shellcmd", None)
    if not isinstance(plain, property) or plain.fget is None or hasattr(plain.fget, "__wrapped__"):
        return
    write, last = plain.fget, (None, None)

    @functools.wraps(write)
    def shellcmd(job: Any) -> Any:
        nonlocal last
        if not job.dag.workflow.dryrun:  # an attempt may have other resources than the one before
            return write(job)
        if last[0] is not job:
            last = (job, write(job))
        return last[1]

    Job.shellcmd = property(shellcmd)


def _know_tables_without_pandas() -> None:
    """Whether a param is a table of pandas: none is before somebody imported pandas, which takes a sixth of a start."""
    from snakemake import persistence

    base = getattr(persistence, "PersistenceBase", None)
    plain = getattr(base, "_serialize_param_pandas", None)
    if base is None or plain is None or hasattr(plain, "__wrapped__"):
        return

    @functools.wraps(plain)
    def serialize(self: Any, value: Any) -> Any:
        return plain(self, value) if "pandas" in sys.modules else self._serialize_param_builtin(value)

    base._serialize_param_pandas = serialize
