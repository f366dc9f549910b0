"""What a study asks of co-locations: its groups, what is refused, and what each record depends on."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from ceilings.cuda import mps
from ceilings.errors import UserError
from ceilings.gpu import Gpu
from ceilings.host import Host
from ceilings.measure.colocation import Sharing
from ceilings.study.availability import Availability
from ceilings.study.colocations import Colocation, available_on, modules
from ceilings.study.progress import colocation_seconds
from ceilings.study.study import Study

STUDIES = Path(__file__).parents[3] / "studies"
LAPTOP = Host("cpu-test", "Test CPU", 3, None, "no CUDA device on this machine")
CARD = Gpu("nvidia-test", "Test", "GPU-1", "580.1", (9, 0), 80 << 30)
SERVER = Host("cpu-test", "Test CPU", 4, CARD, None)
TEXT, IMAGE = "onnxruntime-cpu/text/fp32/b1-s32", "onnxruntime-cpu/image/fp32/b1-i32"
ON_GPU = ["torch-cuda-eager/text/fp32/b1-s32", "torch-cuda-eager/text/tf32/b1-s32"]
CONFIG = {
    "study": "s",
    "models": {
        "text": {"architecture": "bert", "weights": "random"},
        "image": {"architecture": "vit", "task": "image-embedding", "config": {"image_size": 32, "patch_size": 16}},
        "words": {"architecture": "gpt2", "weights": "random"},
    },
    "sweeps": {
        "text": {
            **{"models": ["text"], "runtimes": ["onnxruntime-cpu", "torch-eager", "torch-cuda-eager"]},
            **{"precisions": ["fp32", "tf32"], "batches": [1], "sequences": [32]},
        },
        "image": {"models": ["image"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1]},
        "words": {
            **{"models": ["words"], "runtimes": ["torch-eager"], "precisions": ["fp32"]},
            "axes": {"batch": [1], "prompt": [8], "generated": [4]},
        },
    },
    "colocation": {
        "twins": {"cells": [TEXT, TEXT]},
        "pair": {"cells": [TEXT, IMAGE], "how": ["threads", "processes"], "cores": ["shared", "split"]},
    },
    "protocol": {"processes": 2},
}


def study(change=lambda config: None, host=LAPTOP):
    config = copy.deepcopy(CONFIG)
    change(config)
    return Study(config, host)


def group(**given):
    return lambda config: config.update(colocation={"pair": given})


def test_each_way_to_share_has_its_records():
    planned = study().colocated
    assert [(one.name, str(one.sharing)) for one in planned] == [
        ("twins", "threads"),
        *(("pair", way) for way in ("threads", "threads-split", "processes", "processes-split")),
    ]
    folder = "results/colocation/cpu-test/pair/processes-split"
    assert planned[-1].runs == (f"{folder}/run1.json", f"{folder}/run2.json")
    assert set(planned[-1].runs) <= set(study().targets.colocated_runs)
    plan = json.loads(study().plan())["colocation"]
    assert plan[1]["cells"] == [TEXT, IMAGE] and plan[-1]["cores"] == "split"
    assert "colocation" in study().targets.parts


def test_a_study_without_them_has_the_plan_that_it_had():
    def without(config):
        del config["colocation"]

    assert "colocation" not in json.loads(study(without).plan())
    assert "colocation" not in study(without).targets.parts


def test_a_record_depends_on_its_cells_and_on_nothing_of_another_group():
    before = study().slices.colocation("pair", "cpu-test")

    def more(config):
        config["colocation"]["twins"]["cells"] = [IMAGE, IMAGE]
        config["protocol"] = {"processes": 9, "max_seconds": 20}

    def three(config):
        config["colocation"]["pair"]["cells"] = [TEXT, IMAGE, TEXT]

    assert study(more).slices.colocation("pair", "cpu-test") == before
    assert study(three).slices.colocation("pair", "cpu-test") != before
    assert list(json.loads(before)["executions"]) == sorted([TEXT, IMAGE])
    assert study().slices.measure("onnxruntime-cpu", "text", "fp32", "cpu-test") == study(three).slices.measure(
        "onnxruntime-cpu", "text", "fp32", "cpu-test"
    )


def test_files_are_those_of_each_cell_once():
    files = study().colocated_files("twins", "cpu-test")
    assert list(files) == [TEXT]
    assert files[TEXT][0] == "results/onnx/text/fp32.onnx"
    with pytest.raises(UserError, match="no co-location is called 'twin', did you mean 'twins'"):
        study().colocated_files("twin", "cpu-test")


def test_more_instances_than_cores_cannot_split_them():
    four = group(cells=[TEXT] * 4, cores=["shared", "split"])
    shared, split = study(four).colocated
    assert shared.available and shared.runs
    assert (split.available.reason, split.runs) == ("3 cores cannot be split among 4 instances", ())


def test_records_of_another_environment_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    four = group(cells=[TEXT] * 4, cores=["split"])
    for run in (1, 2):
        path = tmp_path / f"results/colocation/cpu-test/pair/threads-split/run{run}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (split,) = study(four).colocated
    assert split.recorded and split.available and len(split.runs) == 2
    assert set(split.runs) <= set(study(four).targets.recorded_records)
    assert not study(four).targets.colocated_runs


def test_mps_is_listed_with_reason_and_remedy_where_its_program_is_missing(monkeypatch):
    monkeypatch.setattr(mps.shutil, "which", lambda name: None)
    one = Colocation("pair", "nvidia-test", Sharing("mps"), (ON_GPU[0],) * 2, Availability())
    lack = available_on(one, SERVER)
    assert (lack.reason, bool(lack)) == ("nvidia-cuda-mps-control is not there", False)
    assert "leave mps out" in lack.remedy
    monkeypatch.setattr(mps.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert available_on(one, SERVER)


def test_separate_cards_are_listed_with_reason_and_remedy_where_too_few_are_in_sight():
    one = Colocation("pair", "nvidia-test", Sharing("cards"), (ON_GPU[0],) * 2, Availability())
    lack = available_on(one, dataclasses.replace(SERVER, cards=1))
    assert lack.reason == "2 instances need 2 cards, and 1 of the kind can be seen"
    assert "CUDA_VISIBLE_DEVICES" in lack.remedy
    assert available_on(one, dataclasses.replace(SERVER, cards=2))
    assert available_on(one, SERVER)  # nobody counted


def elsewhere(*brought):
    """The study as it is where records of another processor were brought, run by run."""
    for path in brought:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    return study(lambda config: config.update(devices=["cpu-other"]))


def test_of_another_machine_the_runs_that_were_made_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = "results/benchmarks/cpu-other/torch-eager/text/fp32/b1-s32"
    shared = "results/colocation/cpu-other/pair/threads"
    made = elsewhere(f"{cell}/run1.json", f"{cell}/run2.json", f"{shared}/run1.json", f"{shared}-split/run2.json")
    assert [(str(one.sharing), one.runs, one.recorded) for one in made.colocated] == [
        ("threads", (f"{shared}/run1.json",), True)
    ]
    lacking = {one.identity: one.available.reason for one in made.cells if not one.available}
    assert lacking == dict.fromkeys(
        (TEXT, IMAGE), "0 of the 2 processes that protocol asks for are recorded of it on cpu-other"
    )


def test_ways_of_a_gpu_are_those_that_the_study_names():
    def on_gpu(config):
        config["colocation"] = {"pair": {"cells": [ON_GPU[0]] * 2, "how": ["processes", "mps"]}}

    planned = study(on_gpu, SERVER).colocated
    assert [(one.device, str(one.sharing)) for one in planned] == [("nvidia-test", "processes"), ("nvidia-test", "mps")]
    assert {"ceilings.cuda.mps", "ceilings.measure.gpu_watch"} <= set(modules("cuda"))
    assert not [name for name in modules("cpu") if "gpu" in name or "cuda" in name]


def test_a_run_takes_longer_with_more_windows():
    twins, pair = (next(one for one in study().colocated if one.name == name) for name in ("twins", "pair"))
    four = study(group(cells=[TEXT, TEXT, IMAGE, IMAGE])).colocated[0]
    protocol = study().config["protocol"]
    assert colocation_seconds(protocol, twins) == colocation_seconds(protocol, pair)
    assert colocation_seconds(protocol, four) > 2 * colocation_seconds(protocol, twins)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (group(cells=[TEXT]), r"colocation.pair.cells: .*has the length 1, which is below 2"),
        (group(cells=[TEXT, "text"]), r"colocation.pair.cells: 'text' names no cell; write RUNTIME/MODEL"),
        (group(cells=[TEXT, TEXT.replace("s32", "s33")]), r"b1-s33' is no cell of the study, did you mean"),
        (group(cells=[TEXT, TEXT], how=["fork"]), r'colocation.pair.how.0: "fork" is not allowed'),
        (group(cells=[TEXT, TEXT], how=["mps"]), r"colocation.pair.how: mps is a service of CUDA"),
        (group(cells=[TEXT, TEXT], how=["cards"]), r"colocation.pair.how: cards are GPUs"),
        (group(cells=[TEXT, ON_GPU[0]]), r"run on two devices; make two groups"),
        (group(cells=[ON_GPU[0]] * 2, cores=["split"]), r"colocation.pair.cores: its cells run on a GPU"),
        (group(cells=ON_GPU), r"fp32 and tf32 cannot be threads of one; write processes"),
        (group(cells=["torch-eager/words/fp32/b1-p8-g4"] * 2), r"generates text, whose instances are not co-located"),
        (group(cells=[TEXT, TEXT], core=["split"]), r"unknown key 'core', did you mean 'cores'"),
    ],
)
def test_what_cannot_be_is_refused_while_planning(change, problem):
    with pytest.raises(UserError, match=problem):
        study(change)


@pytest.mark.parametrize(
    ("name", "device", "count"), [("colocation-cpu", "cpu-test", 10), ("colocation", "nvidia-test", 18)]
)
def test_the_ready_made_studies_ask_for_two_and_four_instances(name, device, count):
    planned = Study(yaml.safe_load((STUDIES / f"{name}.yaml").read_text()), SERVER).colocated
    assert [one.device for one in planned] == [device] * count
    assert {len(one.cells) for one in planned} == {2, 4}
    assert {len(set(one.cells)) for one in planned} == {1, 2}
