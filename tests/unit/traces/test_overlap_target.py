"""The process whose schedules are captured, on a simulated device, and the account that its capture becomes."""

import argparse
import types

import pytest

pytest.importorskip("cuda.bindings")

from unit import planted_overlap
from unit.measure import tiny_cell
from unit.measure.simulated_cuda import SimulatedCuda, runner

import account_overlap
from ceilings import records
from ceilings.errors import UserError
from ceilings.measure import lanes
from ceilings.measure.schedules import THREE, schedules
from ceilings.traces import overlap_target, store

CARD = types.SimpleNamespace(slug="nvidia-x", name="X", mig=None, multiprocessors=132, driver="580")


class Recorder:
    """What records, where nothing can be recorded."""

    def __init__(self):
        self.said = []

    def start(self):
        self.said.append("start")
        return lambda: self.said.append("("), lambda: self.said.append(")")

    def stop(self):
        self.said.append("stop")


def test_it_marks_each_request_and_the_last_wait_of_each_schedule(monkeypatch, tmp_path):
    device, recorder = SimulatedCuda().install(monkeypatch), Recorder()
    monkeypatch.setattr(overlap_target.gpu, "visible", lambda: CARD)
    monkeypatch.setattr(overlap_target.gpu, "refuse_other", lambda card, slug: None)
    monkeypatch.setattr(overlap_target, "recorder", lambda source, raw: recorder)
    monkeypatch.setattr(overlap_target, "neighbours", lambda card: [])
    for module in (lanes, overlap_target):
        monkeypatch.setattr(module, "make_runner", lambda task: runner(device))
    task = tiny_cell.make(tmp_path, [])
    found = overlap_target.run(
        {**task, "spec": {**task["spec"], "streams": [2]}, "source": "cupti", "raw": str(tmp_path / "raw")}
    )
    every = schedules([2])
    assert found["iterations"] == recorder.said.count("(") == len(every) * (overlap_target.REQUESTS + 1)
    assert recorder.said[0] == "start" and recorder.said[-1] == "stop"
    assert recorder.said[1:-1] == ["(", ")"] * found["iterations"]
    assert [one["name"] for one in found["schedules"]] == [one.name for one in every]


def accounted(tmp_path, **facts):
    capture = planted_overlap.capture()
    capture.meta.update(facts)
    store.write(tmp_path / "capture.sqlite", capture)
    account_overlap.work(argparse.Namespace(capture=tmp_path / "capture.sqlite", output=tmp_path / "hidden.json"))
    return records.read(tmp_path / "hidden.json", "hidden-copies")


CELL = {**planted_overlap.CELL, "shape": "b8-i224"}


def test_a_capture_becomes_a_record_without_the_flag_that_every_one_would_have(tmp_path):
    record = accounted(tmp_path, tool="CUPTI", cell=CELL, flags=["another process used the GPU"])
    assert record["status"] == "ok" and record["flags"] == ["another process used the GPU"]
    three = next(one for one in record["schedules"] if one["name"] == THREE)
    assert three["hidden_share"] == pytest.approx(1)


def test_a_cell_that_failed_has_an_account_of_why(tmp_path):
    record = accounted(tmp_path, tool="CUPTI", cell=CELL, failure={"kind": "parity", "message": "it differs"})
    assert record["status"] == "failed" and record["failure"]["kind"] == "parity"


def test_a_capture_that_lost_records_is_refused(tmp_path):
    with pytest.raises(UserError, match="lost 7 records"):
        accounted(tmp_path, tool="CUPTI", cell=CELL, dropped=7)
