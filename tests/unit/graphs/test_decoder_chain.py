"""From a study's definition to a parity record, by the programs of the rules, for a tiny decoder of each kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import numpy_helper
from unit.models.generating_models import generating

from ceilings import options
from ceilings.graphs import graph, token_parity
from ceilings.models import inputs, reference, weights
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

pytestmark = pytest.mark.slow  # a process for each program of the chain

SCRIPTS = Path(graph.__file__).parents[2]
SHAPE = Shape.parse("b3-p9-g8")
EXPORT = {"exporter": "torchscript", "opset": 17, "attention": "eager", "axes": "dynamic"}
NAMES = ("fp32", "fp16", "bf16", "fp32.fused", "fp16.fused")


def run(folder: Path, program: str, *arguments: object) -> None:
    """A program as a rule calls it."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{program}.py", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check(folder: Path, path: Path, precision: str, output: Path) -> None:
    """Parity of a graph."""
    files = {
        **{"graph": path, "base": folder / "simplified.onnx", "workload": folder / "weights/workload.json"},
        **{"inputs": folder / "inputs.npz", "reference": folder / "reference.npz", "output": output},
    }
    given = [part for name, value in files.items() for part in (f"--{name}", value)]
    run(folder, "check_parity", *given, "--precision", precision, "--threads", 1)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def chain(request, tmp_path_factory):
    """The folder of a model with its graphs, its inputs, its reference and its parity records."""
    folder = tmp_path_factory.mktemp(request.param)
    weights.fetch(generating(request.param), folder / "weights")
    wanted = options.read(inputs.Wanted, {"pool": 2, "seed": 0, "lengths": None}, "--inputs")
    inputs.make_inputs(folder / "weights", SHAPE, wanted, folder / "inputs.npz")
    reference.compute(folder / "weights", folder / "inputs.npz", 1, folder / "reference.npz", shape=SHAPE)

    def graphs(program: str, source: str, made: str, *arguments: object) -> None:
        given = () if source == "" else ("--graph", folder / f"{source}.onnx")
        outputs = ("--output", folder / f"{made}.onnx", "--report", folder / f"{made}.json")
        run(folder, program, *given, *arguments, *outputs)

    graphs("export_onnx", "", "exported", "--weights-dir", folder / "weights", "--export", json.dumps(EXPORT))
    graphs("simplify_onnx", "exported", "simplified", "--workload", folder / "weights/workload.json")
    for kind in ("fp32", "fp16", "bf16"):
        graphs("convert_precision", "simplified", kind, "--precision", kind)
    for kind in ("fp32", "fp16", "bf16"):
        graphs("fuse_graph", kind, f"{kind}.fused", "--weights-dir", folder / "weights")
    for name in NAMES:
        check(folder, folder / f"{name}.onnx", name.split(".")[0], folder / f"{name}.parity.json")
    return folder


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def test_reports_say_what_was_done(chain):
    assert record(chain, "simplified")["simplified"]
    assert record(chain, "exported")["inputs"][1] == {
        **{"name": "past.0.key", "type": "float"},
        "shape": ["batch", Workload.read(chain / "weights").decoder.kv_heads, "past", 16],
    }
    for name in ("fp32.fused", "fp16.fused"):
        assert record(chain, name)["attentions"] == {"fused": 2, "expected": 2}


def test_fp32_generates_the_reference_s_tokens(chain):
    for name in ("fp32", "fp32.fused"):
        parity = record(chain, f"{name}.parity")
        assert parity["status"] == "ok" and parity["relative_l2"] < 1e-4, parity
        assert parity["token_agreement"] == parity["rows_equal"] == 1.0 and parity["texts"] == 0


def test_fp16_differs_by_what_rounding_explains(chain):
    for name in ("fp16", "fp16.fused"):
        parity = record(chain, f"{name}.parity")
        assert parity["status"] == "ok" and 1e-6 < parity["relative_l2"] < 0.02, parity
        assert token_parity.too_far(parity, 0.02) is None, parity


def test_bf16_has_no_kernels_on_a_cpu(chain):
    parity = record(chain, "bf16.parity")
    assert parity["status"] == "unavailable" and "NOT_IMPLEMENTED" in parity["reason"]


def test_a_fused_graph_of_bf16_is_a_failed_artifact(chain):
    report = record(chain, "bf16.fused")
    assert report["status"] == "failed" and "bfloat16" in report["failure"]["message"]
    assert (chain / "bf16.fused.onnx").stat().st_size == 0


def test_wrong_positions_are_no_parity(chain, tmp_path):
    """Positions counted from the longest context's end: the tables of embeddings or of angles upside down."""
    model = graph.load(chain / "fp32.onnx")
    sizes = {"gpt2": [128, 64], "llama": [512, 16]}[Workload.read(chain / "weights").architecture]
    tables = [tensor for tensor in model.graph.initializer if list(tensor.dims) == sizes]
    assert tables
    for tensor in tables:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    graph.save(model, tmp_path / "wrong.onnx")
    check(chain, tmp_path / "wrong.onnx", "fp32", tmp_path / "parity.json")
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert token_parity.too_far(parity, 1e-3)
