"""The architectures that the pipeline knows. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What differs between Transformer encoders with a sequence classification head.

    Attributes:
        model_type: The name that ``transformers.AutoConfig.for_model`` takes.
        optimizer: The ``model_type`` of ``onnxruntime.transformers.optimizer`` whose fusions fit.
        hub: Default repository of pretrained weights.
        layers_key, heads_key, hidden_key: What this architecture's configuration calls these sizes.
        defaults: The sizes of the base model, as ``transformers`` has them.
    """

    model_type: str
    optimizer: str
    hub: str
    layers_key: str
    heads_key: str
    hidden_key: str
    defaults: Mapping[str, int]

    def size(self, key: str, config: Mapping[str, Any]) -> int:
        """A size by its configuration key: as overridden, else the base model's."""
        return int(config.get(key, self.defaults[key]))

    def positions(self, config: Mapping[str, Any]) -> int:
        """The longest sequence that the position embeddings allow."""
        return self.size("max_position_embeddings", config)


ARCHITECTURES = {
    "distilbert": Architecture(
        model_type="distilbert",
        optimizer="bert",
        hub="distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        layers_key="n_layers",
        heads_key="n_heads",
        hidden_key="dim",
        defaults={"n_layers": 6, "n_heads": 12, "dim": 768, "max_position_embeddings": 512, "vocab_size": 30522},
    ),
    "bert": Architecture(
        model_type="bert",
        optimizer="bert",
        hub="textattack/bert-base-uncased-SST-2",
        layers_key="num_hidden_layers",
        heads_key="num_attention_heads",
        hidden_key="hidden_size",
        defaults={
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_size": 768,
            "max_position_embeddings": 512,
            "vocab_size": 30522,
        },
    ),
}
