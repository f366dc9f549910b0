"""Eight architectures of four tasks, an ONNX file and padded texts, from local folders on a CPU, in one study."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny import PROJECT, STUDY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 200,
    "max_position_embeddings": 40,
}
IMAGES = {"image_size": 32, "patch_size": 16}
CLASSES = {
    "bert": ("BertForSequenceClassification", SIZES),
    "distilbert": (
        "DistilBertForTokenClassification",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 200, "max_position_embeddings": 40},
    ),
    "roberta": ("RobertaForQuestionAnswering", {**SIZES, "pad_token_id": 1}),
    "electra": ("ElectraForSequenceClassification", {**SIZES, "embedding_size": 32}),
    "mpnet": ("MPNetModel", SIZES),
    "deberta-v2": ("DebertaV2ForTokenClassification", {**SIZES, "relative_attention": True, "pos_att_type": ["p2c"]}),
    "modernbert": ("ModernBertForSequenceClassification", {**SIZES, "pad_token_id": 0, "local_attention": 16}),
    "vit": (
        "ViTModel",
        {key: value for key, value in SIZES.items() if key not in ("vocab_size", "max_position_embeddings")} | IMAGES,
    ),
}
TASKS = {
    "bert": "sequence-classification",
    "distilbert": "token-classification",
    "roberta": "question-answering",
    "electra": "sequence-classification",
    "mpnet": "sentence-embedding",
    "deberta-v2": "token-classification",
    "modernbert": "sequence-classification",
    "vit": "image-embedding",
}


def save_models(folder):
    """Each architecture as a user has it: config.json and model.safetensors in a folder of its own."""
    import torch
    import transformers

    for name, (architecture, sizes) in CLASSES.items():
        torch.manual_seed(0)
        kind = getattr(transformers, architecture)
        kind(kind.config_class(**sizes)).save_pretrained(folder / name)
    shutil.copytree(folder / "bert", folder / "broken")
    (folder / "broken/tokenizer.json").write_text("{")


def save_onnx(path, **stored):
    """A graph of somebody's own: ids (N, L) looked up, mean over L, (N, 4)."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    table = numpy_helper.from_array(np.random.default_rng(0).standard_normal((50, 4), np.float32), "table")
    weight = numpy_helper.from_array(np.random.default_rng(1).standard_normal((4, 4), np.float32), "weight")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "mine", [ids], [y], [table, weight])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path, **stored)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The study's run records by (runtime, model, precision, shape), and its plan."""
    folder = tmp_path_factory.mktemp("models") / "project"
    folder.mkdir()
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        source = PROJECT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder)
    save_models(folder / "mine")
    save_onnx(folder / "mine/own.onnx")
    save_onnx(folder / "mine/unmade.onnx", save_as_external_data=True, location="gone.bin", size_threshold=0)
    (folder / "mine/gone.bin").unlink()
    models = {name: f"mine/{name}" for name in CLASSES}
    texts = [name for name in models if name != "vit"]
    shapes = {"batches": [2], "sequences": [16]}
    config = {
        "study": "models",
        "models": {
            **{k: f"./{v}" for k, v in models.items()},
            "own": {"onnx": "mine/own.onnx", "axes": {"L": "sequence"}},
            "broken": "./mine/broken",
            "unmade": {"onnx": "mine/unmade.onnx", "axes": {"L": "sequence"}},
        },
        "inputs": {"pool": 2, "lengths": {"half": {"share": 0.5}}},
        "calibration": {"count": 4, "sequence": 128},  # more than any of them takes
        "parity": {"int8": 0.6},  # own takes a mean over the sequence, and calibration at 128 clips what 16 gives
        "cpu_threads": 1,
        "sweeps": {
            "torch": {"models": [*models, "own"], "runtimes": ["torch-eager"], "precisions": ["fp32"], **shapes},
            "graphs": {
                "models": [*models, "own", "broken", "unmade"],
                "runtimes": ["onnxruntime-cpu"],
                "precisions": ["fp32", "int8"],
                **shapes,
            },
            "padded": {
                "models": texts[:1],
                "runtimes": ["onnxruntime-cpu"],
                "precisions": ["fp32"],
                **shapes,
                "lengths": ["half"],
            },
        },
        "protocol": {**STUDY["protocol"], "processes": 1, "measurements": []},
    }
    project = Project(folder)
    project.configure(config)
    project.snakemake("results/tables/cells.csv")
    plan = json.loads((folder / "results/plan.json").read_text())
    records = {}
    for cell in plan["cells"]:
        key = tuple(cell[name] for name in ("runtime", "model", "precision", "shape"))
        records[key] = [json.loads((folder / run).read_text()) for run in cell["runs"]] or cell
    return plan, records


def test_every_cell_is_measured_or_says_why_not(measured):
    _, records = measured
    own = records.pop(("torch-eager", "own", "fp32", "b2-s16"))
    assert own["reason"] == "own is an ONNX file, and torch-eager executes PyTorch modules" and own["remedy"]
    for precision in ("fp32", "int8"):
        (run,) = records.pop(("onnxruntime-cpu", "broken", precision, "b2-s16"))
        assert run["failure"]["kind"] == "damaged" and "tokenizer.json is damaged" in run["failure"]["message"]
    assert len(records) == 8 + 2 * 10 + 1 + 1  # PyTorch, graphs, the padded one, and the second of the A/A pair
    failed = {key: runs[0]["failure"] for key, runs in records.items() if runs[0]["status"] != "ok"}
    assert {key[1:3] for key in failed} == {("unmade", "fp32"), ("unmade", "int8")}
    assert {failure["kind"] for failure in failed.values()} == {"damaged"}


def test_models_are_known_by_their_own_configuration(measured):
    plan, _ = measured
    assert {name: plan["models"][name]["task"] for name in CLASSES} == TASKS
    assert {name: plan["models"][name]["architecture"] for name in CLASSES} == {name: name for name in CLASSES}
    shapes = {cell["model"]: cell["shape"] for cell in plan["cells"] if not cell["lengths"]}
    assert shapes["vit"] == "b2-i32" and shapes["bert"] == "b2-s16"
    assert plan["models"]["own"]["weights"] == {"onnx": "own.onnx"}


def test_precisions_agree_with_the_reference(measured):
    _, records = measured
    for (runtime, model, precision, shape), runs in records.items():
        if isinstance(runs, list) and model not in ("broken", "unmade"):
            cosine = runs[0]["parity"]["cosine"]
            assert cosine > (0.9 if precision == "int8" else 0.9999), (runtime, model, precision, shape, cosine)


def test_padding_is_part_of_what_is_asked(measured):
    plan, records = measured
    (padded,) = (cell for cell in plan["cells"] if cell["lengths"])
    assert padded["shape"] == "b2-s16.half" and records["onnxruntime-cpu", "bert", "fp32", "b2-s16.half"][0]["series"]
