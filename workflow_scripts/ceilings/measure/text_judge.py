"""Judges generated text: in a separate process the FP32 reference reads what is not its own text.

After the measuring process has ended, so that nothing of it is timed or counted as memory of the runtime, and on the
CPU. Logits of the first tokens are judged before anything is timed (``gate``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ceilings.graphs import token_parity
from ceilings.measure.supervisor import supervise

READER = "ceilings.measure.text_worker"

READING_SECONDS = 3600.0
"""So long the reference may read: a batch of 64 takes a minute on 16 cores, 8,000 tokens as long."""


def judge(measured: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """A measured part of a record whose text is judged; what generates nothing, or failed before, as it is.

    Args:
        measured: As ``supervise`` gives it.
        task: What it was given.

    Returns:
        The same without ``texts``, whose ``parity`` says what the reference finds in them; with status ``failed`` where
        rounding does not explain a token, or where nothing says what the reference finds.
    """
    texts = measured.pop("texts", None)
    if measured["status"] != "ok" or texts is None:
        return measured
    gaps = np.zeros((0, measured["parity"]["generated"]))
    if texts["tokens"]:
        read = supervise({**task, **texts, "spec": _reading(task["spec"])}, READER)
        if read["status"] != "ok":
            failure = read["failure"]
            why = f"the FP32 reference did not read the text: {failure['message']}"
            return {**measured, "status": "failed", "failure": {**failure, "message": why}, "series": {}}
        gaps = np.array(read["gaps"])
    measured["parity"] = token_parity.scored(measured["parity"], gaps)
    if reason := token_parity.too_far(measured["parity"], task["spec"]["tolerance"]):
        return {**measured, "status": "failed", "failure": {"kind": "parity", "message": reason}, "series": {}}
    return measured


def _reading(spec: dict[str, Any]) -> dict[str, Any]:
    return {"threads": spec["threads"], "protocol": {"time_limit_seconds": READING_SECONDS}}
