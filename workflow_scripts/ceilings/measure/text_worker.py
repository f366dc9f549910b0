"""One process in which the FP32 reference reads text that a runtime generated. Run by ``ceilings.measure.text_judge``.

The task holds ``workload``, the path of the one beside the weights, ``inputs``, the path of the pool, ``tokens``
(texts, generated), ``places``, the element and the row of the pool that each text goes on from, and ``spec`` with
``threads``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ceilings.models import pool
from ceilings.models.token_reference import gaps
from ceilings.program import answer_task


def read(task: dict[str, Any]) -> dict[str, Any]:
    """``gaps`` (texts, generated), in logits.

    Raises:
        UserError: Damaged weights or inputs.
    """
    prompts = pool.load_pool(task["inputs"])["input_ids"]
    elements, rows = np.array(task["places"], np.int64).T
    tokens = np.array(task["tokens"], np.int64)
    found = gaps(Path(task["workload"]).parent, prompts[elements, rows], tokens, task["spec"]["threads"])
    return {"status": "ok", "gaps": found.tolist()}


if __name__ == "__main__":
    answer_task(read)
