"""Engines as targets: built for real by TensorRT for RTX, each rebuilt by what it depends on and by nothing else."""

import copy
import json
import shutil

import pytest
from tiny import LAB_NOTE, STUDY, SUMMARY, Project

from ceilings.engines.catalogue import BUILDERS
from ceilings.report.catalogue import plots_of

RTX = BUILDERS["tensorrt-rtx"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.workflow,
    pytest.mark.skipif(not RTX.installed(), reason=f"{RTX.distributions[0]} {RTX.major}.* is not installed"),
]

FOLDER = "results/engines/sm-8.9/tensorrt-rtx/tiny"
PROFILE = {"batch": [1, 4, 8], "sequence": [8, 16, 64]}
OTHER = {"batch": [1, 1, 1], "sequence": [8, 16, 64]}
PRECISIONS = ["fp16", "int8"]
REPORT = {"collect_cells": 1, "draw_plot": len(plots_of(())), "write_summary": 1}
RUNTIME = """
for _engine in ("static", "profile"):
    RUNTIMES[f"rtx-{_engine}"] = Runtime(
        f"rtx-{_engine}", "rtx", frozenset(), "cuda", "tensorrt_native", "engine", "tensorrt-rtx", PRECISIONS,
        ("tensorrt-rtx-cu13-bindings",), "engines", builder="tensorrt-rtx", engine=_engine,
    )
"""


def study(precisions=PRECISIONS, batches=(1,), **engines):
    """The tiny study, whose engines for a compute capability of another machine are evidence of the lab note."""
    made = copy.deepcopy(STUDY)
    shapes = {"models": ["tiny"], "batches": list(batches), "sequences": [16], "precisions": list(precisions)}
    made["sweeps"]["engines"] = {**shapes, "runtimes": ["rtx-static"]}
    made["sweeps"]["profiles"] = {**shapes, "runtimes": ["rtx-profile"], "precisions": ["fp16"]}
    made["engines"] = {"targets": ["sm-8.9"], "profiles": {"any": [PROFILE]}, **engines}
    return made


@pytest.fixture(scope="module")
def built(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines") / "project"
    shutil.copytree(finished.folder, folder)
    project = Project(folder)
    project.edit("workflow_scripts/ceilings/runtimes/catalogue.py", RUNTIME)
    project.configure(study())
    project.snakemake(SUMMARY)
    return project


@pytest.fixture
def project(built, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(built.folder, copy)
    return Project(copy)


def record(project, engine):
    return json.loads((project.folder / FOLDER / f"{engine}.json").read_text())


def test_engines_of_a_study_are_built_and_described(built):
    assert built.planned() == {}
    engines = {path.relative_to(built.folder / FOLDER).with_suffix("") for path in built.folder.rglob("*.engine")}
    assert set(map(str, engines)) == {"fp16/b1-s16", "int8/b1-s16", "fp16/any"}
    assert record(built, "int8/b1-s16")["summary"]["quantized"]["ran"] == 14
    note = (built.folder / LAB_NOTE).read_text()
    section = note[note.index("## Engines") :]
    assert "tiny on `sm-8.9`, tensorrt-rtx 1." in section and "14 of 14" in section
    assert "tiny int8 b1-s16 on `sm-8.9` (tensorrt-rtx): 31 layers where fp16 has 25" in section


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        ({"precisions": ["fp16", "int8", "fp32"]}, {"build_rtx_engine": 1, "plan_study": 1, **REPORT}),
        ({"batches": [1, 2]}, {"build_rtx_engine": 2, "plan_study": 1, **REPORT}),
        ({"profiles": {"any": [PROFILE, OTHER]}}, {"build_rtx_engine": 1, "write_summary": 1}),
        ({"targets": ["sm-8.9", "sm-12.0"]}, {"build_rtx_engine": 3, "write_summary": 1}),
    ],
    ids=["precision", "shape", "profile", "target"],
)
def test_a_change_rebuilds_the_engines_concerned(project, changes, jobs):
    project.configure(study(**changes))
    assert project.planned() == jobs


def test_edited_code_rebuilds_what_it_shaped(project):
    for file in ("report/render/engine_section.py", "measure/gpu_loop.py", "runtimes/torch_cuda.py"):
        project.edit(f"workflow_scripts/ceilings/{file}", "EDITED = True")
    assert project.planned() == {"write_summary": 1}
    project.edit("workflow_scripts/ceilings/engines/inspect.py", "EDITED = True")
    assert project.planned() == {"build_rtx_engine": 3, "write_summary": 1}


def test_an_engine_that_cannot_be_built_is_a_result_and_harms_no_other(project):
    project.configure(study(workspace_mb=1))
    project.snakemake(SUMMARY)
    assert {record(project, name)["failure"]["kind"] for name in ("fp16/b1-s16", "int8/b1-s16")} == {"workspace"}
    note = (project.folder / LAB_NOTE).read_text()
    assert "tiny int8 b1-s16 on `sm-8.9` (tensorrt-rtx): no engine (workspace): the builder gave up" in note


def test_an_engine_for_another_gpu_is_not_built_here(project):
    target = "results/engines/nvidia-of-somebody-else/tensorrt10/tiny/fp16/b1-s16.engine"
    done = project.snakemake(target, check=False)
    assert done.returncode != 0 and "this machine's GPU is" in done.stdout + done.stderr


def test_int8_can_be_tuned(project):
    """The most sensitive layers stay in FP16, which rebuilds the quantised engine only; calibrations are compared."""
    changed = study()
    changed["quantization"] = {"keep_most_sensitive": 2}
    project.configure(changed)
    planned = project.planned()
    assert planned["build_rtx_engine"] == planned["quantize_half_graph"] == 1
    compared = "results/calibration/tiny/comparison.json"
    project.snakemake(f"{FOLDER}/int8/b1-s16.engine", compared)

    report = json.loads((project.folder / "results/onnx/tiny/int8.half.json").read_text())
    parity = json.loads((project.folder / "results/parity/tiny/int8.half.json").read_text())
    worst = sorted(parity["layers"], key=lambda layer: layer["sqnr_db"])[:2]
    assert {layer["node"] for layer in report["kept_as_most_sensitive"]} == {layer["node"] for layer in worst}
    summary = record(project, "int8/b1-s16")["summary"]
    assert summary["quantized"]["asked"] == summary["quantized"]["ran"] == 12

    comparison = json.loads((project.folder / compared).read_text())
    errors = {name: method["relative_l2"] for name, method in comparison["methods"].items()}
    assert set(errors) == {"minmax", "entropy", "percentile"} and len(set(errors.values())) == 3
    assert errors[comparison["best"]] == min(errors.values())
