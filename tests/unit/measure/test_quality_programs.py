"""make_data.py and evaluate_quality.py as processes, on a graph whose right answers are known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from unit import planted_records

from ceilings import files, records
from ceilings import host as hosts
from ceilings.models import dataset
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "film"]
SCORES = {"good": 1.0, "bad": -1.0, "film": 0.1}
"""What each word adds to the positive class: a sum, so that padding which is not masked would change nothing of it."""

PADDED = 5.0
"""What padding adds: answers are right only where the mask is."""

SPEC = {
    "module": "onnxruntime_cpu",
    "threads": 1,
    "options": {},
    "packages": ["onnxruntime"],
    "protocol": {"time_limit_seconds": 120},
}
CPU = hosts.detect({}).device("cpu")


def run(program, *arguments):
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPTS / program), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def graph(path, **changes):
    """logits = (0, sum over real tokens of the words' scores)."""
    scores = [PADDED if word == "[PAD]" else (SCORES | changes).get(word, 0.0) for word in WORDS]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["each"]),
        helper.make_node("Cast", ["mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["each", "real"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "sides"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(scores, np.float32), "table"),
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array([[0, 1]], np.float32), "sides"),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("ids", "mask")
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    made = helper.make_model(
        helper.make_graph(nodes, "scores", tensors, [logits], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(made, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of weights that needs no weights, its FP32 graph and a worse one."""
    folder = tmp_path_factory.mktemp("model")
    weights = folder / "weights"
    weights.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.save(str(weights / "tokenizer.json"))
    config = {"id2label": {"0": "negative", "1": "positive"}, "pad_token_id": 0}
    (weights / "config.json").write_text(json.dumps(config))
    planted_records.weights(weights, source="path")
    ids = TensorSpec("ids", "int64", ("batch", "sequence"), "tokens", 0, len(WORDS) - 1)
    mask = TensorSpec("mask", "int64", ("batch", "sequence"), "mask")
    logits = TensorSpec("logits", "float32", ("batch", 2))
    Workload(TASKS["sequence-classification"], (ids, mask), (logits,)).write(weights)
    graph(folder / "fp32.onnx")
    graph(folder / "int8.onnx", film=-0.1)
    lines = ["good film\tpositive", "bad film\tnegative", "film\tpositive", "film film\tnegative"] * 5
    lines.append(f"{'good ' * 20}\tpositive")
    (folder / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    made = run(
        *("make_data.py", "--weights-dir", weights, "--data", json.dumps({"file": str(folder / "dev.tsv")})),
        *("--shape", "b8-s8", "--graph", folder / "fp32.onnx", "--reference", folder / "data.reference.npz"),
        *("--output", folder / "data.npz"),
    )
    assert made.returncode == 0, made.stderr
    assert "21 of 21 rows (dev.tsv), 1 truncated, labels of column label" in made.stdout
    return folder


def evaluate(model, name, spec=SPEC, **changes):
    output = model / f"{name}.json"
    arguments = {
        "device": CPU,
        "runtime": "onnxruntime-cpu",
        "model": "words",
        "precision": name,
        "shape": "b8-s8",
        "spec": json.dumps(spec),
        "artifact": model / f"{name}.onnx",
        "workload": model / "weights" / "workload.json",
        "data": model / "data.npz",
        "output": output,
    } | changes
    done = run("evaluate_quality.py", *(part for key, value in arguments.items() for part in (f"--{key}", value)))
    return done, json.loads(output.read_text()) if output.exists() else None


def test_the_rows_are_the_tokenizers(model):
    rows = dataset.load(model / "data.npz")
    assert rows.inputs["ids"][0].tolist() == [1, 4, 6, 2, 0, 0, 0, 0]
    assert rows.inputs["mask"][0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert rows.inputs["ids"][20].tolist() == [1, 4, 4, 4, 4, 4, 4, 2]
    assert rows.labels.tolist() == [1, 0, 1, 0] * 5 + [1]
    assert np.flatnonzero(rows.truncated).tolist() == [20]
    assert json.loads((model / "data.json").read_text())["rows"] == 21


def test_fp32_has_the_accuracy_that_the_words_give(model):
    """Right but for the five of "film film"; 21 rows are three batches of eight, the last filled up."""
    done, record = evaluate(model, "fp32")
    assert done.returncode == 0, done.stderr
    metrics = record["metrics"]
    assert record["status"] == "ok" and record["cell"]["shape"] == "b8-s8"
    assert (metrics["metric"], metrics["value"], metrics["agreement"]) == ("accuracy", 16 / 21, 1.0)
    assert metrics["predictions"] == [1, 0, 1, 1] * 5 + [1]
    assert (metrics["difference"], metrics["p_value"]) == (0.0, 1.0)
    assert record["data"] == {
        **{"source": "file", "file": "dev.tsv", "text": "sentence", "label": "label", "labelled": True},
        **{"rows": 21, "available": 21, "truncated": 1, "weights": "path", "seed": 0, "sequence": 8},
        "file_sha256": files.sha256(model / "dev.tsv"),
    }


def test_another_graph_is_paired_with_fp32(model):
    """ "film" turns negative: five answers become wrong, five right."""
    _, record = evaluate(model, "int8")
    metrics = record["metrics"]
    assert (metrics["value"], metrics["reference_value"], metrics["difference"]) == (16 / 21, 16 / 21, 0.0)
    assert (metrics["only_cell_right"], metrics["only_reference_right"], metrics["p_value"]) == (5, 5, 1.0)
    assert metrics["agreement"] == 11 / 21


def test_a_time_limit_is_a_failed_record(model):
    done, record = evaluate(model, "fp32", SPEC | {"protocol": {"time_limit_seconds": 0.05}})
    assert done.returncode == 0
    assert (record["status"], record["failure"]["kind"], record["metrics"]) == ("failed", "timed-out", None)


def test_an_artifact_that_could_not_be_made_says_why(model, tmp_path):
    (tmp_path / "int8.onnx").write_bytes(b"")
    failure = {"kind": "unsupported", "message": "no kernel for it"}
    records.write(tmp_path / "int8.json", "graph", {"status": "failed", "failure": failure})
    done, record = evaluate(model, "int8", artifact=tmp_path / "int8.onnx")
    assert done.returncode == 0
    assert (record["status"], record["failure"], record["metrics"]) == ("failed", failure, None)


def test_outputs_that_are_no_numbers_fail_the_cell(model):
    graph(model / "fp16.onnx", bad=float("nan"))
    _, record = evaluate(model, "fp16")
    assert record["failure"] == {"kind": "parity", "message": "5 of 21 rows have outputs that are not finite"}
    assert record["data"]["rows"] == 21


def test_another_machines_device_is_refused(model):
    done, record = evaluate(model, "bf16", device="nvidia-nowhere")
    assert done.returncode == 1 and record is None
    assert "belongs to nvidia-nowhere" in done.stderr


def test_a_sample_is_seeded_and_keeps_the_order_of_the_file(model, tmp_path):
    def sample(seed):
        data = {"file": str(model / "dev.tsv"), "limit": 6, "seed": seed}
        output = tmp_path / f"{seed}.npz"
        done = run(
            *("make_data.py", "--weights-dir", model / "weights", "--data", json.dumps(data)),
            *("--shape", "b8-s8", "--output", output),
        )
        assert done.returncode == 0, done.stderr
        return dataset.load(output)

    first, again, other = sample(1), sample(1), sample(2)
    assert len(first) == 6 and first.facts["available"] == 21
    assert first.sha256 == again.sha256 != other.sha256


def test_without_a_file_a_tokenizer_of_few_words_gets_random_ids_without_labels(model, tmp_path):
    done = run(
        *("make_data.py", "--weights-dir", model / "weights", "--data", "{}", "--shape", "b8-s32"),
        *("--output", tmp_path / "data.npz"),
    )
    assert done.returncode == 0, done.stderr
    rows = dataset.load(tmp_path / "data.npz")
    assert (rows.facts["source"], rows.labels) == ("random", None)
    assert len(rows) == len(np.unique(rows.inputs["ids"], axis=0)) > 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"file": "nowhere.csv"}, "nowhere.csv does not exist"),
        ({"limit": 0}, "quality.limit is 0"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_what_the_user_can_mend_is_said_in_one_line(model, tmp_path, data, message):
    done = run(
        *("make_data.py", "--weights-dir", model / "weights", "--data", json.dumps(data), "--shape", "b8-s8"),
        *("--output", tmp_path / "data.npz"),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr and "Traceback" not in done.stderr
