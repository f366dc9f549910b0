"""What a study asks for, what is refused, and what each file depends on."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from ceilings.errors import UserError
from ceilings.host import Gpu, Host
from ceilings.models.catalogue import ARCHITECTURES
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import Availability
from ceilings.study.cells import Study
from ceilings.study.config import SCHEMA, refuse_duplicate_keys
from ceilings.study.variants import counted_work, graph_name

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
GPU = Gpu("nvidia-test", "NVIDIA Test", "GPU-0", "580.1", (9, 0), 80 << 30)
SWEEP = {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1], "sequences": [32]}
CONFIG = {"study": "s", "models": {"m": {"architecture": "distilbert"}}, "sweeps": {"one": SWEEP}}


def with_sweep(**changes):
    return {**CONFIG, "sweeps": {"one": {**SWEEP, **changes}}}


def test_union_of_sweeps_has_each_cell_once():
    config = copy.deepcopy(CONFIG)
    config["sweeps"]["two"] = {**SWEEP, "batches": [1, 2]}
    cells = [cell for cell in Study(config, LAPTOP).cells if not cell.twin_of]
    assert [(str(cell.shape), cell.sweeps) for cell in cells] == [("b1-s32", ("one", "two")), ("b2-s32", ("two",))]


def test_every_study_measures_one_cell_twice():
    study = Study(CONFIG, LAPTOP)
    cell, twin = study.cells
    assert twin.twin_of == cell.runtime and twin.spec is cell.spec
    assert dataclasses.replace(twin, runtime=cell.runtime, runs=cell.runs) == cell
    assert not set(cell.runs) & set(twin.runs)


def test_noise_cell_can_be_named():
    config = {**with_sweep(batches=[1, 2]), "noise_cells": ["onnxruntime-cpu/m/fp32/b2-s32"]}
    assert [str(cell.shape) for cell in Study(config, LAPTOP).cells if cell.twin_of] == ["b2-s32"]
    with pytest.raises(UserError, match=r"'onnxruntime-cpu/m/fp32/b3-s32' is no cell.*did you mean"):
        Study({**config, "noise_cells": ["onnxruntime-cpu/m/fp32/b3-s32"]}, LAPTOP)


def test_cells_that_cannot_run_are_kept_with_reason_and_remedy(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "gpu-runtime", dataclasses.replace(RUNTIMES["onnxruntime-cpu"], device="cuda"))
    monkeypatch.setitem(
        RUNTIMES, "no-package", dataclasses.replace(RUNTIMES["onnxruntime-cpu"], packages=("no-such-thing",))
    )
    study = Study(with_sweep(runtimes=["onnxruntime-cpu", "gpu-runtime", "no-package"]), LAPTOP)
    by_runtime = {cell.runtime: cell for cell in study.cells}
    assert by_runtime["gpu-runtime"].available.reason == "no CUDA device on this machine"
    assert by_runtime["no-package"].available.reason == "package no-such-thing is not installed"
    assert by_runtime["no-package"].available.remedy == "pip install no-such-thing"
    assert by_runtime["gpu-runtime"].runs == () and by_runtime["gpu-runtime"].device is None
    assert all("onnxruntime-cpu" in run for run in study.runs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG, "protocoll": {}}, r"unknown key 'protocoll', did you mean 'protocol'\?"),
        ({**CONFIG, "protocol": {"proceses": 3}}, r"protocol: unknown key 'proceses', did you mean 'processes'\?"),
        ({**CONFIG, "protocol": {"processes": 0}}, r"protocol.processes: 0 is less than the minimum of 1"),
        ({**CONFIG, "weights": "hub"}, r'weights: "hub" is not allowed; allowed: auto, pretrained, random'),
        ({**CONFIG, "study": "a/b"}, r'study: "a/b" is not allowed here; use lower-case'),
        ({**CONFIG, "models": {"m; rm -rf": {"architecture": "bert"}}}, r'"m; rm -rf" is not allowed here'),
        ({**CONFIG, "models": {"m": {"architecture": "distillbert"}}}, r"did you mean 'distilbert'\?"),
        (with_sweep(runtimes=["onnxruntime-cpuu"]), r"'onnxruntime-cpuu' is unknown, did you mean 'onnxruntime-cpu'\?"),
        (with_sweep(precisions=["fp33"]), r"'fp33' is unknown, did you mean 'fp32'\?"),
        (with_sweep(models=["n"]), r"sweeps.one.models: 'n' is unknown, allowed: m"),
        (with_sweep(batches=[0]), r"sweeps.one.batches.0: 0 is less than the minimum of 1"),
        (with_sweep(batches=[1, 1]), r"sweeps.one.batches: 1 stands there more than once"),
        (with_sweep(sequences=[513]), r"513 is longer than the 512 positions of 'm'"),
        (with_sweep(runtimes=["torch-int8-dynamic"]), r"'torch-int8-dynamic' runs none of fp32; it runs int8"),
        ({**CONFIG, "export": {"axes": {"batch": 2}}}, r"batch 1 cannot run on a graph exported with batch fixed to 2"),
        ({k: v for k, v in CONFIG.items() if k != "sweeps"}, r"top level: missing 'sweeps'"),
    ],
)
def test_bad_study_is_one_message_that_names_key_value_and_remedy(config, message):
    with pytest.raises(UserError, match=message):
        Study(config, LAPTOP)


def test_all_problems_are_named_at_once():
    with pytest.raises(UserError) as caught:
        Study(with_sweep(models=["n"], runtimes=["x"], sequences=[32]), LAPTOP)
    assert "'n' is unknown" in str(caught.value) and "'x' is unknown" in str(caught.value)


def test_duplicate_keys_are_refused(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("models:\n  a: {architecture: bert}\n  a: {architecture: distilbert}\n")
    with pytest.raises(UserError, match=r"line 3: 'a' stands here twice"):
        refuse_duplicate_keys(file)


def test_positions_of_a_local_model_come_from_its_own_configuration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 16}))
    local = {**CONFIG, "models": {"m": {"architecture": "distilbert", "weights": {"path": str(tmp_path)}}}}
    with pytest.raises(UserError, match="32 is longer than the 16 positions"):
        Study(local, LAPTOP)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"models\.m\.weights\.path: .* holds no readable config\.json"):
        Study(local, LAPTOP)


def test_results_of_another_device_are_shown_and_never_made(tmp_path):
    gpu_sweep = with_sweep(runtimes=["onnxruntime-cpu"])
    results = str(tmp_path)
    elsewhere = Study(gpu_sweep, dataclasses.replace(LAPTOP, cpu_slug="cpu-other"), results)
    for run in elsewhere.runs:
        path = tmp_path / run.removeprefix(results + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    here = Study({**gpu_sweep, "devices": ["auto", "cpu-other"]}, LAPTOP, results)
    recorded = [cell for cell in here.cells if cell.device == "cpu-other"]
    assert [cell.runs for cell in recorded] == [cell.runs for cell in elsewhere.cells]
    assert not set(here.runs) & {run for cell in recorded for run in cell.runs}

    # Without "auto" this machine takes no part; what came with the records is evidence, and nothing is made.
    parity = tmp_path / "parity" / "m" / "fp32.json"
    parity.parent.mkdir(parents=True)
    parity.write_text("{}")
    alone = Study({**gpu_sweep, "devices": ["cpu-other"]}, LAPTOP, results)
    assert {cell.device for cell in alone.cells} == {"cpu-other"}
    assert alone.recorded_evidence == [str(parity)]
    assert not (alone.runs or alone.evidence or alone.floors)


def test_slices_are_cut_to_what_each_file_depends_on():
    plain = Study(CONFIG, LAPTOP)
    more_processes = Study({**CONFIG, "protocol": {"processes": 7}}, LAPTOP)
    longer = Study({**CONFIG, "protocol": {"min_seconds": 7}}, LAPTOP)
    assert plain.measure_slice("onnxruntime-cpu", "fp32") == more_processes.measure_slice("onnxruntime-cpu", "fp32")
    assert plain.measure_slice("onnxruntime-cpu", "fp32") != longer.measure_slice("onnxruntime-cpu", "fp32")
    assert plain.weights_slice("m") == longer.weights_slice("m")
    tighter = Study({**CONFIG, "parity": {"int8": 0.1}}, LAPTOP)
    assert plain.measure_slice("onnxruntime-cpu", "fp32") == tighter.measure_slice("onnxruntime-cpu", "fp32")
    assert plain.measure_slice("onnxruntime-cpu", "int8") != tighter.measure_slice("onnxruntime-cpu", "int8")


def test_precision_names_the_stored_graph():
    runtime = RUNTIMES["onnxruntime-cpu"]
    assert graph_name(runtime, "tf32") == "fp32"
    assert graph_name(dataclasses.replace(runtime, executes="fused"), "fp16") == "fp16.fused"
    assert graph_name(RUNTIMES["torch-eager"], "fp32") is None


def test_schema_knows_the_same_architectures_as_the_catalogue():
    allowed = SCHEMA["properties"]["models"]["additionalProperties"]["properties"]["architecture"]["enum"]
    assert allowed == list(ARCHITECTURES)


def test_cells_of_a_gpu_have_the_floor_of_their_graph(monkeypatch, tmp_path):
    monkeypatch.setattr("ceilings.study.cells.availability", lambda *_: Availability())
    config = with_sweep(runtimes=["torch-cuda-eager", "onnxruntime-cuda-fused"], precisions=["tf32"])
    config["sweeps"]["cpu"] = {**SWEEP, "runtimes": ["onnxruntime-cpu"]}
    study = Study(config, dataclasses.replace(LAPTOP, gpu=GPU), str(tmp_path))
    floor = f"{tmp_path}/floors/nvidia-test/m/tf32/b1-s32.json"
    assert study.floors == [floor]
    assert {cell.floor for cell in study.measured} == {floor, None}
    assert all((cell.floor is None) == (cell.spec.device == "cpu") for cell in study.measured)
    assert study.counted_graph("m", "tf32") == f"{tmp_path}/onnx/m/fp32.onnx"
    assert study.counted_graph("m", "int8.half") == f"{tmp_path}/onnx/m/int8.half.onnx"

    # Elsewhere a recorded floor is shown and never made.
    for run in study.runs:
        Path(run).parent.mkdir(parents=True, exist_ok=True)
        Path(run).touch()
    away = {**config, "devices": ["auto", "nvidia-test"]}
    assert {cell.floor for cell in Study(away, LAPTOP, str(tmp_path)).cells} == {None}
    Path(floor).parent.mkdir(parents=True)
    Path(floor).touch()
    here = Study(away, LAPTOP, str(tmp_path))
    assert {cell.floor for cell in here.cells if cell.device == "nvidia-test"} == {floor}
    assert here.floors == []


@pytest.mark.parametrize(
    ("runtime", "precision", "work"),
    [
        ("torch-cuda-eager", "fp16", "fp16"),
        ("onnxruntime-cuda-fused-graph", "fp16", "fp16"),
        ("onnxruntime-cuda", "tf32", "tf32"),
        ("onnxruntime-cuda", "int8", "int8"),
        ("tensorrt", "fp16", "fp16"),
        ("tensorrt-profile", "tf32", "tf32"),
        ("tensorrt", "int8", "int8.half"),
        ("onnxruntime-tensorrt-graph", "int8", "int8.half"),
        ("onnxruntime-tensorrt-rtx", "fp8", "fp8.half"),
        ("tensorrt-rtx", "tf32", "tf32"),
        ("tensorrt-trtexec", "fp16", None),  # nobody knows what is in it
        ("onnxruntime-cpu", "int8", None),
    ],
)
def test_a_cell_is_bounded_by_the_graph_that_it_executes(runtime, precision, work):
    assert counted_work(RUNTIMES[runtime], precision) == work


def test_a_cell_on_an_engine_names_the_record_of_it(monkeypatch, tmp_path):
    monkeypatch.setattr("ceilings.study.cells.availability", lambda *_: Availability())
    config = with_sweep(runtimes=["tensorrt", "tensorrt-graph", "onnxruntime-cuda"], precisions=["int8"])
    study = Study(config, dataclasses.replace(LAPTOP, gpu=GPU), str(tmp_path))
    record = f"{tmp_path}/engines/nvidia-test/tensorrt11/m/int8/b1-s32.json"
    assert study.engine_records == [record]
    named = {cell["runtime"]: cell["engine"] for cell in json.loads(study.plan())["cells"] if not cell["twin_of"]}
    assert named == {"tensorrt": record, "tensorrt-graph": record, "onnxruntime-cuda": None}


# --- captures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu_study(monkeypatch):
    """A study on a GPU host where every package is there and nsys is not."""
    monkeypatch.setattr("ceilings.study.cells.availability", lambda *_: Availability())
    monkeypatch.setattr(
        "ceilings.traces.source.missing", lambda name: "nsys is not on PATH" if name == "nsys" else None
    )

    def study(**traces):
        config = with_sweep(runtimes=["onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-cuda-graph"], batches=[1, 8])
        return Study({**config, "traces": traces}, dataclasses.replace(LAPTOP, gpu=GPU))

    return study


def test_captures_are_made_of_the_cells_that_are_named(gpu_study):
    assert gpu_study().budgets == []
    study = gpu_study(cells=["*/m/fp32/b8-s32"])
    folder = "results/traces/nvidia-test"
    assert study.budgets == [
        f"{folder}/onnxruntime-cuda/m/fp32/b8-s32.budget.json",
        f"{folder}/onnxruntime-cuda-graph/m/fp32/b8-s32.budget.json",
    ]
    plan = json.loads(study.plan())
    assert plan["traces"] == {"cells": ["*/m/fp32/b8-s32"], "iterations": 100, "source": "cupti", "reason": None}
    assert [cell["budget"] for cell in plan["cells"] if cell["budget"]] == study.budgets
    assert all(cell.budget is None for cell in study.cells if cell.twin_of)


def test_without_a_recorder_nothing_is_captured_and_the_plan_says_why(gpu_study):
    study = gpu_study(cells=["onnxruntime-cuda/*"], source="nsys")
    assert study.budgets == [] and json.loads(study.plan())["traces"]["reason"] == "nsys is not on PATH"


def test_a_pattern_that_fits_no_cell_of_a_gpu_is_refused(gpu_study):
    with pytest.raises(
        UserError, match=r"traces.cells: 'onnxruntime-cudo/.* fits no cell .*did you mean 'onnxruntime-cuda/"
    ):
        gpu_study(cells=["onnxruntime-cudo/m/fp32/b8-s32"])
    with pytest.raises(UserError, match="fits no cell of the study on a GPU"):
        gpu_study(cells=["onnxruntime-cpu/*"])


def test_a_capture_depends_on_the_warm_up_and_not_on_the_rest_of_the_protocol(gpu_study):
    before = gpu_study(cells=["*"]).trace_slice("onnxruntime-cuda", "fp32")
    longer = gpu_study(cells=["onnxruntime-cuda/*"])
    longer.config["protocol"]["max_seconds"] += 1
    assert longer.trace_slice("onnxruntime-cuda", "fp32") == before
    assert gpu_study(cells=["*"], iterations=7).trace_slice("onnxruntime-cuda", "fp32") != before


def test_budgets_of_another_machine_are_read_where_they_are(gpu_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (run for run in gpu_study().runs if "onnxruntime-cuda/" in run):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    budget = Path("results/traces/nvidia-test/onnxruntime-cuda/m/fp32/b8-s32.budget.json")
    budget.parent.mkdir(parents=True)
    budget.touch()
    config = {**with_sweep(runtimes=["onnxruntime-cuda"], batches=[1, 8]), "devices": ["auto", "nvidia-test"]}
    other = Study(config, LAPTOP)
    assert [cell.budget for cell in other.cells if cell.device] == [None, str(budget)] and other.budgets == []
