"""What a study asks of searches for the best batch: which there are, what is refused, what each record depends on."""

import copy
import json
from pathlib import Path

import pytest

from ceilings.errors import UserError
from ceilings.host import Gpu, Host
from ceilings.statistics.quantiles import minimum_samples
from ceilings.study import batch_searches, code
from ceilings.study.paths import Paths
from ceilings.study.study import Study
from ceilings.workload.batches import rest_of, shape_of
from ceilings.workload.shape import Shape

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
CONFIG = {
    "study": "s",
    "models": {
        "text": {"architecture": "bert", "config": {"max_position_embeddings": 64}, "weights": "random"},
        "image": {"architecture": "vit", "task": "image-embedding", "config": {"image_size": 32, "patch_size": 16}},
        "words": {"architecture": "gpt2", "weights": "random"},
    },
    "sweeps": {
        "text": {
            "models": ["text"],
            "runtimes": ["onnxruntime-cpu", "torch-eager"],
            "precisions": ["fp32"],
            "batches": [1, 4],
            "sequences": [32, 64],
        },
        "image": {"models": ["image"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1]},
    },
    "protocol": {"processes": 3},
    "best_batch": {"cells": ["*/text/fp32/s32"], "limit_ms": 20},
}
NAMES = ("onnxruntime-cpu", "text", "fp32")
RECORD = "results/best_batch/cpu-test/onnxruntime-cpu/text/fp32/s32.json"


def study(change=lambda config: None, host=LAPTOP):
    config = copy.deepcopy(CONFIG)
    change(config)
    return Study(config, host)


def asking(**given):
    return lambda config: config["best_batch"].update(given)


def without(*keys):
    def change(config):
        for key in keys:
            del config["best_batch"][key]

    return change


@pytest.mark.parametrize("name", ["b8-s32", "b1-s32.short", "b4-i224", "b2", "b8-frames300"])
def test_a_shape_is_its_rest_at_its_batch(name):
    shape = Shape.parse(name)
    assert shape_of(rest_of(shape), shape.batch) == shape


def test_a_pattern_names_cells_less_their_batch_each_once():
    planned = study().searches
    assert [one.identity for one in planned] == ["onnxruntime-cpu/text/fp32/s32", "torch-eager/text/fp32/s32"]
    assert planned[0].record == RECORD and study().targets.search_records[0] == RECORD
    assert json.loads(study().plan())["best_batch"][0]["rest"] == "s32"
    assert "searches" in study().targets.parts


def test_of_another_machine_it_needs_no_latency_of_its_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured, record = "benchmarks/cpu-other/onnxruntime-cpu/image/fp32/b1-i32", RECORD.replace("test", "other")
    paths = [*(tmp_path / "results" / measured / f"run{run}.json" for run in (1, 2, 3)), tmp_path / record]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    made = study(lambda config: config.update(devices=["cpu-other"]))
    assert [(one.record, one.recorded, bool(one.available)) for one in made.searches] == [(record, True, True)]
    assert record in made.targets.recorded_records and made.targets.search_records == []


def test_an_image_has_a_rest_of_its_own():
    assert study(asking(cells=["*/image/*"])).searches[0].rest == "i32"


def test_a_study_without_the_section_searches_nothing():
    plain = study(lambda config: config.pop("best_batch"))
    assert plain.searches == [] and "best_batch" not in json.loads(plain.plan())
    assert "searches" not in plain.targets.parts


def test_a_record_depends_on_what_is_searched_and_on_nothing_else():
    before = study().slices.best_batch(*NAMES)
    assert json.loads(before)["search"] == {
        **{"limit_ms": 20, "limit_times": None, "percentile": "p50", "most": 128, "multiple": 1},
        "processes": 3,
    }
    assert json.loads(before)["measurements"] == [["closed-loop", "closed_loop"]]

    def elsewhere(config):
        config["sweeps"]["text"]["batches"] = [1, 2]
        config["best_batch"]["cells"] += ["*/image/*"]
        config["protocol"]["measurements"] = []
        config["targets"] = {"latency_ms": 5}

    assert study(elsewhere).slices.best_batch(*NAMES) == before
    for change in (asking(limit_ms=10), asking(most=64), asking(multiple=8), asking(percentile="p90")):
        assert study(change).slices.best_batch(*NAMES) != before


