"""What ``benchmarks/convolution_plans.py`` reads off ONNX Runtime's profile and off the log of cuDNN's frontend."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

READ = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks/convolution_plans.py"))

LOG = """\
[cudnn_frontend] ||| ===   CREATE EXECUTION PLANS  (HEURISTICS QUERY)   ==                                    = |||
[cudnn_frontend] Heuristic query for mode 1 has 83 configurations.
[cudnn_frontend] Check support for index 0 passed with cfg eng47_k2=2_k6=0_k13=2_k14=0_k22=1
[cudnn_frontend] INFO: Executing gid 1
[cudnn_frontend] INFO: Executing _eng47_k2=2_k6=0_k13=2_k14=0_k22=1...
[cudnn_frontend] INFO: Executed _eng47_k2=2_k6=0_k13=2_k14=0_k22=1.
[cudnn_frontend] INFO: Executing gid 1
[cudnn_frontend] INFO: Executing _eng47_k2=2_k6=0_k13=2_k14=0_k22=1...
[cudnn_frontend] INFO: Executed _eng47_k2=2_k6=0_k13=2_k14=0_k22=1.
[cudnn_frontend] ||| ===   CREATE EXECUTION PLANS  (HEURISTICS QUERY)   ==                                    = |||
[cudnn_frontend] Heuristic query for mode 2 has 6 configurations.
[cudnn_frontend] INFO: Executing gid 1
[cudnn_frontend] INFO: Executing _eng1...
"""
"""Lines as cuDNN 9.19 wrote them on an H200: a first request, the same batch again, and another one."""


def node(op, start, took):
    return {"cat": "Node", "name": f"/{op}_kernel_time", "ts": start, "dur": took, "args": {"op_name": op}}


def test_a_plan_counts_for_the_request_that_it_was_built_for():
    assert READ["plans"](LOG) == [
        (1, "B", 83, "eng47"),
        (0, "", None, "eng47"),
        (1, "fallback", 6, "eng1"),
    ]


def test_convolutions_count_in_the_request_that_holds_them():
    runs = [{"cat": "Session", "name": "model_run", "ts": start, "dur": 900} for start in (1000, 0)]
    nodes = [node("Conv", 100, 40), node("Conv", 200, 2), node("MatMul", 300, 50), node("Conv", 1100, 500)]
    assert READ["convolutions"]([*nodes, *runs]) == [(0.9, 0.042), (0.9, 0.5)]


def test_a_profile_and_a_log_of_other_requests_make_no_row():
    with pytest.raises(ValueError, match="HEURISTIC: 1 requests profiled, 3 logged, 14 asked"):
        READ["rows"]("HEURISTIC", [(1.0, 0.1)], READ["plans"](LOG))
