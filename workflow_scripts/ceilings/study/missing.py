"""Makes again what is missing below a target. Snakemake itself looks for an intermediate file only where something else
asks for its job: with ``results/summary.md`` there and up to date, a run record or a plot could be gone for good.

Each missing file becomes a target of the invocation beside those that were asked for, whatever these are. So ``-n``
says ``Missing output files``, and what rests on the file follows. Files that no job of the invocation makes, such as
the records of other machines, are not concerned.
"""

from __future__ import annotations

import contextlib
import functools
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OURS: weakref.WeakSet[Any] = weakref.WeakSet()
"""The rules whose files are looked for: another workflow may use these beside its rules."""


def look_for_outputs(rule: Any) -> None:
    """Let the Snakemake process that calls this make again whatever is missing of a rule's outputs."""
    from snakemake.dag import DAG

    _OURS.add(rule)
    plain = DAG.update_needrun
    if getattr(plain, "looks_for_outputs", False):  # however often the workflow is parsed
        return

    @functools.wraps(plain)
    async def update_needrun(dag: Any, *arguments: Any, **options: Any) -> None:
        if dag.workflow.is_main_process:
            _add_targets(dag)
        await plain(dag, *arguments, **options)

    update_needrun.looks_for_outputs = True  # type: ignore[attr-defined]
    DAG.update_needrun = update_needrun


def _add_targets(dag: Any) -> None:
    for job in list(dag.jobs):
        if job.rule not in _OURS or dag.finished(job):
            continue
        if missing := [file for file in job.output if _is_kept(file) and not Path(file).exists()]:
            dag.targetjobs.add(job)
            dag.targetfiles.update(missing)
            if dag.workflow.persistence.has_metadata(job):  # made before, so it was deleted
                dag.forcefiles.update(_failures_below(dag, job))


def _is_kept(file: Any) -> bool:
    """Whether an output lies in this file system for good."""
    return not (file.is_storage or file.flags.get("temp"))


def _failures_below(dag: Any, job: Any) -> Iterator[str]:
    """The artifacts below a job that could not be made: to be tried again.

    Else a cell whose record was deleted, once the cause of its failure was mended, would fail for the old reason.
    """
    for maker in dag.dependencies[job]:
        if maker.rule in _OURS and _could_not_be_made(maker):
            yield from maker.output
            yield from _failures_below(dag, maker)


def _could_not_be_made(job: Any) -> bool:
    """Whether a job left an artifact that is empty, or whose report says so (:mod:`ceilings.artifacts`)."""
    outputs = [Path(file) for file in job.output]
    if all(path.suffix == ".json" for path in outputs):
        return False  # a record: of a cell that failed, too, it is what was measured
    return any(_is_failure(path) for path in outputs if path.is_file())


def _is_failure(path: Path) -> bool:
    if path.suffix != ".json":
        return path.suffix != ".cache" and not path.stat().st_size
    with contextlib.suppress(ValueError, AttributeError):  # damaged: its reader complains
        return bool(json.loads(path.read_bytes()).get("status") == "failed")
    return False
