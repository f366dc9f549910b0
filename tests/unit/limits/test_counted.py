"""Counted kernels against measured limits and the counts of a graph, with numbers worked out by hand."""

from __future__ import annotations

import pytest
from unit.traces.counted import kernel, product

from ceilings.limits.counted import judged
from ceilings.limits.roofline import Limits

LIMITS = Limits({("fp16", (8192, 8192, 8192)): 700e12, ("fp32", (1, 1, 1)): 50e12}, 3e12, 7e12, 50 << 20, 1e-5)
NONE = Limits({}, None, None, 0, None)


def of(*kernels, limits=LIMITS, floor=None, iterations=1):
    return judged({"kernels": list(kernels), "iterations": iterations}, limits, floor)


def only(one, limits=LIMITS):
    return of(one, limits=limits)["kernels"][0]


def test_rates_and_shares_of_each_level():
    made = only(
        kernel(
            "add",
            duration_ns=10_000,
            dram_read_bytes=12e6,
            dram_write_bytes=6e6,
            l2_sectors=1e6,
            shared_static_bytes=1024,
            shared_wavefronts=1e5,
        )
    )
    assert made["levels"]["dram"] == {"bytes": 18e6, "bytes_per_s": 1.8e12, "share": pytest.approx(0.6)}
    assert made["levels"]["l2"] == {"bytes": 32e6, "bytes_per_s": 3.2e12, "share": pytest.approx(3.2 / 7)}
    # 132 multiprocessors at 1.7 GHz, 128 bytes a cycle.
    assert made["levels"]["shared"]["share"] == pytest.approx(128e5 / 1e-5 / (132 * 1.7e9 * 128))
    assert made["verdict"] == "memory-limited" and made["why"] == "DRAM at 60%"


def test_a_kernel_without_shared_memory_has_no_such_level():
    assert only(kernel("add", shared_wavefronts=5e4))["levels"]["shared"]["bytes"] is None


def test_operations_by_type_and_the_measured_rate_of_products():
    made = only(product(128, 768, 768, 1000, fp32_add=10, fp32_mul=20, fp32_fma=30, tensor_pct=10))
    operations = 2 * 128 * 768 * 768
    assert made["operations"] == {"fp16": operations, "fp32": 90}
    assert made["shares"]["tensor"] == pytest.approx(operations / 1e-6 / 700e12) and made["tensor_pipe"] == 0.1
    assert (
        only(product(128, 768, 768, 1000, tensor_pct=40))["shares"]["tensor"] == 0.4
    )  # of what the pipe says, if more


def test_without_measured_limits_the_design_stands_in():
    made = only(kernel("add", dram_pct=65, l2_pct=30), NONE)
    assert made["shares"]["dram"] == 0.65 and made["shares"]["l2"] == 0.3 and made["why"] == "DRAM at 65%"
    assert only(kernel("add", dram_pct=None), NONE)["verdict"] == "undecided"


def test_stalls_and_limiters():
    made = only(kernel("f", stall_barrier=8, stall_selected=2, stall_long_scoreboard=6, stall_wait=4, stall_misc=0.1))
    assert list(made["stalls"]) == ["barrier", "long_scoreboard", "wait"]
    assert made["stalls"]["barrier"] == pytest.approx(8 / 20.1)
    assert made["limiters"] == ["registers", "warps"]
    silent = dict.fromkeys((name for name in kernel("f")["counters"] if name.startswith("stall_")), 0.0)
    assert only(kernel("f", **silent))["stalls"] == {}


def test_time_by_verdict_and_ceilings():
    whole = of(kernel("f", duration_ns=100), kernel("f", waves=0.5, duration_ns=300), product(64, 64, 64, 50))
    assert next(iter(whole["verdicts"].items())) == ("wave-limited", 300)
    assert sum(whole["verdicts"].values()) == 450
    assert whole["ceilings"]["operations_per_s"] == {"fp16": 700e12}
    assert whole["ceilings"]["bytes_per_s"]["shared"] == pytest.approx(132 * 1.7e9 * 128)


# --- against the graph's counts --------------------------------------------------------------------------------------


def floor(precision, weight_bytes=1e6, **flops):
    return {"precision": precision, "work": {"flops_by_precision": flops, "weight_bytes": weight_bytes}}


def test_operations_and_bytes_stand_against_the_floors():
    kernels = [product(128, 768, 768, 4000), product(128, 768, 768, 4000)]
    expected = 2 * 2 * 128 * 768 * 768
    operations, read = of(*kernels, floor=floor("fp16", 2 * 2 * 768 * 768, fp16=expected))["checks"]
    assert operations == {"what": "fp16 operations", "counted": expected, "expected": expected, "ratio": 1.0}
    assert read["ratio"] == 1.0 and "weights" in read["what"]
    # Twice the iterations: half of each.
    assert of(*kernels, floor=floor("fp16", fp16=expected), iterations=2)["checks"][0]["ratio"] == 0.5


def test_products_that_a_tile_pads_show_as_more():
    (check, _) = of(product(64, 64, 64, 100), floor=floor("fp16", fp16=2 * 40 * 64 * 64))["checks"]
    assert check["ratio"] == pytest.approx(1.6)


def test_tf32_computes_what_its_graph_stores_as_fp32():
    one = kernel("gemm", tensor_tf32=8e6, fp32_fma=1e3)
    (check, _) = of(one, floor=floor("tf32", fp32=8e6))["checks"]
    assert check["what"] == "tf32 operations" and check["ratio"] == 1
    (check, _) = of(kernel("gemm", fp32_fma=4e6, fp32_add=1e5), floor=floor("fp32", fp32=8e6))["checks"]
    assert check["what"] == "fp32 operations" and check["ratio"] == pytest.approx(8.1 / 8)


def test_without_a_counter_or_counts_there_is_no_check():
    assert of(kernel("f"))["checks"] == [] and of(kernel("f"), floor={"precision": "fp16"})["checks"] == []
    made = of(product(8, 8, 8, 10, tensor_fp16=None), floor=floor("fp16", fp16=100))["checks"]
    assert [check["what"] for check in made] == ["bytes read from DRAM over the weights'"]
