"""Every family loads what Transformers saves, and answers as its own classes do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import Checkpoint, of_path, tiny

from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json, write_json
from ceilings.models import outline, reference, weights
from ceilings.models.inputs import Wanted, make_inputs, sample
from ceilings.models.load import load_module
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 500,
    "max_position_embeddings": 40,
}
DISTILBERT = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 64,
    "vocab_size": 500,
    "max_position_embeddings": 40,
}
DEBERTA = {
    **SIZES,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "type_vocab_size": 0,
}
VIT = {key: SIZES[key] for key in list(SIZES)[:4]} | {"image_size": 32, "patch_size": 8}

TEXTS: list[tuple[str, str, dict[str, Any], int | None]] = [
    ("bert", "sequence-classification", {**SIZES, "num_labels": 3}, 40),
    ("distilbert", "token-classification", {**DISTILBERT, "num_labels": 5}, 40),
    ("roberta", "question-answering", SIZES, 38),
    ("electra", "sequence-classification", {**SIZES, "embedding_size": 16}, 40),
    ("mpnet", "sentence-embedding", SIZES, 38),
    ("deberta-v2", "token-classification", DEBERTA, None),
    (
        "modernbert",
        "sequence-classification",
        {**SIZES, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
        40,
    ),
    ("bert", "sentence-embedding", SIZES, 40),  # as MiniLM is one
    ("albert", "question-answering", {**SIZES, "embedding_size": 16}, 40),
    ("xlm-roberta", "token-classification", SIZES, 38),
]
"""Architecture, task, sizes, longest sequence if there is one."""

IMAGES = [
    ("vit", "image-classification", VIT),
    ("vit", "image-embedding", VIT),
    ("dinov2", "image-embedding", {key: VIT[key] for key in VIT if key != "intermediate_size"}),
    ("deit", "image-embedding", VIT),
    ("swin", "image-embedding", {"embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 2, "image_size": 32}),
    (
        "resnet",
        "image-classification",
        {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"},
    ),
]

CONVOLVED = {"conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2]}
SPEECH_SIZES = {key: SIZES[key] for key in list(SIZES)[:4]} | CONVOLVED
SPEECH_SIZES |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
SPEECH = [("wav2vec2", "speech-embedding", SPEECH_SIZES), ("hubert", "speech-embedding", SPEECH_SIZES)]

CLASSES = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "sentence-embedding": "AutoModel",
    "image-classification": "AutoModelForImageClassification",
    "image-embedding": "AutoModel",
    "speech-embedding": "AutoModel",
}


def answers(weights_dir: Path, arrays: dict[str, np.ndarray], **options: Any) -> list[np.ndarray]:
    """Outputs of the first element."""
    import torch

    with torch.inference_mode():
        outputs = load_module(weights_dir, **options)(*(torch.from_numpy(array[0]) for array in arrays.values()))
    assert isinstance(outputs, tuple)
    return [output.float().numpy() for output in outputs]


def own_answers(model: Any, task: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What Transformers' class answers to the first element, pooled as sentence-transformers does."""
    import torch

    inputs = {name: torch.from_numpy(array[0]) for name, array in arrays.items()}
    with torch.inference_mode():
        answer = model(**inputs)
        if task == "question-answering":
            outputs = [answer.start_logits, answer.end_logits]
        elif task == "sentence-embedding":
            mask = inputs["attention_mask"].unsqueeze(-1).expand(answer.last_hidden_state.size()).float()
            outputs = [torch.sum(answer.last_hidden_state * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)]
        elif task == "image-embedding":
            outputs = [answer.pooler_output]
        elif task == "speech-embedding":
            outputs = [answer.last_hidden_state.mean(dim=1)]
        else:
            outputs = [answer.logits]
    return [output.numpy() for output in outputs]


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: f"{case[0]}-{case[1]}")
def test_texts(checkpoint: Checkpoint, tmp_path: Path, case: tuple[str, str, dict[str, Any], int | None]) -> None:
    architecture, task, sizes, longest = case
    source, model = checkpoint(CLASSES[task], architecture, sizes)
    plan = outline.outline(of_path(source))
    assert (plan.family, plan.architecture, plan.task) == ("text_encoder", architecture, task)
    assert plan.limits == ({"sequence": longest} if longest else {})
    weights.fetch(of_path(source), tmp_path / "out")
    workload = Workload.read(tmp_path / "out")
    assert (workload.task.name, workload.architecture, workload.axes) == (task, architecture, plan.axes)
    assert [tensor.name for tensor in workload.inputs] == ["input_ids", "attention_mask"]
    shape = Shape.of({"batch": 3, "sequence": longest or 60})  # to the last position
    arrays = sample(tmp_path / "out", shape, 2, 0, {"share": 0.7}).arrays
    outputs = answers(tmp_path / "out", arrays, attention=model.config._attn_implementation)
    for tensor, output, own in zip(workload.outputs, outputs, own_answers(model, task, arrays), strict=True):
        assert output.shape == tensor.sizes(shape) and np.isfinite(output).all()
        np.testing.assert_array_equal(output, own)
    half = answers(tmp_path / "out", arrays, attention="eager", dtype="bfloat16")
    assert all(np.allclose(a, b, atol=0.1) for a, b in zip(half, outputs, strict=True))


