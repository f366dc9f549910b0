"""The configuration of a model where it lies: in a folder, in the hub's cache on disk, or on the hub.

Standard library only: planning reads it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings import files
from ceilings.errors import UserError
from ceilings.models import architectures, checkpoint, sentence_modules
from ceilings.models.clip_towers import CLIP_TOWERS
from ceilings.models.definition import Definition

CONFIG, OPEN_CLIP_CONFIG, MODULES = "config.json", "open_clip_config.json", sentence_modules.FILE
ANSWER_SECONDS = 4.0
"""How long the hub may take: a firewall that drops packets, or a resolver that hangs, must cost no more than this."""

OPEN_CLIP_BASE: dict[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
"""ViT-B-32, as open_clip's own configuration has it."""

_BERT_BASE = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    **{"vocab_size": 30522, "max_position_embeddings": 512},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": {
        "model_type": "distilbert",
        "architectures": ["DistilBertForSequenceClassification"],
        "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
        **{"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072},
        **{"vocab_size": 30522, "max_position_embeddings": 512},
    },
    "textattack/bert-base-uncased-SST-2": _BERT_BASE,
}
"""Sizes and classes in the config.json of exactly these repositories, so that the default study runs without a hub."""

IMAGE_TYPES = re.compile(
    r"vit(_.*|det)?|deit|dinov2.*|dinov3.*|beit|swin(v2)?|convnext(v2)?|resnet|siglip2?_vision_model|ijepa|levit|cvt|pvt.*"
    r"|mobilevit.*|mobilenet.*|efficientnet|poolformer|regnet|focalnet|hiera|data2vec-vision|bit|van"
)
"""The ``model_type``s whose input is an image."""

SPEECH_TYPES = re.compile(r"wav2vec2(-.*)?|hubert|wavlm|data2vec-audio|unispeech(-sat)?|sew(-d)?")
"""The ``model_type``s whose input is a waveform."""

DECODERS = re.compile(
    r"gpt2|gpt_bigcode|gpt_neo|gpt_neox|gpt_oss|gptj|llama|mistral|ministral|mixtral|qwen[23](_moe)?|gemma[23]?(_text)?|phi|phi3"
    r"|opt|bloom|mpt|falcon|olmo[23]?|olmoe|stablelm|starcoder2|smollm3|granite|cohere2?|glm4?|nemotron|arcee|persimmon|exaone4"
)
"""The ``model_type``s that are there to generate text: their task where nothing says another."""

HEADS = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForImageClassification": "image-classification",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "CLIPVisionModelWithProjection": "image-embedding",
    "CLIPTextModelWithProjection": "sentence-embedding",
}
"""Ends of the names of classes, and the task of each."""


def find(definition: Definition) -> dict[str, Any] | None:
    """The configuration of a model, before its overrides; None where there is none to be had.

    Of an open_clip checkpoint that is ``{"model_type": "open_clip", **model_cfg}``. ``sentence_transformer`` is true
    where the weights belong to the package of that name. Of a repository in ``PUBLISHED`` that is not here, its
    sizes.

    Raises:
        UserError: The study names a folder without a readable one.
    """
    if definition.folder is not None:
        return of_folder(definition.folder, definition)
    if definition.hub is None:
        return None
    if (snapshot := cached(definition.hub)) is not None:
        return of_folder(snapshot, definition)
    if definition.architecture and (definition.weights == "pretrained" or unknown_sizes(definition) == []):
        return None  # The study says enough, so no time is spent on a hub that may not answer.
    if definition.hub in PUBLISHED and definition.implementation == "transformers":
        return dict(PUBLISHED[definition.hub])
    return _of_hub(definition)


def unknown_sizes(definition: Definition) -> list[str] | None:
    """The sizes that a study does not give of a model whose configuration cannot be had; None: it is unknown which.

    Random weights of other sizes would give another model's latency under this one's name.
    """
    if definition.architecture == "open_clip":
        tower = "vision_cfg" if definition.task == "image-embedding" else "text_cfg"
        given = definition.config.get(tower) or {}
        missing = [f"{tower}.{key}" for key in OPEN_CLIP_BASE[tower] if key not in given]
        return missing if "embed_dim" in definition.config else ["embed_dim", *missing]
    architecture = definition.architecture or ""
    if architecture == "clip":
        architecture = CLIP_TOWERS.get(definition.task or "", architecture)
    declared = architectures.declared(architecture)
    if declared is None:
        return None
    return [key for key in declared.sizes if key not in declared.canonical(definition.config)]


