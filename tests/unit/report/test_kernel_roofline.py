"""The picture of counted kernels: one marker a kernel and level, ceilings, a bar a kernel."""

from __future__ import annotations

import pytest
from unit.traces.counted import kernel, product

from ceilings.limits.counted import judged
from ceilings.limits.roofline import Limits
from ceilings.report.render import kernel_roofline
from ceilings.report.tables.kernel_groups import groups

LIMITS = Limits({("fp16", (8192, 8192, 8192)): 700e12}, 3e12, 7e12, 50 << 20, 1e-5)
CELL = {"device": "d", "runtime": "r", "model": "m", "precision": "fp16", "shape": "b1-s8"}


def record(*kernels):
    made = judged({"kernels": kernels, "iterations": 1}, LIMITS, None)
    return {"cell": CELL, "status": "ok", "failure": None, **made}


def test_launches_of_one_kernel_are_together_and_the_longest_first():
    every = groups(record(kernel("f", duration_ns=10), product(64, 64, 64, 50), kernel("f", duration_ns=20, waves=0.5)))
    assert [(group.first["name"][:5], len(group.launches)) for group in every] == [("nvjet", 1), ("f", 2)]
    assert every[1].share == pytest.approx(30 / 80) and every[1].verdict == "wave-limited"
    assert every[0].bytes("dram") == 2 * 64 * 64 and every[1].bytes("shared") is None
    assert len(groups(record(kernel("f", (1, 1, 1)), kernel("f", (2, 1, 1))))) == 2


def test_each_kernel_with_operations_has_a_marker_a_level():
    figure = kernel_roofline.draw(record(product(128, 768, 768, 4000), kernel("copy", dram_read_bytes=1e6)))
    upper, lower = figure.axes
    assert len(upper.collections) == 3  # of the product: DRAM, L2, shared memory
    labels = [one.get_text() for one in upper.texts]
    assert any(label.startswith("fp16 700") for label in labels) and any("DRAM 3" in label for label in labels)
    assert len(lower.patches) == 2 and any("wait" in one.get_text() for one in lower.texts)


def test_kernels_beyond_the_shown_ones_are_summed_up_and_hostile_names_are_text():
    many = [kernel(f"$\\frac{{{number}}}$\n<b>", duration_ns=100 + number) for number in range(15)]
    _, lower = kernel_roofline.draw(record(*many)).axes
    assert len(lower.patches) == kernel_roofline.SHOWN and "3 others take" in lower.get_title(loc="left")


def test_without_counters_it_says_why():
    failed = {"cell": CELL, "status": "failed", "failure": {"kind": "crashed", "message": "ended by SIGSEGV"}}
    figure = kernel_roofline.draw(failed)
    assert "ended by SIGSEGV" in figure.texts[0].get_text()
