"""What a study says of a model, and what planning knows of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tiny_models import of_path, tiny

from ceilings.errors import UserError
from ceilings.models import architectures, catalogue, configuration, definition, outline

SCRIPTS = Path(outline.__file__).parents[2]


def outlined(**value: object) -> outline.Outline:
    return outline.outline(definition.read("m", value))


def write_config(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_string_is_a_hub_id_a_folder_or_a_file(tmp_path: Path) -> None:
    assert definition.read("m", "some/body").hub == "some/body"
    assert definition.read("m", str(tmp_path)).path == str(tmp_path)
    assert definition.read("m", "./missing").path == "./missing"
    assert definition.read("m", "models/mine.onnx").onnx == "models/mine.onnx"
    with pytest.raises(UserError, match=r"'mine', which is neither a folder, nor an \.onnx file, nor a hub id"):
        definition.read("m", "mine")


def test_the_study_says_what_the_model_does_not() -> None:
    assert definition.read("m", "some/body", weights="random", seed=3).seed == 3
    assert definition.read("m", {"hub": "some/body", "seed": 4}, "random", 3).seed == 4
    told = definition.read("m", {"hub": "some/body", "weights": {"path": "there"}, "data": "rows.csv"})
    assert (told.path, told.weights, told.data) == ("there", "pretrained", "rows.csv")
    again = told.to_json()
    assert "data" not in again and definition.read(again["name"], again).to_json() == again


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"architecture": "bert", "weights": "mine"}, "weights 'mine'"),
        ({"architecture": "bert", "colour": 1}, "unknown key 'colour'"),
        ({"architecture": "bert", "task": "poetry"}, "unknown task 'poetry'; known: sequence-classification"),
        ({"architecture": "bert", "task": "sentence-embeding"}, "did you mean 'sentence-embedding'"),
        ({"architecture": "bert", "implementation": "jax"}, "implementation = 'jax'"),
        ({"architecture": "bert", "axes": {"N": "batch"}}, "axes without onnx"),
        ({"architecture": "bert", "seed": "1"}, "seed = '1'"),
        ({"onnx": "a.onnx", "hub": "some/body"}, "hub beside onnx"),
        ({"onnx": "a.onnx", "inputs": {"x": {"content": "smells"}}}, "of its input 'x'; give content"),
        ({"hub": "nobody"}, "hub 'nobody', which is no hub id"),
        ({"task": "image-embedding"}, "says nowhere what it is"),
    ],
)
def test_definitions_are_checked(value: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        definition.read("m", value)


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ceilings.models import definition, outline; "
        "outline.outline(definition.read('m', {'architecture': 'bert'})); "
        "print({'torch', 'numpy', 'transformers', 'huggingface_hub', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_architecture_alone_is_its_base_model() -> None:
    plan = outlined(architecture="distilbert")
    assert (plan.family, plan.task, plan.axes) == ("text_encoder", "sequence-classification", ("batch", "sequence"))
    assert plan.limits == {"sequence": 512} and plan.fixed == {} and plan.has_weights
    assert plan.fusion == catalogue.Fusion("bert", "n_layers", "n_heads", "dim")
    assert outline.outline(tiny()).limits == {"sequence": 64}
    assert outlined(architecture="vit").fixed == {"image": 224}
    assert outlined(architecture="vit").task == "image-classification"
    assert outlined(architecture="deberta-v2").fusion is None


def test_base_sizes_are_those_of_transformers() -> None:
    from transformers import AutoConfig

    for table, key in ((outline.POSITIONS, "max_position_embeddings"), (outline.IMAGES, "image_size")):
        for architecture, size in table.items():
            if architecture != "open_clip":
                assert getattr(AutoConfig.for_model(architecture), key) == size, architecture
    for architecture, fusion in catalogue.FUSIONS.items():
        if architecture == "open_clip":
            continue  # its sizes are in open_clip_config.json
        config = AutoConfig.for_model(architecture)
        assert all(hasattr(config, key) for key in (fusion.layers_key, fusion.heads_key, fusion.hidden_key))


def test_positions_of_padding_do_not_count(tmp_path: Path) -> None:
    for architecture, padding, longest in (
        ("roberta", 1, 512),
        ("mpnet", 1, 512),
        ("bert", 0, 514),
        ("esm", 1, 512),
        ("roberta", 0, 513),
    ):
        folder = write_config(
            tmp_path / f"{architecture}{padding}",
            model_type=architecture,
            architectures=["XForQuestionAnswering"],
            max_position_embeddings=514,
            pad_token_id=padding,
        )
        plan = outline.outline(of_path(folder))
        assert plan.limits == {"sequence": longest} and plan.task == "question-answering"


@pytest.mark.parametrize(
    ("config", "files", "task"),
    [
        ({"model_type": "bert", "architectures": ["BertForTokenClassification"]}, [], "token-classification"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, [], "sentence-embedding"),
        ({"model_type": "mpnet", "architectures": ["MPNetForMaskedLM"]}, ["modules.json"], "sentence-embedding"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, [], "image-embedding"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, [], "image-classification"),
        ({"model_type": "clip_text_model"}, [], "sentence-embedding"),
        ({"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"]}, [], "speech-embedding"),
    ],
)
def test_the_task_is_the_checkpoints(tmp_path: Path, config: dict[str, object], files: list[str], task: str) -> None:
    write_config(tmp_path, **config)
    for name in files:
        (tmp_path / name).write_text("[]")
    assert outline.outline(of_path(tmp_path)).task == task


@pytest.mark.parametrize(
    ("config", "value", "message"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, {}, "names BertForMaskedLM.*set task"),
        ({"model_type": "clip"}, {}, "has two towers; set task"),
        ({"architectures": ["BertModel"]}, {}, "has no model_type"),
        ({"model_type": "bert"}, {"architecture": "distilbert"}, "model_type 'bert'.*calls it a 'distilbert'"),
        ({"model_type": "clip"}, {"task": "token-classification"}, "has two towers; set task"),
        ({"model_type": "vit"}, {"task": "tensors"}, "no family takes the task 'tensors' of a 'vit'"),
        ({"model_type": "clip"}, {"implementation": "open_clip"}, "has no open_clip_config.json"),
    ],
)
def test_what_nothing_says_is_asked(
    tmp_path: Path, config: dict[str, object], value: dict[str, object], message: str
) -> None:
    write_config(tmp_path, **config)
    with pytest.raises(UserError, match=message):
        outline.outline(of_path(tmp_path, **value))


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json; put it there"):
        outline.outline(of_path(tmp_path))
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=r"config\.json is a pointer of git-lfs.*run git lfs pull"):
        outline.outline(of_path(tmp_path))
    with pytest.raises(UserError, match="does not exist; correct path"):
        outline.outline(of_path(Path("~nobody/there")))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        outline.outline(of_path(tmp_path))


def test_towers_of_a_whole_clip(tmp_path: Path) -> None:
    write_config(
        tmp_path,
        model_type="clip",
        vision_config={"image_size": 336},
        text_config={"max_position_embeddings": 40},
    )
    image = outline.outline(of_path(tmp_path, task="image-embedding"))
    assert (image.family, image.architecture, image.fixed) == ("clip", "clip_vision_model", {"image": 336})
    assert image.fusion == catalogue.Fusion("clip")
    text = outline.outline(of_path(tmp_path, task="sentence-embedding"))
    assert (text.architecture, text.limits, text.fixed) == ("clip_text_model", {"sequence": 40}, {})


def test_open_clip_by_either_implementation() -> None:
    ours = outlined(architecture="open_clip", task="sentence-embedding")
    assert (ours.family, ours.architecture, ours.limits, ours.fixed) == (
        "clip",
        "clip_text_model",
        {"sequence": 77},
        {},
    )
    theirs = outlined(architecture="open_clip", task="sentence-embedding", implementation="open_clip")
    assert (theirs.family, theirs.fixed) == ("open_clip", {"sequence": 77})
    assert theirs.fusion == catalogue.FUSIONS["open_clip"], "normalisations and activations, no attention"
    image = outlined(architecture="open_clip", task="image-embedding", config={"vision_cfg": {"image_size": 240}})
    assert image.fixed == {"image": 240} and image.axes == ("batch", "image")


def test_images_that_are_no_squares_have_no_axis(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="vit", image_size=[32, 64])
    plan = outline.outline(of_path(tmp_path))
    assert plan.axes == ("batch",) and plan.fixed == {}


def test_the_hubs_cache_on_disk_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--body"
    write_config(repository / "snapshots" / "abc", model_type="electra", architectures=["ElectraForQuestionAnswering"])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    plan = outlined(hub="some/body")
    assert (plan.architecture, plan.task) == ("electra", "question-answering")


@pytest.fixture
def hub_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that has one repository; the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if "hangs" in self.path:
                time.sleep(2)
            config = b'{"model_type": "mpnet", "architectures": ["MPNetForMaskedLM"]}'
            body = {"config.json": config, "modules.json": b"[]"}.get(self.path.rpartition("/")[2])
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HUB_CACHE", "HF_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    configuration._download.cache_clear()
    yield asked
    configuration._download.cache_clear()
    server.shutdown()


def test_the_hub_is_asked_once(hub_on_this_machine: list[str]) -> None:
    for _ in range(2):
        assert outlined(hub="some/body").task == "sentence-embedding"
        configuration._download.cache_clear()  # as another process
    assert hub_on_this_machine == [f"/some/body/resolve/main/{name}" for name in ("config.json", "modules.json")]


def test_a_study_that_says_enough_asks_no_hub(hub_on_this_machine: list[str]) -> None:
    sizes = {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        **{"vocab_size": 500, "max_position_embeddings": 64},
    }
    assert outlined(hub="some/body", architecture="bert", config=sizes).limits == {"sequence": 64}
    for hub in configuration.PUBLISHED:
        assert outlined(hub=hub).task == "sequence-classification"
    assert outlined(hub="some/large", architecture="bert", weights="pretrained").architecture == "bert"
    assert hub_on_this_machine == []


def test_random_weights_need_the_sizes_of_the_model_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model's name above the latency of a base model would be a wrong number."""
    monkeypatch.setattr(configuration, "_download", lambda *_: None)
    for weights in ("auto", "random"):
        with pytest.raises(
            UserError, match=r"give its sizes in config \(n_layers, n_heads, hidden_dim\), or leave out"
        ):
            outlined(
                hub="some/large",
                architecture="distilbert",
                weights=weights,
                config={"hidden_size": 1024, "vocab_size": 30522, "max_position_embeddings": 512},
            )
    with pytest.raises(UserError, match=r"some/clip.*give its sizes in config \(embed_dim, vision_cfg.image_size"):
        outlined(hub="some/clip", architecture="open_clip", task="image-embedding")
    with pytest.raises(UserError, match="calls it a 'distilbert'"):
        outlined(hub="textattack/bert-base-uncased-SST-2", architecture="distilbert")