def cached(repository: str) -> Path | None:
    """The folder of a repository in the hub's cache on disk, if its configuration is there."""
    home = Path(os.environ.get("HF_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")))
    cache = files.expanded(os.environ.get("HF_HUB_CACHE", home / "hub"))
    folder = cache / f"models--{repository.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if any((snapshot / name).is_file() for name in (CONFIG, OPEN_CLIP_CONFIG)) else None


def is_open_clip(folder: Path, definition: Definition) -> bool:
    """Whether the checkpoint in a folder is read as open_clip's: asked for, or there is no other configuration."""
    has = (folder / OPEN_CLIP_CONFIG).is_file()
    return has and (definition.implementation == "open_clip" or not (folder / CONFIG).is_file())


def architecture_of(definition: Definition, config: Mapping[str, Any] | None) -> str:
    """The ``model_type`` of a model.

    Raises:
        UserError: Nothing says it, or study and configuration differ.
    """
    name, stated = definition.name, definition.architecture
    if config is None:
        here = f"model {name!r}: {definition.hub} is not in the hub cache and the hub gives no {CONFIG} now"
        remedy = "connect to it once, put the files into a folder and name that as path"
        if stated is None:
            raise UserError(f"{here}; {remedy}, or set architecture, task and, in config, its sizes")
        sizes = unknown_sizes(definition) if definition.hub and definition.weights != "pretrained" else []
        if sizes != []:
            given = f"give its sizes in config ({', '.join(sizes)}), " if sizes else ""
            raise UserError(
                f"{here}, so random weights may have other sizes than it; {remedy}, {given}or leave out hub to measure "
                f"the base model of {stated!r}"
            )
        return stated
    actual = config.get("model_type")
    if not isinstance(actual, str):
        raise UserError(
            f"model {name!r}: the {CONFIG} of {definition.path or definition.hub} has no model_type; add the one that "
            "transformers' AutoConfig knows"
        )
    if stated not in (None, actual) and (stated, actual) not in {("clip", tower) for tower in CLIP_TOWERS.values()}:
        if actual == "clip" and stated in CLIP_TOWERS.values():
            return actual
        raise UserError(
            f"model {name!r}: the {CONFIG} of {definition.path or definition.hub} has model_type {actual!r}, but the "
            f"study calls it a {stated!r}; name other weights, or change or leave out architecture"
        )
    return actual


def task_of(definition: Definition, architecture: str, config: Mapping[str, Any] | None) -> str:
    """The task of a model.

    Raises:
        UserError: Its configuration names none that is known, and the study neither.
    """
    towers = architecture in ("clip", "open_clip")
    if definition.task is not None and (not towers or definition.task in CLIP_TOWERS):
        if definition.weights != "random":
            _refuse_other_heads(definition, config or {})
        return definition.task
    for tower_task, tower in CLIP_TOWERS.items():
        if architecture == tower:
            return tower_task
    if not towers:
        classes = [str(name) for name in (config or {}).get("architectures") or []]
        for name in classes:
            for end, task in HEADS.items():
                if name.endswith(end):
                    return task
        if SPEECH_TYPES.fullmatch(architecture):
            return "speech-embedding"
        image = IMAGE_TYPES.fullmatch(architecture) is not None
        if (config or {}).get("sentence_transformer") or any(_is_encoder(name) for name in classes):
            return "image-embedding" if image else "sentence-embedding"
        if not classes and DECODERS.fullmatch(architecture):
            return "text-generation"
        if not classes:
            return "image-classification" if image else "sequence-classification"
        raise UserError(
            f"model {definition.name!r}: its {CONFIG} names {', '.join(classes)}, which is no task of this project; "
            f"set task, such as task: {'image' if image else 'sentence'}-embedding"
        )
    raise UserError(
        f"model {definition.name!r}: a {architecture!r} has two towers; set task: image-embedding or "
        "task: sentence-embedding"
    )


def _is_encoder(name: str) -> bool:
    return name.endswith("Model") and "LMHead" not in name


