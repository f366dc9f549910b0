"""Floors of GPT-2 Medium's prefill and decode step, worked out by hand."""

from __future__ import annotations

import pytest
from unit import decoder_graphs

from ceilings import records
from ceilings.limits import floors
from ceilings.workload.generation import Decoder

MEDIUM = Decoder(24, 16, 16, 64, 50257, 1024)
DRAM, L2, RATE, L2_BYTES = 3e12, 6e12, 700e12, 50e6
PEAKS = {
    "device": "planted",
    "l2_bytes": L2_BYTES,
    "peaks": {
        "read_bandwidth": {"median": DRAM / 1e9},
        "l2_read_bandwidth": {"median": L2 / 1e9},
        "graph_to_completion.1": {"median": 6.0},
        "matrix_rate.fp16.8192x8192x8192": {"median": RATE / 1e12},
    },
}
LAYER = 12 * 1024 * 1024
WEIGHTS = 2 * (24 * (LAYER + 13 * 1024) + 2 * 1024 + 50257 * 1024)
"""Bytes of all parameters in FP16 but the positions, of which a step looks up one row: 0.71 GB."""


@pytest.fixture(scope="module")
def bound():
    graph = decoder_graphs.written(MEDIUM)

    def bound(shape):
        cell = {"model": "gpt2-medium", "precision": "fp16", "graph": "fp16", "shape": shape}
        return floors.bound(graph, PEAKS, cell, {})

    return bound


def test_a_decode_step_is_bounded_by_the_bytes_of_weights_and_cache(bound):
    record = bound("b1-p128-g32")
    floor, work = record["floor"], record["work"]
    assert (record["shape"], record["phase"], record["context"]) == ("b1-p128-g32", "decode", 144)
    assert pytest.approx(0.7075e9, rel=1e-3) == WEIGHTS
    assert work["weight_bytes"] == pytest.approx(WEIGHTS + 2 * 1024, abs=1024)
    # Keys and values of 143 tokens read, of one written, in 24 layers of width 1024.
    assert work["cache_bytes"] == 2 * 24 * 1024 * 2 * (143 + 1)
    assert work["boundary_bytes"] == 4 * 50257 + 8 + 8
    moved = WEIGHTS + 2 * 1024 + work["cache_bytes"] + work["boundary_bytes"]
    assert (floor["limited_by"], floor["floor_ms"]) == (
        "dram",
        pytest.approx((moved - L2_BYTES) / DRAM * 1e3, rel=1e-4),
    )
    assert floor["floor_ms"] == pytest.approx(0.224, abs=1e-3)
    assert floor["cold_memory_floor_ms"] == pytest.approx(0.2407, abs=1e-4)
    assert floor["compute_floor_ms"] == pytest.approx(0.72e9 / RATE * 1e3, rel=0.01)
    assert "a decode step, set by dram" in floors.sentence(record)


def test_a_prefill_is_bounded_by_its_products(bound):
    record = bound("b8-p1024-g1")
    assert (record["phase"], record["context"]) == ("prefill", 1024)
    rows = 8 * 1024
    gemm = 2 * (rows * 24 * LAYER + 8 * 1024 * 50257)
    attention = 24 * 2 * 2 * 8 * 1024 * (1024 * 1025 // 2)
    assert record["work"]["flops"] == gemm + attention
    assert attention / gemm == pytest.approx(0.0834, abs=1e-4)
    floor = record["floor"]
    assert (floor["limited_by"], floor["floor_ms"]) == ("compute", pytest.approx((gemm + attention) / RATE * 1e3))
    assert floor["compute_floor_ms"] / floor["memory_floor_ms"] > 10
    assert record["work"]["cache_bytes"] == MEDIUM.cache_bytes(8, 1024, 2)


def test_the_cache_overtakes_the_weights_where_their_bytes_meet(bound):
    """98,304 bytes a token: at batch 16 some 450 tokens weigh as much as the weights."""
    token = 2 * 24 * 1024 * 2
    crossing = WEIGHTS / (16 * token)
    for tokens, larger in ((int(crossing) - 3, False), (int(crossing) + 3, True)):
        work = bound(f"b16-p{tokens - 1}-g2")["work"]  # its only step reads tokens - 1 and writes one
        assert work["cache_bytes"] == 16 * token * tokens
        assert (work["cache_bytes"] > work["weight_bytes"]) == larger


def test_a_context_beyond_the_graph_s_positions_counts_like_any_other(bound):
    record = bound("b1-p8192-g33")
    assert record["context"] == 8192 + 16
    assert record["work"]["cache_bytes"] == MEDIUM.cache_bytes(1, 8208, 2)


def test_a_record_is_written_and_read(bound, tmp_path):
    record = bound("b1-p128-g32")
    records.write(tmp_path / "floor.json", "floor", record)
    assert records.read(tmp_path / "floor.json", "floor")["phase"] == "decode"
