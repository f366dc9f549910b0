"""Decoders from folders as Transformers writes them: their tokens are those of ``generate``."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_models import of_path

from ceilings.errors import CellFailure, UserError
from ceilings.host import Host
from ceilings.models import outline, token_reference, weights
from ceilings.models.decoder_step import DecoderStep
from ceilings.models.load import load_module
from ceilings.study.study import Study
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
TOKENS = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": [2, 7, 9, 11], "pad_token_id": 0}
"""Several tokens that would end a text, of which none may end a request."""

LLAMA: dict[str, Any] = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3, **TOKENS},
}
HEADS = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
OPT = {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "init_std": 0.3}
OPT |= {"max_position_embeddings": 64, "word_embed_proj_dim": 64, **TOKENS}


def rotary(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4, **more}}


LLAMA3 = rotary("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
ACCEPTED: dict[str, tuple[Any, dict[str, Any]]] = {
    "untied": (transformers.LlamaConfig, LLAMA),
    "tied": (transformers.LlamaConfig, {**LLAMA, "tie_word_embeddings": True}),
    "rope linear": (transformers.LlamaConfig, LLAMA | rotary("linear")),
    "rope dynamic": (transformers.LlamaConfig, LLAMA | rotary("dynamic")),
    "rope yarn": (transformers.LlamaConfig, LLAMA | rotary("yarn", original_max_position_embeddings=16)),
    "rope llama3": (transformers.LlamaConfig, LLAMA | LLAMA3),
    "no window": (transformers.MistralConfig, LLAMA | {"sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, LLAMA),
    "neox": (transformers.GPTNeoXConfig, HEADS),
    "opt": (transformers.OPTConfig, OPT),
}
LONG = {"long_factor": [4.0] * 8, "short_factor": [1.0] * 8, "original_max_position_embeddings": 32}
LONGROPE = rotary("longrope", partial_rotary_factor=1.0, **LONG) | {"original_max_position_embeddings": 32}


def saved(kind: Any, sizes: dict[str, Any], folder: Path) -> Any:
    """A model that was written to a folder in several files."""
    torch.manual_seed(11)
    model = transformers.AutoModelForCausalLM.from_config(kind(**sizes)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 4
    return model


@pytest.mark.parametrize("name", ACCEPTED)
def test_tokens_are_those_of_generate(name: str, tmp_path: Path) -> None:
    model = saved(*ACCEPTED[name], tmp_path / "given")
    assert outline.outline(of_path(tmp_path / "given")).task == "text-generation"
    weights.fetch(of_path(tmp_path / "given"), tmp_path / "w")
    ids = np.random.default_rng(0).integers(0, 300, (2, 20))
    made = token_reference.generate(tmp_path / "w", [{"input_ids": ids}], Shape.parse("b2-p20-g40"), 1)
    model.generation_config.eos_token_id = None  # a request has a fixed length
    whole = torch.from_numpy(ids)
    rows = model.generate(whole, attention_mask=torch.ones_like(whole), max_new_tokens=40, do_sample=False)
    assert np.array_equal(made["tokens"][0], rows[:, 20:].numpy())
    assert len(np.unique(made["tokens"])) > 10

    # The forward pass that is exported, without an exporter: the first token and the one after it.
    decoder = Workload.read(tmp_path / "w").decoder
    assert decoder is not None
    step = DecoderStep(load_module(tmp_path / "w", attention="eager").model, decoder).eval()
    past = [torch.zeros(2, decoder.kv_heads, 0, decoder.head_size) for _ in range(2 * decoder.layers)]
    with torch.inference_mode():
        _, first, *cache = step(whole, *past)
        _, second, *_ = step(first, *cache)
    assert np.array_equal(torch.cat([first, second], 1).numpy(), made["tokens"][0, :, :2])


@pytest.mark.parametrize(
    ("kind", "sizes", "why"),
    [
        (transformers.MistralConfig, LLAMA | {"sliding_window": 16}, "it forgets what is 16 tokens ago"),
        (transformers.Gemma2Config, LLAMA | {"sliding_window": 16, "head_dim": 16}, "it forgets what is 16 tokens ago"),
        (transformers.Phi3Config, LLAMA | LONGROPE, "for a context of more than 32 tokens"),
    ],
)
def test_what_changes_while_a_text_grows_is_refused(kind: Any, sizes: dict[str, Any], why: str, tmp_path: Path) -> None:
    saved(kind, sizes, tmp_path / "given")
    with pytest.raises(CellFailure, match=why) as failure:
        weights.fetch(of_path(tmp_path / "given"), tmp_path / "w")
    assert failure.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"sliding_window": 16}, True),
        ({"sliding_window": 64}, False),  # as long as the longest context
        ({"sliding_window": None}, False),
        ({"sliding_window": 16, "layer_types": ["full_attention"] * 2}, False),
        ({"sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]}, True),
    ],
)
def test_a_window_is_refused_while_planning(config: dict[str, Any], refused: bool, tmp_path: Path) -> None:
    sizes = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "max_position_embeddings": 64, **config}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    sweep = {"models": ["m"], "runtimes": ["torch-eager"], "precisions": ["fp32"], "shapes": ["b1-p8-g4"]}
    study = {"study": "s", "models": {"m": {"path": str(tmp_path)}}, "sweeps": {"one": sweep}}
    if not refused:
        assert Study(study, LAPTOP).cells
        return
    with pytest.raises(UserError, match=r"sweeps\.one: 'm' attends to the last 16 tokens alone"):
        Study(study, LAPTOP)