def _refuse_other_heads(definition: Definition, config: Mapping[str, Any]) -> None:
    """Refuse a task whose head the checkpoint's classes do not have; an embedding needs none.

    A classifier of texts has the tensors of a classifier of tokens, by the same names and of the same shapes.
    """
    classes = [str(name) for name in config.get("architectures") or []]
    ends = [end for end, task in HEADS.items() if task == definition.task]
    if not classes or not ends or definition.task in CLIP_TOWERS:
        return
    if not any(end in name for end in ends for name in classes) and all(
        re.search(r"(Model|For[A-Z]\w*)$", name) for name in classes
    ):
        raise UserError(
            f"model {definition.name!r}: the weights of {definition.path or definition.hub} belong to "
            f"{', '.join(classes)}, which has no head for {definition.task}; name weights that were made for it, "
            "change task, or set weights: random"
        )


def sentence_settings(definition: Definition) -> dict[str, Any]:
    """What a checkpoint of sentence-transformers does after its encoder, as ``sentence_modules.settings`` has it.

    Raises:
        CellFailure: More, or something else, than is known here.
    """
    folder = definition.folder or cached(definition.hub or "")
    source = str(definition.path or definition.hub)
    if folder is not None:
        here = folder
        return sentence_modules.settings(lambda name: files.read_json(here / name, "put it there"), source)
    return sentence_modules.settings(lambda name: _download(str(definition.hub), name), source)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, objects within objects too."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def of_folder(folder: Path, definition: Definition) -> dict[str, Any]:
    """The configuration that lies in a folder, as ``find`` returns it.

    Raises:
        UserError: There is no readable one.
    """
    if is_open_clip(folder, definition):
        checkpoint.refuse_pointers([folder / OPEN_CLIP_CONFIG])
        return _open_clip(files.read_json(folder / OPEN_CLIP_CONFIG, "put an undamaged copy there"), folder, definition)
    if definition.implementation == "open_clip":
        raise UserError(
            f"model {definition.name!r} has implementation 'open_clip', but {folder} has no {OPEN_CLIP_CONFIG}; put it "
            "there, or leave out implementation"
        )
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"the folder {folder} of model {definition.name!r} {what}; correct path")
    if not (folder / CONFIG).is_file():
        raise UserError(f"the folder {folder} of model {definition.name!r} has no {CONFIG}; put it there")
    checkpoint.refuse_pointers([folder / CONFIG])
    config = files.read_json(folder / CONFIG, "put an undamaged copy there")
    if not isinstance(config, dict):
        raise UserError(f"{folder / CONFIG} is no JSON object; put an undamaged copy there")
    return {**config, "sentence_transformer": (folder / MODULES).is_file()}


def _open_clip(value: Any, source: Path | str, definition: Definition) -> dict[str, Any]:
    model = value.get("model_cfg", value) if isinstance(value, dict) else None
    if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
        raise UserError(
            f"{source}: its {OPEN_CLIP_CONFIG} has no model_cfg with embed_dim, vision_cfg and text_cfg; put an "
            f"undamaged copy there for model {definition.name!r}"
        )
    quick = bool(model.get("quick_gelu")) or str(definition.hub or source).lower().endswith("quickgelu")
    return {"model_type": "open_clip", **model, "quick_gelu": quick}


def _of_hub(definition: Definition) -> dict[str, Any] | None:
    assert definition.hub is not None
    if definition.implementation == "open_clip":
        value = _download(definition.hub, OPEN_CLIP_CONFIG)
        return None if value is None else _open_clip(value, definition.hub, definition)
    config = _download(definition.hub, CONFIG)
    if isinstance(config, dict):
        plain = not any(str(name).endswith(tuple(HEADS)) for name in config.get("architectures") or [])
        sentences = plain and _download(definition.hub, MODULES) is not None
        return {**config, "sentence_transformer": sentences}
    value = _download(definition.hub, OPEN_CLIP_CONFIG)
    return None if value is None else _open_clip(value, definition.hub, definition)


@functools.cache
def _download(repository: str, name: str) -> Any:
    """A small JSON file of the hub, once a machine; None if it cannot be had within ``ANSWER_SECONDS``."""
    kept = files.expanded(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "ceilings" / repository / name
    try:
        return json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return None
    url = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repository}/resolve/main/{name}"
    answer: list[Any] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as response:
                answer.append(json.loads(response.read()))
        except (OSError, ValueError):
            return

    # A daemon thread, since a hanging name look-up cannot be cancelled.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not answer:
        return None
    with contextlib.suppress(OSError):
        files.write_json(kept, answer[0])
    return answer[0]
