"""No result names a folder of this machine, its user or its host, whatever a study and a library name."""

from __future__ import annotations

import csv
import gzip
import json
import platform
import shutil
import zipfile
from pathlib import Path

import pytest
from test_models import save_onnx
from tiny import LAB_NOTE, PROJECT, STUDY, Project

from ceilings import private

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SECRETS = ("zzclient", "zzhome", "zzperson", "zzbuildbox")
"""Parts of the names of a client's folder, the home folder, the user and the host."""

CATALOGUE = """
from ceilings.runtimes.catalogue import Runtime

RUNTIMES = [
    Runtime(
        name="talkative", stack="Talk", levers=frozenset(), device="cpu", module="talkative", artifact="weights",
        environment="cpu", precisions=("fp32",), packages=("numpy",), note="quotes the machine in its errors",
    )
]
"""

RUNTIME = '''
"""A runtime whose errors quote what a library's do."""

import os
import socket
from pathlib import Path

from ceilings.errors import CellFailure
from ceilings.runtimes.base import Runner


class Talkative(Runner):
    def load(self):
        folder, home = Path(__file__).resolve(), os.environ["HOME"]
        raise CellFailure(
            "unsupported",
            f"[ONNXRuntimeError] : Load model from {folder}:12 failed (cache '{home}/.cache/kernels', also "
            f"file://{home}/x.bin, TMP={os.environ['TMPDIR']}) for {os.environ['USER']}@{socket.gethostname()}",
        )

    def place(self, element):
        return element

    def launch(self, slot):
        return slot

    def outputs(self, launched):
        return launched


RUNNER = Talkative
'''