def test_published_sizes_are_those_of_base_models() -> None:
    from transformers import AutoConfig

    for published in configuration.PUBLISHED.values():
        base = AutoConfig.for_model(published["model_type"])
        declared = architectures.declared(published["model_type"])
        assert declared is not None and set(declared.sizes) <= set(published)
        assert {key: getattr(base, key) for key in declared.sizes} == {key: published[key] for key in declared.sizes}


@pytest.mark.parametrize(
    ("architecture", "key", "near"),
    [
        ("bert", "num_layers", "num_hidden_layers"),
        ("bert", "hiden_size", "hidden_size"),
        ("bert", "n_layers", "num_hidden_layers"),
        ("distilbert", "num_layer", "num_hidden_layers"),
        ("vit", "img_size", "image_size"),
        ("swin", "window", "window_size"),
        ("clip_text_model", "max_positions", "max_position_embeddings"),
    ],
)
def test_a_misspelt_key_is_refused_while_planning(architecture: str, key: str, near: str, tmp_path: Path) -> None:
    """For an architecture and for a folder."""
    for value in ({"architecture": architecture}, {"path": str(write_config(tmp_path, model_type=architecture))}):
        with pytest.raises(UserError, match=rf"config key '{key}'.*did you mean {near}\b"):
            outlined(**value, config={key: 2})