@pytest.mark.parametrize(("architecture", "task", "sizes"), IMAGES)
def test_images(checkpoint: Checkpoint, tmp_path: Path, architecture: str, task: str, sizes: dict[str, Any]) -> None:
    kind = "DeiTModel" if architecture == "deit" else CLASSES[task]
    source, model = checkpoint(kind, architecture, sizes)
    plan = outline.outline(of_path(source))
    edge = sizes.get("image_size")
    assert (plan.family, plan.task) == ("image_encoder", task)
    assert plan.fixed == ({"image": edge} if edge else {})
    weights.fetch(of_path(source), tmp_path / "out")
    workload = Workload.read(tmp_path / "out")
    shape = Shape.of({"batch": 2, "image": edge or 48})
    arrays = sample(tmp_path / "out", shape, 2, 0).arrays
    outputs = answers(tmp_path / "out", arrays)
    for tensor, output, own in zip(workload.outputs, outputs, own_answers(model, task, arrays), strict=True):
        assert output.shape == tensor.sizes(shape) and np.isfinite(output).all()
        np.testing.assert_array_equal(output, own.reshape(output.shape))
    half = answers(tmp_path / "out", arrays, dtype="bfloat16")
    assert all(np.allclose(a, b, atol=0.1) for a, b in zip(half, outputs, strict=True)), "pixels are cast inside"


@pytest.mark.parametrize(("architecture", "task", "sizes"), SPEECH)
def test_speech(checkpoint: Checkpoint, tmp_path: Path, architecture: str, task: str, sizes: dict[str, Any]) -> None:
    source, model = checkpoint(CLASSES[task], architecture, sizes)
    plan = outline.outline(of_path(source))
    assert (plan.family, plan.task, plan.axes) == ("speech_encoder", task, ("batch", "samples"))
    assert (plan.least, plan.limits) == ({"samples": 30}, {})
    weights.fetch(of_path(source), tmp_path / "out")
    workload = Workload.read(tmp_path / "out")
    assert [tensor.dims for tensor in workload.outputs] == [("batch", 32)]
    for samples in (30, 1333):  # from the shortest on
        arrays = sample(tmp_path / "out", Shape.of({"batch": 2, "samples": samples}), 2, 0).arrays
        (output,) = answers(tmp_path / "out", arrays)
        assert np.isfinite(output).all()
        np.testing.assert_array_equal(output, own_answers(model, task, arrays)[0])
    with pytest.raises(UserError, match="samples 29 is shorter than the 30"):
        sample(tmp_path / "out", Shape.parse("b1-samples29"), 2, 0)
    half = answers(tmp_path / "out", arrays, dtype="bfloat16")[0]
    assert np.allclose(half, output, atol=0.1), "waveforms are cast inside"