def save_models(folder: Path) -> None:
    """A classifier with a tokenizer, one with a damaged tokenizer, an ONNX file and one whose weights are gone."""
    import onnx
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    bert = BertForSequenceClassification(BertConfig(vocab_size=60, max_position_embeddings=40, **sizes))
    bert.save_pretrained(folder / "bert")
    shutil.copytree(folder / "bert", folder / "broken")
    (folder / "broken/tokenizer.json").write_text("{")
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "good", "bad", "film"])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "bert/tokenizer.json"))
    config = json.loads((folder / "bert/config.json").read_text())
    (folder / "bert/config.json").write_text(json.dumps({**config, "_name_or_path": f"{folder}/bert"}))
    save_onnx(folder / "own.onnx", save_as_external_data=True, location="own.data", size_threshold=0)
    model = onnx.load(folder / "own.onnx", load_external_data=False)
    model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = f"exported from {folder}"
    model.metadata_props.add(key="path", value=f"{folder}/own.onnx")
    for value in (model.graph.input[0], model.graph.output[0], model.graph.initializer[0]):
        value.doc_string = f"made in {folder}"
    onnx.save(model, folder / "own.onnx")
    save_onnx(folder / "unmade.onnx", save_as_external_data=True, location="gone.bin", size_threshold=0)
    (folder / "gone.bin").unlink()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A study of which every source lies in a client's folder, run in another, by somebody."""
    root = tmp_path_factory.mktemp("zzclient")
    folder, home, client = root / "project", root / "zzhome" / "zzperson", root / "zzclient models"
    for made in (folder, home, client, root / "zz-tmp"):
        made.mkdir(parents=True)
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        source = PROJECT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder)
    save_models(client)
    (client / "texts.txt").write_text("the good film\na bad film\nbad\nthe good\ngood film\n")
    with open(client / "labelled.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), ("the good film", 1), ("a bad film", 0)])
    for name, content in {"catalogue.py": CATALOGUE, "runtimes/talkative.py": RUNTIME}.items():
        (client / "plugins" / name).parent.mkdir(parents=True, exist_ok=True)
        (client / "plugins" / name).write_text(content)
    shapes = {"batches": [2], "sequences": [16]}
    project = Project(folder)
    project.configure(
        {
            "study": "private",
            "plugins": [f"{client}/plugins"],
            "models": {
                "bert": {"path": f"{client}/bert", "data": f"{client}/labelled.csv"},
                "broken": {"weights": {"path": "../zzclient models/broken"}},
                "own": {"onnx": f"{client}/own.onnx", "axes": {"L": "sequence"}},
                "unmade": {"onnx": "../zzclient models/unmade.onnx", "axes": {"L": "sequence"}},
            },
            "inputs": {"pool": 2, "lengths": {"read": {"file": f"{client}/texts.txt"}}},
            "calibration": {"count": 4, "sequence": 16},
            "cpu_threads": 1,
            "quality": {"cells": ["onnxruntime-cpu/bert/*"]},
            "sweeps": {
                "graphs": {
                    "models": ["bert", "own", "unmade", "broken"],
                    "runtimes": ["onnxruntime-cpu"],
                    "precisions": ["fp32", "int8"],
                    **shapes,
                },
                "modules": {
                    "models": ["bert"],
                    "runtimes": ["torch-eager", "talkative"],
                    "precisions": ["fp32"],
                    "lengths": ["read"],
                    **shapes,
                },
            },
            "protocol": {**STUDY["protocol"], "processes": 1, "measurements": []},
        }
    )
    machine = {"HOME": home, "USER": "zzperson", "LOGNAME": "zzperson", "HOSTNAME": "zzbuildbox"}
    targets = ("summary.md", "report.html", "summary_table.md", "engineering_observations.md")
    environment = {name: str(value) for name, value in machine.items()} | {"TMPDIR": str(root / "zz-tmp")}
    project.snakemake(*(f"results/{target}" for target in targets), **environment)
    return project


def contents(path: Path) -> list[bytes]:
    """What a file holds, compressed parts opened."""
    import pandas as pd

    content = [path.read_bytes()]
    if path.suffix == ".npz" and content[0]:
        with zipfile.ZipFile(path) as archive:
            # numpy keeps texts in four bytes a letter
            content += [archive.read(name).replace(b"\0", b"") for name in archive.namelist()]
    if path.suffix == ".parquet":
        content.append(pd.read_parquet(path).to_csv().encode())
    if path.suffix == ".gz":
        content.append(gzip.decompress(content[0]))
    return content


def test_no_result_but_the_logs_names_the_machine(measured):
    results = measured.folder / "results"
    paths = [path for path in sorted(results.rglob("*")) if path.is_file() and results / "logs" not in path.parents]
    assert len(paths) > 60
    named = {
        f"{path.relative_to(results)}: {secret}"
        for path in paths
        for content in contents(path)
        for secret in (*SECRETS, str(Path(__file__).parents[2]))
        if secret.encode() in content
    }
    assert not named


def test_local_sources_have_their_last_name_and_digest(measured):
    results = measured.folder / "results"
    plan = json.loads((results / "plan.json").read_text())
    assert plan["models"]["bert"]["weights"] == {"path": "bert"}
    assert plan["models"]["unmade"]["weights"] == {"onnx": "unmade.onnx"}
    assert plan["lengths"]["read"]["file"] == "texts.txt" and len(plan["lengths"]["read"]["sha256"]) == 64
    data = json.loads((results / "models/bert/data.json").read_text())
    assert data["file"] == "labelled.csv" and len(data["file_sha256"]) == 64
    note = (measured.folder / LAB_NOTE).read_text()
    digest = json.loads((results / "models/bert/weights/provenance.json").read_text())["sha256"]
    assert f"Weights of bert: path (the study names the folder bert), sha256 {digest[:12]}." in note


def test_failures_stay_readable(measured):
    """What is left out of a message leaves the rest of it."""
    (record,) = (measured.folder / "results/benchmarks").rglob("talkative/bert/fp32/b2-s16.read/run1.json")
    message = json.loads(record.read_text())["failure"]["message"]
    # A host of two letters, or called like many, identifies nobody, and stays.
    host = private.anonymous(f"of {platform.node()}").removeprefix("of ")
    assert message == (
        "[ONNXRuntimeError] : Load model from talkative.py:12 failed (cache 'kernels', also x.bin, TMP=zz-tmp) for "
        f"<user>@{host}"
    )
    (broken,) = (measured.folder / "results/benchmarks").rglob("onnxruntime-cpu/broken/fp32/b2-s16/run1.json")
    assert "broken/tokenizer.json is damaged" in json.loads(broken.read_text())["failure"]["message"]