def test_keys_mean_what_they_mean(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="distilbert", dim=32, n_layers=4, id2label={"0": "a", "1": "b", "2": "c"})
    same = {"num_hidden_layers": 4, "num_labels": 3, "sentence_pooling": "cls"}
    assert outline.outline(of_path(tmp_path, config=same)).architecture == "distilbert"
    for key, value, real in (("num_hidden_layers", 2, "n_layers"), ("num_labels", 2, "num_labels")):
        with pytest.raises(UserError, match=rf"has {real} = .*overrides it with {value}; remove the override"):
            outline.outline(of_path(tmp_path, config={key: value}))
        assert outline.outline(of_path(tmp_path, config={key: value}, weights="random"))


@pytest.mark.parametrize("key", ["id2label", "label2id"])
def test_a_number_of_classes_beside_names_of_others_is_refused(tmp_path: Path, key: str) -> None:
    names = {"0": "a", "1": "b", "2": "c"} if key == "id2label" else {"a": 0, "b": 1, "c": 2}
    with pytest.raises(UserError, match=rf"config has num_labels 2 beside 3 names in {key}; give one of them"):
        outlined(architecture="bert", config={"num_labels": 2, key: names})
    assert outlined(architecture="bert", config={"num_labels": 3, key: names})
    write_config(tmp_path, model_type="bert", num_labels=4, **{key: names})
    with pytest.raises(UserError, match=r"its config\.json has num_labels 4 beside 3 names"):
        outline.outline(of_path(tmp_path))


