"""Weights folders: where weights come from, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import DISTILBERT, Checkpoint, of_path, tiny

from ceilings import files
from ceilings.errors import CellFailure, UserError
from ceilings.models import definition, hub, weights
from ceilings.models.load import load_module
from ceilings.models.weights_folder import CONFIG, PROVENANCE, TOKENIZER, WEIGHTS
from ceilings.workload.workload import Workload

PROGRAMS = Path(weights.__file__).parents[2]
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 500,
    "max_position_embeddings": 64,
}


def rewrite(path: Path, change: Any) -> None:
    """Let ``change`` alter the tensors of a file."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    save_file(change(tensors) or tensors, path, metadata={"format": "pt"})


def test_random_weights_are_the_seeds_and_say_so(folder: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    weights.fetch(tiny(), again)
    weights.fetch(tiny(seed=1), other)
    assert files.sha256(folder / WEIGHTS) == files.sha256(again / WEIGHTS)
    assert files.sha256(folder / WEIGHTS) != files.sha256(other / WEIGHTS)
    record = files.read_json(folder / PROVENANCE)
    assert (record["source"], record["status"], record["family"]) == ("random", "ok", "text_encoder")
    assert record["sha256"] == files.sha256(folder / WEIGHTS)
    assert record["parameters"] > 30_000
    assert record["limits"] == {"sequence": [1, 64]}
    assert not list(folder.glob(".new-*"))


def test_seeded_weights_are_those_of_published_studies(folder: Path) -> None:
    """Of this torch; another's generator may differ, but no change of ours may."""
    import torch

    if not torch.__version__.startswith("2.13."):
        pytest.skip("digests are those of torch 2.13")
    assert files.sha256(folder / WEIGHTS) == "4bde5758a8eb782fa52f67cea7f200e404ce0b0a33a04d30f0731bee6e25e456"


def test_random_biases_are_not_zero(folder: Path) -> None:
    """A simplifier would remove the addition, and the graph would not be the pretrained model's."""
    for name, parameter in load_module(folder).named_parameters():
        assert not np.all(parameter.numpy() == 0), name


def test_auto_falls_back_and_pretrained_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str) -> hub.Snapshot:
        raise hub.Unavailable(f"{repository} is nowhere")

    monkeypatch.setattr(hub, "fetch", unreachable)
    origin = weights.choose(tiny(weights="auto", hub="some/body"))
    assert origin.source == "random" and "is nowhere" in origin.why
    with pytest.raises(UserError, match="is nowhere; connect to the hub"):
        weights.choose(tiny(weights="pretrained", hub="some/body"))
    with pytest.raises(UserError, match="names none; set hub or path"):
        weights.choose(tiny(weights="pretrained"))


def test_auto_takes_what_the_hub_has(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "fetch", lambda repository: hub.Snapshot(folder, "abc123", "hub cache"))
    record = weights.fetch(tiny(weights="auto", hub="some/body", config={}), tmp_path)
    assert (record["source"], record["hub"], record["revision"]) == ("pretrained", "some/body", "abc123")
    assert record["seed"] is None
    assert record["sha256"] == files.sha256(folder / WEIGHTS)


def test_auto_that_names_no_weights_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "fetch", lambda repository: pytest.fail("asked"))
    assert "neither hub nor path" in weights.choose(tiny(weights="auto")).why


