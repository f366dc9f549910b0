"""How far a kernel may be from exact arithmetic, from the formats of its numbers alone: first-order bounds.

``HALF`` and ``SINGLE`` are the unit round-offs of FP16 and FP32. A sum of n products in FP32 is off by at most n SINGLE
times the sum of their magnitudes, in any order (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). A factor
of two covers what is of second order, and the functions of a GPU, which are right to a few SINGLE.
"""

import numpy as np

HALF, SINGLE = 2.0**-11, 2.0**-24
TINY = 2.0**-24
"""The smallest FP16 number: rounding is no finer near zero."""

NARROW, NARROW_TINY = 2.0**-4, 2.0**-10
"""The unit round-off of E4M3, and half its smallest number."""

UNIT = 2.0**-9
"""What Hopper's units lose of the sum of 32 products' magnitudes where these are E4M3.

They keep 13 bits below the largest of the products and the sum so far (DeepSeek-V3 Technical Report, 3.3.2): 33 numbers
are off by 2**-13 of it each, and it is less than half of all magnitudes.
"""

SLOPES = {"none": 1.0, "relu": 1.0, "tanh": 1.0, "gelu": 1.13, "gelu_new": 1.13}
"""The steepest slope of each activation: so much grows an error before it."""


def product(x, weight, bias, exact, *, activation="none", written=HALF, unit=0.0):
    """Of ``activation(x W^T + bias)``, from operands in FP64 and the exact result; ``unit``: lost of sums by units."""
    summed = ((x.shape[1] + 1) * SINGLE + unit) * (np.abs(x) @ np.abs(weight).T + np.abs(bias))
    return 2 * (SLOPES[activation] * summed + 4 * SINGLE * np.abs(exact)) + written * np.abs(exact) + TINY


def narrow(exact, off, factor):
    """Of what is written in E4M3, ``factor`` times an exact result that the step itself leaves off by ``off``."""
    return factor * off + NARROW * (np.abs(factor * exact) + factor * off) + NARROW_TINY


def attention(query, key, value, shares, exact):
    """Of a head: an error of a score is a relative error of its share; shares are rounded to FP16."""
    width, keys = query.shape[-1], key.shape[-2]
    scores = (width + 4) * SINGLE * width**-0.5 * (np.abs(query) @ np.abs(key).swapaxes(-1, -2))
    relative = HALF + 2 * scores.max(-1, keepdims=True) + (keys + 8) * SINGLE
    return 2 * relative * (shares @ np.abs(value)) + HALF * np.abs(exact) + TINY


def normalization(row, gain, exact, off, *, written=HALF):
    """Of LayerNorm of rows that are off by ``off``: they, their means and their scales are."""
    width = row.shape[-1]
    centred = row - row.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True))
    worst = off.max(-1, keepdims=True) + width * SINGLE * np.abs(row).mean(-1, keepdims=True)
    shift = 2 * worst / deviation
    scale = (shift + width * SINGLE) * np.abs(centred) / deviation
    return 2 * np.abs(gain) * (shift + scale) + written * np.abs(exact) + (TINY if written else SINGLE)
