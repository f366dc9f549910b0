"""Weights, inputs and the reference, on tiny models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ceilings import files, options
from ceilings.errors import UserError
from ceilings.models import hub, inputs, reference, spec, tokens, weights

PROGRAMS = Path(weights.__file__).parents[2]
DISTILBERT = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 64,
    "vocab_size": 500,
    "max_position_embeddings": 64,
}


def tiny(**changes: object) -> spec.ModelSpec:
    value = {"name": "tiny", "architecture": "distilbert", "weights": "random", "seed": 0, "config": DISTILBERT}
    return spec.read({**value, **changes})


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    weights.fetch(tiny(), path)
    return path


@pytest.fixture(scope="session")
def spoken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with a tokenizer that knows 500 tokens of the corpus."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    path = tmp_path_factory.mktemp("spoken") / "weights"
    shutil.copytree(folder, path)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train([str(Path(tokens.__file__).with_name("corpus.txt"))], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(path / weights.TOKENIZER))
    return path


def test_random_weights_are_the_seeds_and_say_so(folder: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    weights.fetch(tiny(), again)
    weights.fetch(tiny(seed=1), other)
    assert files.sha256(folder / weights.WEIGHTS) == files.sha256(again / weights.WEIGHTS)
    assert files.sha256(folder / weights.WEIGHTS) != files.sha256(other / weights.WEIGHTS)
    record = files.read_json(folder / weights.PROVENANCE)
    assert record["source"] == "random"
    assert record["sha256"] == files.sha256(folder / weights.WEIGHTS)
    assert record["parameters"] > 30_000
    assert not list(folder.glob(".new-*"))


def test_random_biases_are_not_zero(folder: Path) -> None:
    """A simplifier would remove the addition, and the graph would not be the pretrained model's."""
    for name, parameter in weights.load_model(folder).named_parameters():
        assert not np.all(parameter.numpy() == 0), name


def test_auto_falls_back_and_pretrained_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str) -> hub.Snapshot:
        raise hub.Unavailable(f"{repository} is nowhere")

    monkeypatch.setattr(hub, "fetch", unreachable)
    origin = weights.choose(tiny(weights="auto", config={}))
    assert origin.source == "random" and "is nowhere" in origin.why
    with pytest.raises(UserError, match="is nowhere; connect to the hub"):
        weights.choose(tiny(weights="pretrained", config={}))


def test_auto_takes_what_the_hub_has(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "fetch", lambda repository: hub.Snapshot(folder, "abc123", "hub cache"))
    record = weights.fetch(tiny(weights="auto", hub="some/body", config={}), tmp_path)
    assert (record["source"], record["hub"], record["revision"]) == ("pretrained", "some/body", "abc123")
    assert record["seed"] is None
    assert record["sha256"] == files.sha256(folder / weights.WEIGHTS)


def test_auto_with_other_sizes_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "fetch", lambda repository: pytest.fail("asked"))
    assert "n_layers" in weights.choose(tiny(weights="auto")).why


def test_a_hub_that_hangs_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    import huggingface_hub

    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(hub, "_cached", lambda repository: None)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    release = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: release.wait(30))
    start = time.monotonic()
    with pytest.raises(hub.Unavailable, match=r"no answer within 0\.2 s"):
        hub.fetch("some/body")
    assert time.monotonic() - start < 5
    release.set()


def test_a_local_folder_is_loaded_strictly(folder: Path, spoken: Path, tmp_path: Path) -> None:
    record = weights.fetch(tiny(weights={"path": str(spoken)}), tmp_path / "copy")
    assert record["source"] == "path" and record["tokenizer"]
    with pytest.raises(UserError, match=r"model_type 'distilbert'.*is a 'bert'"):
        weights.fetch(tiny(architecture="bert", config={}, weights={"path": str(folder)}), tmp_path / "x")
    with pytest.raises(UserError, match=r"dim = 32.*overrides it with 48"):
        weights.fetch(tiny(config={"dim": 48}, weights={"path": str(folder)}), tmp_path / "x")
    with pytest.raises(UserError, match=r"has no config\.json"):
        weights.fetch(tiny(weights={"path": str(tmp_path)}), tmp_path / "x")
    assert not (tmp_path / "x" / weights.PROVENANCE).exists()


def test_a_tokenizer_does_not_outlive_its_weights(spoken: Path, tmp_path: Path) -> None:
    weights.fetch(tiny(weights={"path": str(spoken)}), tmp_path)
    weights.fetch(tiny(), tmp_path)
    assert not (tmp_path / weights.TOKENIZER).exists()


