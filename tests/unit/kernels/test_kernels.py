"""Each kernel against FP64, over random shapes, in Triton's interpreter; tests/gpu/test_fused.py is its twin."""

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

from unit.kernels import agreement

from ceilings.kernels.tiles import AttentionTile, ProductTile, ProjectionTile, Tiles

DEVICE = "cpu"
pytestmark = pytest.mark.usefixtures("interpreted")


@pytest.mark.parametrize("activation", list(agreement.ACTIVATED))
def test_a_product_with_its_bias_and_activation(random, activation):
    agreement.product(random, DEVICE, activation)


@pytest.mark.parametrize("splits", [1, 2, 3])
def test_a_cut_product_and_the_normalisation_that_adds_it(random, splits):
    agreement.cut_product(random, DEVICE, splits)


def test_cuts_that_have_nothing_to_add_add_nothing(random):
    agreement.cut_product(random, DEVICE, splits=4, inner=64)


@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
def test_a_product_of_fp8(random, activation):
    agreement.fp8_product(random, DEVICE, activation)


@pytest.mark.parametrize("splits", [1, 3])
def test_a_cut_product_of_fp8_and_the_normalisation_that_writes_it(random, splits):
    agreement.fp8_layer_end(random, DEVICE, splits)


def test_attention_that_writes_fp8(random):
    agreement.fp8_attention(random, DEVICE)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_head_reads_first_tokens_and_writes_columns(random, transposed):
    agreement.head(random, DEVICE, transposed)


@pytest.mark.parametrize("masked", [True, False])
def test_attention_over_its_queries(random, masked):
    agreement.attention(random, DEVICE, masked)


@pytest.mark.parametrize(
    ("tile", "masked"), [(ProjectionTile(16, 32, 64), True), (ProjectionTile(32, 64, 64, heads=4), False)]
)
def test_attention_with_its_projection_by_groups_of_heads(random, tile, masked):
    agreement.attention_projection(random, DEVICE, tile, masked=masked)


def test_attention_without_any_token_is_an_average(random):
    agreement.attention_of_padding(random, DEVICE)


def test_an_embedding(random):
    agreement.embedding(random, DEVICE)


@pytest.mark.parametrize(("kind", "normalize"), [("mean", False), ("mean", True), ("cls", True)])
def test_a_pooling(random, kind, normalize):
    agreement.pooling(random, DEVICE, kind, normalize)


@pytest.mark.parametrize(("precision", "projected"), [("fp16", False), ("fp16", True), ("fp8", False)])
def test_an_encoder_of_random_weights(random, precision, projected):
    half, cut = ProductTile(32, 32, 32), ProductTile(32, 32, 32, splits=2)
    with_projection = {"projection": ProjectionTile(16, 32, 32)}
    tiles = Tiles(half, AttentionTile(16, 32), cut, half, cut, ProductTile(16, 16, 32), **with_projection)
    agreement.encoder(random, DEVICE, precision, tiles, projected=projected)


@pytest.mark.parametrize("programs", [3, 12])
def test_steps_of_the_persistent_kernel_give_the_bits_of_the_kernels(random, programs):
    agreement.persistent_encoder(random, DEVICE, programs)
