"""The whole encoder against its family's module in PyTorch, and the work that it says its launches do."""

import dataclasses

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

import torch
from torch.utils.flop_counter import FlopCounterMode
from unit.kernels import families, plain_encoder

from ceilings.errors import CellFailure
from ceilings.kernels import encoder_weights, fp8_weights
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.persistent import PersistentEncoder
from ceilings.kernels.tiles import AttentionTile, ProductTile, ProjectionTile, Tiles

SMALL = ProductTile(32, 32, 32)
NAMES = [name for name in families.FAMILIES if name != "bert-base layer"]
TILES = Tiles(
    *(SMALL, AttentionTile(16, 32), dataclasses.replace(SMALL, splits=2), SMALL, dataclasses.replace(SMALL, splits=3)),
    head=ProductTile(16, 16, 32),
    projection=ProjectionTile(16, 32, 32, heads=2),
)


KINDS = ("fp16", "fp8", "projected")


def made(name, batch, sequence, tiles=TILES, kind="fp16"):
    """An encoder in FP16 or FP8, or in FP16 with attention and its projection in one launch."""
    weights = encoder_weights.of(families.encoder(name))
    weights = fp8_weights.quantised(weights) if kind == "fp8" else weights
    return Encoder(weights, batch, sequence, tiles, projected=kind == "projected")


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("kind", ["fp16", "projected"])
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_is_as_near_to_fp64_as_pytorch_in_fp16(name, kind):
    """Both round the same weights and activations to FP16; a factor of two is left to the order of their roundings."""
    ids, mask = families.request(2, 21)
    got = made(name, 2, 21, kind=kind)(ids, mask)
    exact = families.encoder(name, torch.float64)(ids, mask)
    half = families.encoder(name, torch.float16)(ids, mask)
    assert len(got) == len(exact)
    for mine, true, theirs in zip(got, exact, half, strict=True):
        assert mine.shape == true.shape and mine.is_contiguous()
        assert torch.norm(mine.double() - true) <= 2 * torch.norm(theirs.double() - true)


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_in_fp8_is_as_near_to_fp64_as_one_whose_products_are_rounded_so(name):
    """That has the same weights, scales and factors, and is otherwise in FP64."""
    ids, mask = families.request(2, 21)
    encoder = made(name, 2, 21, kind="fp8")
    exact = families.encoder(name, torch.float64)(ids, mask)
    rounded = plain_encoder.run(encoder.weights, ids, mask)
    for mine, true, theirs in zip(encoder(ids, mask), exact, rounded, strict=True):
        assert mine.shape == true.shape and mine.is_contiguous()
        off = torch.norm(theirs - true)
        assert 0 < torch.norm(mine.double() - true) <= 1.5 * off < 0.2 * torch.norm(true)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_those_that_pytorch_counts(name, kind):
    """Attention and products; the embedding, the normalisations and the pooling multiply no matrices."""
    ids, mask = families.request(2, 21)
    module = families.encoder(name)
    module.model.config._attn_implementation = "eager"  # products of matrices, which the counter knows
    with FlopCounterMode(display=False) as counter:
        module(ids, mask)
    encoder = made(name, 2, 21, kind=kind)
    launches = encoder.launches(ids, mask)
    products = [launch for launch in launches if launch.work.operations]
    assert sum(encoder.products().values()) == len(products)
    assert encoder.products().get("fp8", 0) == sum(launch.arguments.get("scale") is not None for launch in products)
    assert sum(launch.work.operations for launch in launches) == counter.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_of_each_launch_s_operands(name, kind):
    """Each tensor once, but for what a launch reads of it in part or twice."""
    ids, mask = families.request(2, 21)
    for launch in made(name, 2, 21, kind=kind).launches(ids, mask):
        tensors = {key: value for key, value in launch.arguments.items() if isinstance(value, torch.Tensor)}
        whole = {key: value.numel() * value.element_size() for key, value in tensors.items()}
        if launch.step in ("norm", "end"):
            whole["hidden"] *= 2  # read and written
        elif launch.step == "embedding":
            width = tensors["words"].shape[1] * 2
            whole["words"], whole["positions"] = ids.numel() * width, ids.shape[1] * width
        assert launch.work.moved == sum(whole.values()), launch.step
        assert launch.work.loaded >= launch.work.moved, launch.step


