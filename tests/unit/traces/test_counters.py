"""Tables of Nsight Compute are read as they are printed: names, units, gaps; those of others where they are at hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from unit.traces.counted import QUIET, kernel, table

from ceilings.errors import CellFailure
from ceilings.traces import counters, ncu

REPORTS = os.environ.get("CEILINGS_NCU_REPORTS")
"""Folder with the reports that come with Nsight Compute (``transposeCoalesced.ncu-rep``, ...)."""

needs_ncu = pytest.mark.skipif(shutil.which("ncu") is None, reason="ncu is not on PATH")


def test_every_quantity_is_read_and_no_name_of_the_machine():
    made = [kernel("void f<int, 2>(float *, int)", (256, 2, 1), duration_ns=1500), kernel("g", eligible_warps=None)]
    read = counters.kernels(table(made))
    assert read == made and "host" not in str(read)


def test_units_are_scaled_and_unknown_ones_refused():
    (read,) = counters.kernels(table([kernel("f", duration_ns=2.5)], {"duration_ns": "us", "sm_hz": "Ghz"}))
    assert read["counters"]["duration_ns"] == 2500 and read["counters"]["sm_hz"] == QUIET["sm_hz"] * 1e9
    with pytest.raises(CellFailure, match=r"gpu__time_duration\.sum in 'fortnight', a unit that is not known"):
        counters.kernels(table([kernel("f")], {"duration_ns": "fortnight"}))


def test_lines_before_the_table_are_no_rows_and_gaps_are_gaps():
    text = table([kernel("f", dram_read_bytes=None)], noise="==PROF== Connected\nloading, please wait\n")
    text = text.replace('"1.7e+09"', '"n/a"').replace('"132"', '"1,320"')
    (read,) = counters.kernels(text)
    values = read["counters"]
    assert values["dram_read_bytes"] is None and values["sm_hz"] is None and values["multiprocessors"] == 1320


@pytest.mark.parametrize("text", ["", "==WARNING== No kernels were profiled.\n", table([])])
def test_a_table_without_kernels_is_a_failure(text):
    with pytest.raises(CellFailure, match="counted no kernel between cudaProfilerStart and cudaProfilerStop"):
        counters.kernels(text)


def test_what_a_device_lacks_is_left_out_and_named():
    names = {metric.split(".")[0] for metric in counters.COUNTERS.values()}
    assert counters.wanted(names) == (list(counters.METRICS.values()), [])
    asked, lacking = counters.wanted(names - {"sm__ops_path_tensor_src_fp8"})
    assert lacking == ["sm__ops_path_tensor_src_fp8.sum"] and len(asked) == len(counters.METRICS) - 1


@needs_ncu
def test_compute_capability_9_has_every_counter():
    assert counters.wanted(ncu.offered("gh100"))[1] == []
    with pytest.raises(CellFailure, match="ncu does not name its counters"):
        ncu.offered("no-chip")


@needs_ncu
@pytest.mark.skipif(REPORTS is None, reason="CEILINGS_NCU_REPORTS names no folder of reports")
def test_reports_of_others_give_the_numbers_of_their_programs():
    metrics, _ = counters.wanted(ncu.offered("gh100"))
    found = {path.stem: path for path in Path(REPORTS or "").rglob("*.ncu-rep")}

    def only(name):
        (one,) = counters.kernels(ncu.table(found[name], metrics))
        return one, one["counters"]

    one, values = only("addConstDouble")  # 12,288 blocks of 256 threads, each reads and writes a double
    assert one["name"].startswith("addConstDouble(") and one["grid"] == [12288, 1, 1] and one["block"] == [256, 1, 1]
    assert values["dram_read_bytes"] == pytest.approx(12288 * 256 * 8, rel=0.001)
    assert values["l2_sectors"] * counters.SECTOR == 2 * 12288 * 256 * 8
    one, values = only("transposeCoalesced")  # an 8192 x 8192 matrix of floats, and 32 banks that all collide
    assert values["l2_sectors"] * counters.SECTOR == 2 * 8192 * 8192 * 4
    assert values["shared_conflicts"] == 31 * 8192 * 8192 / 32 and values["waves"] == pytest.approx(195.05)
    assert only("transposeNoBankConflicts")[1]["shared_conflicts"] == 0
