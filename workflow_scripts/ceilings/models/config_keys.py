"""What keys of a configuration mean, whoever reads it. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ceilings.errors import UserError

INTERNAL = ("architectures", "dtype", "model_type", "sentence_transformer", "torch_dtype", "transformers_version")
"""Keys of a config.json that say nothing of the network."""

UNDECLARED = {
    "deberta-v2": ("conv_act", "conv_groups", "conv_kernel_size", "norm_rel_ebd", "position_buckets", "share_att_key")
}
"""Keys that a model reads and its configuration class does not declare."""

LABELS = ("num_labels", "id2label", "label2id")
"""Keys of every configuration that give the number of classes."""

SENTENCE_POOLING, SENTENCE_NORMALIZE, IMAGE_POOLING = "sentence_pooling", "sentence_normalize", "image_pooling"
"""Keys of this project: what follows the encoder of Transformers."""

OURS = (SENTENCE_POOLING, SENTENCE_NORMALIZE, IMAGE_POOLING)


def refuse_unknown(key: str, known: Iterable[str], architecture: str, name: str) -> None:
    """Refuse a key of a model's ``config`` that its architecture does not know.

    Raises:
        UserError: With the nearest keys that it knows.
    """
    known = sorted(known)
    if key not in known:
        raise UserError(
            f"model {name!r} has the config key {key!r}, which {architecture} does not know; did you mean "
            f"{', '.join(nearest(key, known))}?"
        )


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that are most like a name: those that share most of its words, then those spelt most like it.

    >>> nearest("num_layers", ["num_labels", "num_hidden_layers", "hidden_size"])[0]
    'num_hidden_layers'
    """
    words = set(name.split("_"))

    def likeness(other: str) -> tuple[float, float]:
        theirs = set(other.split("_"))
        near = [word for word in words if difflib.get_close_matches(word, theirs, 1, 0.8)]
        return len(near), difflib.SequenceMatcher(None, name, other).ratio()

    ranked = sorted(known, key=likeness, reverse=True)
    return [other for other in ranked if min(likeness(other)) > 0.5 or likeness(other)[1] > 0.6][:count] or ranked