@pytest.mark.parametrize(("architecture", "task", "sizes"), [(*text[:3],) for text in TEXTS] + IMAGES + SPEECH)
def test_seeded_weights_of_any_architecture(
    tmp_path: Path, architecture: str, task: str, sizes: dict[str, Any]
) -> None:
    model = tiny(architecture=architecture, task=task, config=sizes)
    weights.fetch(model, tmp_path)
    plan, workload = outline.outline(model), Workload.read(tmp_path)
    assert (plan.family, plan.task, plan.axes) == (workload.family, workload.task.name, workload.axes)
    assert all(np.abs(value.numpy()).sum() > 0 for value in load_module(tmp_path).parameters())


def test_padding_changes_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source, _ = checkpoint("AutoModel", "bert", SIZES)
    weights.fetch(of_path(source), tmp_path / "out")
    arrays = sample(tmp_path / "out", Shape.parse("b2-s20"), 2, 0, {"share": 0.5}).arrays
    short = {name: array[..., :10] for name, array in arrays.items()}
    np.testing.assert_allclose(answers(tmp_path / "out", arrays)[0], answers(tmp_path / "out", short)[0], atol=1e-6)


def test_a_pooler_and_heads_of_other_tasks_are_left_out_of_an_embedding(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source, model = checkpoint("AutoModelForMaskedLM", "bert", SIZES)
    with pytest.raises(UserError, match="names BertForMaskedLM"):
        weights.fetch(of_path(source), tmp_path / "out")
    weights.fetch(of_path(source, task="sentence-embedding"), tmp_path / "out")
    arrays = sample(tmp_path / "out", Shape.parse("b2-s20"), 1, 0).arrays
    own = own_answers(model.bert, "sentence-embedding", arrays)
    np.testing.assert_array_equal(answers(tmp_path / "out", arrays)[0], own[0])
    assert not any("pooler" in name for name, _ in load_module(tmp_path / "out").named_parameters())


def test_an_image_embedding_without_a_pooler_is_the_first_token(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch

    source, model = checkpoint("AutoModelForImageClassification", "vit", VIT)
    weights.fetch(of_path(source, task="image-embedding"), tmp_path / "out")
    arrays = sample(tmp_path / "out", Shape.parse("b2-i32"), 1, 0).arrays
    with torch.inference_mode():
        own = model.vit(torch.from_numpy(arrays["pixel_values"][0])).last_hidden_state[:, 0]
    np.testing.assert_array_equal(answers(tmp_path / "out", arrays)[0], own.numpy())


@pytest.mark.parametrize(
    ("modules", "pooling", "expected"),
    [
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode_mean_tokens": True}, "mean"),
        (["Transformer", "Pooling"], {"pooling_mode": "cls"}, "cls"),
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, CellFailure),
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": False}, CellFailure),
        (["Transformer"], {}, CellFailure),
        (["Transformer", "Normalize", "Pooling"], {"pooling_mode_mean_tokens": True}, CellFailure),
        (["Transformer", "Pooling"], {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, CellFailure),
        (["Transformer", "Pooling", "Dense"], {"pooling_mode_mean_tokens": True}, CellFailure),
    ],
)
def test_checkpoints_of_sentence_transformers(
    checkpoint: Checkpoint, tmp_path: Path, modules: list[str], pooling: dict[str, bool], expected: Any
) -> None:
    source, _ = checkpoint("AutoModelForMaskedLM", "mpnet", SIZES)
    parts = [
        {"path": "1_Pooling" if name == "Pooling" else "", "type": f"sentence_transformers.models.{name}"}
        for name in modules
    ]
    write_json(source / "modules.json", parts)
    write_json(source / "1_Pooling" / "config.json", pooling)
    if expected is CellFailure:
        with pytest.raises(CellFailure, match=r"max_tokens|Dense|pools by|after them, Normalize"):
            weights.fetch(of_path(source), tmp_path / "out")
        return
    weights.fetch(of_path(source), tmp_path / "out")
    assert read_json(tmp_path / "out" / "config.json")["sentence_pooling"] == expected
    arrays = sample(tmp_path / "out", Shape.parse("b2-s20"), 1, 0, {"share": 0.5}).arrays
    module = load_module(tmp_path / "out")
    assert module.pooling == expected
    weights.fetch(of_path(source, config={"sentence_pooling": "mean"}), tmp_path / "mean")
    embedding, mean = answers(tmp_path / "out", arrays)[0], answers(tmp_path / "mean", arrays)[0]
    assert np.array_equal(embedding, mean) == (expected == "mean")
    lengths = np.linalg.norm(embedding, axis=1)
    assert np.allclose(lengths, 1, atol=1e-6) == ("Normalize" in modules), "each row has the length 1"
    weights.fetch(of_path(source, weights="random"), tmp_path / "random")
    config = read_json(tmp_path / "random" / "config.json")
    assert (config["sentence_pooling"], config.get("sentence_normalize", False)) == (expected, "Normalize" in modules)


def test_a_reference_has_every_output(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source, _ = checkpoint("AutoModelForQuestionAnswering", "roberta", SIZES)
    out, inputs, file = tmp_path / "out", tmp_path / "in.npz", tmp_path / "ref.npz"
    weights.fetch(of_path(source), out)
    make_inputs(out, Shape.parse("b2-s20.half"), Wanted(3, 0, {"share": 0.5}), inputs)
    assert reference.compute(out, inputs, 1, file) == dict.fromkeys(("start_logits", "end_logits"), (2, 2, 20))
    loaded, arrays = reference.load_for(file, inputs)
    assert list(loaded) == ["start_logits", "end_logits"]
    for index, name in enumerate(loaded):
        np.testing.assert_array_equal(loaded[name][0], answers(out, arrays, attention="eager")[index])


CLIP = {
    "projection_dim": 24,
    "vision_config": {**VIT, "hidden_act": "gelu"},
    "text_config": {**SIZES, "hidden_act": "gelu", "bos_token_id": 498, "eos_token_id": 499},
}


@pytest.mark.parametrize("task", ["image-embedding", "sentence-embedding"])
@pytest.mark.parametrize("whole", [True, False])
def test_towers_of_clip(checkpoint: Checkpoint, tmp_path: Path, task: str, whole: bool) -> None:
    """Of a whole CLIP, and alone."""
    import torch

    image = task == "image-embedding"
    if whole:
        source, model = checkpoint("CLIPModel", "clip", CLIP)
        definition = of_path(source, task=task)
    else:
        kind = "CLIPVisionModelWithProjection" if image else "CLIPTextModelWithProjection"
        part = CLIP["vision_config" if image else "text_config"]
        source, model = checkpoint(
            kind, "clip_vision_model" if image else "clip_text_model", {**part, "projection_dim": 24}
        )
        definition = of_path(source)
    out = tmp_path / "out"
    weights.fetch(definition, out)
    plan, workload = outline.outline(definition), Workload.read(out)
    assert (plan.family, plan.architecture, plan.task) == (workload.family, workload.architecture, task)
    config = read_json(out / "config.json")
    assert config["model_type"] == plan.architecture
    if image:
        assert plan.fusion is not None and config[plan.fusion.layers_key] == 2, "sizes lie where fusions look for them"
    shape = Shape.parse("b3-i32" if image else "b3-s30")
    made = sample(out, shape, 1, 0, None if image else {"share": 0.5})
    outputs = answers(out, made.arrays)
    assert outputs[0].shape == workload.outputs[0].sizes(shape) == (3, 24)
    tensors = {name: torch.from_numpy(array[0]) for name, array in made.arrays.items()}
    with torch.inference_mode():
        if whole:
            own = model.get_image_features(**tensors) if image else model.get_text_features(**tensors)
            own = own if isinstance(own, torch.Tensor) else own.pooler_output
        else:
            own = model(**tensors).image_embeds if image else model(**tensors).text_embeds
    np.testing.assert_array_equal(outputs[0], own.numpy())
    if not image:
        rows = made.arrays["input_ids"][0]
        assert (rows[:, 14] == 499).all() and (rows[:, :14] != 499).all(), "the text ends where it is pooled"


def test_a_clip_without_its_projection_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source, _ = checkpoint("CLIPVisionModel", "clip_vision_model", CLIP["vision_config"])
    with pytest.raises(UserError, match=r"tensors are missing .*made for image-embedding"):
        weights.fetch(of_path(source), tmp_path / "out")
