"""Checkpoints of open_clip, by its own classes and by those of Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny_models import of_path, tiny

from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json
from ceilings.models import open_clip_checkpoint, outline, weights
from ceilings.models.inputs import sample
from ceilings.models.load import load_module
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

MODEL: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 300, "width": 64, "heads": 2, "layers": 2},
}
TASKS = ("image-embedding", "sentence-embedding")


def write(folder: Path, state: dict[str, Any], model: dict[str, Any], form: str = "safetensors") -> Path:
    """A checkpoint as open_clip's users have it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}})
    )
    if form == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    else:
        torch.save({"state_dict": state}, folder / "open_clip_pytorch_model.bin")
    return folder


def layer(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    norms = {f"{prefix}.{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return norms | {
        f"{prefix}.attn.in_proj_weight": (3 * width, width),
        f"{prefix}.attn.in_proj_bias": (3 * width,),
        f"{prefix}.attn.out_proj.weight": (width, width),
        f"{prefix}.attn.out_proj.bias": (width,),
        f"{prefix}.mlp.c_fc.weight": (4 * width, width),
        f"{prefix}.mlp.c_fc.bias": (4 * width,),
        f"{prefix}.mlp.c_proj.weight": (width, 4 * width),
        f"{prefix}.mlp.c_proj.bias": (width,),
    }


def state() -> dict[str, Any]:
    """Tensors of MODEL by open_clip's names, without the package."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (128,),
        "visual.positional_embedding": (17, 128),
        "visual.proj": (128, 24),
        "visual.conv1.weight": (128, 3, 8, 8),
        "token_embedding.weight": (300, 64),
        "positional_embedding": (16, 64),
        "text_projection": (64, 24),
        "logit_scale": (),
        **{f"{n}.{p}": (128,) for n in ("visual.ln_pre", "visual.ln_post") for p in ("weight", "bias")},
        **{f"ln_final.{p}": (64,) for p in ("weight", "bias")},
    }
    for index in range(2):
        shapes |= layer(f"visual.transformer.resblocks.{index}", 128) | layer(f"transformer.resblocks.{index}", 64)
    torch.manual_seed(0)
    return {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}


def answer(weights_dir: Path, arrays: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    import torch

    module = load_module(weights_dir, **options)
    names = [tensor.name for tensor in Workload.read(weights_dir).inputs]
    with torch.inference_mode():
        (output,) = module(*(torch.from_numpy(arrays[name][0]) for name in names))
    return output.float().numpy()


def rows(weights_dir: Path, task: str) -> dict[str, np.ndarray]:
    image = task == "image-embedding"
    made = sample(weights_dir, Shape.parse("b3-i32" if image else "b3-s16"), 1, 0, None if image else {"share": 0.6})
    return made.arrays


@pytest.mark.parametrize("form", ["safetensors", "pickled"])
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_both_implementations_agree(open_clip: ModuleType, tmp_path: Path, task: str, quick: bool, form: str) -> None:
    import torch

    model = MODEL | ({"quick_gelu": True} if quick else {})
    torch.manual_seed(3)
    whole = open_clip.model.CLIP(**model).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    source = write(tmp_path / "source", whole.state_dict(), model, form)
    outputs = {}
    for implementation in ("transformers", "open_clip"):
        folder = tmp_path / implementation
        weights.fetch(of_path(source, task=task, implementation=implementation), folder)
        outputs[implementation] = answer(folder, rows(tmp_path / "transformers", task))
    with torch.inference_mode():
        if task == "image-embedding":
            own = whole.encode_image(torch.from_numpy(rows(folder, task)["pixel_values"][0]))
        else:
            own = whole.encode_text(torch.from_numpy(rows(folder, task)["input_ids"][0]))
    np.testing.assert_allclose(outputs["open_clip"], own.numpy(), atol=1e-6)
    np.testing.assert_allclose(outputs["transformers"], outputs["open_clip"], atol=1e-5)
    assert np.abs(own.numpy()).max() > 0.1, "a difference would show"
    config = read_json(tmp_path / "transformers" / "config.json")
    assert config["hidden_act"] == ("quick_gelu" if quick else "gelu")
    other = answer(folder, rows(folder, task), dtype="bfloat16")
    np.testing.assert_allclose(other, own.numpy(), atol=0.1)


@pytest.mark.parametrize("task", TASKS)
def test_its_own_classes_hold_the_tower_alone(open_clip: ModuleType, tmp_path: Path, task: str) -> None:
    from safetensors.torch import load_file

    model = tiny(architecture="open_clip", task=task, config=MODEL, implementation="open_clip")
    record = weights.fetch(model, tmp_path)
    plan, workload = outline.outline(model), Workload.read(tmp_path)
    assert (record["family"], workload.family, plan.family) == ("open_clip",) * 3
    assert (workload.axes, len(workload.inputs)) == (plan.axes, 1)
    names = load_file(tmp_path / "model.safetensors")
    assert all(name.startswith("visual.") for name in names) == (task == "image-embedding")
    assert sum(value.numel() for value in names.values()) == record["parameters"]
    assert answer(tmp_path, rows(tmp_path, task)).shape == (3, 24)
    with pytest.raises(UserError, match="'depth', which open_clip does not know"):
        weights.fetch(
            tiny(architecture="open_clip", task=task, config=MODEL | {"depth": 3}, implementation="open_clip"), tmp_path
        )


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_its_own_classes_load_strictly(open_clip: ModuleType, tmp_path: Path, change: str) -> None:
    tensors = state()
    if change == "missing":
        del tensors["visual.ln_post.bias"]
    else:
        tensors["visual.adapter"] = tensors["visual.proj"].clone()
    source = write(tmp_path / "source", tensors, MODEL)
    with pytest.raises(UserError, match=r"ln_post\.bias|adapter"):
        weights.fetch(of_path(source, task="image-embedding", implementation="open_clip"), tmp_path / "out")


@pytest.mark.parametrize("task", TASKS)
def test_every_tensor_of_a_tower_is_used(task: str) -> None:
    tensors = state()
    tower = open_clip_checkpoint.tower_of(tensors, task)
    converted = open_clip_checkpoint.convert(tensors, task)
    assert sum(value.numel() for value in converted.values()) == sum(value.numel() for value in tower.values())
    both = [open_clip_checkpoint.tower_of(tensors, task) for task in TASKS]
    assert len(both[0]) + len(both[1]) + 1 == len(tensors), "but for the scale of the logits, each is of one tower"


def test_a_converted_checkpoint_is_a_clip_of_transformers(tmp_path: Path) -> None:
    source = write(tmp_path / "source", state(), MODEL)
    definition = of_path(source, task="image-embedding")
    weights.fetch(definition, tmp_path / "out")
    plan, config = outline.outline(definition), read_json(tmp_path / "out" / "config.json")
    assert (plan.family, plan.architecture, plan.fixed) == ("clip", "clip_vision_model", {"image": 32})
    assert (config["hidden_act"], config["num_attention_heads"], config["projection_dim"]) == ("gelu", 2, 24)
    assert read_json(tmp_path / "out" / "preprocessor_config.json")["image_mean"] == [0.1, 0.2, 0.3]
    assert np.isfinite(answer(tmp_path / "out", rows(tmp_path / "out", "image-embedding"))).all()


def test_the_activation_is_the_checkpoints(tmp_path: Path) -> None:
    """Said by the configuration, by the name, or by the study where neither does."""
    for name, model, changes, wanted in (
        ("plain", MODEL, {}, "gelu"),
        ("said", MODEL | {"quick_gelu": True}, {}, "quick_gelu"),
        ("ViT-B-32-quickgelu", MODEL, {}, "quick_gelu"),
        ("study", MODEL, {"quick_gelu": True}, "quick_gelu"),
    ):
        source = write(tmp_path / name, state(), model)
        weights.fetch(of_path(source, task="sentence-embedding", config=changes), tmp_path / "out")
        assert read_json(tmp_path / "out" / "config.json")["hidden_act"] == wanted, name


@pytest.mark.parametrize(
    ("vision", "tensor", "error", "message"),
    [
        ({"ls_init_value": 1e-5}, None, CellFailure, "no ls_init_value = 1e-05; set implementation: open_clip"),
        ({"timm_model_name": "vit"}, None, CellFailure, "no timm_model_name"),
        ({"pool_type": "avg"}, None, CellFailure, "no pool_type = 'avg'"),
        ({"layers": [2, 2, 2, 2]}, None, CellFailure, "no layers"),
        ({"novel": 3}, None, CellFailure, "no novel = 3"),
        ({"patch_dropout": 0.5, "attentional_pool": False}, None, None, ""),
        ({}, "visual.transformer.resblocks.2.ln_1.weight", UserError, "1 tensors are of no use"),
        ({}, "visual.attn_pool.query", CellFailure, "visual.attn_pool.query .* has no place"),
        ({"layers": 3}, None, UserError, "16 tensors are missing"),
    ],
)
def test_other_networks_are_not_converted(
    tmp_path: Path, vision: dict[str, Any], tensor: str | None, error: type[Exception] | None, message: str
) -> None:
    tensors = state()
    if tensor:
        tensors[tensor] = tensors["visual.ln_pre.weight"].clone()
    source = write(tmp_path / "source", tensors, MODEL | {"vision_cfg": MODEL["vision_cfg"] | vision})
    definition = of_path(source, task="image-embedding")
    if error is None:
        assert weights.fetch(definition, tmp_path / "out")["source"] == "path"
        return
    with pytest.raises(error, match=message):
        weights.fetch(definition, tmp_path / "out")


def test_seeded_weights_by_transformers(tmp_path: Path) -> None:
    model = tiny(architecture="open_clip", task="sentence-embedding", config=MODEL)
    weights.fetch(model, tmp_path)
    assert outline.outline(model).limits == {"sequence": 16}
    assert answer(tmp_path, rows(tmp_path, "sentence-embedding")).shape == (3, 24)


def test_a_damaged_configuration(tmp_path: Path) -> None:
    source = write(tmp_path, state(), {"embed_dim": 24})
    with pytest.raises(UserError, match="has no model_cfg with embed_dim, vision_cfg and text_cfg"):
        outline.outline(of_path(source, task="image-embedding"))
