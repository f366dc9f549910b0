"""What a user gets wrong gives one message that names the thing, the value and the remedy, and loses nothing."""

import copy

import pytest
from tiny import STUDY, SUMMARY

pytestmark = pytest.mark.workflow


def refused(project, *arguments, traceback=False):
    """The output of a run that must fail, leaving every result as it was; without a traceback unless one is allowed."""
    before = {path: path.stat().st_mtime_ns for path in (project.folder / "results").rglob("run*.json")}
    done = project.snakemake(*(arguments or (SUMMARY,)), check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert traceback or "Traceback" not in text, text
    assert before and before == {path: path.stat().st_mtime_ns for path in before}
    return text


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("protocoll", {}, "unknown key 'protocoll', did you mean 'protocol'?"),
        ("study", "a; rm -rf /", '"a; rm -rf /" is not allowed here'),
        ("calibration", {"method": "entropi"}, "did you mean 'entropy'?"),
        ("inputs", {"ring": 2}, "'ring' is called 'pool'; write inputs.pool"),
        (
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


def test_duplicate_name_is_refused(project):
    with (project.folder / "config.yaml").open("a") as file:
        file.write("study: other\n")
    assert "'study' stands here twice" in refused(project)


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
        ("results/onnx/tiny/exported.onnx", "results/onnx/tiny/simplified.onnx"),
        ("results/onnx/tiny/simplified.onnx", "results/onnx/tiny/int8.onnx"),
        ("results/calibration/tiny/minmax.json", "results/onnx/tiny/int8.onnx"),
        ("results/models/tiny/weights/model.safetensors", "results/onnx/tiny/exported.onnx"),
        ("results/models/tiny/inputs/b8-s16.npz", "results/models/tiny/reference/b8-s16.npz"),
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
    record = path.read_text()
    start = record.index('"graph_sha256": "') + len('"graph_sha256": "')
    path.write_text(record[:start] + "0" * 64 + record[start + 64 :])
    text = refused(project, "--force", "results/onnx/tiny/int8.onnx")
    assert "minmax.json" in text and "simplified.onnx" in text and "000000" in text


def test_result_of_another_device_is_not_made_here(project):
    target = "results/benchmarks/cpu-of-somebody-else/onnxruntime-cpu/tiny/fp32/b1-s16/run1.json"
    text = refused(project, target)
    assert "belongs to cpu-of-somebody-else, but this machine's cpu device is" in text


def test_unknown_runtime_in_a_target(project):
    # Snakemake shows where an input function refused, however it did.
    text = refused(project, "results/benchmarks/cpu-x/onnxruntime-cpuu/tiny/fp32/b1-s16/run1.json", traceback=True)
    assert "no runtime is called 'onnxruntime-cpuu', did you mean 'onnxruntime-cpu'?" in text


def test_unknown_model_in_a_target(project):
    text = refused(project, "results/onnx/tinyy/exported.onnx", traceback=True)
    assert "no model is called 'tinyy', did you mean 'tiny'?" in text
