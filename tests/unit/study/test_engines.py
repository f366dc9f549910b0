"""Which engine a cell runs on, what each depends on, and what a study may not ask for."""

from __future__ import annotations

import copy
import dataclasses
import doctest
import json

import pytest

from ceilings.engines import catalogue
from ceilings.errors import UserError
from ceilings.host import Gpu, Host
from ceilings.runtimes.catalogue import RUNTIMES, Runtime
from ceilings.study.study import Study

GPU = Gpu("nvidia-h200", "NVIDIA H200", "GPU-0", "580.1", (9, 0), 141 << 30)
HOST = Host("cpu-test", "Test CPU", 4, GPU, None)
PROFILE = {"batch": [1, 4, 8], "sequence": [16, 64, 128]}
EXTERNAL = {
    "path": "theirs.engine",
    "sha256": "0" * 64,
    "builder": "tensorrt10",
    "version": "10.16.1.11",
    "model": "m",
    "precision": "fp16",
    "profiles": [PROFILE],
}


@pytest.fixture(autouse=True)
def runtimes(monkeypatch, tmp_path):
    """Three runtimes of engines, one for each way to choose one; packages that are here; a builder as if it were.

    In the working folder lie an engine and a timing cache.
    """
    monkeypatch.chdir(tmp_path)
    for name in (EXTERNAL["path"], "any.cache"):
        (tmp_path / name).write_bytes(b"made elsewhere")
    monkeypatch.setattr(catalogue.Builder, "installed", lambda _: "10.16.1.11")
    shared = {
        "stack": "tensorrt10",
        "levers": frozenset(),
        "environment": "tensorrt10",
        "device": "cuda",
        "module": "x",
        "packages": ("numpy",),
        "note": "",
        "precisions": ("fp32", "tf32", "fp16", "int8"),
    }
    for engine in ("static", "profile", "external"):
        monkeypatch.setitem(
            RUNTIMES, engine, Runtime(engine, artifact="engine", builder="tensorrt10", engine=engine, **shared)
        )


def study(runtime="static", precisions=("fp16",), **engines):
    sweep = {"models": ["m"], "runtimes": [runtime], "precisions": list(precisions), "batches": [1], "sequences": [32]}
    models = {"m": {"architecture": "distilbert"}}
    return Study({"study": "s", "models": models, "sweeps": {"one": sweep}, "engines": copy.deepcopy(engines)}, HOST)


def engine_of(made, runtime, shape="b1-s32", precision="fp16"):
    return made.artifact(runtime, "m", precision, shape, "nvidia-h200")


def test_a_cell_runs_on_the_engine_of_its_shape():
    folder = "results/engines/nvidia-h200/tensorrt10/m/fp16"
    assert engine_of(study(), "static") == [f"{folder}/b1-s32.engine", f"{folder}/b1-s32.json"]


def test_a_cell_runs_on_the_first_profile_that_takes_its_shape():
    small, large = {"batch": [1, 1, 2], "sequence": [8, 8, 64]}, PROFILE
    made = study("profile", profiles={"small": [small], "large": [large]})
    chosen = [engine_of(made, "profile", shape)[0].rsplit("/", 1)[1] for shape in ("b1-s32", "b8-s32", "b64-s32")]
    # The last is in neither: its cell fails with that reason when it runs, the study goes on.
    assert chosen == ["small.engine", "large.engine", "small.engine"]


def test_engines_know_nothing_of_padding():
    made = study("profile", profiles={"large": [PROFILE]})
    assert made.artifact("static", "m", "fp16", "b1-s32.half", "nvidia-h200")[0].endswith("/b1-s32.engine")
    assert engine_of(made, "profile", "b8-s32.half")[0].endswith("/large.engine")