def test_a_layer_is_seven_launches():
    steps = [launch.step for launch in made("bert answers", 1, 16).launches(*families.request(1, 16))]
    layer = ["qkv", "attention", "out", "norm", "up", "down", "end"]
    assert steps == ["embedding", *layer, *layer, "head"]


def test_a_layer_whose_attention_is_projected_is_six_launches():
    """As many partial sums as groups of heads: of five heads, taken two at a time where that divides, five."""
    launches = made("distilbert texts", 1, 16, kind="projected").launches(*families.request(1, 16))
    layer = ["qkv", "projection", "norm", "up", "down", "end"]
    assert [one.step for one in launches] == ["embedding", *layer, *layer, "head", "head"]
    assert [one.arguments["SPLITS"] for one in launches if one.step == "norm"] == [5, 5]
    assert [one.grid for one in launches if one.step == "projection"] == [(3, 1, 5)] * 2


def test_attention_is_not_projected_in_fp8():
    weights = fp8_weights.quantised(encoder_weights.of(families.encoder("bert texts")))
    with pytest.raises(CellFailure, match="attention and its projection as one kernel are FP16 alone") as refused:
        Encoder(weights, 1, 16, TILES, projected=True)
    assert refused.value.kind == "unsupported"


def test_partial_sums_of_another_size_are_refused():
    encoder = made("bert texts", 1, 16, kind="projected")
    encoder._out = encoder._down
    with pytest.raises(ValueError, match=r"1 sums: no projection by W \(64, 64\) of torch.float16, sums \(3, 16, 64\)"):
        encoder.launches(*families.request(1, 16))


def test_types_that_make_no_product_are_refused():
    encoder = made("bert texts", 1, 16, kind="fp8")
    encoder._narrow = encoder._hidden
    with pytest.raises(ValueError, match=r"qkv: x torch.float16, W torch.float8_e4m3fn: no product"):
        encoder.launches(*families.request(1, 16))


def test_an_architecture_without_kernels_is_refused():
    module = families.encoder("bert texts")
    module.model.config.model_type = "deberta"
    with pytest.raises(CellFailure, match="kernels for bert and distilbert, and this model is deberta"):
        encoder_weights.of(module)


def test_another_activation_is_refused():
    module = families.encoder("bert texts")
    module.model.config.hidden_act = "gelu_new"
    with pytest.raises(CellFailure, match="gelu_new"):
        encoder_weights.of(module)


def test_a_decoder_is_refused():
    module = families.encoder("bert texts")
    module.model.config.is_decoder = True
    with pytest.raises(CellFailure, match=r"the kernels compute encoders, and config\.json says is_decoder"):
        encoder_weights.of(module)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(CellFailure, match="65 tokens, and the model has 64 positions"):
        made("distilbert texts", 1, 65)


def test_sizes_that_make_no_product_are_refused():
    cut = dataclasses.replace(TILES, up=dataclasses.replace(SMALL, splits=2))
    with pytest.raises(ValueError, match="no product"):
        made("bert texts", 1, 16, cut).launches(*families.request(1, 16))


def test_the_persistent_launch_does_the_work_of_those_that_it_replaces():
    weights, inputs = encoder_weights.of(families.encoder("bert texts")), families.request(2, 21)
    many = [one.work for one in Encoder(weights, 2, 21, TILES).launches(*inputs)]
    first, *head = PersistentEncoder(weights, 2, 21, TILES, programs=4).launches(*inputs)
    steps = PersistentEncoder(weights, 2, 21, TILES, programs=4, at_once=False).launches(*inputs)
    assert [one.work for one in steps] == many
    assert first.work == tuple(map(sum, zip(*many[: -len(head)], strict=True))) and first.work.operations > 0
