"""What a timed process imports: its runtime's libraries and no others; and what its start is made of."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from unit.measure import tiny_cell

from ceilings.environment import SCRIPTS, executing
from ceilings.files import write_task
from ceilings.measure import catalogue
from ceilings.models import load
from ceilings.runtimes.catalogue import RUNTIMES

HEAVY = {
    "torch",
    "transformers",
    "onnx",
    "onnxslim",
    "pandas",
    "pyarrow",
    "matplotlib",
    "scipy",
    "sklearn",
    "jsonschema",
}
"""What takes long to import, none of it needed to time a graph."""

STUBS = ("sklearn", "scipy")
"""Installed beside the worker of PyTorch, to see that it asks for neither."""

PROGRAM = """
import json, sys
from ceilings.files import read_json
from ceilings.measure import worker
record = worker.measure(read_json(sys.argv[1]))
assert record["status"] == "ok", record["failure"]
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def run(task, folder, *command, path=()):
    """What a fresh process prints that gets a task."""
    write_task(folder / "task.json", task)
    variables = executing(1)
    variables["PYTHONPATH"] = ":".join([*map(str, path), variables["PYTHONPATH"]])
    command = [sys.executable, *command, str(folder / "task.json"), str(folder / "record.json")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def torch_task(folder):
    """The task of a tiny DistilBERT in eager PyTorch."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    task = tiny_cell.make(folder, catalogue.task_entries("cpu"))
    weights = folder / "weights"
    model = {"name": "tiny", "architecture": "distilbert", "task": "sequence-classification", "weights": "random"}
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "vocab_size": 500}
    inputs, reference = folder / "inputs.npz", folder / "reference.npz"
    wanted = {"pool": 2, "seed": 0, "lengths": None}
    for program, *arguments in (
        ("fetch_weights.py", "--model", json.dumps({**model, "seed": 0, "config": sizes}), "--output-dir", weights),
        ("make_inputs.py", "--shape", "b2-s8", "--inputs", json.dumps(wanted), "--output", inputs),
        ("compute_reference.py", "--inputs", inputs, "--threads", 1, "--output", reference),
    ):
        given = () if program == "fetch_weights.py" else ("--weights-dir", weights)
        command = [sys.executable, SCRIPTS / program, *given, *arguments]
        subprocess.run(list(map(str, command)), env=executing(1), check=True)
    eager = RUNTIMES["torch-eager"]
    task["cell"] |= {"runtime": eager.name, "shape": "b2-s8"}
    task["spec"] |= {"module": eager.module, "options": dict(eager.options), "packages": {}}
    files = {"inputs": inputs, "reference": reference, "artifact": weights, "workload": weights / "workload.json"}
    return task | {name: str(path) for name, path in files.items()}


def test_a_process_that_times_a_graph_imports_only_its_runtime(tmp_path):
    loaded = set(json.loads(run(tiny_cell.make(tmp_path, catalogue.task_entries("cpu")), tmp_path, "-c", PROGRAM)))
    assert {"onnxruntime", "numpy"} <= loaded
    assert loaded & HEAVY == set()


@pytest.mark.slow
def test_a_process_that_times_pytorch_asks_for_nothing_that_no_forward_pass_calls(tmp_path):
    site = tmp_path / "site"
    for name in STUBS:  # a stand-in that says when it is imported
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("raise SystemExit('imported, and not needed')\n")
        (site / f"{name}-1.0.dist-info").mkdir()
        (site / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    loaded = set(json.loads(run(torch_task(tmp_path), tmp_path, "-c", PROGRAM, path=[site])))
    assert "transformers" in loaded
    assert loaded & (HEAVY - {"torch", "transformers"}) == set()


LATER = """
import sys
import transformers
from ceilings.models import load
print(load.load_module(sys.argv[1]).attention)
"""


@pytest.mark.slow
def test_a_transformers_that_knows_scipy_already_loads_a_model(tmp_path):
    (tmp_path / "site" / "scipy").mkdir(parents=True)
    (tmp_path / "site" / "scipy" / "__init__.py").write_text("")
    (tmp_path / "site" / "scipy" / "optimize.py").write_text("linear_sum_assignment = None\n")
    weights = torch_task(tmp_path)["artifact"]
    variables = executing(1)
    variables["PYTHONPATH"] = f"{tmp_path / 'site'}:{variables['PYTHONPATH']}"
    command = [sys.executable, "-c", LATER, weights]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "sdpa\n"), done.stderr


def test_hidden_packages_come_back(tmp_path, monkeypatch):
    (tmp_path / "hidden_one.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with load.hidden("hidden_one", "json"):
        with pytest.raises(ModuleNotFoundError):
            __import__("hidden_one")
        assert __import__("json") is json  # what is imported already stays
    assert __import__("hidden_one")


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("torch", marks=pytest.mark.slow)])
def test_the_stages_of_a_start_add_up_to_the_first_answer(tmp_path, runtime):
    entries = catalogue.task_entries("cpu")
    task = tiny_cell.make(tmp_path, entries) if runtime == "onnxruntime" else torch_task(tmp_path)
    run(task, tmp_path, "-m", "ceilings.measure.worker")
    record = json.loads((tmp_path / "record.json").read_text())
    stages, imports, whole = record["cold_start_ns"], record["imports_ns"], record["first_answer_ns"]
    assert set(stages) <= set(catalogue.STAGES) and stages["interpreter"] > 0
    # The kernel's clock of processes ticks every 10 ms.
    assert abs(sum(stages.values()) - whole) <= max(0.05 * whole, 20e6), (stages, whole)
    assert set(imports) <= set(catalogue.IMPORTS) and stages["import"] == sum(imports.values())
    assert imports[runtime] > 0
    if runtime == "torch":  # imported while it loads, and still no loading
        assert imports["transformers"] > stages["load"]