def test_a_hub_that_hangs_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_hubs_cache_counts_when_every_part_is_there(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT, max_shard_size="60KB")
    repository = tmp_path / "hub" / "models--some--body"
    shutil.copytree(parts, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    assert hub.fetch("some/body").origin == "hub cache"
    next((repository / "snapshots" / "abc").glob("model-*.safetensors")).unlink()
    with pytest.raises(hub.Unavailable, match="not in the hub cache"):
        hub.fetch("some/body")


def test_a_repository_is_downloaded_in_one_form() -> None:
    both = {"model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin", "tf_model.h5"}
    assert hub._weights(both) == ["model.safetensors", "open_clip_pytorch_model.bin"]
    assert hub._weights({"pytorch_model.bin.index.json"}) == ["pytorch_model.bin.index.json", "pytorch_model-*.bin"]
    assert hub._weights({"tf_model.h5"}) == []


def test_a_local_folder_is_loaded_strictly(folder: Path, spoken: Path, tmp_path: Path) -> None:
    record = weights.fetch(tiny(weights={"path": str(spoken)}), tmp_path / "copy")
    assert record["source"] == "path" and record["tokenizer"]
    with pytest.raises(UserError, match=r"model_type 'distilbert'.*calls it a 'bert'"):
        weights.fetch(tiny(architecture="bert", config={}, weights={"path": str(folder)}), tmp_path / "x")
    with pytest.raises(UserError, match=r"dim = 32.*overrides it with 48"):
        weights.fetch(tiny(config={"hidden_size": 48}, weights={"path": str(folder)}), tmp_path / "x")
    with pytest.raises(UserError, match=r"has no config\.json"):
        weights.fetch(tiny(weights={"path": str(tmp_path)}), tmp_path / "x")
    assert not (tmp_path / "x" / PROVENANCE).exists()


def test_random_weights_may_take_their_sizes_from_a_folder(folder: Path, tmp_path: Path) -> None:
    record = weights.fetch(of_path(folder, weights="random", config={"n_layers": 1, "num_labels": 5}), tmp_path)
    config = files.read_json(tmp_path / CONFIG)
    assert (record["source"], config["dim"], config["n_layers"]) == ("random", 32, 1)
    assert Workload.read(tmp_path).outputs[0].dims == ("batch", 5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_layer": 3}, "config key 'n_layer', which distilbert does not know; did you mean n_layers"),
        ({"hidden_size": 32, "dim": 64}, "gives dim twice"),
        ({"dim": 33, "n_heads": 2}, "has a config that .* cannot take"),
        ({"model_type": "bert"}, "config key 'model_type'"),
    ],
)
def test_changes_of_the_configuration_are_checked(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        weights.fetch(tiny(config=config), tmp_path)


def test_aliases_mean_what_they_stand_for(tmp_path: Path) -> None:
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_dim": 32, "vocab_size": 90}
    weights.fetch(tiny(config=config), tmp_path)
    made = files.read_json(tmp_path / CONFIG)
    assert (made["dim"], made["n_layers"], made["n_heads"]) == (16, 1, 2)


def test_a_tokenizer_does_not_outlive_its_weights(spoken: Path, tmp_path: Path) -> None:
    weights.fetch(tiny(weights={"path": str(spoken)}), tmp_path)
    weights.fetch(tiny(), tmp_path)
    assert not (tmp_path / TOKENIZER).exists()


def test_a_vocabulary_becomes_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    (source / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"]))
    assert weights.fetch(of_path(source), tmp_path / "out")["tokenizer"]
    from tokenizers import Tokenizer

    assert Tokenizer.from_file(str(tmp_path / "out" / TOKENIZER)).encode("good film").ids == [2, 5, 6, 3]


@pytest.mark.parametrize("form", ["shards", "pickled", "pickled shards", "both"])
def test_every_form_of_weights_loads(checkpoint: Checkpoint, tmp_path: Path, form: str) -> None:
    import torch

    if form == "shards":
        source, model = checkpoint("AutoModelForSequenceClassification", "bert", BERT, max_shard_size="60KB")
        assert len(list(source.glob("model-*.safetensors"))) > 1
    else:
        source, model = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    if form == "both":  # of two forms the safer
        torch.save({}, source / "pytorch_model.bin")
    elif form == "pickled":
        (source / WEIGHTS).unlink()
        torch.save(model.state_dict(), source / "pytorch_model.bin")
    elif form == "pickled shards":
        (source / WEIGHTS).unlink()
        places = {}
        for index, (name, value) in enumerate(model.state_dict().items()):
            places[name] = f"pytorch_model-{index:05}.bin"
            torch.save({name: value}, source / places[name])
        files.write_json(source / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})
    record = weights.fetch(of_path(source), tmp_path / "out")
    first = {"shards": "model.safetensors.index.json", "pickled": "pytorch_model.bin", "both": WEIGHTS}
    assert record["files"][0] == first.get(form, "pytorch_model.bin.index.json")
    loaded = load_module(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[f"model.{name}"], value) for name, value in model.state_dict().items())
    assert not list((tmp_path / "out").glob("*.index.json"))


