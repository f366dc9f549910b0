"""Numbers that cannot be are refused when they are collected, also where someone corrected the record's digest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from unit import planted_records
from unit.record_samples import edited
from unit.report import planted_study as planted
from unit.report.test_quality import Planted
from unit.test_records import VALUES, mutated, mutations
from unit.traces import planted as captured

from ceilings.errors import UserError
from ceilings.report.tables.budget_rows import read_budget
from ceilings.report.tables.collect import collect, read_run, run_row, sampled
from ceilings.report.tables.evidence import read_evidence
from ceilings.report.tables.floor_rows import read_floor
from ceilings.report.tables.quality_rows import quality_row, read_quality

LATENCY = ("series", "latency")


@pytest.fixture
def maker(tmp_path):
    maker = planted.StudyMaker(tmp_path, runs=2)
    maker.add(planted.GPU, "torch-cuda-eager", "fp16", 4, 128, n=40)
    return maker


def edit(maker, *place, value):
    path = Path(maker.cells[0]["runs"][1])
    edited(path, *place, value=value)
    return path


@pytest.mark.parametrize(
    ("place", "value", "flaw"),
    [
        (("run",), 1, "it is process 1 of its cell"),
        ((*LATENCY, "latency_ns", 5), 1, "a latency of 1 ns is shorter than any call"),
        ((*LATENCY, "latency_ns"), [5_000_000] * 29, "29 iterations, fewer than protocol.min_iterations, 30"),
        ((*LATENCY, "latency_ns", 5), 10**13, "its latencies add up to .* ns, more than the .* ns that it took"),
        ((*LATENCY, "elapsed_ns"), 5 * 10**12, "it took 5000 s, more than its limit of 3600 s"),
        ((*LATENCY, "gpu_ns"), [1], "1 gpu_ns beside 40 latencies"),
        ((*LATENCY, "gpu_ns"), [10**12] * 40, "the GPU worked for .* ns, longer than the .* ns that it took"),
        (("first_answer_ns",), 1000, "the stages up to its first answer took .* ns, more than the 1000 ns"),
        (("first_answer_ns",), -5, "first_answer_ns is -5; it must be a whole number at least 1"),
        (("memory", "peak_rss_bytes"), 1, "memory.peak_rss_bytes is 1; it must be"),
        (("threads", "intra_op"), 10**9, "threads.intra_op is 1000000000; it must be"),
        (("protocol", "precision"), "x", "protocol.precision is 'x'; it must be a finite number"),
        (("protocol", "concurrency"), None, "protocol.concurrency is null; it must be"),
        (("energy",), {"latency": {"mean_watts": -300}}, "energy.latency.mean_watts is -300; it must be at least 0"),
        (("gpu",), {"latency": "x"}, "gpu.latency is 'x'; it must be an object"),
        (("gpu",), {"latency": {"sm_mhz": {"min": 9, "median": 5}}}, "gpu.latency.sm_mhz is no range of a quantity"),
        (("gpu",), {"latency": {"power_w": {"median": -5.0}}}, "gpu.latency.power_w is no range of a quantity"),
        (("neighbours",), {"stolen_cores": -1}, "neighbours.stolen_cores is -1; it must be at least 0"),
        (("runtime",), {"placement": {"int8_products": {"MatMul": -3}}}, "runtime.placement has no operators"),
        ((*LATENCY, "enqueue_ns", 2), 10**12, "submitting took longer than the inference"),
        (("series", "latency_end_to_end", "elapsed_ns"), 1, "series latency_end_to_end: its latencies add up"),
        ((*LATENCY, "stop_reason"), "iteration-cap", "stopped for 'iteration-cap', and by its protocol that would be"),
        (("series", "throughput", "inferences_per_s"), 1e6, "1e.06 inferences a second do not follow from its counts"),
        (("cell", "shape"), "b8-s128", "was measured for another cell"),
        (("cell", "device"), "nvidia-h100", "was measured for another cell"),
        (("parity",), None, "parity is null"),
        ((*LATENCY, "latency_ns"), [], "latency_ns is an empty list"),
    ],
)
def test_a_run_that_cannot_be_is_refused(maker, place, value, flaw):
    path = edit(maker, *place, value=value)
    with pytest.raises(UserError, match=flaw) as caught:
        collect(maker.plan())
    assert str(caught.value).startswith(f"{path} ")
    assert str(caught.value).endswith(f"; delete it and run `snakemake --cores 1 {path}`")


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("parity", "relative_l2"), 99, "relative L2 difference from the FP32 reference is 99; allowed 0.02"),
        (("parity", "row_l2"), 1.5, "one row of the outputs differs from the FP32 reference by 1.5 of its norm"),
        (("parity", "spread_l2"), 0.9, "the difference from the FP32 reference is 0.9 of what"),
        (("parity", "problem"), "a NaN", "a NaN"),
        (("parity", "relative_l2"), None, "nothing says how far the outputs are"),
        (("parity", "finite"), False, "nothing says how far the outputs are"),
    ],
)
def test_wrong_outputs_get_no_speed_number_whatever_the_record_says(maker, place, value, reason):
    """Its own tolerance does not count either."""
    edit(maker, "parity", "tolerance", value=1000)
    assert collect(maker.plan()).cells.iloc[0]["status"] == "ok"
    edit(maker, *place, value=value)
    row = collect(maker.plan()).cells.iloc[0]
    assert (row["status"], row["failure_kind"]) == ("failed", "parity") and reason in row["reason"]
    assert row[["p50_ms", "inferences_per_s"]].isna().all()


def test_nothing_but_the_stop_rule_runs_between_the_iterations_of_a_cpu(tmp_path):
    """Latencies that someone divided leave a gap in the time that they took; a GPU's inputs are copied in it."""
    maker = planted.StudyMaker(tmp_path, runs=2)
    cell = maker.add(planted.CPU, "torch-eager", "fp32", 1, 128, n=40)
    collect(maker.plan())
    path = Path(cell["runs"][0])
    latencies = json.loads(path.read_text())["series"]["latency"]["latency_ns"]
    edited(path, *LATENCY, "latency_ns", value=[one // 4 for one in latencies])
    with pytest.raises(UserError, match=r"its latencies add up to \d+ ns, less than half of the \d+ ns that it took"):
        collect(maker.plan())


def test_one_measurement_of_two_cells_is_refused(maker):
    other = maker.add(planted.GPU, "torch-cuda-eager", "fp16", 8, 128, n=40)
    collect(maker.plan())
    first, second = Path(maker.cells[0]["runs"][0]), Path(other["runs"][0])
    copied = json.loads(first.read_text()) | {"cell": json.loads(second.read_text())["cell"]}
    copied["series"]["throughput"] = json.loads(second.read_text())["series"]["throughput"]
    planted_records.overwrite(second, copied)
    with pytest.raises(UserError, match=rf"{first} and {second} are one measurement twice; delete them and run"):
        collect(maker.plan())


def test_one_measurement_under_two_names_is_refused(maker):
    first, second = map(Path, maker.cells[0]["runs"])
    shutil.copy(first, second)
    with pytest.raises(UserError, match="it is process 1 of its cell"):
        collect(maker.plan())
    edited(second, "run", value=2)
    with pytest.raises(UserError, match=r"run1.json and .*run2.json are one measurement twice; delete them and run"):
        collect(maker.plan())


def test_no_edit_of_a_run_ends_in_a_traceback(maker):
    plan, cell = maker.plan(), maker.cells[0]
    path = cell["runs"][1]
    record = json.loads(Path(path).read_text())
    record["provenance"]["modules"] = {}
    for place in mutations({name: value for name, value in record.items() if name != "series"}):
        for value in VALUES:
            try:
                planted_records.overwrite(path, mutated(record, place, value))
            except UnicodeEncodeError:
                continue
            try:
                run = read_run(path, cell, plan)
            except UserError:
                continue
            run_row(cell, run)
            sampled(cell, run)


@pytest.mark.parametrize(
    ("place", "value", "flaw"),
    [
        (("host_ns", "launch", "median"), 0, "the host's parts and residual do not add up to the iteration"),
        (("iteration_ns", "median"), 1e9, "the host's parts and residual do not add up"),
        (("device_ns", "idle", "host", "median"), 1e9, "the device's parts and residual do not add up"),
        (("verdict", "name"), "kernel-bound", "its verdict is 'kernel-bound', and its shares say 'launch-bound'"),
        (("cell",), None, "was captured for another cell"),
    ],
)
def test_an_account_that_does_not_close_is_refused(tmp_path, place, value, flaw):
    cell = captured.study(tmp_path).cells[0]
    read_budget(cell["budget"], cell)
    edited(Path(cell["budget"]), *place, value=value)
    with pytest.raises(UserError, match=flaw):
        read_budget(cell["budget"], cell)


def test_what_an_account_leaves_unexplained_must_be_said(tmp_path):
    cell = captured.study(tmp_path).cells[0]
    path = Path(cell["budget"])
    record = json.loads(path.read_text())
    less = 0.05 * record["iteration_ns"]["median"]
    record["host_ns"]["launch"]["median"] -= less
    record["residual_ns"]["host"] += less
    planted_records.overwrite(path, record)
    with pytest.raises(UserError, match=r"the host's parts leave \d\.\d% of the iteration, and no flag says so"):
        read_budget(path, cell)
    record["flags"].append("the host side leaves +5.0% of the iteration unexplained")
    planted_records.overwrite(path, record)
    assert read_budget(path, cell)["flags"]


def test_a_floor_follows_from_its_parts(maker):
    cell = maker.cells[0]
    path = maker.bound(cell, 0.1)
    edited(path, "floor", "floor_ms", value=0.01)
    with pytest.raises(UserError, match=r"its floor is 0\.01 ms, and the largest of its parts 0\.1 ms"):
        read_floor(path, cell)


def test_a_parity_record_is_of_the_graph_beside_it(tmp_path):
    paths = planted.evidence(tmp_path)
    graph = tmp_path / "results/onnx/distilbert/int8.json"
    shutil.copy(paths[1], graph)
    paths.append(graph)
    assert ("distilbert", "int8") in read_evidence(paths).parity
    edited(graph, "graph_sha256", value="cd" * 32)
    with pytest.raises(UserError, match=r"parity/distilbert/int8\.json is of another graph than the report beside it"):
        read_evidence(paths)


@pytest.mark.parametrize(
    ("place", "value", "flaw"),
    [
        (("data", "rows"), 5000, "5000 rows, 3 of them truncated, of 20"),
        (("data", "truncated"), 30, "20 rows, 30 of them truncated, of 20"),
        (("metrics", "only_cell_right"), 21, "only_cell_right is 21 of 20 rows"),
        (("metrics", "predictions"), [1], "it has no prediction for each of 20 rows"),
        (("metrics", "low"), 1.0, "lies outside of its interval"),
    ],
)
def test_metrics_are_of_so_many_rows(tmp_path, place, value, flaw):
    cell = Planted(tmp_path).classified("torch-eager", "fp32", lost=1, count=20)
    assert quality_row(read_quality(cell["quality"], cell))["rows"] == 20
    edited(Path(cell["quality"]), *place, value=value)
    with pytest.raises(UserError, match=flaw):
        read_quality(cell["quality"], cell)