def test_a_profile_need_not_give_what_a_model_has_in_one_size():
    images = {"batch": [1, 4, 8]}
    config = {
        "study": "s",
        "models": {"m": {"architecture": "vit", "config": {"image_size": 32}}},
        "sweeps": {"one": {"models": ["m"], "runtimes": ["profile"], "precisions": ["fp16"], "batches": [1, 8]}},
        "engines": {"profiles": {"text": [PROFILE], "images": [images]}},
    }
    made = Study(config, HOST)
    assert [str(cell.shape) for cell in made.cells[:2]] == ["b1-i32", "b8-i32"]
    assert engine_of(made, "profile", "b8-i32")[0].endswith("/images.engine")
    slice_ = json.loads(made.engines.slice("nvidia-h200", "tensorrt10", "m", "fp16", "images"))
    assert slice_["profiles"] == [{"batch": [1, 4, 8], "image": [32, 32, 32]}]


def test_an_external_engine_serves_its_own_model_and_precision():
    made = study("external", external={"theirs": EXTERNAL})
    assert engine_of(made, "external")[0].endswith("/fp16/theirs.engine")
    assert made.engines.files("tensorrt10", "theirs") == [EXTERNAL["path"]]
    with pytest.raises(UserError, match=r"engines\.external has none of tensorrt10 for 'm' in fp32"):
        engine_of(made, "external", precision="fp32")


def test_a_budget_of_an_engine_reads_its_layers_and_their_times_once_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study("profile", profiles={"large": [PROFILE]})
    cell = ("m", "fp16", "b8-s32", "nvidia-h200")
    layers = "results/engines/nvidia-h200/tensorrt10/m/fp16/large.layers.json"
    assert made.engine_layers("onnxruntime-cuda", *cell) == {}
    assert made.engine_layers("profile", *cell) == {"--layers": layers}
    times = tmp_path / "results/traces/nvidia-h200/profile/m/fp16/b8-s32.layers.json"
    times.parent.mkdir(parents=True)
    times.touch()
    assert made.engine_layers("profile", *cell)["--layer-times"] == str(times.relative_to(tmp_path))


def test_graphs_of_engines_are_typed_and_checked():
    made = study(precisions=["fp32", "tf32", "fp16", "int8"])
    assert made.targets.graphs == [("m", "fp16"), ("m", "fp32"), ("m", "int8.half")]
    assert {"results/parity/m/int8.half.json", "results/onnx/m/int8.half.json"} <= set(made.targets.evidence)
    assert "results/engines/nvidia-h200/tensorrt10/m/tf32/b1-s32.json" in made.targets.evidence
    assert made.engine_graph("m", "tf32") == "results/onnx/m/fp32.onnx"
    assert len(made.timing_caches("nvidia-h200", "tensorrt10")) == 4
    with pytest.raises(UserError, match="builds no engine with tensorrt11 on nvidia-h200"):
        made.timing_caches("nvidia-h200", "tensorrt11")


def slices(made):
    names = ["b1-s32", "b2-s32", "any", "other", "theirs"]
    return {name: made.engines.slice("nvidia-h200", "tensorrt10", "m", "fp16", name) for name in names}


def test_a_slice_changes_with_what_its_engine_depends_on_and_nothing_else():
    shared = {"profiles": {"any": [PROFILE], "other": [PROFILE]}, "external": {"theirs": EXTERNAL}}
    before = slices(study(**shared))
    changed = {"any": [{**PROFILE, "batch": [1, 4, 16]}], "other": [PROFILE]}
    after = slices(study(**{**shared, "profiles": changed}))
    assert [name for name in before if before[name] != after[name]] == ["any"]
    theirs = {"theirs": {**EXTERNAL, "sha256": "1" * 64}}
    after = slices(study(**{**shared, "external": theirs}))
    assert [name for name in before if before[name] != after[name]] == ["theirs"]
    after = slices(study(**shared, optimization_level=5))
    assert [name for name in before if before[name] == after[name]] == ["theirs"]
    after = slices(study(**shared, targets=["sm-8.9"]))
    assert before == after


