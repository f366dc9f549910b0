"""What a study asks for, what is refused, and what each file depends on."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest

from ceilings.errors import UserError
from ceilings.host import Gpu, Host
from ceilings.models.catalogue import FAMILIES
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study import code
from ceilings.study.availability import Availability
from ceilings.study.config import nearest
from ceilings.study.study import Study
from ceilings.study.variants import counted_work, graph_name

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
GPU = Gpu("nvidia-test", "NVIDIA Test", "GPU-0", "580.1", (9, 0), 80 << 30)
SWEEP = {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1], "sequences": [32]}
CONFIG = {"study": "s", "models": {"m": {"architecture": "distilbert"}}, "sweeps": {"one": SWEEP}}


def with_sweep(**changes):
    return {**CONFIG, "sweeps": {"one": {**SWEEP, **changes}}}


def only(**shapes):
    """A sweep with these keys in place of batches and sequences."""
    names = {key: SWEEP[key] for key in ("models", "runtimes", "precisions")}
    return {**CONFIG, "sweeps": {"one": {**names, **shapes}}}


def lengths(**distributions):
    return {**CONFIG, "inputs": {"lengths": distributions}}


def shapes_of(study, model="m"):
    return [str(cell.shape) for cell in study.cells if cell.model == model and not cell.aa_of]


def test_union_of_sweeps_has_each_cell_once():
    config = copy.deepcopy(CONFIG)
    config["sweeps"]["two"] = {**SWEEP, "batches": [1, 2]}
    cells = [cell for cell in Study(config, LAPTOP).cells if not cell.aa_of]
    assert [(str(cell.shape), cell.sweeps) for cell in cells] == [("b1-s32", ("one", "two")), ("b2-s32", ("two",))]


def test_every_study_measures_one_cell_twice():
    study = Study(CONFIG, LAPTOP)
    cell, second = study.cells
    assert second.aa_of == cell.runtime and second.spec is cell.spec
    assert dataclasses.replace(second, runtime=cell.runtime, runs=cell.runs) == cell
    assert not set(cell.runs) & set(second.runs)


def test_noise_cell_of_cells_that_generate_is_a_decode_step():
    models = {"m": {"architecture": "gpt2", "task": "text-generation"}}
    of = {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"]}
    sweeps = {"all": {**of, "axes": {"batch": [1], "prompt": [8], "generated": [1, 4]}}}
    study = Study({**with_sweep(), "models": models, "sweeps": sweeps}, LAPTOP)
    assert [str(cell.shape) for cell in study.cells] == ["b1-p8-g1", "b1-p8-g4", "b1-p8-g4"]
    only = {"all": {**of, "axes": {"batch": [1], "prompt": [8], "generated": [1]}}}
    study = Study({**with_sweep(), "models": models, "sweeps": only}, LAPTOP)
    assert [str(cell.shape) for cell in study.cells] == ["b1-p8-g1", "b1-p8-g1"]


def test_noise_cell_can_be_named():
    config = {**with_sweep(batches=[1, 2]), "noise_cells": ["onnxruntime-cpu/m/fp32/b2-s32"]}
    assert [str(cell.shape) for cell in Study(config, LAPTOP).cells if cell.aa_of] == ["b2-s32"]
    with pytest.raises(UserError, match=r"'onnxruntime-cpu/m/fp32/b3-s32' is no cell.*did you mean"):
        Study({**config, "noise_cells": ["onnxruntime-cpu/m/fp32/b3-s32"]}, LAPTOP)


@pytest.mark.parametrize(("host", "sweeps"), [("laptop", {"cpu", "both", "gpu"}), ("gpu", {"both", "gpu"})])
def test_a_sweep_can_be_left_to_machines_without_a_gpu(host, sweeps):
    config = copy.deepcopy(CONFIG)
    config["sweeps"] = {
        "cpu": {**SWEEP, "batches": [1, 2], "unless": "gpu"},
        "both": {**SWEEP, "batches": [2]},
        "gpu": {**SWEEP, "runtimes": ["onnxruntime-cuda"]},
    }
    study = Study(config, LAPTOP if host == "laptop" else dataclasses.replace(LAPTOP, gpu=GPU))
    cells = [cell for cell in study.cells if not cell.aa_of]
    assert {name for cell in cells for name in cell.sweeps} - {"cpu"} == sweeps - {"cpu"}
    assert ("b1-s32" in {str(cell.shape) for cell in cells if cell.spec.device == "cpu"}) == ("cpu" in sweeps)


def test_a_study_of_nothing_but_that_is_refused_on_a_gpu():
    with pytest.raises(UserError, match="unless: gpu"):
        assert Study(with_sweep(unless="gpu"), dataclasses.replace(LAPTOP, gpu=GPU)).cells


def test_a_latency_limit_and_a_baseline_are_checked_and_reach_the_plan():
    study = Study({**CONFIG, "targets": {"latency_ms": 5}, "baseline": ["onnxruntime-cpu/fp32"]}, LAPTOP)
    plan = json.loads(study.plan())
    assert (plan["targets"], plan["baseline"]) == ({"latency_ms": 5}, ["onnxruntime-cpu/fp32"])
    for targets, problem in (
        ({"latency_ms": 0}, r"targets.latency_ms: 0 is out of range"),
        ({"latency_ms": "fast"}, r"targets.latency_ms: \"fast\" is not a finite number"),
        ({"latency": 5}, r"targets: .*latency.*did you mean 'latency_ms'"),
    ):
        with pytest.raises(UserError, match=problem):
            Study({**CONFIG, "targets": targets}, LAPTOP)
    with pytest.raises(UserError, match=r"baseline: 'onnxruntime-cpu/fp3' is no configuration .*did you mean"):
        Study({**CONFIG, "baseline": ["onnxruntime-cpu/fp3"]}, LAPTOP)


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
    assert all("onnxruntime-cpu" in run for run in study.targets.runs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG, "protocoll": {}}, r"unknown key 'protocoll', did you mean 'protocol'\?"),
        ({**CONFIG, "calibration": {"method": "entropi"}}, r"did you mean 'entropy'"),
        ({**CONFIG, "protocol": {"proceses": 3}}, r"protocol: unknown key 'proceses', did you mean 'processes'\?"),
        (
            {**CONFIG, "protocol": {"processes": 0}},
            r"protocol.processes: 0 is out of range; give a whole number from 1 to 1000",
        ),
        ({**CONFIG, "weights": "hub"}, r'weights: "hub" is not allowed; allowed: auto, pretrained, random'),
        ({**CONFIG, "study": "a/b"}, r'study: "a/b" is not allowed here; use lower-case'),
        ({**CONFIG, "models": {"m; rm -rf": {"architecture": "bert"}}}, r'"m; rm -rf" is not allowed here'),
        ({**CONFIG, "models": {"m": {"architecture": "bert", "task": "x"}}}, r"m: model 'm' has the unknown task 'x'"),
        ({**CONFIG, "models": {"m": {}}}, r"models.m: must not be empty"),
        (
            {**CONFIG, "models": {"m": {"architecure": "bert"}}},
            r"models.m: unknown key 'architecure', did you mean 'architecture'\?",
        ),
        ({**CONFIG, "inputs": {"ring": 2}}, r"inputs: 'ring' is called 'pool'; write inputs.pool"),
        ({**CONFIG, "study": "s\n"}, r"not allowed here; use lower-case"),
        ({**CONFIG, "models": {"m\n": {"architecture": "bert"}}}, r"is not allowed here"),
        ({**CONFIG, "seed": 1 << 40}, r"seed: 1099511627776 is out of range; give a whole number from 0 to 4294967295"),
        ({**CONFIG, "parity": {"fp32": math.nan}}, r"parity.fp32: NaN is not a finite number above 0"),
        ({**CONFIG, "protocol": {"max_seconds": math.inf}}, r"max_seconds: Infinity is not a finite number above 0"),
        ({**CONFIG, "protocol": {"measurements": ["cold-cash"]}}, r"'cold-cash' is unknown, did you mean 'cold-cache'"),
        (with_sweep(batches=[1.0]), r"sweeps.one.batches.0: 1.0 is not a whole number from 1 to 1000000; write 1$"),
        (with_sweep(axes={"batch": [2]}), r"sweeps.one: batches and axes.batch say the same; keep one"),
        (with_sweep(axes={"image": [224]}), r"sweeps.one: no model of it has the axis 'image', allowed: batch, sequ"),
        (with_sweep(axes={"x": [2]}), r'"x" is not allowed here; use an axis: batch, sequence, image'),
        (with_sweep(shapes=["b1-s32"]), r"sweeps.one: shapes stands alone, but batches is there too"),
        (with_sweep(lengths=["half"]), r"sweeps.one: the lengths 'half' are unknown, allowed: full"),
        (lengths(full={"share": 0.5}), r"inputs.lengths.full: that name stands for inputs that fill their rows"),
        (lengths(half={"share": 1.5}), r"half.share: 1.5 is out of range; give a finite number above 0 and at most 1"),
        (
            lengths(half={"share": 0.5, "file": "x"}),
            r"inputs.lengths.half: .* has the length 2, which is above 1; give",
        ),
        (only(shapes=["b1"]), r"sweeps.one names the shape b1 without sequence; write shapes like b1-s1"),
        (only(shapes=["s32-b1"]), r"sweeps.one.shapes: shape 's32-b1' is written 'b1-s32'"),
        (only(), r"sweeps.one: says no shape; add batches"),
        ({**CONFIG, "quality": {"cells": ["*/n/*"]}}, r"quality.cells: '\*/n/\*' fits no cell of the study"),
        (with_sweep(runtimes=["onnxruntime-cpuu"]), r"'onnxruntime-cpuu' is unknown, did you mean 'onnxruntime-cpu'\?"),
        (with_sweep(precisions=["fp33"]), r"'fp33' is unknown, did you mean 'fp32'\?"),
        (with_sweep(models=["n"]), r"sweeps.one.models: 'n' is unknown, allowed: m"),
        (with_sweep(batches=[0]), r"sweeps.one.batches.0: 0 is out of range; give a whole number from 1 to 1000000"),
        (with_sweep(batches=[1, 1]), r"sweeps.one.batches: 1 stands there more than once"),
        (with_sweep(sequences=[513]), r"513 is longer than the 512 positions of 'm'"),
        (with_sweep(runtimes=["torch-int8-dynamic"]), r"'torch-int8-dynamic' runs none of fp32; it runs int8"),
        ({**CONFIG, "export": {"axes": {"batch": 2}}}, r"batch 1 cannot run on a graph exported with batch fixed to 2"),
        ({k: v for k, v in CONFIG.items() if k != "sweeps"}, r"top level: missing 'sweeps'; add sweeps"),
        (with_sweep(batches=["08"]), r'"08" is not a whole number .*; write 8$'),
        (with_sweep(batches=["1e3"]), r'"1e3" is not a whole number .*; write 1000$'),
        (with_sweep(batches=[True]), r"true is not a whole number from 1 to 1000000$"),
        (with_sweep(batches=8), r"sweeps.one.batches: 8 is not a list, such as \[A, B\]; write \[8\]"),
        (with_sweep(batches=[]), r"sweeps.one.batches: must not be empty; give a list"),
        (with_sweep(batches=None), r"sweeps.one.batches: nothing stands there; give a list"),
        (with_sweep(sequences=[10**9]), r"1000000000 is out of range; give a whole number from 1 to 1000000"),
        (only(shapes=["b99999999-s16"]), r"b99999999-s16 has the size 99999999; give sizes up to 1000000"),
        (
            {**CONFIG, "cpu_threads": 1000000},
            r"cpu_threads: 1000000 is not allowed; allowed: physical .* from 1 to 1024",
        ),
        ({**CONFIG, "calibration": {"count": 1 << 70}}, r"calibration.count: \d+ is out of range; give a whole number"),
        ({**CONFIG, "study": True}, r"study: true is not text; write it in quotes \(YAML reads yes"),
        ({**CONFIG, "models": {1: {"architecture": "bert"}}}, r"models: 1 is not text; write '1', in quotes"),
        ({**CONFIG, "models": {"m": None}}, r"models.m: nothing stands there; give text or keys with values"),
        (lengths(half={"share": 50}), r"half.share: 50 is out of range; .* did you mean 0.5\?"),
        ({**CONFIG, "quality": {"cells": ["{runtime}/*"]}}, r"quality.cells.0: .* one line of text without braces"),
        ({**CONFIG, "traces": {"cells": ["none/*"]}}, r"which has none there; remove it, or add a runtime of a GPU"),
        ({**CONFIG, "traces": {"cells": ["*"]}}, r"fits only cells on a CPU, .* remove it, .* captures: docs/explain"),
        (with_sweep(precisions=["FP32"]), r"'FP32' is unknown, did you mean 'fp32'\?$"),
        (with_sweep(runtimes=["cuda"]), r"'cuda' is unknown, allowed: torch-cuda-eager, (?!.*cpu)"),
        (
            {**CONFIG, "export": {"axes": {"batchh": 2}}},
            r"export.axes: no model has the axis 'batchh', did you mean 'ba",
        ),
        (
            {**CONFIG, "compare": {"before": "x", "after_device": "y"}},
            r"compare: one of .* needs the other; add before_d",
        ),
        ({**CONFIG, "compare": {"before": "nowhere"}}, r"compare.before: nowhere has no tables/cells.parquet; name an"),
        ({**CONFIG, "protocol": {"max_seconds": 0.5}}, r"protocol.min_seconds: 1 is more than max_seconds, 0.5; lower"),
        ({**CONFIG, "protocol": {"time_limit_seconds": 3}}, r"max_seconds: 10 is more than time_limit_seconds, 3"),
        (
            {**CONFIG, "engines": {"profiles": {"p": [{"batch": [1, 2]}]}}},
            r"\[1, 2\] has the length 2, which is below 3",
        ),
    ],
)
def test_bad_study_is_one_message_that_names_key_value_and_remedy(config, message):
    with pytest.raises(UserError, match=message):
        Study(config, LAPTOP)


def test_all_problems_are_named_at_once():
    with pytest.raises(UserError) as caught:
        Study(with_sweep(models=["n"], runtimes=["x"], sequences=[32]), LAPTOP)
    assert "'n' is unknown" in str(caught.value) and "'x' is unknown" in str(caught.value)


def test_a_hint_lists_few_names():
    names = [f"cell-{number}" for number in range(1000)]
    assert nearest("zzz", names).endswith("cell-19 and 980 more")
    assert nearest("x", []) == "and there are none; define it first"


def test_a_study_without_any_cell_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"devices: .* holds no record of this study's cells on nvidia-nope; bring"):
        _ = Study({**CONFIG, "devices": ["nvidia-nope"]}, LAPTOP, str(tmp_path)).cells


def test_results_that_are_a_link_to_nowhere_are_refused(tmp_path):
    (tmp_path / "results").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is a link to .*nowhere, which does not exist; make that folder"):
        Study(CONFIG, LAPTOP, str(tmp_path / "results")).refuse_unwritable_results()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("b1", "b1 is no shape of 'm', which has the axes batch, sequence"),
        ("b1-s513", "b1-s513: 'm' takes at most 512 as sequence"),
    ],
)
def test_a_target_of_another_shape_is_refused(shape, message):
    Study(CONFIG, LAPTOP).refuse_unfit("m", "b7-s512")
    with pytest.raises(UserError, match=message):
        Study(CONFIG, LAPTOP).refuse_unfit("m", shape)


def test_the_plan_in_short_names_what_changed():
    """Snakemake shows the lines that differ as the reason of a new plan."""
    before = Study(CONFIG, LAPTOP).plan_in_short

    def lines(config):
        differ = set(before) ^ set(Study(config, LAPTOP).plan_in_short)
        assert sum(map(len, differ)) < 1500
        return {line.split(":")[0] for line in differ} - {"plan.json"}

    assert lines(CONFIG) == set()
    assert lines(with_sweep(batches=[1, 2])) == {"sweeps.one shapes"}
    assert lines(with_sweep(precisions=["fp32", "int8"])) == {"sweeps.one precisions"}
    assert lines(with_sweep(runtimes=["onnxruntime-cpu", "onnxruntime-cuda"])) == {
        "sweeps.one runtimes",
        "sweeps.one cells not measured here",
    }
    assert lines({**CONFIG, "protocol": {"min_iterations": 7}}) == {"protocol"}
    assert lines({**CONFIG, "models": {"m": {"architecture": "bert"}}}) == {"models.m"}


def test_positions_of_a_local_model_come_from_its_own_configuration(tmp_path):
    sizes = {"model_type": "distilbert", "max_position_embeddings": 16}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    local = {**CONFIG, "models": {"m": {"architecture": "distilbert", "weights": {"path": str(tmp_path)}}}}
    with pytest.raises(UserError, match="32 is longer than the 16 positions"):
        Study(local, LAPTOP)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"models\.m: .*config\.json is damaged"):
        Study(local, LAPTOP)


def test_results_of_another_device_are_shown_and_never_made(tmp_path):
    gpu_sweep = with_sweep(runtimes=["onnxruntime-cpu"])
    results = str(tmp_path)
    elsewhere = Study(gpu_sweep, dataclasses.replace(LAPTOP, cpu_slug="cpu-other"), results)
    for run in elsewhere.targets.runs:
        path = tmp_path / run.removeprefix(results + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    here = Study({**gpu_sweep, "devices": ["auto", "cpu-other"]}, LAPTOP, results)
    recorded = [cell for cell in here.cells if cell.device == "cpu-other"]
    assert [cell.runs for cell in recorded] == [cell.runs for cell in elsewhere.cells]
    assert not set(here.targets.runs) & {run for cell in recorded for run in cell.runs}

    # Without "auto" this machine takes no part; what came with the records is evidence, and nothing is made.
    parity = tmp_path / "parity" / "m" / "fp32.json"
    parity.parent.mkdir(parents=True)
    parity.write_text("{}")
    alone = Study({**gpu_sweep, "devices": ["cpu-other"]}, LAPTOP, results)
    assert {cell.device for cell in alone.cells} == {"cpu-other"}
    assert alone.targets.recorded_evidence == [str(parity)]
    assert not (alone.targets.runs or alone.targets.evidence or alone.targets.floors)


def test_results_that_were_brought_home_are_only_read_though_a_machine_like_this_made_them(tmp_path):
    sweep, results = with_sweep(runtimes=["onnxruntime-cpu"]), str(tmp_path)
    made = Study(sweep, LAPTOP, results)
    other = Study(sweep, dataclasses.replace(LAPTOP, cpu_slug="cpu-other"), results)
    for run in (*made.targets.runs, *other.targets.runs):
        Path(run).parent.mkdir(parents=True, exist_ok=True)
        Path(run).write_text("{}")
    home = Study({**sweep, "devices": ["recorded"]}, LAPTOP, results)
    assert {cell.device for cell in home.cells} == {LAPTOP.cpu_slug, "cpu-other"}
    assert sorted(home.targets.recorded_runs) == sorted((*made.targets.runs, *other.targets.runs))
    assert not (home.targets.runs or home.targets.evidence or home.targets.floors)

    # Beside auto it is the other machines' records: this one's are made here.
    beside = Study({**sweep, "devices": ["auto", "recorded"]}, LAPTOP, results)
    assert beside.targets.runs == made.targets.runs
    assert beside.targets.recorded_runs == other.targets.runs
    with pytest.raises(UserError, match=r"holds no record of this study's cells on recorded; bring"):
        _ = Study({**sweep, "devices": ["recorded"]}, LAPTOP, str(tmp_path / "empty")).cells


def test_cells_that_lack_processes_say_how_many_there_are_and_what_would_show_them(tmp_path):
    three = with_sweep(runtimes=["onnxruntime-cpu"], precisions=["fp32", "int8"]) | {"protocol": {"processes": 3}}
    made = Study(three, LAPTOP, str(tmp_path))
    of = {cell.identity: cell.runs for cell in made.cells}
    fp32, int8 = (next(runs for name, runs in of.items() if f"/{kind}/" in name) for kind in ("fp32", "int8"))

    def home(**changes):
        return Study({**three, "devices": ["recorded"], **changes}, LAPTOP, str(tmp_path))

    for run in fp32[:2]:
        Path(run).parent.mkdir(parents=True, exist_ok=True)
        Path(run).write_text("{}")
    lacking = r"of onnxruntime-cpu/m/fp32/b1-s32, 2 of the 3 processes .* recorded of it on cpu-.*processes: 2\}"
    with pytest.raises(UserError, match=lacking):
        _ = home().cells
    assert [cell.runs for cell in home(protocol={"processes": 2}).cells] == [fp32[:2]]

    # Beside a whole one it is a cell that says so, and of which nothing is read or made.
    for run in int8:
        Path(run).parent.mkdir(parents=True, exist_ok=True)
        Path(run).write_text("{}")
    begun, whole = sorted(home().cells, key=lambda cell: bool(cell.available))
    assert (begun.precision, begun.runs, begun.recorded, bool(begun.available)) == ("fp32", (), False, False)
    assert begun.available.reason.startswith("2 of the 3 processes")
    assert (whole.runs, whole.recorded) == (int8, True)
    assert home().targets.recorded_runs == list(int8) and not home().targets.runs

    Path(fp32[0]).unlink()  # the first is what is read first
    begun = next(cell for cell in home(protocol={"processes": 2}).cells if not cell.available)
    assert (begun.available.reason[:20], begun.available.remedy) == ("1 of the 2 processes", "bring the others")


def test_slices_are_cut_to_what_each_file_depends_on():
    def sliced(precision="fp32", **changes):
        return Study({**CONFIG, **changes}, LAPTOP).slices.measure("onnxruntime-cpu", "m", precision)

    longer, tighter = {"protocol": {"min_seconds": 7}}, {"parity": {"int8": 0.1}}
    assert sliced() == sliced(protocol={"processes": 7}) == sliced(**tighter)
    assert sliced() != sliced(**longer) and sliced("int8") != sliced("int8", **tighter)
    weights = [Study({**CONFIG, **changes}, LAPTOP).slices.model("m") for changes in ({}, longer, {"seed": 1})]
    assert weights[0] == weights[1] != weights[2]


def test_variables_that_shape_a_latency_belong_to_what_executes(monkeypatch):
    def sliced():
        slices = Study(CONFIG, LAPTOP).slices
        runs = [slices.measure("onnxruntime-cpu", "m", "fp32"), slices.trace("onnxruntime-cpu", "m")]
        return [*runs, slices.quality("onnxruntime-cpu", "m")], [slices.model("m"), slices.export("m")]

    monkeypatch.delenv("OMP_PROC_BIND", raising=False)
    executed, made = sliced()
    monkeypatch.setenv("MY_EDITOR", "vi")
    assert sliced() == (executed, made)
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    again, unchanged = sliced()
    assert unchanged == made and not set(again) & set(executed)
    assert all('"OMP_PROC_BIND": "close"' in one for one in again)


def test_precision_names_the_stored_graph():
    runtime = RUNTIMES["onnxruntime-cpu"]
    assert graph_name(runtime, "tf32") == "fp32"
    assert graph_name(dataclasses.replace(runtime, artifact="fused"), "fp16") == "fp16.fused"
    assert graph_name(RUNTIMES["torch-eager"], "fp32") is None


def test_cells_of_a_gpu_have_the_floor_of_their_graph(monkeypatch, tmp_path):
    monkeypatch.setattr("ceilings.study.cells.availability", lambda *_: Availability())
    config = with_sweep(runtimes=["torch-cuda-eager", "onnxruntime-cuda-fused"], precisions=["tf32"])
    config["sweeps"]["cpu"] = {**SWEEP, "runtimes": ["onnxruntime-cpu"]}
    study = Study(config, dataclasses.replace(LAPTOP, gpu=GPU), str(tmp_path))
    floor = f"{tmp_path}/floors/nvidia-test/m/tf32/b1-s32.json"
    assert study.targets.floors == [floor]
    assert {cell.floor for cell in study.targets.measured} == {floor, None}
    assert all((cell.floor is None) == (cell.spec.device == "cpu") for cell in study.targets.measured)
    assert study.counted_graph("m", "tf32") == f"{tmp_path}/onnx/m/fp32.onnx"
    assert study.counted_graph("m", "int8.half") == f"{tmp_path}/onnx/m/int8.half.onnx"

    # Elsewhere a recorded floor is shown and never made.
    for run in study.targets.runs:
        Path(run).parent.mkdir(parents=True, exist_ok=True)
        Path(run).touch()
    away = {**config, "devices": ["auto", "nvidia-test"]}
    assert {cell.floor for cell in Study(away, LAPTOP, str(tmp_path)).cells} == {None}
    Path(floor).parent.mkdir(parents=True)
    Path(floor).touch()
    here = Study(away, LAPTOP, str(tmp_path))
    assert {cell.floor for cell in here.cells if cell.device == "nvidia-test"} == {floor}
    assert here.targets.floors == []


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
        ("ceilings-fused", "fp16", "fp16"),
        ("ceilings-fused", "fp8", "fp8.half"),
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
    assert study.targets.engine_records == [record]
    named = {cell["runtime"]: cell["engine"] for cell in json.loads(study.plan())["cells"] if not cell["aa_of"]}
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
    assert gpu_study().targets.budgets == []
    study = gpu_study(cells=["*/m/fp32/b8-s32"])
    folder = "results/traces/nvidia-test"
    assert study.targets.budgets == [
        f"{folder}/onnxruntime-cuda/m/fp32/b8-s32.budget.json",
        f"{folder}/onnxruntime-cuda-graph/m/fp32/b8-s32.budget.json",
    ]
    plan = json.loads(study.plan())
    counters = {"cells": [], "caches": "steady", "reason": None}
    asked = {"cells": ["*/m/fp32/b8-s32"], "iterations": 100, "counters": counters}
    assert plan["traces"] == {**asked, "source": "cupti", "reason": None}
    assert [cell["budget"] for cell in plan["cells"] if cell["budget"]] == study.targets.budgets
    assert all(cell.budget is None for cell in study.cells if cell.aa_of)


def test_without_a_recorder_nothing_is_captured_and_the_plan_says_why(gpu_study):
    study = gpu_study(cells=["onnxruntime-cuda/*"], source="nsys")
    assert study.targets.budgets == [] and json.loads(study.plan())["traces"]["reason"] == "nsys is not on PATH"


def test_kernels_are_counted_of_the_cells_that_are_named(gpu_study, monkeypatch):
    counters = {"cells": ["*/m/fp32/b8-s32"], "caches": "cold"}
    study = gpu_study(counters=counters)
    folder = "results/traces/nvidia-test"
    made = [f"{folder}/{runtime}/m/fp32/b8-s32.ncu" for runtime in ("onnxruntime-cuda", "onnxruntime-cuda-graph")]
    assert study.targets.counters == [f"{path}.json" for path in made] and study.targets.budgets == []
    assert study.targets.kernel_rooflines[:2] == [f"{made[0]}.svg", f"{made[0]}.png"]
    plan = json.loads(study.plan())
    assert plan["traces"]["counters"] == {**counters, "reason": None}
    assert [cell["counters"] for cell in plan["cells"] if cell["counters"]] == study.targets.counters
    assert all(cell.counters is None for cell in study.cells if cell.aa_of)
    floors = {cell.floor for cell in study.cells if cell.counters}
    assert {*study.floor("onnxruntime-cuda", "m", "fp32", "b8-s32", "nvidia-test")} == floors
    steady = gpu_study(counters={"cells": ["*"]}).slices.counters("onnxruntime-cuda", "m")
    assert study.slices.counters("onnxruntime-cuda", "m") != steady
    monkeypatch.setattr("ceilings.traces.source.missing", lambda name: "no ncu" if name == "ncu" else None)
    without = gpu_study(counters=counters)
    assert without.targets.counters == [] and json.loads(without.plan())["traces"]["counters"]["reason"] == "no ncu"
    with pytest.raises(UserError, match=r"traces\.counters\.cells: 'onnxruntime-cudo/.* fits no cell"):
        gpu_study(counters={"cells": ["onnxruntime-cudo/m/fp32/b8-s32"]})


def test_a_pattern_that_fits_no_cell_of_a_gpu_is_refused(gpu_study):
    with pytest.raises(
        UserError, match=r"traces.cells: 'onnxruntime-cudo/.* fits no cell .*did you mean 'onnxruntime-cuda/"
    ):
        gpu_study(cells=["onnxruntime-cudo/m/fp32/b8-s32"])
    with pytest.raises(UserError, match=r"traces.cells: 'onnxruntime-cpu/\*' fits only cells on a CPU"):
        gpu_study(cells=["onnxruntime-cpu/*"])


def test_a_capture_depends_on_the_warm_up_and_not_on_the_rest_of_the_protocol(gpu_study):
    before = gpu_study(cells=["*"]).slices.trace("onnxruntime-cuda", "m")
    longer = gpu_study(cells=["onnxruntime-cuda/*"])
    longer.config["protocol"]["max_seconds"] += 1
    assert longer.slices.trace("onnxruntime-cuda", "m") == before
    assert gpu_study(cells=["*"], iterations=7).slices.trace("onnxruntime-cuda", "m") != before


def test_budgets_of_another_machine_are_read_where_they_are(gpu_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (run for run in gpu_study().targets.runs if "onnxruntime-cuda/" in run):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    budget = Path("results/traces/nvidia-test/onnxruntime-cuda/m/fp32/b8-s32.budget.json")
    budget.parent.mkdir(parents=True)
    budget.touch()
    config = {**with_sweep(runtimes=["onnxruntime-cuda"], batches=[1, 8]), "devices": ["auto", "nvidia-test"]}
    other = Study(config, LAPTOP)
    assert [cell.budget for cell in other.cells if cell.device] == [None, str(budget)] and other.targets.budgets == []


TWO = {"text": {"architecture": "bert"}, "image": {"architecture": "vit", "config": {"image_size": 32}}}


def two_models(**sweep):
    names = {"models": ["text", "image"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"]}
    return {"study": "s", "models": TWO, "sweeps": {"one": {**names, **sweep}}}


def test_a_model_takes_of_a_sweep_the_axes_that_it_has():
    study = Study(two_models(batches=[1, 2], sequences=[16, 32]), LAPTOP)
    assert shapes_of(study, "text") == ["b1-s16", "b1-s32", "b2-s16", "b2-s32"]
    assert shapes_of(study, "image") == ["b1-i32", "b2-i32"]
    named = Study(two_models(shapes=["b1-s16", "b4-s16-i32"]), LAPTOP)
    assert shapes_of(named, "text") == ["b1-s16", "b4-s16"] and shapes_of(named, "image") == ["b1-i32", "b4-i32"]
    with pytest.raises(UserError, match=r"image 64 is not the only size that 'image' takes, 32; leave image out"):
        Study(two_models(batches=[1], sequences=[16], axes={"image": [64]}), LAPTOP)


def test_lengths_are_a_part_of_the_shape_of_what_can_be_padded(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("a text\n")
    config = two_models(batches=[1], sequences=[16], lengths=["full", "half"])
    config["inputs"] = {"lengths": {"half": {"share": 0.5}, "texts": {"file": str(texts)}}}
    study = Study(config, LAPTOP)
    assert shapes_of(study, "text") == ["b1-s16", "b1-s16.half"] and shapes_of(study, "image") == ["b1-i32"]
    assert json.loads(study.slices.inputs("b1-s16"))["lengths"] is None
    assert json.loads(study.slices.inputs("b1-s16.half"))["lengths"] == {"share": 0.5}
    assert study.length_contents("b1-s16.texts").startswith(f"{texts.name} ")
    assert study.length_contents("b1-s16.half") == study.length_contents("b1-s16") == ""
    (padded,) = (cell for cell in json.loads(study.plan())["cells"] if cell["lengths"])
    assert (padded["shape"], padded["axes"]) == ("b1-s16.half", {"batch": 1, "sequence": 16})


def test_shapes_that_the_pipeline_chooses_fit_the_model():
    config = two_models(batches=[1], sequences=[16])
    config["models"] = {**TWO, "text": {"architecture": "bert", "config": {"max_position_embeddings": 64}}}
    study = Study({**config, "quality": {"sequence": 48}}, LAPTOP)
    assert (str(study.slices.parity_shape("text")), str(study.slices.parity_shape("image"))) == ("b8-s64", "b8-i32")
    assert json.loads(study.slices.calibration("text", "minmax"))["sequence"] == 64
    assert "sequence" not in json.loads(study.slices.calibration("image", "minmax"))
    assert str(study.slices.quality_shape("text")) == "b8-s48"
    fixed = Study({**config, "export": {"axes": {"batch": 1}}}, LAPTOP)
    assert str(fixed.slices.parity_shape("text")) == "b1-s64"
    assert json.loads(fixed.slices.export("image"))["axes"] == {"batch": 1}
    other = {**config, "export": {"axes": {"sequence": 16}}}
    assert json.loads(Study(other, LAPTOP).slices.export("image"))["axes"] == "dynamic"


@pytest.fixture
def onnx_file(tmp_path):
    """A graph with one input (n, 4) and one output."""
    from onnx import TensorProto, helper, save

    dims = ["n", 4]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
    )
    path = tmp_path / "mine.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_the_weights_beside_an_onnx_file_count_by_the_names_that_it_gives_them(tmp_path):
    """Also those of a constant in a branch; other files of the folder do not."""
    import numpy as np
    from onnx import TensorProto, external_data_helper, helper, numpy_helper

    def stored(name, place):
        tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
        external_data_helper.set_external_data(tensor, place)
        return tensor

    constant = helper.make_node("Constant", [], ["c"], value=stored("c", "deep/branch.bin"))
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])])
    nodes = [
        helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "g", [x, flag], [y], [stored("w", "any.name"), stored("v", "../elsewhere")])
    file = tmp_path / "mine" / "mine.onnx"
    file.parent.mkdir()
    file.write_bytes(helper.make_model(graph).SerializeToString())
    (file.parent / "unrelated.bin").touch()
    sweep = {
        "models": ["m"],
        "runtimes": ["onnxruntime-cpu"],
        "precisions": ["fp32"],
        "batches": [1],
    }
    study = Study({"study": "s", "models": {"m": {"onnx": str(file)}}, "sweeps": {"one": sweep}}, LAPTOP)
    assert study.models.files("m") == [
        str(file),
        *(str(file.parent / name) for name in ("any.name", "deep/branch.bin")),
    ]
    before = study.model_contents("m")
    assert "any.name none" in before and "deep/branch.bin none" in before
    (file.parent / "any.name").write_bytes(b"1234")
    assert "any.name none" not in study.model_contents("m")


def test_cells_that_a_model_cannot_have_say_why_and_the_others_run(onnx_file, monkeypatch):
    runtimes = ["onnxruntime-cpu", "torch-eager", "onnxruntime-cuda-fused"]
    models = {"mine": str(onnx_file), "other": {"architecture": "deberta-v2"}}
    sweep = {"models": list(models), "runtimes": runtimes, "precisions": ["fp32"], "batches": [1], "sequences": [16]}
    study = Study({"study": "s", "models": models, "sweeps": {"one": sweep}}, LAPTOP)
    why = {(cell.model, cell.runtime): cell.available for cell in study.cells if not cell.aa_of}
    assert all(why[model, "onnxruntime-cpu"] for model in models) and why["other", "torch-eager"]
    assert why["mine", "torch-eager"].reason == "mine is an ONNX file, and torch-eager executes PyTorch modules"
    assert why["mine", "onnxruntime-cuda-fused"].reason == "no fusion of mine, an ONNX file is known"
    assert why["other", "onnxruntime-cuda-fused"].reason == "no fusion of the architecture deberta-v2 is known"
    assert all(reason.remedy for reason in why.values() if not reason)
    assert {run.split("/")[3] for run in study.targets.runs} >= {"onnxruntime-cpu", "torch-eager"}
    assert study.models.of_onnx == ["mine"] and study.models.files("mine") == [str(onnx_file)]
    assert study.model_files("mine") == [
        "results/models/mine/weights/workload.json",
        "results/models/mine/weights/provenance.json",
    ]
    assert study.reference_graph("mine") == ["results/onnx/mine/exported.onnx"] and not study.reference_graph("other")

    family = FAMILIES["text_encoder"]
    monkeypatch.setitem(FAMILIES, "text_encoder", dataclasses.replace(family, packages=("no-such-thing",)))
    study = Study({"study": "s", "models": models, "sweeps": {"one": sweep}}, LAPTOP)
    without = next(cell for cell in study.cells if (cell.model, cell.runtime) == ("other", "onnxruntime-cpu"))
    assert "package no-such-thing is not installed" in without.available.reason
    assert without.available.remedy == "pip install no-such-thing"


def test_only_a_family_s_pytorch_cells_depend_on_its_module(monkeypatch):
    config = two_models(batches=[1], sequences=[16])
    config["sweeps"]["one"]["runtimes"] = ["onnxruntime-cpu", "torch-eager"]

    def slices():
        study = Study(config, LAPTOP)
        names = ("onnxruntime-cpu", "torch-eager")
        return {(name, model): study.slices.measure(name, model, "fp32") for name in names for model in TWO}

    before = slices()
    real = code._read

    def edited(path):
        file = real(path)
        return file._replace(digest="edited") if path.name == "text_encoder.py" else file

    monkeypatch.setattr(code, "_read", edited)
    code.digest.cache_clear()
    after = slices()
    code.digest.cache_clear()
    assert [key for key in before if before[key] != after[key]] == [("torch-eager", "text")]


def test_measurements_can_be_chosen_and_only_those_shape_a_run():
    every = json.loads(Study(CONFIG, LAPTOP).slices.measure("onnxruntime-cpu", "m", "fp32"))
    one = {**CONFIG, "protocol": {"measurements": ["closed-loop"]}}
    chosen = json.loads(Study(one, LAPTOP).slices.measure("onnxruntime-cpu", "m", "fp32"))
    assert [name for name, _ in every["measurements"]] == ["closed-loop", "saturated"]
    assert chosen["measurements"] == [["closed-loop", "closed_loop"]] and chosen["code"] != every["code"]
    assert "measurements" not in chosen["protocol"]


def test_rates_are_measured_of_the_models_own_products(gpu_study):
    base = [[m, n, k] for m in (128, 4096) for k, n in ((768, 768), (768, 3072), (3072, 768))]
    study = gpu_study()
    assert json.loads(study.slices.products) == base
    study.config["models"]["m"]["config"] = {"dim": 1024, "hidden_dim": 4096}
    other = json.loads(Study(study.config, study.host).slices.products)
    assert [product for product in base if product not in other] == []
    assert {tuple(product) for product in other} > {(128, 1024, 1024), (4096, 4096, 1024), (128, 1024, 4096)}
    larger = {**study.config, "sweeps": {"one": {**study.config["sweeps"]["one"], "batches": [64]}}}
    larger["traces"] = {}
    assert json.loads(Study(larger, study.host).slices.products) == other  # another shape measures nothing anew


def test_quality_is_evaluated_once_for_all_shapes_of_a_cell(tmp_path):
    config = {**with_sweep(batches=[1, 2], precisions=["fp32", "int8"]), "quality": {"cells": ["*/int8"]}}
    study = Study(config, LAPTOP)
    record = "results/quality/cpu-test/onnxruntime-cpu/m/int8.json"
    assert study.targets.qualities == [record]
    assert {(cell.precision, cell.quality) for cell in study.cells} == {("fp32", None), ("int8", record)}
    assert json.loads(study.slices.data("m")) == {"limit": 1000, "seed": 0} and study.data_contents("m") == ""
    for name, text in (("config.json", '{"model_type": "bert"}'), ("vocab.txt", "a"), ("a.csv", "t\nfine\n")):
        (tmp_path / name).write_text(text)
    file = str(tmp_path / "a.csv")
    labelled = {**config, "models": {"m": {"path": str(tmp_path), "data": {"file": file, "text": "t"}}}}
    study = Study(labelled, LAPTOP)
    assert json.loads(study.slices.data("m")) == {"file": file, "text": "t", "limit": 1000, "seed": 0}
    assert study.data_contents("m").startswith(f"{Path(file).name} ")
    assert json.loads(study.plan())["cells"][0].keys() >= {"stack", "levers", "artifact", "aa_of", "quality"}
