"""How far outputs are from the FP32 reference. numpy only: every runtime's worker uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from ceilings.graphs import token_parity

FEWEST_FOR_SPREAD = 8
"""Rows from which on the spread of one number a row is compared with."""

SPREAD_LIMIT = 0.5
"""Of one number a row: largest difference over the reference's spread between inputs. Beyond it a regression explains
less than three quarters of what its outputs differ by."""

ROW_LIMIT, ROWS_BEYOND = 1.0, 4
"""Of one row: largest difference over its norm, or so many times the tolerance where that is more. A row of zeros, or
one of another input, is as far away, and among many right rows the whole hides it."""


def too_far(parity: Mapping[str, Any], tolerance: float) -> str | None:
    """Why outputs that are so far from the reference get no speed number; None where they are near enough.

    Args:
        parity: As ``Parity.to_json`` gives it, or of generated text as ``token_parity.scored`` does.
        tolerance: Largest relative L2 difference.
    """
    if "rows_equal" in parity:
        return token_parity.too_far(parity, tolerance)
    if parity["problem"]:
        return str(parity["problem"])
    distance = parity["relative_l2"]
    if not parity["finite"] or distance is None:
        return "nothing says how far the outputs are from the FP32 reference"
    if not distance <= tolerance:
        return f"relative L2 difference from the FP32 reference is {distance:.3g}; allowed {tolerance:.3g}"
    allowed = max(ROW_LIMIT, ROWS_BEYOND * tolerance)
    if parity["row_l2"] is not None and parity["row_l2"] > allowed:
        return (
            f"one row of the outputs differs from the FP32 reference by {parity['row_l2']:.3g} of its norm; "
            f"allowed {allowed:.3g}"
        )
    if parity["spread_l2"] is not None and parity["spread_l2"] > SPREAD_LIMIT:
        return (
            f"the difference from the FP32 reference is {parity['spread_l2']:.3g} of what the reference differs by "
            f"between inputs; allowed {SPREAD_LIMIT:g}"
        )
    return None


@dataclasses.dataclass(frozen=True)
class Parity:
    """Distance of outputs from a reference; of several outputs, each number is the worst one's.

    Attributes:
        finite: Whether neither side has a NaN or an infinity; if one has, the numbers below are None.
        max_abs: Largest absolute difference.
        max_rel: ``max_abs`` over the output's largest reference value; element by element it would say nothing near
            zero. None where the reference is zero everywhere and the output is not.
        relative_l2: Norm of the difference over the norm of the reference; None as ``max_rel``.
        cosine: Smallest cosine similarity of a row with its reference.
        top1_agreement: Share of the rows whose top class is the reference's, 0 to 1; None where outputs are no classes.
        rows: Rows compared: vectors along the last dimension.
        spread_l2: Norm of the difference over the norm of what the reference's rows differ by from their mean, where a
            row is one number, as of a regression: a relative difference alone passes an output that says the same of
            every input. None for other outputs, for fewer than 8 rows and for a reference without any spread.
        row_l2: Largest difference of one row, over its reference's norm or that of an average row, whichever is larger:
            of many rows one may be wrong and the whole near.
        problem: Why outputs cannot be compared; None where they can.
    """

    finite: bool
    max_abs: float | None
    max_rel: float | None
    relative_l2: float | None
    cosine: float | None
    top1_agreement: float | None
    rows: int
    spread_l2: float | None = None
    row_l2: float | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is recorded."""
        return dataclasses.asdict(self)


def compare(
    outputs: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    compared: str,
    mask: np.ndarray | None = None,
    masked: Container[str] | None = None,
) -> Parity:
    """Compare every output of the reference.

    Args:
        outputs: (elements, *dims) by name, any type of number.
        reference: The same names and shapes.
        compared: What outputs are: ``classes``, ``embedding`` or ``values``, as the task says.
        mask: (elements, batch, sequence); where it is 0, outputs that begin with these dimensions are not compared.
        masked: Names of the outputs that have a sequence; None: those whose shapes begin with the mask's, but for
            embeddings of one vector an input, whose width may happen to be the sequence's length.

    Raises:
        ValueError: An output is missing, shapes differ, or the mask leaves nothing.
    """
    parts = []
    for name, expected in reference.items():
        if name not in outputs:
            raise ValueError(f"there is no output {name}; there are {', '.join(outputs) or 'none'}")
        if outputs[name].shape != expected.shape:
            raise ValueError(f"output {name} has shape {outputs[name].shape}, the reference {expected.shape}")
        covers = mask is not None and expected.shape[: mask.ndim] == mask.shape
        if masked is None:
            covers = covers and not (compared == "embedding" and mask is not None and expected.ndim == mask.ndim)
        else:
            covers = covers and name in masked
        parts.append(_compare(outputs[name], expected, compared, mask if covers else None, name))
    rows = sum(part.rows for part in parts)
    if not all(part.finite for part in parts):
        broken = next(part.problem for part in parts if not part.finite)
        return Parity(False, None, None, None, None, None, rows, problem=broken)
    # An output that is zero on both sides, such as one that a task does not use, says nothing of the others.
    saying = [part for part in parts if part.cosine is not None]
    if not saying:
        return Parity(True, 0.0, None, None, None, None, rows, problem="every output and the FP32 reference are zero")
    parts = saying
    problem = next((part.problem for part in parts if part.problem), None)
    return Parity(
        finite=True,
        max_abs=max(part.max_abs for part in parts if part.max_abs is not None),
        max_rel=_largest([part.max_rel for part in parts]),
        relative_l2=_largest([part.relative_l2 for part in parts]),
        cosine=min(part.cosine for part in parts if part.cosine is not None),
        top1_agreement=min((p.top1_agreement for p in parts if p.top1_agreement is not None), default=None),
        rows=rows,
        spread_l2=max((part.spread_l2 for part in parts if part.spread_l2 is not None), default=None),
        row_l2=max((part.row_l2 for part in parts if part.row_l2 is not None), default=None),
        problem=problem,
    )


