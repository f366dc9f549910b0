"""Weights in FP8: what their scales undo, that nothing is too large for E4M3, and what finer scales would bring."""

import math

import pytest
import torch
from unit.kernels import families

from ceilings.kernels import encoder_weights, fp8_weights
from ceilings.kernels.fp8_weights import E4M3, LARGEST, ROUNDED

WIDTH = 768


@pytest.fixture(scope="module")
def weights():
    """Of a layer as large as BERT-base's, in FP16, and the same in FP8."""
    made = encoder_weights.of(families.encoder("bert-base layer"))
    return made, fp8_weights.quantised(made)


def test_products_of_layers_are_fp8_and_nothing_else(weights):
    half, narrow = weights
    assert (half.precision, narrow.precision) == ("fp16", "fp8")
    for step in ("qkv", "out", "up", "down"):
        before, after = (getattr(one.layers[0], step) for one in weights)
        assert after.weight.dtype == E4M3 and after.weight.is_contiguous() and after.scale.dtype == torch.float32
        assert after.bias is before.bias and after.activation == before.activation
    assert narrow.head is half.head and narrow.words is half.words


def test_scales_undo_those_of_weights_and_activations(weights):
    half, narrow = weights
    before, after = half.layers[0], narrow.layers[0]
    factors = {"qkv": narrow.norm.factor, "out": after.factor, "up": after.norm.factor, "down": after.up.factor}
    for step, factor in factors.items():
        assert math.frexp(factor)[0] == 0.5, "a power of two"
        exact, linear = getattr(before, step).weight.double(), getattr(after, step)
        restored = linear.weight.double() * linear.scale.double()[:, None] * factor
        rounding = 2.0**-4 * exact.abs() + 2.0**-10 * exact.abs().amax(1, keepdim=True) / LARGEST
        assert ((restored - exact).abs() <= 1.001 * rounding).all()
        assert (linear.weight.double().abs().amax(1) == LARGEST).all()


def test_a_row_of_zeros_stays_one(weights):
    half, _ = weights
    layer = half.layers[0]
    zero = layer.up._replace(weight=torch.zeros_like(layer.up.weight))
    made = fp8_weights._quantised(zero, 1.0)
    assert not made.weight.float().any() and torch.isfinite(made.scale).all()


def after_norm(seed, outlier=20):
    """A LayerNorm and a product after it, with outliers as trained models have them, and rows."""
    random = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=random, dtype=torch.float64)

    gain, offset = torch.exp(0.5 * normal(WIDTH)), 0.3 * normal(WIDTH)
    gain[:3] *= outlier
    weight, bias = 0.05 * normal(96, WIDTH) * torch.exp(0.5 * normal(96, 1)), normal(96)
    return encoder_weights.Norm(gain, offset, 1e-12), encoder_weights.Linear(weight, bias), normal(128, WIDTH)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_exceeds_what_follows_from_the_weights(seed):
    """The worst row of each number, which points where the number's weights do; and it comes near the bound."""
    norm, linear, _ = after_norm(seed)
    factor = fp8_weights._factored(norm).factor
    largest = WIDTH**0.5 * norm.gain.abs() * (1 - 1 / WIDTH) ** 0.5 + norm.offset.abs()  # one number alone differs
    assert LARGEST / 2.1 < float(largest.max()) * factor <= LARGEST
    bound = float(fp8_weights._largest(linear, norm))
    row = linear.weight * norm.gain
    row = row - row.mean(1, keepdim=True)
    centred = WIDTH**0.5 * row / row.norm(dim=1, keepdim=True)
    for sign in (1, -1):
        x = ROUNDED * (sign * centred * norm.gain + norm.offset)
        z = (x * ROUNDED * linear.weight).sum(1) + linear.bias
        assert bound / 1.5 < z.abs().max() <= bound or sign < 0
        assert z.abs().max() <= bound


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("outlier", "times"), [(1, 1.2), (20, 1.6)])
def test_a_scale_for_each_token_would_bring_little(seed, outlier, times):
    """E4M3 is a floating-point format: where the largest number lies matters little, so no scale is calibrated.

    Three numbers that are 20 times the others make up the whole product; a token's scale holds the largest exactly.
    """
    norm, linear, rows = after_norm(seed, outlier)
    x = (rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True) * norm.gain + norm.offset
    z = torch.nn.functional.gelu(x @ linear.weight.T + linear.bias)
    after = torch.randn(64, 96, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def error(values, scale, weight):
        rounded = (values * scale).to(E4M3).double() / scale
        exact = values @ weight.T
        return float((rounded @ weight.T - exact).norm() / exact.norm())

    places = (
        (x, fp8_weights._factored(norm).factor, linear.weight),
        (z, fp8_weights._factor(fp8_weights._largest(linear, norm)), after),
    )
    for values, factor, weight in places:
        token = error(values, LARGEST / values.abs().amax(1, keepdim=True), weight)
        assert 0.01 < error(values, factor, weight) < times * token < 0.05
