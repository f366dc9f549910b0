"""Cautions about cells that are no steady state, by their samples and by their captures."""

from __future__ import annotations

import dataclasses

import pytest
from unit.report import planted_study
from unit.traces import planted

from ceilings import records
from ceilings.report.analysis.cautions import cautions
from ceilings.report.analysis.measured import Measured
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.traces.budget_record import budget_record


def lines(tables, words):
    return [line for line in cautions(Measured(tables), [], Evidence()) if words in line]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    maker = planted_study.StudyMaker(tmp_path_factory.mktemp("study"), lambda *_: 1.0)
    for runtime in ("torch-cuda-eager", "onnxruntime-cuda"):
        maker.add(planted_study.GPU, runtime, "fp16", 1, 128)
    return collect(maker.plan())


def test_cells_without_a_turn_have_no_line(tables):
    assert lines(tables, "fixed turn") == []


@pytest.mark.parametrize(("runs", "shown"), [((1, 2, 3), True), ((1, 2), False)])
def test_a_slower_iteration_in_each_turn_of_every_process_is_said(tables, runs, shown):
    samples = tables.samples.copy()
    slow = (samples["runtime"] == "onnxruntime-cuda") & samples["run"].isin(runs) & (samples["i"] % 8 == 5)
    samples.loc[slow & (samples["series"] == "latency"), "latency_ns"] *= 3
    found = lines(dataclasses.replace(tables, samples=samples), "fixed turn")
    assert len(found) == shown
    if shown:
        assert "**1 cell with a slower iteration in a fixed turn**" in found[0] and "one of 8 takes" in found[0]


def test_captures_whose_iterations_differ_are_counted(tmp_path):
    def unsteady(events, begin, stretch):
        if stretch > 1.4:
            events.call(begin + 1, begin + 31, "cudaMalloc_v3020")
        return planted.graph(events, begin + 40, stretch)

    maker = planted.study(tmp_path)
    assert lines(collect(maker.plan()), "not alike") == []
    path = maker.cells[1]["budget"]
    records.write(path, "budget", records.read(path, "budget") | budget_record(planted.capture(unsteady)))
    (line,) = lines(collect(maker.plan()), "not alike")
    assert line.startswith("1 of 2 captures")


@pytest.mark.parametrize(
    ("host_us", "words"),
    [
        ((20.0, 20.0, 31.0), "In 1 of 1 the host was slower in the slow process too: fixed work took 1.55× as long"),
        ((20.0, 20.0, 20.5), "A thread of the host was as fast in the slow processes as in the fast ones: its speed is not why."),
        ((20.0, None, 31.0), "differ by more than 10%."),
    ],
)
def test_processes_that_differ_with_the_host_are_told_from_others(tables, host_us, words):
    runs, cells = tables.runs.copy(), tables.cells.copy()
    of = runs["runtime"] == "onnxruntime-cuda"
    runs.loc[of, "p50_ms"] = [1.0, 1.0, 1.5]
    runs.loc[of, "host_us"] = host_us
    cells.loc[cells["runtime"] == "onnxruntime-cuda", "process_spread"] = 0.5
    (line,) = lines(dataclasses.replace(tables, runs=runs, cells=cells), "have processes that differ")
    assert words in line and (host_us[1] is not None or line.endswith("more than 10%."))