def _compare(given: np.ndarray, expected: np.ndarray, compared: str, mask: np.ndarray | None, name: str) -> Parity:
    """One output; ``mask`` covers its leading dimensions."""
    # Elements and batch lead; an output without more dimensions, or with one number a row, is one vector in all.
    width = expected.shape[-1] if expected.ndim > 2 else 1
    left, right = (array.astype(np.float64).reshape(-1, width) for array in (given, expected))
    here = None
    if mask is not None and expected.ndim == mask.ndim:
        # One number a token, such as a score of being an answer's begin: a row is an input, its columns are tokens.
        here = (mask != 0).reshape(-1, width)
        here, left, right = (array[here.any(axis=1)] for array in (here, left, right))
        left, right = np.where(here, left, 0), np.where(here, right, 0)
    elif mask is not None:
        kept = np.repeat((mask != 0).reshape(-1), left.shape[0] // mask.size)
        left, right = left[kept], right[kept]
    if not right.size:
        raise ValueError(f"output {name} has no value that counts; the mask leaves nothing to compare")
    for side, whose in ((right, "the FP32 reference of"), (left, "the")):
        if not np.isfinite(side).all():
            problem = f"{whose} output {name} has a NaN or an infinity"
            return Parity(False, None, None, None, None, None, len(right), problem=problem)
    if not right.any():
        if not left.any():
            return Parity(True, 0.0, None, None, None, None, len(right))
        problem = f"the FP32 reference of output {name} is zero everywhere, and the output is not"
        return Parity(True, float(np.abs(left).max()), None, None, 0.0, None, len(right), problem=problem)
    difference = float(np.abs(left - right).max())
    agreement = None
    if compared == "classes" and width > 1:
        scores = (left, right) if here is None else (np.where(here, side, -np.inf) for side in (left, right))
        agreement = float(np.mean(np.equal(*(side.argmax(axis=1) for side in scores))))
    return Parity(
        finite=True,
        max_abs=difference,
        max_rel=ratio(difference, float(np.abs(right).max())),
        relative_l2=ratio(float(np.linalg.norm(left - right)), float(np.linalg.norm(right))),
        cosine=_cosine(left, right) if width > 1 else _cosine(left.reshape(1, -1), right.reshape(1, -1)),
        top1_agreement=agreement,
        rows=len(right),
        spread_l2=_spread(left, right) if width == 1 and len(right) >= FEWEST_FOR_SPREAD else None,
        row_l2=_row(left, right),
    )


def _row(left: np.ndarray, right: np.ndarray) -> float:
    """The largest difference of one row, for a reference that is not zero everywhere."""
    norms = np.linalg.norm(right, axis=1)
    average = float(np.sqrt(np.mean(np.square(norms))))
    return float((np.linalg.norm(left - right, axis=1) / np.maximum(norms, average)).max())


def _spread(left: np.ndarray, right: np.ndarray) -> float | None:
    """Norm of the difference over that of the reference's deviations from its mean."""
    spread = float(np.linalg.norm(right - right.mean(axis=0)))
    return float(np.linalg.norm(left - right)) / spread if spread > 0 else None


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    """The smallest of all rows. A row of zeros has no direction: it agrees with another one and with nothing else."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = np.where(
        norms > 0, np.sum(left * right, axis=1) / np.where(norms > 0, norms, 1), np.all(left == right, axis=1)
    )
    return float(np.clip(cosines, -1, 1).min())


def _largest(values: list[float | None]) -> float | None:
    """The largest; None if one of them is."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


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
