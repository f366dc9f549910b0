"""What a user gets wrong gives one message that names the thing, the value and the remedy, and loses nothing."""

import copy

import pytest
from tiny import STUDY, SUMMARY
from unit import planted_records

pytestmark = pytest.mark.workflow


def slow(*values):
    """A case that takes the way of another one here, by another file or key."""
    return pytest.param(*values, marks=pytest.mark.slow)


def refused(project, *arguments):
    """The output of a run that must fail, leaving every result as it was, without a traceback."""
    before = {path: path.stat().st_mtime_ns for path in (project.folder / "results").rglob("run*.json")}
    done = project.snakemake(*(arguments or (SUMMARY,)), check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in text, text
    assert before and before == {path: path.stat().st_mtime_ns for path in before}
    return text


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("protocoll", {}, "unknown key 'protocoll', did you mean 'protocol'?"),
        slow("study", "a; rm -rf /", '"a; rm -rf /" is not allowed here'),
        slow("calibration", {"method": "entropi"}, "did you mean 'entropy'?"),
        (
            "inputs",
            {"lengths": {"t": {"file": "t.txt"}}},
            "inputs.lengths.t.file: t.txt does not exist; correct it (paths",
        ),
        slow("__use_yte__", True, "has __use_yte__, for which Snakemake runs the Python in it"),
        slow(
            "sweeps",
            {"one": {**STUDY["sweeps"]["one"], "sequences": [4096]}},
            "4096 is longer than the 64 positions of 'tiny'",
        ),
    ],
)
def test_bad_study_is_refused_before_any_job(project, section, value, message):
    study = copy.deepcopy(STUDY)
    study[section] = value
    project.configure(study)
    text = refused(project)
    assert message in text and "Job stats" not in text


def test_no_core_is_refused_where_snakemake_would_wait_for_ever(project):
    due = "results/onnx/tiny/fp16.onnx"
    for option in ("--cores", "-c"):
        assert "--cores 0 leaves no core to a job" in refused(project, due, option, "0")
    assert project.planned(due, "--cores", "0") == {"convert_precision": 1}  # as the message proposes


def test_unwritable_results(project):
    results = project.folder / "results"
    results.rename(project.folder / "elsewhere")
    results.write_text("not a folder")
    done = project.snakemake(SUMMARY, check=False)
    assert done.returncode != 0 and "cannot be written; make it a writable folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("damaged", "target"),
    [
        slow("results/onnx/tiny/exported.onnx", "results/onnx/tiny/simplified.onnx"),
        slow("results/onnx/tiny/simplified.onnx", "results/onnx/tiny/int8.onnx"),
        ("results/calibration/tiny/minmax.json", "results/onnx/tiny/int8.onnx"),
        slow("results/models/tiny/weights/model.safetensors", "results/onnx/tiny/exported.onnx"),
        slow("results/models/tiny/inputs/b8-s16.npz", "results/models/tiny/reference/b8-s16.npz"),
        ("results/benchmarks/{device}/onnxruntime-cpu/tiny/fp32/b1-s16/run1.json", "results/tables/cells.csv"),
    ],
)
def test_damaged_file_is_named_with_a_remedy(project, damaged, target):
    if "{device}" in damaged:
        device = next((project.folder / "results/benchmarks").iterdir()).name
        damaged = damaged.format(device=device)
    path = project.folder / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = refused(project, "--force", target)
    assert "error: " in text and damaged in text and "delete" in text, text


def test_calibration_of_another_graph_is_refused(project):
    path = project.folder / "results/calibration/tiny/minmax.json"
    planted_records.edit(path, graph_sha256="0" * 64)
    text = refused(project, "--force", "results/onnx/tiny/int8.onnx")
    assert "minmax.json" in text and "simplified.onnx" in text and "000000" in text


def test_result_of_another_device_is_not_made_here(project):
    target = "results/benchmarks/cpu-of-somebody-else/onnxruntime-cpu/tiny/fp32/b1-s16/run1.json"
    text = refused(project, target)
    assert "belongs to cpu-of-somebody-else, but this machine's processor is" in text


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (
            "results/benchmarks/cpu-x/onnxruntime-cpuu/tiny/fp32/b1-s16/run1.json",
            "error: no runtime is called 'onnxruntime-cpuu', did you mean 'onnxruntime-cpu'?",
        ),
        ("results/onnx/tinyy/exported.onnx", "error: no model is called 'tinyy', did you mean 'tiny'?"),
        ("results/plots/roofine.svg", "error: no plot is called 'roofine', did you mean 'roofline'?"),
        ("results/sumary.md", "error: nothing makes results/sumary.md, did you mean 'results/summary.md'?"),
        ("results/models/tiny/inputs/b1-s65.npz", "error: b1-s65: 'tiny' takes at most 64 as sequence; ask for that"),
    ],
)
def test_unknown_targets_are_one_line(project, target, line):
    assert line in refused(project, target).splitlines()
