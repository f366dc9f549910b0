"""What comes home of a host's results, and what does not."""

from __future__ import annotations

import tarfile

import pytest

from ceilings.errors import UserError
from ceilings.offline import harvest

RECORDS = (
    "benchmarks/nvidia-test/torch-cuda-eager/m/fp16/b1-s128/run1.json",
    "hosts/nvidia-test/peaks.json",
    "floors/nvidia-test/m/fp16/b1-s128.json",
    "parity/m/fp16.json",
    "onnx/m/fp16.json",
    "models/m/weights/provenance.json",
    "engines/nvidia-test/tensorrt11/m/fp16/b1-s128.json",
    "traces/nvidia-test/torch-cuda-eager/m/fp16/b1-s128.budget.json",
    "traces/nvidia-test/torch-cuda-eager/m/fp16/b1-s128.sqlite",
    "quality/nvidia-test/torch-cuda-eager/m/fp16.json",
    "predictions.json",
)
MADE = ("summary.md", "report.html", "tables/cells.csv", "plots/levers.svg", "plan.json")
HEAVY = (
    "models/m/weights/model.safetensors",
    "models/m/inputs/b1-s128.npz",
    "onnx/m/fp16.onnx",
    "onnx/m/fp16.onnx.data",
    "engines/nvidia-test/tensorrt11/m/fp16/b1-s128.engine",
    "engines/nvidia-test/tensorrt11/timing.cache",
    "logs/measure_latency/run1.log",
    "logs/plain",
)
SECRET = ("traces/nvidia-test/m/b1-s128.nsys-rep", "traces/nvidia-test/m/b1-s128.qdstrm", ".snakemake/x", "plots/.half")


@pytest.fixture
def results(tmp_path):
    for name in (*RECORDS, *MADE, *HEAVY, *SECRET):
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"study": "mine"}')
    (tmp_path / "study.yaml").write_text("study: mine\n")
    return tmp_path / "results"


def brought(results, everything=False):
    about = harvest.pack(results, results.parent / "study.yaml", results.parent / "r.tar.gz", everything)
    with tarfile.open(results.parent / "r.tar.gz") as tar:
        assert all(one.isreg() and not one.uname for one in tar)
        return about, set(tar.getnames())


def test_records_and_what_was_made_of_them_come_home(results):
    about, names = brought(results)
    expected = {f"results/{name}" for name in RECORDS} | {f"there/{name}" for name in MADE}
    assert names == expected | {"config.yaml"}
    assert about == {"name": "results-nvidia-test", "study": "mine", "devices": ["nvidia-test"]}


def test_everything_is_all_but_what_holds_environments(results):
    _, names = brought(results, everything=True)
    assert {f"results/{name}" for name in HEAVY} <= names
    assert not [name for name in names if name.endswith((".nsys-rep", ".qdstrm")) or "/." in name]


def test_links_do_not_travel(results):
    (results / "benchmarks/link.json").symlink_to("/etc/hostname")
    assert "results/benchmarks/link.json" not in brought(results)[1]


def test_results_of_another_study_are_refused(results):
    (results.parent / "study.yaml").write_text("study: other\n")
    with pytest.raises(
        UserError, match=r"results is of the study mine, and .*study\.yaml is other; name its file: STUDY="
    ):
        brought(results)


def test_nothing_measured_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run record; measure first"):
        harvest.pack(tmp_path, tmp_path / "config.yaml", tmp_path / "r.tar.gz", False)
