"""Our kernels on a real card against FP64, one by one and as an encoder; PyTorch, Triton, NumPy and pytest are enough.

``make sanitize`` runs this module under each tool of compute-sanitizer.
"""

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from unit.kernels import agreement

from ceilings.kernels import tiles
from ceilings.kernels.tiles import ProjectionTile

DEVICE = "cuda"


pytestmark = pytest.mark.usefixtures("hopper")


@pytest.mark.parametrize("activation", list(agreement.ACTIVATED))
def test_a_product(random, activation):
    agreement.product(random, DEVICE, activation)


@pytest.mark.parametrize("splits", [1, 2, 3])
def test_a_cut_product_and_its_normalisation(random, splits):
    agreement.cut_product(random, DEVICE, splits)


def test_cuts_that_have_nothing_to_add_add_nothing(random):
    agreement.cut_product(random, DEVICE, splits=4, inner=64)


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
def test_a_product_of_fp8(random, activation, rows):
    """Of 16 rows a warp's instructions multiply, of 64 a warp group's."""
    agreement.fp8_product(random, DEVICE, activation, rows)


@pytest.mark.parametrize("splits", [1, 3])
def test_a_cut_product_of_fp8_and_its_normalisation(random, splits):
    agreement.fp8_layer_end(random, DEVICE, splits)


def test_attention_that_writes_fp8(random):
    agreement.fp8_attention(random, DEVICE)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_head(random, transposed):
    agreement.head(random, DEVICE, transposed)


@pytest.mark.parametrize("masked", [True, False])
def test_attention(random, masked):
    agreement.attention(random, DEVICE, masked)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("tile", [(16, 32, 32), (64, 32, 64), (64, 64, 64, 4), (128, 64, 128, 2, 8)], ids=str)
def test_attention_with_its_projection(random, tile, masked):
    """Of 16 queries a warp's instructions multiply, of 64 a warp group's; keys in one block, and in several."""
    agreement.attention_projection(random, DEVICE, ProjectionTile(*tile), masked=masked)


@pytest.mark.parametrize("overlapped", [False, True])
@pytest.mark.parametrize("tokens", [128, tiles.MANY_TOKENS])
def test_an_encoder_whose_attention_is_projected(random, tokens, overlapped):
    cut = tiles.defaults(tokens, "fp16")
    agreement.encoder(random, DEVICE, "fp16", cut, overlapped=overlapped, projected=True)


@pytest.mark.parametrize(("kind", "normalize"), [("mean", False), ("mean", True), ("cls", True)])
def test_a_pooling(random, kind, normalize):
    agreement.pooling(random, DEVICE, kind, normalize)


def test_an_embedding(random):
    agreement.embedding(random, DEVICE)
    agreement.attention_of_padding(random, DEVICE)


@pytest.mark.parametrize("overlapped", [False, True])
@pytest.mark.parametrize("tokens", [128, tiles.MANY_TOKENS])
@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_an_encoder_with_the_default_tiles(random, precision, tokens, overlapped):
    agreement.encoder(random, DEVICE, precision, tiles.defaults(tokens, precision), overlapped=overlapped)


@pytest.mark.parametrize("programs", [7, 132])
def test_a_persistent_encoder(random, programs):
    """One launch with barriers gives the bits of one launch a step, in each of many replays, near FP64."""
    agreement.persistent_encoder(random, DEVICE, programs)
