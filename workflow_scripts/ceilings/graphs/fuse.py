"""Fused operators of ONNX Runtime, placed by its Transformer optimiser; of a decoder with a cache, written."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ceilings import files
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import graph
from ceilings.models.clip_towers import with_tower_sizes
from ceilings.workload.workload import Workload

if TYPE_CHECKING:
    from ceilings.models.catalogue import Fusion
    from ceilings.workload.generation import Decoder

ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")


@dataclasses.dataclass(frozen=True)
class Fused:
    """The fused graph, how often each fusion was made, and the attentions that the model has (None: not known)."""

    model: onnx.ModelProto
    fusions: dict[str, int]
    expected: int | None

    @property
    def attentions(self) -> dict[str, int | None]:
        """How many attentions were fused, of how many."""
        return {"fused": sum(self.fusions.get(name, 0) for name in ATTENTION), "expected": self.expected}


def fuse(path: Path | str, weights_dir: Path | str) -> Fused:
    """Fuse attention, normalisation, activation and embedding.

    Args:
        path: A floating point graph.
        weights_dir: Whose workload says the architecture, and whose configuration says heads and hidden size.

    Raises:
        UserError: A quantised graph.
        CellFailure: An architecture that no fusion is known for, or nothing that was fused.
    """
    workload = Workload.read(weights_dir)
    if workload.decoder is not None:
        return _written(path, weights_dir, workload.decoder)
    # By name: another architecture in the table must not fuse any graph anew.
    known = importlib.import_module("ceilings.models.catalogue").FUSIONS
    if workload.architecture not in known:
        raise CellFailure(
            "unsupported",
            f"no fusion of ONNX Runtime is known for the architecture {workload.architecture or 'of an ONNX file'!r}; "
            f"known: {', '.join(sorted(known))}",
        )
    model = graph.load(path, values=False)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise UserError(
            f"{path} is quantised: Q/DQ nodes stand inside the patterns that fusion looks for, so no attention would "
            f"be fused; fuse fp32, fp16 or bf16, and leave int8 and fp8 to the runtime's own fusions"
        )
    fusion = known[workload.architecture]
    config = with_tower_sizes(files.read_json(Path(weights_dir, "config.json")), workload.task.name)
    layers = config.get(fusion.layers_key)
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    settings = FusionOptions(fusion.optimizer)
    # The fused embedding has no bfloat16 form: a graph with it would be invalid everywhere.
    settings.enable_embed_layer_norm = all(
        tensor.data_type != onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer
    )
    with _quiet():
        try:
            optimizer = optimize_model(
                str(path),
                model_type=fusion.optimizer,
                # 0: found in the graph.
                num_heads=heads_of(config, fusion),
                hidden_size=int(config.get(fusion.hidden_key, 0)),
                # The runtime optimises by itself when it loads the graph; doing it here too would fix it to this
                # machine.
                opt_level=0,
                optimization_options=settings,
            )
            fusions = {name: count for name, count in optimizer.get_fused_operator_statistics().items() if count}
            optimizer.topological_sort()
        except Exception as error:  # pattern matchers raise what they stumble over
            raise CellFailure(
                "unsupported",
                f"ONNX Runtime's optimiser for {fusion.optimizer} fails on this graph: {type(error).__name__}: "
                f"{graph.first_line(error)}",
            ) from error
    if not fusions:
        raise CellFailure(
            "unsupported",
            "nothing of the graph was fused; the fusions know what the torchscript exporter writes with eager "
            "attention: set exporter: torchscript and attention: eager",
        )
    graph.forget_data(optimizer.model)
    return Fused(optimizer.model, fusions, int(layers) if isinstance(layers, int) else None)


def _written(path: Path | str, weights_dir: Path | str, decoder: Decoder) -> Fused:
    """The fused graph of a decoder, in the type of the graph that it stands for."""
    # By name: how a decoder's graph is written touches no other model's.
    writer = importlib.import_module("ceilings.graphs.gqa_decoder")
    plain = graph.load(path, values=False)
    cache = next(value for value in plain.graph.input if value.name == "past.0.key")
    model = writer.build(weights_dir, cache.type.tensor_type.elem_type)
    counted = Counter(node.op_type for node in model.graph.node if node.domain == writer.MICROSOFT)
    return Fused(model, dict(sorted(counted.items())), decoder.layers)


def heads_of(config: Mapping[str, Any], fusion: Fusion) -> int:
    """How many heads a layer has; 0 where the configuration says nothing of it."""
    if heads := int(config.get(fusion.heads_key, 0)):
        return heads
    width = int(config.get("head_width", fusion.head_size))
    return int(config.get(fusion.hidden_key, 0)) // width if width else 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
