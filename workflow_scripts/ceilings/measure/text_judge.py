"""Judges generated text: the FP32 reference reads the texts of a cell's processes that differ from the reference's.

The reading runs after all timed jobs, in a separate process. It reads each different text once, also where several
processes generated it. Logits of the first tokens are judged before anything is timed (``gate``). The tables apply the
verdict (``report/tables/text_verdicts.py``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.graphs import token_parity
from ceilings.measure.supervisor import supervise
from ceilings.models import pool, weights_folder

READER = "ceilings.measure.text_worker"

START_SECONDS = 300.0
"""So long may the reading process take to start, whatever it reads."""

LEAST_LOADED, LEAST_COMPUTED = 5e7, 1e10
"""Bytes of weights that it loads and operations that it gets done in a second at least: 16 cores of a server do some 40
times as many of these, a GPU more."""


def reading_seconds(weight_bytes: int, tokens: int) -> float:
    """How long the reference may read.

    Args:
        weight_bytes: Of the model. A parameter has two bytes at least and takes two operations a token.
        tokens: Of all texts with their prompts.
    """
    return START_SECONDS + weight_bytes / LEAST_LOADED + weight_bytes * tokens / LEAST_COMPUTED


def verdict(runs: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> dict[str, Any]:
    """What the reference finds in the texts of the processes of a cell.

    Args:
        runs: Their records.
        task: ``workload`` and ``inputs``, the paths of what they were measured with, and ``spec`` with ``threads``.

    Returns:
        ``status``, ``failure``; ``read``, the number of texts that were read; ``device``, ``seconds`` and
        ``provenance`` of the reading, None where there was none; ``runs``, of each process that generated something,
        by its number, the ``digest`` of its record and what ``token_parity.reading`` says.

    Raises:
        UserError: Damaged weights or inputs.
    """
    given = {str(run["run"]): run for run in runs if run["status"] == "ok" and "texts" in run}
    texts = {number: _texts(run["texts"]) for number, run in given.items()}
    every = list(dict.fromkeys(one for ours in texts.values() for one in ours))
    made: dict[str, Any] = {"status": "ok", "failure": None, "read": len(every), "runs": {}}
    made |= dict.fromkeys(("device", "seconds", "provenance"))
    gaps: dict[Any, Any] = {}
    if every:
        prompts, folder = pool.load_pool(task["inputs"]), Path(task["workload"]).parent
        here = {"weights": weights_folder.digest(folder), "inputs": pool.digest(prompts)}
        if reason := _of_others([run["texts"] for run in given.values()], here):
            return made | {"status": "failed", "read": 0, "failure": {"kind": "damaged", "message": reason}}
        context = prompts["input_ids"].shape[-1] + len(every[0][1])
        limit = reading_seconds(weights_folder.weight_bytes(folder), len(every) * context)
        spec = {**task["spec"], "protocol": {"time_limit_seconds": limit}}
        to_read = {"places": [place for place, _ in every], "tokens": [tokens for _, tokens in every]}
        begin = time.monotonic()
        read = supervise({**task, **to_read, "spec": spec}, READER)
        if read["status"] != "ok":
            return made | {"status": "failed", "read": 0, "failure": read["failure"]}
        made |= {"seconds": time.monotonic() - begin, **{name: read[name] for name in ("device", "provenance")}}
        gaps = dict(zip(every, read["gaps"], strict=True))
    for number, run in given.items():
        ours = [gaps[one] for one in texts[number]]
        found = token_parity.reading(np.array(ours))
        made["runs"][number] = {"digest": run["digest"], **found}
        print(f"process {number}: {_worst(texts[number], ours)}")
    return made


def _worst(texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], gaps: Sequence[Sequence[float]]) -> str:
    """Where the reference prefers another token the most, in words; counts begin at 0."""
    if not texts:
        return "every text is the reference's"
    which, step = (int(place) for place in np.unravel_index(np.argmax(gaps), np.shape(gaps)))
    (element, row), tokens = texts[which]
    return (
        f"texts read: {len(texts)}; the reference prefers another token by {gaps[which][step]:.3g} logits at most, to "
        f"token {step} (id {tokens[step]}) of row {row} of prompts {element}"
    )


def _texts(given: Mapping[str, Any]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Place and tokens of each text of a process."""
    return list(zip(map(tuple, given["places"]), map(tuple, given["tokens"]), strict=True))


def _of_others(texts: Sequence[Mapping[str, Any]], here: Mapping[str, Any]) -> str | None:
    """Why texts cannot be read with the files that are here."""
    for name, what in (("weights", "weights"), ("inputs", "prompts")):
        if any(None not in (one[name], here[name]) and one[name] != here[name] for one in texts):
            return f"its texts were generated with other {what} than those here; read them where they were generated"
    return None