def test_a_record_depends_on_the_code_that_a_search_runs_by_name():
    modules = (
        *("make_inputs", "compute_reference", "ceilings.measure.supervisor", "ceilings.measure.worker"),
        *("ceilings.measure.cpu_bench", "ceilings.measure.measurements.closed_loop"),
        *("ceilings.runtimes.onnxruntime_cpu", "ceilings.models.families.text_encoder"),
    )
    assert json.loads(study().slices.best_batch(*NAMES))["code"] == code.digest(*modules)
    assert json.loads(study().slices.best_batch("torch-eager", "text", "fp32"))["module"] == "torch_cpu"


def test_the_limit_of_the_study_s_targets_is_the_default():
    def target(config):
        del config["best_batch"]["limit_ms"]
        config["targets"] = {"latency_ms": 5}

    assert json.loads(study(target).slices.best_batch(*NAMES))["search"]["limit_ms"] == 5

    def times(config):
        target(config)
        config["best_batch"]["limit_times"] = 4

    search = json.loads(study(times).slices.best_batch(*NAMES))["search"]
    assert (search["limit_ms"], search["limit_times"]) == (None, 4)


def words(config):
    config["sweeps"]["words"] = {
        **{"models": ["words"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"]},
        "axes": {"batch": [1], "prompt": [8], "generated": [8]},
    }
    config["best_batch"]["cells"] = ["*/words/*"]


def fixed(config):
    config["export"] = {"axes": {"batch": 4, "sequence": 32}}
    config["sweeps"] = {"text": {**config["sweeps"]["text"], "batches": [4], "sequences": [32]}}


def protocol(**given):
    return lambda config: config["protocol"].update(given)


def tail(config):
    config["best_batch"]["percentile"] = "p99"
    config["protocol"]["min_iterations"] = 100


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (asking(cells=["*/text/fp32/s33"]), r"'\*/text/fp32/s33' fits no cell of the study less its batch"),
        (asking(cells=[]), r"best_batch.limit_ms: needs best_batch.cells"),
        (asking(limit_times=3), r"limit_ms and limit_times are two limits"),
        (without("limit_ms"), r"best_batch: says no limit; add limit_ms: 20"),
        (asking(most=4, multiple=8), r"best_batch.multiple: 8 is more than most, 4"),
        (asking(percentile="p42"), r"percentile"),
        (words, r"'words', which generates text; name others"),
        (fixed, r"'text', which runs at batch 4 alone; name others, or set export.axes to dynamic"),
        (protocol(processes=2), r"decides by intervals over processes; set protocol: \{processes: 3\}"),
        (tail, r"p99 needs 662 iterations in all, and 3 processes have 300 at least; .*\{min_iterations: 221\}"),
    ],
)
def test_what_cannot_be_is_refused_with_its_remedy(change, problem):
    with pytest.raises(UserError, match=problem):
        study(change)


def test_planning_knows_how_many_iterations_carry_a_percentile():
    shares = {name: int(name[1:]) / 100 for name in batch_searches.NEEDED if name != "p50"}
    assert {name: minimum_samples(share) for name, share in shares.items()} == {
        name: batch_searches.NEEDED[name] for name in shares
    }


def test_a_runtime_of_engines_is_listed_with_the_reason():
    gpu = Gpu("nvidia-test", "Test GPU", "GPU-1", "580.1", (9, 0), 1 << 36, 132)

    def on_gpu(config):
        config["sweeps"]["text"]["runtimes"] = ["onnxruntime-cuda-graph", "tensorrt"]

    planned = {one.runtime: one for one in study(on_gpu, Host("cpu-test", "Test CPU", 4, gpu, None)).searches}
    assert "executes engines that are built before anything is measured" in planned["tensorrt"].available.reason
    assert planned["tensorrt"].record is None
    assert "engines" not in (planned["onnxruntime-cuda-graph"].available.reason or "")


def test_a_search_of_another_device_is_read_and_never_made(tmp_path):
    paths = Paths(str(tmp_path))
    runs = [paths.run("cpu-other", *NAMES, "b1-s32", process=number) for number in (1, 2, 3)]
    record = paths.best_batch("cpu-other", *NAMES, "s32")
    for path in map(Path, (*runs, record)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    brought = Study({**copy.deepcopy(CONFIG), "devices": ["cpu-other"]}, LAPTOP, str(tmp_path))
    (one,) = brought.searches
    assert one.recorded and one.record == record
    assert brought.targets.search_records == [] and record in brought.targets.recorded_records


def test_a_search_that_the_study_does_not_have_is_refused_by_name():
    with pytest.raises(UserError, match="no search of this study is 'onnxruntime-cpu/text/fp32/s64'"):
        study().searched_artifact(*NAMES, "s64", "cpu-test")
    assert study().searched_artifact(*NAMES, "s32", "cpu-test")[0] == "results/onnx/text/fp32.onnx"
