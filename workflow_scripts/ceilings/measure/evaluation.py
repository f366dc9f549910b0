"""What a cell's answers are worth: against labels where there are any, and against FP32 PyTorch's of the same rows.

Accuracy needs labels; agreement with FP32 does not, and is never called accuracy. Intervals are of 95% and count rows,
not tokens or pairs of rows, since those of one text depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import CellFailure
from ceilings.models.dataset import Arrays, Dataset
from ceilings.statistics.proportions import mcnemar, paired_difference, wilson
from ceilings.statistics.quantiles import Interval, minimum_samples, quantile_interval
from ceilings.statistics.ranks import (
    correlation_difference,
    correlation_interval,
    cosines,
    neighbour_overlap,
    neighbour_ranks,
    pearson,
    similarities,
    spearman,
)
from ceilings.workload.workload import Workload

NEIGHBOURS = 10
"""How many nearest rows are compared."""

MOST_NEIGHBOURED = 2000
"""Neighbours are looked for among so many rows at most: their number of pairs grows with the square."""

LEAST = 4
"""Rows that a correlation needs."""

Metrics = dict[str, Any]
Answers = NDArray[Any]


def evaluate(workload: Workload, rows: Dataset, outputs: Arrays, reference: Arrays) -> Metrics:
    """Metrics of a cell.

    Args:
        workload: Says what the outputs mean.
        rows: Inputs, and labels if there are any.
        outputs: The cell's, (rows, *dims) by name.
        reference: Those of FP32 PyTorch.

    Returns:
        ``metric`` (accuracy, pearson, agreement, correlation or cosine) with its ``value``, ``low`` and ``high``; with
        labels also ``reference_value``, and ``difference`` (the cell's value minus the reference's) with its ends and
        ``p_value``; then what else tells the cell from FP32.

    Raises:
        CellFailure: Some output is not finite.
    """
    broken = np.zeros(len(rows), bool)
    for values in outputs.values():
        broken |= ~np.isfinite(values).reshape(len(rows), -1).all(axis=1)
    if broken.any():
        raise CellFailure("parity", f"{int(broken.sum())} of {len(rows)} rows have outputs that are not finite")
    first = workload.outputs[0]
    if workload.task.compared == "embedding":
        return _embeddings(outputs[first.name], reference[first.name])
    if workload.task.compared == "values":
        return _values(outputs, reference)
    if "sequence" in first.dims:
        mask = _mask(workload, rows)
        if workload.task.name == "question-answering":
            return _row_answers(_spans(outputs, mask), _spans(reference, mask), None)
        return _token_answers(outputs[first.name], reference[first.name], mask)
    if first.dims[-1] == 1:
        return _numbers(outputs[first.name].reshape(-1), reference[first.name].reshape(-1), rows.labels)
    return _row_answers(outputs[first.name].argmax(axis=-1), reference[first.name].argmax(axis=-1), rows.labels)


# --- classes ---------------------------------------------------------------------------------------------------------


def _row_answers(answers: Answers, reference: Answers, labels: Answers | None) -> Metrics:
    """One answer a row: (rows,) or, of several numbers that make one answer, (rows, numbers)."""
    total = len(answers)
    equal = (answers == reference).reshape(total, -1).all(axis=1)
    agreement = _interval("agreement", wilson(int(equal.sum()), total))
    predictions = {"predictions": answers.tolist(), "answers": len(np.unique(reference, axis=0))}
    if labels is None:
        return _main("agreement", wilson(int(equal.sum()), total)) | agreement | predictions
    right, right_reference = answers == labels, reference == labels
    only, only_reference = int((right & ~right_reference).sum()), int((~right & right_reference).sum())
    return {
        **_main("accuracy", wilson(int(right.sum()), total)),
        "reference_value": float(right_reference.mean()),
        **_interval("difference", paired_difference(only, only_reference, total)),
        "p_value": mcnemar(only, only_reference),
        "only_cell_right": only,
        "only_reference_right": only_reference,
        **agreement,
        **predictions,
    }


def _token_answers(logits: Answers, reference: Answers, mask: Answers) -> Metrics:
    """One answer a token: the share of equal ones among real tokens."""
    equal = (logits.argmax(axis=-1) == reference.argmax(axis=-1)) & mask
    tokens = int(mask.sum())
    share = float(equal.sum()) / tokens
    agreement = wilson(share * len(mask), len(mask))
    same_rows = (equal == mask).all(axis=1)
    return {
        **_main("agreement", agreement),
        **_interval("agreement", agreement),
        "tokens": tokens,
        "rows_equal": float(same_rows.mean()),
    }


def _spans(outputs: Mapping[str, Answers], mask: Answers) -> Answers:
    """The real token at which each answer begins and the one at which it ends, (rows, 2)."""
    logits = list(outputs.values())
    if logits[0].ndim == 3:  # begin and end in one tensor
        logits = list(np.moveaxis(logits[0], -1, 0))
    return np.stack([np.where(mask, values, -np.inf).argmax(axis=1) for values in logits], axis=1)


def _mask(workload: Workload, rows: Dataset) -> Answers:
    """Which tokens are real, (rows, sequence)."""
    if workload.mask is not None:
        return rows.inputs[workload.mask.name].astype(bool)
    tokens = next(tensor.name for tensor in workload.inputs if "sequence" in tensor.dims)
    return np.ones(rows.inputs[tokens].shape[:2], bool)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(values: Answers, reference: Answers, labels: Answers | None) -> Metrics:
    """One number a row."""
    between = pearson(values, reference)
    with_reference = {
        "correlation": between,
        "rank_correlation": spearman(values, reference),
        "max_abs": float(np.abs(values - reference).max()),
        "predictions": [float(f"{value:.6g}") for value in values],
    }
    if labels is None:
        return _correlated("correlation", between, len(values)) | with_reference
    value, reference_value = pearson(values, labels), pearson(reference, labels)
    metrics = _correlated("pearson", value, len(values)) | {
        "spearman": spearman(values, labels),
        "reference_value": reference_value,
        "reference_spearman": spearman(reference, labels),
    }
    if value is not None and reference_value is not None and between is not None and len(values) >= LEAST:
        difference, p_value = correlation_difference(value, reference_value, between, len(values))
        metrics |= _interval("difference", difference) | {"p_value": p_value}
    return metrics | with_reference


def _correlated(metric: str, value: float | None, rows: int) -> Metrics:
    """A correlation with its interval; of a list that is constant there is none."""
    if value is None:
        return {"metric": metric, "value": None, "low": None, "high": None}
    return _main(metric, correlation_interval(value, rows))


# --- vectors ---------------------------------------------------------------------------------------------------------


def _embeddings(vectors: Answers, reference: Answers) -> Metrics:
    """Directions, and which rows lie near each other by them."""
    vectors, reference = (values.reshape(len(values), -1) for values in (vectors, reference))
    metrics = _cosine(cosines(vectors, reference))
    among = min(len(vectors), MOST_NEIGHBOURED)
    if among <= NEIGHBOURS:
        return metrics
    near, near_reference = similarities(vectors[:among]), similarities(reference[:among])
    overlap = neighbour_overlap(near, near_reference, NEIGHBOURS)
    # A share a row: Wilson's interval takes the largest spread that such shares can have, so it is wide, not narrow.
    return {
        **metrics,
        **_interval("neighbour_overlap", wilson(float(overlap.sum()), among)),
        "neighbour_overlap_min": float(overlap.min()),
        "neighbour_rank_correlation": _mean(neighbour_ranks(near, near_reference)),
        "neighbours": NEIGHBOURS,
        "neighbours_among": among,
    }


def _values(outputs: Arrays, reference: Arrays) -> Metrics:
    """Tensors of unknown meaning: of each row the output that points least alike."""
    each = [
        cosines(values.reshape(len(values), -1), reference[name].reshape(len(values), -1))
        for name, values in outputs.items()
    ]
    return _cosine(np.min(each, axis=0))


def _cosine(each: Answers) -> Metrics:
    """Median, lowest and, where there are rows enough to carry it, the first percentile."""
    bounded = quantile_interval(each, 0.5)
    carried = len(each) >= minimum_samples(0.01)
    return {
        "metric": "cosine",
        "value": float(np.median(each)),
        "low": None if bounded is None else bounded.low,
        "high": None if bounded is None else bounded.high,
        "cosine_median": float(np.median(each)),
        "cosine_min": float(each.min()),
        "cosine_p1": float(np.quantile(each, 0.01)) if carried else None,
    }


def _mean(values: Answers) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _main(metric: str, interval: Interval) -> Metrics:
    return {"metric": metric, "value": interval.estimate, "low": interval.low, "high": interval.high}


def _interval(name: str, interval: Interval) -> Metrics:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