@pytest.mark.parametrize(("wrong", "near"), [("distillbert", "distilbert"), ("robberta", "roberta"), ("berts", "bert")])
def test_a_misspelt_architecture_is_refused_while_planning(wrong: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"no architecture '{wrong}'; did you mean {near}\b"):
        outlined(architecture=wrong)


def test_what_is_read_of_transformers_is_what_it_declares() -> None:
    from transformers import AutoConfig

    for name in ("bert", "distilbert", "mpnet", "modernbert", "clip_text_model", "vit", "swin", "dinov2", "albert"):
        declared, config = architectures.declared(name), AutoConfig.for_model(name)
        assert declared is not None and dict(declared.aliases) == config.attribute_map
        assert declared.sizes and all(getattr(config, key) == declared.defaults[key] for key in declared.sizes), name
    known = architectures._classes()
    unread = [name for name in known if architectures.declared(name) is None]
    assert len(known) > 300 and len(unread) < 0.05 * len(known)


def test_the_checkpoint_has_the_head_of_the_task(tmp_path: Path) -> None:
    """The classifiers of texts and of tokens have the same tensors."""
    for classes, task in (
        (["BertForSequenceClassification"], "token-classification"),
        (["BertForMaskedLM"], "sequence-classification"),
        (["BertModel"], "question-answering"),
    ):
        write_config(tmp_path, model_type="bert", architectures=classes)
        with pytest.raises(UserError, match=f"belong to {classes[0]}, which has no head for {task}"):
            outline.outline(of_path(tmp_path, task=task))
        assert outline.outline(of_path(tmp_path, task=task, weights="random")).task == task
        assert outline.outline(of_path(tmp_path, task="sentence-embedding")).task == "sentence-embedding"


def test_a_hub_that_hangs_costs_planning_little(
    hub_on_this_machine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "ANSWER_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"some/hangs is not in the hub cache.*set architecture, task and"):
        outlined(hub="some/hangs")
    assert time.monotonic() - start < 1.5


def test_a_plug_in_family_comes_first(tmp_path: Path) -> None:
    """In a separate process: catalogues are read once."""
    (tmp_path / "catalogue.py").write_text(
        "from ceilings.models.catalogue import Family\n"
        "FAMILIES = [Family('mine', {'sentence-embedding': ('batch', 'sequence')}, architectures=('bert',))]\n"
    )
    code = (
        "import sys; from ceilings import plugins; plugins.activate([sys.argv[1]]); "
        "from ceilings.models.catalogue import family_of; "
        "print(*(family_of(*model, 'transformers').module for model in (('bert', 'sentence-embedding'), "
        "('bert', 'question-answering'), ('electra', 'sentence-embedding'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    prefix = "ceilings.models.families."
    assert done.stdout.split() == [f"{prefix}mine", f"{prefix}text_encoder", f"{prefix}text_encoder"]


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        ("distilbert", "n_layers", 0),
        ("distilbert", "num_hidden_layers", -1),
        ("bert", "vocab_size", 0),
        ("bert", "num_labels", 0),
        ("distilbert", "dim", 3_200_000_000),
        ("distilbert", "vocab_size", 1e30),
        ("distilbert", "hidden_dim", 64.5),
        ("bert", "hidden_size", "768"),
        ("bert", "num_labels", True),
    ],
)
def test_what_is_no_size_is_refused_while_planning(architecture: str, key: str, value: object) -> None:
    with pytest.raises(UserError, match=re.escape(f"is {value!r}; a size is a whole number from 1 to 2147483647")):
        outlined(architecture=architecture, weights="random", config={key: value})