def test_half_precision_checkpoints_are_loaded_in_fp32(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch

    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    rewrite(source / WEIGHTS, lambda tensors: {name: value.half() for name, value in tensors.items()})
    weights.fetch(of_path(source), tmp_path / "out")
    assert {value.dtype for value in load_module(tmp_path / "out").parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: v for n, v in t.items() if "classifier" not in n}, "2 tensors are missing .*classifier"),
        (lambda t: t | {"classifier.weight": t["classifier.weight"][:, :16].contiguous()}, "of another shape"),
        (lambda t: t | {"adapter.weight": t["classifier.weight"].clone()}, r"of no use to it \(adapter\.weight\)"),
        (lambda t: {n: v for n, v in t.items() if "pooler" not in n}, "pooler"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(checkpoint: Checkpoint, tmp_path: Path, change: Any, message: str) -> None:
    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    rewrite(source / WEIGHTS, change)
    with pytest.raises(UserError, match=f"holds no model for sequence-classification: .*{message}"):
        weights.fetch(of_path(source), tmp_path / "out")


@pytest.mark.parametrize("layers", [1, 3])
def test_a_configuration_of_another_depth_is_refused(checkpoint: Checkpoint, tmp_path: Path, layers: int) -> None:
    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    files.write_json(source / CONFIG, files.read_json(source / CONFIG) | {"num_hidden_layers": layers})
    with pytest.raises(UserError, match=r"16 tensors are .*encoder\.layer\.[12].*or correct its config\.json"):
        weights.fetch(of_path(source), tmp_path / "out")


@pytest.mark.parametrize("kind", ["AutoModelForMaskedLM", "AutoModelForPreTraining"])
@pytest.mark.parametrize("architecture", ["bert", "albert", "electra"])
def test_tied_weights_and_other_heads_do_no_harm(
    checkpoint: Checkpoint, tmp_path: Path, kind: str, architecture: str
) -> None:
    source, _ = checkpoint(kind, architecture, {**BERT, **({} if architecture == "bert" else {"embedding_size": 16})})
    assert weights.fetch(of_path(source, task="sentence-embedding"), tmp_path / "out")["source"] == "path"


def point(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def index(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors.index.json"
    value = files.read_json(path)
    change(value["weight_map"])
    files.write_json(path, value)


def without_first_part(places: dict[str, str]) -> None:
    first = min(places.values())
    for name in [name for name, part in places.items() if part == first]:
        del places[name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: next(f.glob("model-00002*")).unlink(), r"names model-00002-of-.*which is not there \(1 of"),
        (
            lambda f: index(f, lambda m: m.update({"x": "../x"})),
            r"names '\.\./x', which is no file beside it",
        ),
        (lambda f: index(f, without_first_part), r"1 tensors are missing \(bert\.embeddings\.word"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), r"index\.json is damaged"),
        (lambda f: point(f, next(f.glob("model-00001*")).name), "is a pointer of git-lfs.*run git lfs pull"),
        (lambda f: point(f, TOKENIZER), r"tokenizer\.json is a pointer of git-lfs"),
        (lambda f: (f / TOKENIZER).write_text("{"), r"tokenizer\.json is damaged.*put an undamaged copy there"),
        (lambda f: (f / "model.safetensors.index.json").rename(f / "tf_model.h5"), r"only tf_model\.h5, which are not"),
    ],
)
def test_incomplete_folders(checkpoint: Checkpoint, tmp_path: Path, damage: Any, message: str) -> None:
    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT, max_shard_size="60KB")
    damage(source)
    with pytest.raises(UserError, match=message):
        weights.fetch(of_path(source), tmp_path / "out")
    assert not (tmp_path / "out" / PROVENANCE).exists()