def test_a_model_without_a_classifier_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = tmp_path / "base"
    shutil.copytree(folder, source)
    kept = {name: value for name, value in load_file(folder / weights.WEIGHTS).items() if "classifier" not in name}
    save_file(kept, source / weights.WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match="no sequence classifier"):
        weights.fetch(tiny(weights={"path": str(source)}), tmp_path / "x")


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "config"])
def test_damaged_weights(folder: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / weights.WEIGHTS
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    else:
        (broken / weights.CONFIG).write_text("{")
    with pytest.raises(UserError, match="broken"):
        weights.load_model(broken)
    with pytest.raises(UserError, match="broken"):
        weights.fetch(tiny(weights={"path": str(broken)}), tmp_path / "x")


def test_attentions_agree(folder: Path) -> None:
    import torch

    ids = torch.arange(1, 33).reshape(2, 16)
    with torch.inference_mode():
        eager, sdpa = (
            weights.load_model(folder, attention=attention)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            for attention in ("eager", "sdpa")
        )
    assert torch.allclose(eager, sdpa, atol=1e-6)
    assert weights.load_model(folder, dtype="float16").dtype == torch.float16


def test_inputs_are_distinct_whole_and_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    ring = inputs.Ring(batch=2, sequence=16, ring=6, seed=3)
    for name in ("a", "b"):
        assert inputs.make_inputs(folder, ring, tmp_path / f"{name}.npz") == "random"
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    arrays = inputs.load_inputs(tmp_path / "a.npz")
    assert arrays["input_ids"].shape == (6, 2, 16)
    assert arrays["input_ids"].dtype == arrays["attention_mask"].dtype == np.int64
    assert arrays["input_ids"].min() >= 1 and arrays["input_ids"].max() < 500
    assert arrays["attention_mask"].all()
    assert len(np.unique(arrays["input_ids"].reshape(6, -1), axis=0)) == 6


def test_inputs_of_a_tokenizer_are_sentences(spoken: Path) -> None:
    rows, source = tokens.sample(spoken, 12, 40, seed=0)
    assert source == "corpus"
    assert (rows[:, 0] == 2).all() and (rows[:, -1] == 3).all()
    assert not np.isin(rows[:, 1:-1], [0, 2, 3]).any(), "no padding and no special tokens inside"
    rows, _ = tokens.sample(spoken, 2, 1, seed=0)
    assert not np.isin(rows, [2, 3]).any()


def test_impossible_inputs(folder: Path) -> None:
    with pytest.raises(UserError, match="longer than the 64 positions"):
        tokens.sample(folder, 1, 65, 0)
    with pytest.raises(UserError, match="cannot make 600 distinct"):
        tokens.sample(folder, 600, 1, 0)


def test_changed_and_damaged_inputs(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    inputs.make_inputs(folder, inputs.Ring(1, 8, 2, 0), path)
    content = inputs.load(path)
    content["input_ids"][0, 0, 0] += 1
    inputs.save(tmp_path / "changed.npz", **content)
    with pytest.raises(UserError, match="does not match its own sha256"):
        inputs.load_inputs(tmp_path / "changed.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="is damaged"):
        inputs.load_inputs(path)
    with pytest.raises(UserError, match="does not exist"):
        inputs.load_inputs(tmp_path / "none.npz")


def test_the_reference_belongs_to_its_inputs(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        inputs.make_inputs(folder, inputs.Ring(2, 8, 3, seed), tmp_path / f"{seed}.npz")
    assert reference.compute(folder, tmp_path / "0.npz", 1, tmp_path / "ref.npz") == (2, 2, 2)
    found, arrays = reference.load_for(tmp_path / "ref.npz", tmp_path / "0.npz")
    assert found.logits.dtype == np.float32 and arrays["input_ids"].shape == (2, 2, 8)
    with pytest.raises(UserError, match="compute the reference again"):
        reference.load_for(tmp_path / "ref.npz", tmp_path / "1.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "brt"}, "unknown architecture 'brt'; known: distilbert, bert"),
        ({"weights": "mine"}, "weights 'mine'"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_model_slices_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**change)


def test_options_are_checked() -> None:
    assert options.read(inputs.Ring, {"batch": 1, "sequence": 2, "ring": 3, "seed": 4}, "--inputs").ring == 3
    for value, message in [
        ({"batch": 1}, "lacks the key 'sequence'"),
        ({"batch": "1", "sequence": 2, "ring": 3, "seed": 4}, "batch = '1'"),
        ({"batch": True, "sequence": 2, "ring": 3, "seed": 4}, "batch = True"),
        ({"bach": 1}, "unknown key 'bach'"),
    ]:
        with pytest.raises(UserError, match=message):
            options.read(inputs.Ring, value, "--inputs")


def test_make_inputs_by_hand(folder: Path, tmp_path: Path) -> None:
    def run(sequence: int) -> subprocess.CompletedProcess[str]:
        wanted = json.dumps({"batch": 1, "sequence": sequence, "ring": 2, "seed": 0})
        command = [sys.executable, PROGRAMS / "make_inputs.py", "--weights-dir", folder]
        return subprocess.run(
            [*command, "--inputs", wanted, "--output", tmp_path / "in.npz"], capture_output=True, text=True, check=False
        )

    assert run(16).returncode == 0
    refused = run(999)
    assert (
        refused.returncode == 1 and refused.stderr.startswith("error: sequence 999") and refused.stderr.count("\n") == 1
    )
