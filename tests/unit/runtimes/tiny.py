"""Tiny real models that answer questions and embed images: as modules, and as ONNX graphs with symbolic axes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from unit.runtimes.workloads import ANSWERER, EMBEDDER, VOCABULARY

from ceilings.workload.workload import Workload


class Positional(torch.nn.Module):
    """Takes the workload's inputs in their order and gives its outputs as a tuple."""

    def __init__(self, model: torch.nn.Module, workload: Workload) -> None:
        super().__init__()
        self.model, self.workload = model, workload
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        names = [tensor.name for tensor in self.workload.inputs]
        found = self.model(**dict(zip(names, inputs, strict=True)))
        if self.workload is EMBEDDER:
            return (found.last_hidden_state.mean(dim=1),)
        return found.start_logits, found.end_logits


def module(workload: Workload) -> torch.nn.Module:
    """A seeded model of the workload, in FP32."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if workload is ANSWERER:
        config = transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **sizes)
        model = transformers.BertForQuestionAnswering._from_config(config, attn_implementation="eager")
        return Positional(model, workload)
    config = transformers.ViTConfig(image_size=16, patch_size=8, **sizes)
    model = transformers.ViTModel._from_config(config, attn_implementation="eager", add_pooling_layer=False)
    return Positional(model, workload)


def export(workload: Workload, model: torch.nn.Module, path: Path) -> None:
    """Write a graph whose symbolic dimensions are the workload's axes; an image's size is fixed."""
    inputs = tuple(torch.from_numpy(value) for value in element(workload, 2, 16).values())
    tensors = [*workload.inputs, *workload.outputs]
    axes = {
        tensor.name: {i: dim for i, dim in enumerate(tensor.dims) if dim in ("batch", "sequence")} for tensor in tensors
    }
    names = ([tensor.name for tensor in workload.inputs], [tensor.name for tensor in workload.outputs])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about what is constant
        torch.onnx.export(
            model, inputs, path, input_names=names[0], output_names=names[1], dynamic_axes=axes, dynamo=False
        )


def element(workload: Workload, batch: int, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One element of a pool."""
    random = np.random.default_rng(seed)
    if workload is EMBEDDER:
        return {"pixel_values": random.normal(size=(batch, 3, size, size)).astype(np.float32)}
    mask = np.ones((batch, size), np.int64)
    mask[-1, size // 2 :] = 0
    return {"input_ids": random.integers(5, VOCABULARY, (batch, size)), "attention_mask": mask}


def expected(workload: Workload, model: torch.nn.Module, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the module gives, by output."""
    with torch.no_grad():
        found = model(*(torch.from_numpy(inputs[tensor.name]) for tensor in workload.inputs))
    return {output.name: value.numpy() for output, value in zip(workload.outputs, found, strict=True)}
