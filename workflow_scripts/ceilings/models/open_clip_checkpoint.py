"""Checkpoints of open_clip: reading one, and converting a tower of it into Transformers' CLIP classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ceilings.errors import CellFailure
from ceilings.files import read_json
from ceilings.models import checkpoint, pretrained
from ceilings.models.weights_folder import WEIGHTS

if TYPE_CHECKING:
    import torch

FILES = (*checkpoint.OPEN_CLIP, WEIGHTS)
"""Weights, the first that is there."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP normalises images by where its configuration does not say."""

SHARED = ("logit_scale", "logit_bias")
"""Tensors of neither tower."""

VISION_KEYS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
"""Keys of a tower's configuration that the conversion knows."""

NEUTRAL: dict[str, Any] = {
    "attentional_pool": False,
    "embed_cls": False,
    "final_ln_after_pool": False,
    "hf_model_name": None,
    "ls_init_value": None,
    "no_causal_mask": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "proj_bias": False,
    "proj_type": "linear",
    "timm_model_name": None,
}
"""Keys whose other values make another network; the pooling is checked apart."""

IGNORED = ("attn_pooler_", "hf_", "timm_", "tokenizer_", "patch_dropout", "output_tokens", "pad_id", "eos_id")
"""Starts of keys that do not change the network in inference once the neutral values hold."""

TOWER_NAMES = (
    (r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"visual\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    (r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"visual\.proj", "visual_projection.weight"),
    (r"visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"ln_final\.", "text_model.final_layer_norm."),
    (r"text_projection", "text_projection.weight"),
    (r"transformer\.resblocks\.", "text_model.encoder.layers."),
)
"""How the names of a tower's tensors begin in open_clip, and in Transformers."""

LAYER_NAMES = (
    (r"\.ln_1\.", ".layer_norm1."),
    (r"\.ln_2\.", ".layer_norm2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
"""The same within a layer, but for the query, key and value, which open_clip keeps in one tensor."""

TRANSPOSED = ("visual_projection.weight", "text_projection.weight")
"""open_clip multiplies by them from the right."""


def read(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, in FP32.

    Raises:
        UserError: No file of weights, or a damaged one.
    """
    import torch
    from safetensors.torch import load_file

    path = checkpoint.weights_of(folder, FILES)[0]
    with pretrained.readable(path):
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {name.removeprefix("module."): value for name, value in state.items()}
        return {name: value.float() for name, value in state.items() if isinstance(value, torch.Tensor)}


def tower_of(state: Mapping[str, torch.Tensor], task: str) -> dict[str, torch.Tensor]:
    """The tensors of the tower that does a task, the text tower's by the names that ``open_clip.CLIP`` gives them."""
    if task == "image-embedding":
        return {name: value for name, value in state.items() if name.startswith("visual.")}
    rest = {name: value for name, value in state.items() if not name.startswith("visual.") and name not in SHARED}
    return {name.removeprefix("text."): value for name, value in rest.items() if not name.endswith("attn_mask")}


def processor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and deviation of the checkpoint's images, as preprocessor_config.json has them."""
    says = config.get("preprocess_cfg") or {}
    return {"image_mean": list(says.get("mean") or MEAN), "image_std": list(says.get("std") or DEVIATION)}


def processor_of(folder: Path) -> dict[str, Any]:
    """The same, of a checkpoint's folder."""
    return processor(read_json(folder / "open_clip_config.json", "put an undamaged copy there"))


def special_tokens(text: Mapping[str, Any]) -> dict[str, int]:
    """Ids that open, close and pad a text, by the keys of Transformers' configurations."""
    vocabulary = int(text.get("vocab_size", 49408))
    pooling = text.get("pool_type", "argmax")
    end = int(text.get("eos_id", 2)) if pooling == "eos" else vocabulary - 1
    return {"bos_token_id": vocabulary - 2, "eos_token_id": end, "pad_token_id": int(text.get("pad_id", 0))}


def converted_config(model: Mapping[str, Any], task: str, name: str) -> dict[str, Any]:
    """A tower's configuration as Transformers' CLIP classes take it.

    Args:
        model: ``model_cfg`` of open_clip: embed_dim, vision_cfg, text_cfg, quick_gelu.
        task: image-embedding or sentence-embedding.
        name: The model's, for messages.

    Raises:
        CellFailure: The tower is none that these classes can compute.
    """
    image = task == "image-embedding"
    tower: dict[str, Any] = dict(model["vision_cfg" if image else "text_cfg"])
    _refuse_other_networks(tower, image, name)
    width, ratio = int(tower.get("width", 768 if image else 512)), float(tower.get("mlp_ratio", 4.0))
    common = {
        "hidden_size": width,
        "intermediate_size": int(width * ratio),
        "num_hidden_layers": int(tower.get("layers", 12)),
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "projection_dim": int(model["embed_dim"]),
    }
    if image:
        return {
            **common,
            "num_attention_heads": width // int(tower.get("head_width", 64)),
            "image_size": int(tower.get("image_size", 224)),
            "patch_size": int(tower.get("patch_size", 16)),
        }
    return {
        **common,
        "num_attention_heads": int(tower.get("heads", 8)),
        "max_position_embeddings": int(tower.get("context_length", 77)),
        "vocab_size": int(tower.get("vocab_size", 49408)),
        **special_tokens(tower),
    }


def convert(state: Mapping[str, torch.Tensor], task: str) -> dict[str, torch.Tensor]:
    """The tensors of one tower by their names in Transformers; every one of them is used.

    Raises:
        CellFailure: A tensor that has no place there.
    """
    tower = tower_of(state, task)
    result: dict[str, torch.Tensor] = {}
    for name, value in tower.items():
        renamed = _renamed(name)
        if (joined := re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", renamed)) is not None:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                result[f"{joined[1]}.self_attn.{part}_proj.{joined[2]}"] = piece.contiguous()
        else:
            result[renamed] = value.T.contiguous() if renamed in TRANSPOSED else value
    return result


def _renamed(name: str) -> str:
    for old, new in TOWER_NAMES:
        if re.match(old, name):
            renamed = re.sub(f"^{old}", new, name)
            for part, other in LAYER_NAMES:
                renamed = re.sub(part, other, renamed)
            return renamed
    raise CellFailure(
        "unsupported",
        f"the tensor {name} of the open_clip checkpoint has no place in Transformers' CLIP; set "
        "implementation: open_clip",
    )


def _refuse_other_networks(tower: Mapping[str, Any], image: bool, name: str) -> None:
    pooling = "tok" if image else "argmax"
    for key, value in tower.items():
        if key in (VISION_KEYS if image else TEXT_KEYS):
            fits = not isinstance(value, list)
        elif key == "pool_type":
            fits = value == pooling
        elif key in NEUTRAL:
            fits = value == NEUTRAL[key]
        else:
            fits = not value or key.startswith(IGNORED)
        if not fits:
            raise CellFailure(
                "unsupported",
                f"model {name!r}: Transformers' CLIP classes have no {key} = {value!r}; set implementation: open_clip",
            )
