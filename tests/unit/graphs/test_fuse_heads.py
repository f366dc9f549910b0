"""The number of heads that the fusions need, from configurations that count heads and from those that give a width."""

import pytest

from ceilings.graphs.fuse import heads_of
from ceilings.models.catalogue import FUSIONS


@pytest.mark.parametrize(
    ("architecture", "config", "heads"),
    [
        ("bert", {"num_attention_heads": 12, "hidden_size": 768}, 12),
        ("distilbert", {"n_heads": 4, "dim": 64}, 4),
        ("open_clip", {"width": 768, "layers": 12}, 12),  # an image tower: 64 a head is open_clip's default
        ("open_clip", {"width": 1280, "head_width": 80}, 16),  # ViT-H-14
        ("open_clip", {"width": 512, "heads": 8}, 8),  # a text tower
        ("bert", {"hidden_size": 768}, 0),
    ],
)
def test_heads(architecture, config, heads):
    assert heads_of(config, FUSIONS[architecture]) == heads
