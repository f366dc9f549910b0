"""Each kernel of a decode step against FP64, in Triton's interpreter; tests/gpu/test_fused_decoder.py is its twin."""

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

import torch
from unit.kernels import step_agreement

from ceilings.kernels import streaming

DEVICE = "cpu"
INTERPRETED = pytest.mark.usefixtures("interpreted")


@INTERPRETED
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_new", "relu"])
def test_a_product_of_normed_rows(random, activation):
    step_agreement.product_of_normed(random, DEVICE, activation)


@INTERPRETED
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_product_added_to_the_residual(random, batch):
    step_agreement.product_added(random, DEVICE, batch)


@INTERPRETED
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_a_product_of_the_parts_of_attention(random, parts):
    step_agreement.product_of_parts(random, DEVICE, parts)


@INTERPRETED
def test_a_product_into_the_cache(random):
    step_agreement.product_cached(random, DEVICE)


@INTERPRETED
def test_a_product_and_the_largest_of_each_program(random):
    step_agreement.product_judged(random, DEVICE)


@INTERPRETED
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_attention_to_a_cache(random, parts):
    step_agreement.cached_attention(random, DEVICE, parts)


@INTERPRETED
def test_a_step_s_first_and_last_kernel(random):
    step_agreement.new_token(random, DEVICE)
    step_agreement.likeliest(random, DEVICE)


def test_sizes_that_make_no_product_are_refused():
    half = torch.zeros(1, 32).half()
    with pytest.raises(ValueError, match=r"up: x .* no product"):
        target = streaming.Written(torch.zeros(1, 8).half())
        streaming.launch("up", streaming.Plain(half), torch.zeros(8, 16).half(), None, target, step_agreement.TILE)
