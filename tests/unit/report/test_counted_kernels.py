"""Counted kernels in tables, findings and notes of a study; verdicts that do not follow from numbers are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.planted_records import PROVENANCE
from unit.record_samples import edited
from unit.report import planted_study as planted
from unit.traces.counted import kernel, product

from ceilings import records
from ceilings.errors import UserError
from ceilings.limits.counted import judged
from ceilings.limits.roofline import Limits
from ceilings.report.analysis.findings.counted_kernels import counted_kernels
from ceilings.report.analysis.measured import Measured
from ceilings.report.render.kernels_section import section
from ceilings.report.tables.collect import collect
from ceilings.report.tables.counted_rows import read_counted
from ceilings.report.tables.keys import KEY

LIMITS = Limits({("fp16", (8192, 8192, 8192)): 700e12}, 3e12, 7e12, 50 << 20, 1e-5)
FLOOR = {"precision": "fp16", "work": {"flops_by_precision": {"fp16": 1e8}, "weight_bytes": 1e6}}
FAILED = {"status": "failed", "failure": {"kind": "runtime-error", "message": "ncu left no report: no luck"}}


@pytest.fixture
def maker(tmp_path):
    """A counted cell: small products, and a copy that the memory limits."""
    maker = planted.StudyMaker(tmp_path)
    cell = maker.add(planted.GPU, "torch-cuda-eager", "fp16", 1, 128)
    copying = kernel("copy", (9000, 1, 1), duration_ns=4000, dram_read_bytes=9e6, l2_sectors=4e5, waves=8)
    kernels = [product(128, 768, 768, 4000, waves=0.18, tensor_fp16=1e8)] * 2 + [copying]
    write(maker, cell, judged({"kernels": kernels, "iterations": 1}, LIMITS, FLOOR))
    return maker


def write(maker, cell, made):
    head = {"cell": {name: cell[name] for name in KEY}, "tool": "ncu 2025.3.1", "caches": "steady"}
    whole = {"status": "ok", "failure": None, "iterations": 1, "flags": [], "lacking": [], **made}
    cell["counters"] = str(maker.root / "x.ncu.json")
    kept = whole if whole["status"] == "ok" else made
    records.write(cell["counters"], "kernel-limits", {**head, **kept, "provenance": PROVENANCE})


def test_a_kernel_is_a_row_with_what_limits_it(maker):
    table = collect(maker.plan()).counted_kernels
    assert list(table["verdict"]) == ["wave-limited", "memory-limited"] and list(table["launches"]) == [2, 1]
    assert table["share"].sum() == pytest.approx(1) and table["us"].sum() == pytest.approx(12)
    assert table["dram_bytes"][0] == 2 * 2 * 768 * 768 and table["grid"][1] == "9000x1x1"


def test_the_finding_and_the_section_say_it_with_numbers(maker):
    plan = maker.plan()
    tables = collect(plan)
    (finding,) = counted_kernels(Measured(tables))
    assert "67% wave-limited and 33% memory-limited" in finding.text and "blocks fill 18% of one wave" in finding.text
    assert finding.cells and "67% of the kernels' time" in finding.brief
    shown = section(plan, tables)
    assert "67% wave-limited and 33% memory-limited" in shown and "DRAM at 75%" in shown
    assert "fp16 operations 2.00× (2e+08 for 1e+08)" in shown and ".ncu.svg)" in shown


def test_without_counters_the_section_says_why_or_is_not_there(maker):
    (cell,) = [cell for cell in maker.cells if cell.get("counters")]
    write(maker, cell, FAILED)
    plan = maker.plan()
    assert "runtime-error: ncu left no report: no luck" in section(plan, collect(plan))
    cell["counters"] = None
    plan = maker.plan()
    assert section(plan, collect(plan)) == ""
    asked = {**plan, "traces": {"counters": {"cells": ["*"], "reason": "ncu is not on PATH"}}}
    assert section(asked, collect(plan)).endswith("Nothing is counted here: ncu is not on PATH.")
    assert "No kernel was counted" in section({**plan, "traces": {"counters": {"cells": ["*"]}}}, collect(plan))


@pytest.mark.parametrize(
    ("place", "value", "flaw"),
    [
        (("kernels", 0, "waves"), 1.0, r"kernels\[0\] is called wave-limited, and its numbers say latency-limited"),
        (("kernels", 2, "shares", "dram"), 0.3, r"kernels\[2\] is called memory-limited, and its numbers say latency"),
        (("verdicts", "wave-limited"), 9e9, "its wave-limited kernels take 8000 ns in sum, and it says another number"),
    ],
)
def test_verdicts_follow_from_numbers(maker, place, value, flaw):
    (cell,) = [cell for cell in maker.cells if cell.get("counters")]
    edited(Path(cell["counters"]), *place, value=value)
    with pytest.raises(UserError, match=flaw):
        read_counted(cell["counters"], cell)
