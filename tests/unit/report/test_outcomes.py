"""Whether a prediction was right: planted ratios against ranges, and the section that says so."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.outcomes import outcome
from ceilings.report.render.prediction_section import predictions
from ceilings.report.tables.collect import collect
from ceilings.statistics.quantiles import Interval

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted


@pytest.mark.parametrize(
    ("measured", "floor", "expected"),
    [
        (Interval(0.45, 0.5, 0.55), 0.02, "hit"),
        (Interval(0.65, 0.7, 0.75), 0.02, "miss"),
        (Interval(0.2, 0.3, 0.35), 0.02, "miss"),
        (Interval(0.5, 0.58, 0.65), 0.02, "undecided"),
        (Interval(0.3, 0.5, 0.9), 0.02, "undecided"),
        (Interval(0.0, 0.5, math.inf), None, "undecided"),
        (Interval(0.55, 0.58, 0.605), 0.02, "undecided"),
        (Interval(0.601, 0.605, 0.61), 0.0, "miss"),
        (Interval(0.601, 0.605, 0.61), None, "miss"),
        (Interval(0.601, 0.605, 0.61), 0.02, "undecided"),  # off by less than the noise
        (Interval(0.65, 0.7, 0.75), math.inf, "undecided"),
    ],
)
def test_outcome(measured, floor, expected):
    assert outcome((0.4, 0.6), measured, floor) == expected


def predicted(cell, low, high, *, per_inference=False, before="onnxruntime-cpu/distilbert/fp32/b1-s128"):
    return {
        "made": "2026-11-26T10:00:00+00:00",
        "cell": cell,
        "before": before,
        "device": planted.CPU,
        "model": "distilbert",
        "change": "try it",
        "factor": [low, high],
        "per_inference": per_inference,
        "ground": "bounds",
    }


def truth(runtime, precision, batch, sequence):
    """INT8 takes 0.4; four inputs take the time of two."""
    return 20.0 * (0.4 if precision == "int8" else 1.0) * (2.0 if batch == 4 else 1.0)


def test_the_section_counts_hits_and_shows_misses(tmp_path):
    maker = planted.StudyMaker(tmp_path, truth, between=0.004, runs=5)
    for precision, batch in (("fp32", 1), ("int8", 1), ("fp32", 4)):
        maker.add(planted.CPU, "onnxruntime-cpu", precision, batch, 128)
    maker.repeat(planted.CPU, "onnxruntime-cpu", "fp32", 1, 128)
    plan = maker.plan() | {
        "predictions": [
            predicted("onnxruntime-cpu/distilbert/int8/b1-s128", 0.3, 0.6),
            predicted("onnxruntime-cpu/distilbert/fp32/b4-s128", 0.4, 0.7, per_inference=True),
            predicted("onnxruntime-cpu/distilbert/fp32/b4-s128", 0.4, 0.7),  # of the latency itself: 2
            predicted("onnxruntime-cpu/distilbert/fp32/b9-s128", 0.4, 0.7),
        ]
    }
    page = predictions(plan, Measured(collect(plan)))
    assert "2 of 3 decided predictions inside" in page and "1 without a latency" in page
    assert page.count("| hit") == 2 and page.count("**miss**") == 1
    assert predictions(maker.plan(), Measured(collect(plan))) == ""
