"""An encoder's weights in FP8 (E4M3), with scales that follow from the weights alone: nothing is calibrated.

**Weights** have a scale for each output column, its largest magnitude / 448.

**Activations** are multiplied by a power of two, one for each place, so that the largest that can ever occur fits.
E4M3 is a floating-point format: numbers down to 1 / 28,000 of the largest are rounded by at most 1 part in 16, wherever
they lie, so a scale that is ten times too wide costs nothing. That the largest fits follows from LayerNorm. Its
centred rows have a length of at most ``sqrt(width)``, so of its results and of the products after it

    |x_k| <= sqrt(width) |gain_k| + |offset_k|
    |z_j| <= sqrt(width) |w_j gain| + sum_k |w_jk offset_k| + |bias_j|        (Cauchy and Schwarz)

GELU and ReLU make no number larger, and attention's results are averages of values, so no larger than the largest.

A product's ``scale`` undoes both. The activation's factor is exact, since it is a power of two.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from ceilings.kernels.encoder_weights import EncoderWeights, Layer, Linear, Norm

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max

ROUNDED = 1 + 2.0**-4
"""How much larger rounding to E4M3 makes a number at most."""


def quantised(weights: EncoderWeights) -> EncoderWeights:
    """The same encoder with the products of its layers in FP8; embedding, attention and head stay as they are."""
    before, layers = _factored(weights.norm), []
    for layer in weights.layers:
        values = Linear(layer.qkv.weight[-weights.hidden :], layer.qkv.bias[-weights.hidden :])
        attended = _factor(_largest(values, before))
        middle, end = _factored(layer.norm), _factored(layer.end)
        wide = _factor(_largest(layer.up, middle))
        layers.append(
            Layer(
                _quantised(layer.qkv, before.factor),
                _quantised(layer.out, attended),
                middle,
                _quantised(layer.up, middle.factor)._replace(factor=wide),
                _quantised(layer.down, wide),
                end,
                attended,
            )
        )
        before = end
    return dataclasses.replace(weights, norm=_factored(weights.norm), layers=tuple(layers))


def _quantised(linear: Linear, factor: float) -> Linear:
    """A product in FP8 of activations that are larger by a factor."""
    exact = linear.weight.float()
    largest = exact.abs().amax(1)
    scale = torch.where(largest > 0, largest, LARGEST) / LARGEST
    return linear._replace(weight=(exact / scale[:, None]).to(E4M3), scale=scale / factor)


def _factored(norm: Norm) -> Norm:
    gain, offset = norm.gain.double().abs(), norm.offset.double().abs()
    return norm._replace(factor=_factor((len(gain) ** 0.5 * gain + offset).max()))


def _largest(linear: Linear, norm: Norm) -> torch.Tensor:
    """What no number of a product after a LayerNorm exceeds, with its operands rounded to E4M3."""
    weight, gain, offset = linear.weight.double(), norm.gain.double(), norm.offset.double()
    centred = len(gain) ** 0.5 * (weight * gain).norm(dim=1)
    return ROUNDED**2 * (centred + (weight * offset).abs().sum(1) + linear.bias.double().abs()).max()


def _factor(largest: torch.Tensor) -> float:
    """The power of two by which numbers up to a largest fill E4M3 best."""
    return 2.0 ** math.floor(math.log2(LARGEST / max(float(largest), 2.0**-100)))
