"""Fused operators of ONNX Runtime, placed by its Transformer optimiser."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import onnx

from ceilings.errors import UserError
from ceilings.graphs import graph
from ceilings.models.catalogue import ARCHITECTURES
from ceilings.models.weights import read_config

ATTENTION = ("Attention", "MultiHeadAttention")


@dataclasses.dataclass(frozen=True)
class Fused:
    """The fused graph, how often each fusion was made, and the model's layers."""

    model: onnx.ModelProto
    fusions: dict[str, int]
    layers: int


def fuse(path: Path | str, weights_dir: Path | str, architecture: str) -> Fused:
    """Fuse attention, normalisation, activation and embedding.

    Args:
        path: A floating point graph.
        weights_dir: Whose configuration says heads and hidden size.
        architecture: A key of the catalogue.

    Raises:
        UserError: A quantised graph, an unknown architecture, or not one fused attention for every layer.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(f"--architecture is {architecture!r}; known: {', '.join(ARCHITECTURES)}")
    model = graph.load(path)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise UserError(
            f"{path} is quantised: Q/DQ nodes stand inside the patterns that fusion looks for, so no attention would "
            f"be fused; fuse fp32, fp16 or bf16, and leave int8 and fp8 to the runtime's own fusions"
        )
    family, config = ARCHITECTURES[architecture], read_config(weights_dir)
    layers = int(config[family.layers_key])
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    settings = FusionOptions(family.optimizer)
    # The fused embedding has no bfloat16 form: a graph with it would be invalid everywhere.
    settings.enable_embed_layer_norm = all(
        tensor.data_type != onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer
    )
    with _quiet():
        optimizer = optimize_model(
            str(path),
            model_type=family.optimizer,
            num_heads=int(config[family.heads_key]),
            hidden_size=int(config[family.hidden_key]),
            # The runtime optimises by itself when it loads the graph; doing it here too would fix it to this machine.
            opt_level=0,
            optimization_options=settings,
        )
        fusions = {name: count for name, count in optimizer.get_fused_operator_statistics().items() if count}
        optimizer.topological_sort()
    attentions = sum(fusions.get(name, 0) for name in ATTENTION)
    if attentions != layers:
        raise UserError(
            f"{attentions} of {layers} attentions of {path} were fused; the fusions know what the torchscript exporter "
            f"writes with eager attention: set exporter: torchscript and attention: eager"
        )
    return Fused(optimizer.model, fusions, layers)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
