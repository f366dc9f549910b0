"""Which cells of changing shapes a study has captured, and what their captures depend on."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from unit.study.test_changing_cells import CONFIG, ELSEWHERE, FOLDER, LAPTOP, brought, study

from ceilings.errors import UserError
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import Availability
from ceilings.study.changing_captures import changes
from ceilings.study.study import Study


def capturing(*patterns):
    return study(lambda config: config["changing"].update(captures=list(patterns)))


def test_cells_of_a_pattern_are_captured_and_stand_in_plan_and_targets():
    one = capturing("onnxruntime-cpu/*")
    path = f"{FOLDER}/change.json"
    assert [each["path"] for each in one.changes] == one.targets.changes == [path]
    assert json.loads(one.plan())["changes"] == [
        {
            **{"device": "cpu-test", "runtime": "onnxruntime-cpu", "model": "text", "precision": "fp32"},
            **{"sequence": "mixed", "path": path},
        }
    ]


def test_a_study_that_asks_for_none_has_the_plan_that_it_had():
    assert "captures" not in CONFIG["changing"] and "changes" not in json.loads(study().plan())


def test_a_pattern_that_fits_none_of_the_changing_cells_is_refused():
    with pytest.raises(UserError, match=r"changing.captures: 'onnxruntime-cpu/image/\*' fits none of changing.cells"):
        capturing("onnxruntime-cpu/image/*")


def test_a_card_s_cells_are_captured_where_something_records():
    one = capturing("*")
    cell = dataclasses.replace(one.changing[0], runtime="onnxruntime-cuda", device="gpu-x", available=Availability())
    assert [len(changes(one.config, [cell], one.paths, traced=traced)) for traced in (False, True)] == [0, 1]


def test_a_cell_that_cannot_run_is_not_captured():
    one = capturing("*")
    lacking = dataclasses.replace(one.changing[0], available=Availability("no package", "install it"))
    assert changes(one.config, [lacking], one.paths, traced=True) == []


@pytest.mark.parametrize("came", [True, False])
def test_what_was_captured_elsewhere_is_read_where_it_came_and_never_made(tmp_path, came):
    folder = brought(tmp_path, "run1.json", "run2.json", *(["change.json"] if came else []))
    config = copy.deepcopy(CONFIG) | {"devices": [ELSEWHERE], "protocol": {"processes": 2}}
    config["changing"]["captures"] = ["*"]
    one = Study(config, LAPTOP, str(tmp_path))
    paths = [f"{folder}/change.json"] if came else []
    assert one.targets.changes == [] and [each["path"] for each in json.loads(one.plan()).get("changes", [])] == paths
    assert set(paths) <= set(one.targets.recorded_records)


@pytest.mark.parametrize(("runtime", "source"), [("onnxruntime-cpu", "onnxruntime"), ("torch-eager", "torch")])
def test_a_cpu_s_capture_comes_from_the_framework_s_profiler(runtime, source):
    given = json.loads(capturing("*").slices.changing_trace(runtime, "text", "mixed"))
    assert given["source"] == source and given["module"] == RUNTIMES[runtime].changing
    assert given["requests"]["shapes"] == ["b1-s16", "b1-s32", "b2-s16", "b2-s32"]


def test_a_capture_depends_on_its_requests_and_not_on_how_long_cells_are_timed():
    def sliced(change):
        return study(change).slices.changing_trace("onnxruntime-cpu", "text", "mixed")

    assert sliced(lambda config: config.update(protocol={"max_seconds": 99})) == sliced(lambda config: None)
    assert sliced(lambda config: config["sequences"]["mixed"].update(requests=12)) != sliced(lambda config: None)
