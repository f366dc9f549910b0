"""One process in which the FP32 reference reads text that a runtime generated. Run by ``ceilings.measure.text_judge``.

The task holds ``workload``, the path of the one beside the weights, ``inputs``, the path of the pool, ``tokens``
(texts, generated), ``places``, the element and the row of the pool that each text goes on from, and ``spec`` with
``threads``. It reads on a GPU where PyTorch has one, else on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ceilings.models import pool
from ceilings.models.token_reference import gaps
from ceilings.program import answer_task
from ceilings.provenance import provenance

PACKAGES = ("torch", "transformers", "numpy")


def read(task: dict[str, Any]) -> dict[str, Any]:
    """``gaps`` (texts, generated), in logits; ``device``, the name of what computed them.

    Raises:
        UserError: Damaged weights or inputs.
    """
    on_gpu = torch.cuda.is_available()
    prompts = pool.load_pool(task["inputs"])["input_ids"]
    elements, rows = np.array(task["places"], np.int64).T
    tokens = np.array(task["tokens"], np.int64)
    folder, threads = Path(task["workload"]).parent, task["spec"]["threads"]
    try:
        found = gaps(folder, prompts[elements, rows], tokens, threads, "cuda" if on_gpu else "cpu")
    except torch.OutOfMemoryError as error:
        failure = {"kind": "out-of-memory", "message": str(error).splitlines()[0]}
        return {"status": "failed", "failure": failure}
    return {
        "status": "ok",
        "gaps": found.tolist(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "provenance": provenance(PACKAGES, {"inputs": task["inputs"], "workload": task["workload"]}),
    }


if __name__ == "__main__":
    answer_task(read)