def test_pickled_weights_run_no_code(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch

    class Stranger:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    (source / WEIGHTS).unlink()
    torch.save({"x": Stranger()}, source / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"hold more than tensors.*save them as model\.safetensors"):
        weights.fetch(of_path(source), tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_quantised_and_broken_numbers_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch

    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    for value, message in (
        (torch.ones(2, 32, dtype=torch.int8), r"is quantised already \(classifier\.weight is I8\)"),
        (torch.full((2, 32), torch.nan), "classifier.weight of model 'tiny' holds a NaN or an infinity"),
        (torch.full((2, 32), -torch.inf), "classifier.weight of model 'tiny' holds a NaN or an infinity"),
    ):
        rewrite(source / WEIGHTS, lambda tensors, value=value: tensors | {"classifier.weight": value})
        with pytest.raises(UserError, match=message):
            weights.fetch(of_path(source), tmp_path / "out")
    files.write_json(source / CONFIG, files.read_json(source / CONFIG) | {"quantization_config": {"quant_method": "x"}})
    with pytest.raises(CellFailure, match="are quantised already"):
        weights.fetch(of_path(source), tmp_path / "out")


def test_models_of_very_few_positions(tmp_path: Path) -> None:
    sizes = BERT | {"max_position_embeddings": 5}
    assert weights.fetch(tiny(architecture="roberta", config=sizes), tmp_path)["limits"] == {"sequence": [1, 3]}


def test_a_tokenizer_that_cannot_be_converted_says_why(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    assert weights.fetch(of_path(source), tmp_path / "out")["random_ids"] == f"{source.name} has no tokenizer"
    (source / "vocab.txt").write_text("a")
    files.write_json(source / "tokenizer_config.json", {"tokenizer_class": "Nobodys"})
    record = weights.fetch(of_path(source), tmp_path / "out")
    assert not record["tokenizer"] and "cannot be converted" in record["random_ids"]


def test_what_identifies_a_model_is_in_its_record(folder: Path, spoken: Path, tmp_path: Path) -> None:
    record = weights.fetch(of_path(spoken), tmp_path)
    for key, name in (("sha256", WEIGHTS), ("config_sha256", CONFIG), ("tokenizer_sha256", TOKENIZER)):
        assert record[key] == files.sha256(tmp_path / name)
    assert record["random_ids"] is None and record["files"] == [WEIGHTS]
    assert files.read_json(folder / PROVENANCE)["tokenizer_sha256"] is None


def test_a_damaged_folder_is_a_failed_model(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    (source / WEIGHTS).write_bytes(b"")
    model = json.dumps({"name": "m", "path": str(source)})
    run([PROGRAMS / "fetch_weights.py", "--model", model, "--output-dir", tmp_path / "out"])
    record = files.read_json(tmp_path / "out" / PROVENANCE)
    assert record["failure"]["kind"] == "damaged" and "weights of source cannot" in record["failure"]["message"]


def test_buffers_of_older_releases_do_no_harm(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch

    source, _ = checkpoint("AutoModelForSequenceClassification", "bert", BERT)
    rewrite(source / WEIGHTS, lambda tensors: tensors | {"bert.embeddings.position_ids": torch.arange(64)[None]})
    assert weights.fetch(of_path(source), tmp_path / "out")["source"] == "path"


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "config"])
def test_damaged_weights(folder: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / WEIGHTS
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    else:
        (broken / CONFIG).write_text("{")
    with pytest.raises(UserError, match="broken"):
        load_module(broken)
    with pytest.raises(UserError, match="broken"):
        weights.fetch(tiny(config={}, weights={"path": str(broken)}), tmp_path / "x")


def test_a_model_of_another_kind_is_a_failed_cell(tmp_path: Path) -> None:
    with pytest.raises(CellFailure, match="transformers has no AutoModelForQuestionAnswering for 'clip_text_model'"):
        weights.fetch(tiny(architecture="clip_text_model", task="question-answering", config={}), tmp_path)
    with pytest.raises(UserError, match="knows no architecture 'brt'"):
        weights.fetch(tiny(architecture="brt", config={}), tmp_path)


def test_a_failed_model_leaves_records_and_no_crash(tmp_path: Path) -> None:
    """What is behind it fails for the same reason."""
    model = {"name": "m", "architecture": "clip_text_model", "task": "question-answering", "weights": "random"}
    folder = tmp_path / "weights"
    run([PROGRAMS / "fetch_weights.py", "--model", json.dumps(model), "--output-dir", folder])
    record = files.read_json(folder / PROVENANCE)
    assert record["status"] == "failed" and record["failure"]["kind"] == "unsupported"
    assert {path.name: path.stat().st_size for path in folder.iterdir() if path.name != PROVENANCE} == {
        WEIGHTS: 0,
        CONFIG: 0,
        "workload.json": 0,
    }
    pool, answers = tmp_path / "in.npz", tmp_path / "ref.npz"
    wanted = json.dumps({"pool": 1, "seed": 0})
    run(
        [PROGRAMS / "make_inputs.py", "--weights-dir", folder, "--shape", "b1-s8", "--inputs", wanted, "--output", pool]
    )
    run(
        [
            *(PROGRAMS / "compute_reference.py", "--weights-dir", folder, "--inputs", pool),
            *("--threads", "1", "--output", answers),
        ]
    )
    for path in (pool, answers):
        assert path.stat().st_size == 0
        assert files.read_json(path.with_suffix(".json"))["failure"] == record["failure"]


def run(command: list[Any]) -> None:
    subprocess.run([sys.executable, *command], check=True, capture_output=True)


def test_attentions_agree(folder: Path) -> None:
    import torch

    ids = torch.arange(1, 33).reshape(2, 16)
    with torch.inference_mode():
        (eager,), (sdpa,) = (
            load_module(folder, attention=attention)(ids, torch.ones_like(ids)) for attention in ("eager", "sdpa")
        )
    assert torch.allclose(eager, sdpa, atol=1e-6)
    assert load_module(folder, attention="eager").attention == "eager"
    assert {value.dtype for value in load_module(folder, dtype="float16").parameters()} == {torch.float16}


@pytest.mark.parametrize(
    ("architecture", "config"),
    [("gpt2", {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocab_size": 100, "n_positions": 64})],
)
def test_a_model_that_does_not_run_on_ids_alone_fails_its_cells(
    architecture: str, config: dict[str, Any], tmp_path: Path
) -> None:
    model = definition.read(
        "tiny",
        {"architecture": architecture, "task": "sequence-classification", "weights": "random", "config": config},
    )
    with pytest.raises(CellFailure, match=r"gpt2 does not do sequence-classification of .*padding token") as failure:
        weights.fetch(model, tmp_path / "w")
    assert failure.value.kind == "unsupported"


@pytest.mark.parametrize("change", [{"activation": "gelux"}, {"n_heads": 3}])
def test_sizes_that_no_model_can_be_made_of_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model 'tiny' has a config that its architecture cannot take: .*correct"):
        weights.fetch(tiny(config={**DISTILBERT, **change}), tmp_path / "w")
