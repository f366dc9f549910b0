"""FP32 PyTorch logits: what every variant and runtime is compared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ceilings.errors import UserError
from ceilings.models import inputs as ring
from ceilings.models.weights import load_model

ELEMENTS = 2
"""How many elements of the ring are compared: two, so that a runtime that answers from a stale buffer is caught."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """``logits`` float32 (elements, batch, classes) of the first elements of the ring named by ``inputs_sha256``."""

    logits: np.ndarray
    inputs_sha256: str


def compute(weights_dir: Path | str, inputs: Path | str, threads: int, output: Path | str) -> tuple[int, ...]:
    """Run the model in FP32 with plain (eager) attention on the CPU and write the logits.

    Args:
        weights_dir: The model's weights folder.
        inputs: The ring.
        threads: CPU threads; more of them only reorder sums.
        output: An ``.npz`` with ``logits`` and ``inputs_sha256``.

    Returns:
        The shape of the logits.
    """
    import torch

    arrays = ring.load_inputs(inputs)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    model = load_model(weights_dir, attention="eager")
    with torch.inference_mode():
        logits = [
            model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
            for ids, mask in zip(arrays["input_ids"][:ELEMENTS], arrays["attention_mask"][:ELEMENTS], strict=True)
        ]
    stacked = np.stack(logits).astype(np.float32)
    ring.save(output, logits=stacked, inputs_sha256=np.array(ring.digest(arrays)))
    return stacked.shape


def load(path: Path | str) -> Reference:
    """Read a reference.

    Raises:
        UserError: Missing, damaged or of another kind.
    """
    content = ring.load(path)
    if {"logits", "inputs_sha256"} - set(content):
        raise UserError(f"{path} is no reference file; {ring.REMEDY}")
    return Reference(content["logits"], str(content["inputs_sha256"]))


def load_for(path: Path | str, inputs: Path | str) -> tuple[Reference, dict[str, np.ndarray]]:
    """A reference and the elements of the ring that it belongs to.

    Raises:
        UserError: They do not belong together.
    """
    reference, arrays = load(path), ring.load_inputs(inputs)
    found = ring.digest(arrays)
    if found != reference.inputs_sha256:
        raise UserError(
            f"{path} was computed from inputs {reference.inputs_sha256[:12]}, but {inputs} is {found[:12]}; "
            f"compute the reference again from these inputs"
        )
    return reference, {name: array[: len(reference.logits)] for name, array in arrays.items()}