def test_tf32_and_the_gpu_are_part_of_a_slice():
    made = study().engines
    fp32, tf32 = (json.loads(made.slice("nvidia-h200", "tensorrt10", "m", name, "b1-s32")) for name in ("fp32", "tf32"))
    assert (fp32.pop("tf32"), tf32.pop("tf32")) == (False, True) and fp32 == tf32
    assert (fp32["gpu"], fp32["capability"]) == ("NVIDIA H200", [9, 0])
    rtx = json.loads(made.slice("sm-8.9", "tensorrt-rtx", "m", "fp16", "b1-s32"))
    assert (rtx["gpu"], rtx["capability"]) == (None, [8, 9])
    asked = study(version_compatible=True, hardware_compatibility="ampere-plus", timing_cache="any.cache").engines
    assert json.loads(asked.slice("sm-8.9", "tensorrt-rtx", "m", "fp16", "b1-s32")) == rtx  # it has none of these


@pytest.mark.parametrize(
    ("engines", "message"),
    [
        (
            {"profiles": {"any": [{**PROFILE, "batch": [8, 4, 1]}]}},
            r"profiles\.any\.0: batch has min 8, opt 4",
        ),
        ({"profiles": {"b1-s8": [PROFILE]}}, "stand for that one shape; choose another"),
        ({"profiles": {"a.b": [PROFILE]}}, r'"a\.b" is not allowed here; use lower-case letters, digits and hyphens'),
        ({"profiles": {"any": [{"batch": [1, 2], "sequence": [1, 2, 3]}]}}, r"engines\.profiles\.any\.0\.batch"),
        ({"targets": ["sm-9.0"]}, "tensorrt-rtx does not build for sm-9.0; allowed: sm-7.5, sm-8.0"),
        ({"targets": ["8.9"]}, "use sm- and a compute capability"),
        ({"timing_cache": "results/engines/nvidia-h200/tensorrt10/timing.cache"}, "name a copy of it"),
        ({"optimization_level": 6}, "6 is out of range; give a whole number from 0 to 5"),
        ({"external": {"x": {**EXTERNAL, "model": "n"}}}, r"external\.x\.model: 'n' is unknown"),
        ({"external": {"x": {**EXTERNAL, "path": "gone"}}}, r"external\.x\.path: gone does not exist; correct it"),
        ({"timing_cache": "any.cach"}, r"engines.timing_cache: any.cach does not exist; did you mean 'any.cache'\?"),
        ({"external": {"x": {**EXTERNAL, "sha256": "abc"}}}, "use 64 hexadecimal digits"),
        ({"external": {"any": EXTERNAL}, "profiles": {"any": [PROFILE]}}, "engines.profiles has that name too"),
    ],
)
def test_what_cannot_be_is_refused(engines, message):
    with pytest.raises(UserError, match=message):
        study(**engines)


def test_a_runtime_without_an_engine_to_run_is_refused():
    with pytest.raises(
        UserError, match=r"'profile' runs engines with profiles, and engines\.profiles is empty; add one"
    ):
        study("profile")


def test_targets_are_built_for_without_such_a_gpu(monkeypatch):
    rtx = dataclasses.replace(RUNTIMES["static"], name="rtx", builder="tensorrt-rtx", packages=("no-such-thing",))
    monkeypatch.setitem(RUNTIMES, "rtx", rtx)
    monkeypatch.setattr(catalogue.Builder, "installed", lambda self: "1.7.1.116")
    made = study("rtx", targets=["sm-8.9", "sm-12.0"])
    assert not made.targets.measured
    assert made.targets.engine_files == [
        "results/engines/sm-12.0/tensorrt-rtx/m/fp16/b1-s32",
        "results/engines/sm-8.9/tensorrt-rtx/m/fp16/b1-s32",
    ]
    assert {"results/engines/sm-8.9/tensorrt-rtx/m/fp16/b1-s32.json", "results/parity/m/fp16.json"} <= set(
        made.targets.evidence
    )


def test_documented_examples_hold():
    assert doctest.testmod(catalogue).attempted and not doctest.testmod(catalogue).failed
