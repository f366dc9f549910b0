"""How far outputs are from the FP32 PyTorch reference. numpy only: every runtime's worker uses it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Parity:
    """Distance of logits from a reference.

    Attributes:
        finite: Whether there is no NaN or infinity; if there is, the numbers below are None.
        max_abs: Largest absolute difference.
        max_rel: ``max_abs`` over the largest reference logit; element by element it would say nothing near zero.
        relative_l2: Norm of the difference over the norm of the reference.
        cosine: Smallest cosine similarity of a row (one input) with its reference.
        top1_agreement: Share of the rows whose top class is the reference's, 0 to 1.
        rows: Rows compared.
    """

    finite: bool
    max_abs: float | None
    max_rel: float | None
    relative_l2: float | None
    cosine: float | None
    top1_agreement: float | None
    rows: int

    def to_json(self) -> dict[str, Any]:
        """As it is recorded."""
        return dataclasses.asdict(self)


def compare(outputs: np.ndarray, reference: np.ndarray) -> Parity:
    """Compare logits.

    Args:
        outputs: (..., batch, classes), any floating type.
        reference: The same shape.

    Raises:
        ValueError: The shapes differ.
    """
    if outputs.shape != reference.shape:
        raise ValueError(f"outputs have shape {outputs.shape}, the reference {reference.shape}")
    classes = reference.shape[-1]
    found = outputs.astype(np.float64).reshape(-1, classes)
    expected = reference.astype(np.float64).reshape(-1, classes)
    if not np.isfinite(found).all():
        return Parity(False, None, None, None, None, None, len(found))
    difference = np.abs(found - expected)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    # A row of zeros has no direction: it agrees with another row of zeros and with nothing else.
    cosines = np.where(
        norms > 0,
        np.sum(found * expected, axis=1) / np.where(norms > 0, norms, 1),
        np.all(found == expected, axis=1),
    )
    return Parity(
        finite=True,
        max_abs=float(difference.max()),
        max_rel=ratio(float(difference.max()), float(np.abs(expected).max())),
        relative_l2=ratio(float(np.linalg.norm(found - expected)), float(np.linalg.norm(expected))),
        cosine=float(np.clip(cosines, -1, 1).min()),
        top1_agreement=float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1))),
        rows=len(found),
    )


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``; 0 for 0 / 0, None for anything else over 0."""
    if whole:
        return part / whole
    return None if part else 0.0


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    """Signal to quantisation noise in decibels, at most 200 (no noise at all)."""
    signal = float(np.sum(np.square(expected, dtype=np.float64)))
    noise = float(np.sum(np.square(expected.astype(np.float64) - found)))
    if not np.isfinite(noise):
        return -200.0
    if noise == 0 or signal == 0:
        return 200.0 if noise == 0 else -200.0
    return float(np.clip(10 * np.log10(signal / noise), -200, 200))
