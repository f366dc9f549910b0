"""What a study asks of copies beside compute: which cells, what is refused, and what each record depends on."""

import copy
import json

import pytest

from ceilings.errors import UserError
from ceilings.gpu import Gpu
from ceilings.host import Host
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study import availability
from ceilings.study.cells import Planner
from ceilings.study.overlaps import ON_GIVEN_STREAMS, why_not
from ceilings.study.progress import overlap_seconds
from ceilings.study.study import Study

CARD = Gpu("nvidia-test", "Test", "GPU-1", "580.1", (9, 0), 80 << 30)
SERVER = Host("cpu-test", "Test CPU", 4, CARD, None)
CONFIG = {
    "study": "s",
    "models": {
        "image": {"architecture": "vit", "task": "image-embedding", "config": {"image_size": 32, "patch_size": 16}},
        "words": {"architecture": "gpt2", "weights": "random"},
    },
    "sweeps": {
        "image": {
            **{"models": ["image"], "precisions": ["fp32"], "batches": [1, 8]},
            "runtimes": [
                *("torch-cudagraph", "onnxruntime-cuda", "onnxruntime-cuda-noio", "torch-compile", "torch-eager"),
            ],
        },
        "words": {
            **{"models": ["words"], "runtimes": ["torch-cudagraph"], "precisions": ["fp32"]},
            "axes": {"batch": [1], "prompt": [8], "generated": [4]},
        },
    },
    "overlap": {"cells": ["torch-cudagraph/image/*", "onnxruntime-cuda/image/fp32/b8-*"], "streams": [2, 8]},
    "protocol": {"processes": 2},
    "weights": "random",
}
IDENTITY = "torch-cudagraph/image/fp32/b1-i32"


def study(change=lambda config: None):
    config = copy.deepcopy(CONFIG)
    change(config)
    return Study(config, SERVER)


@pytest.fixture
def everything(monkeypatch):
    """A machine that has every package."""
    monkeypatch.setattr(Planner, "availability", lambda *_: availability.Availability())


def test_each_cell_has_its_runs_and_its_account(everything):
    made = study()
    made.trace_source = ("cupti", None)
    assert [(one.runtime, one.shape) for one in made.overlaps] == [
        ("torch-cudagraph", "b1-i32"),
        ("torch-cudagraph", "b8-i32"),
        ("onnxruntime-cuda", "b8-i32"),
    ]
    folder = f"results/overlap/nvidia-test/{IDENTITY}"
    first = made.overlaps[0]
    assert first.records == (f"{folder}/run1.json", f"{folder}/run2.json", f"{folder}/hidden.json")
    assert set(first.records) <= set(made.targets.overlap_records)
    planned = json.loads(made.plan())["overlap"]
    assert planned[0]["hidden"] == f"{folder}/hidden.json" and planned[0]["available"]
    assert "overlap" in made.targets.parts


def test_without_a_recorder_there_is_no_account(everything):
    made = study()
    made.trace_source = (None, "no recorder")
    assert {one.hidden for one in made.overlaps} == {None}


def test_a_machine_without_the_packages_says_what_is_missing():
    planned = json.loads(study().plan())["overlap"]
    assert not planned[0]["available"] and planned[0]["reason"] and planned[0]["runs"] == []
    assert study().targets.overlap_records == []


def test_records_of_another_environment_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/overlap/nvidia-test" / IDENTITY
    folder.mkdir(parents=True)
    for name in ("run1", "run2", "hidden"):
        (folder / f"{name}.json").write_text("{}")
    one = study().overlaps[0]
    assert one.recorded and len(one.records) == 3
    assert set(one.records) <= set(study().targets.recorded_records)


def test_of_another_machine_they_need_no_latency_of_their_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured = "benchmarks/nvidia-other/onnxruntime-cuda/image/fp32/b1-i32"
    copies = f"overlap/nvidia-other/{IDENTITY}"
    for path in (f"{measured}/run1.json", f"{measured}/run2.json", f"{copies}/run1.json", f"{copies}/hidden.json"):
        (tmp_path / "results" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / path).write_text("{}")
    (one,) = study(lambda config: config.update(devices=["nvidia-other"])).overlaps
    assert one.recorded and one.records == (f"results/{copies}/run1.json", f"results/{copies}/hidden.json")


def test_a_study_without_it_has_the_plan_that_it_had():
    assert "overlap" not in json.loads(study(lambda config: config.pop("overlap")).plan())


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["torch-eager/image/*"], "fits torch-eager, which runs on the CPU, where nothing is copied; choose"),
        (["onnxruntime-cuda-noio/*"], "copies within the call that computes, and waits"),
        (["torch-compile/*"], "holds compiled code that belongs to one thread and stream"),
        (["torch-cudagraph/words/*"], "fits 'words', which generates text; name others"),
        (["torch-cudagraf/*"], "fits no cell of the study, allowed: torch-cudagraph"),
    ],
)
def test_what_cannot_be_is_refused_with_its_remedy(cells, problem):
    with pytest.raises(UserError, match=problem):
        study(lambda config: config.update(overlap={"cells": cells}))


def test_numbers_of_streams_that_would_hide_a_wrong_answer_are_refused():
    with pytest.raises(UserError, match=r"overlap\.streams"):
        study(lambda config: config["overlap"].update(streams=[7]))


def test_runtimes_that_run_are_those_whose_streams_are_given():
    able = {name for name, runtime in RUNTIMES.items() if why_not(runtime) is None}
    assert {"torch-cuda-eager", "torch-cudagraph", "onnxruntime-cuda-fused-graph", "ceilings-fused"} <= able
    assert {RUNTIMES[name].module for name in able} == set(ON_GIVEN_STREAMS)


def test_records_depend_on_streams_and_windows_and_captures_on_no_window():
    made, wider = study(), study(lambda config: config["overlap"].update(streams=[2]))
    longer = study(lambda config: config["protocol"].update(min_seconds=3, max_seconds=9))

    def slices(one):
        return (
            one.slices.overlap("torch-cudagraph", "image", "fp32", "nvidia-test"),
            one.slices.overlap_trace("torch-cudagraph", "image", "nvidia-test"),
        )

    assert all(a != b for a, b in zip(slices(made), slices(wider), strict=True))
    assert [a == b for a, b in zip(slices(made), slices(longer), strict=True)] == [False, True]


def test_more_streams_take_longer():
    protocol = study().config["protocol"]
    assert overlap_seconds(protocol, [2]) < overlap_seconds(protocol, [2, 4, 8])
