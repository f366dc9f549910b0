"""An encoder in plain PyTorch and FP64 on the kernels' weights, and random ones; Transformers is not needed."""

import torch
from torch.nn import functional

from ceilings.kernels.encoder_weights import EncoderWeights, Layer, Linear, Norm
from ceilings.kernels.fp8_weights import E4M3

ACTIVATED = {"none": lambda x: x, "gelu": functional.gelu, "relu": torch.relu, "tanh": torch.tanh}


def random(seed, hidden=96, intermediate=160, heads=3):
    """Weights in FP16 of an encoder with a classifier of tokens, of three classes."""
    generator = torch.Generator().manual_seed(seed)

    def half(*size, scale=1.0, shift=0.0):
        return (shift + scale * torch.randn(*size, generator=generator)).half()

    def linear(columns, inner, activation="none"):
        return Linear(half(columns, inner, scale=inner**-0.5), half(columns, scale=0.3), activation)

    def norm():
        return Norm(half(hidden, scale=0.2, shift=1.0), half(hidden, scale=0.2), 1e-12)

    def layer():
        sides = linear(3 * hidden, hidden), linear(hidden, hidden), norm()
        return Layer(*sides, linear(intermediate, hidden, "gelu"), linear(hidden, intermediate), norm())

    return EncoderWeights(
        heads=heads,
        words=half(50, hidden),
        positions=half(64, hidden),
        norm=norm(),
        layers=(layer(), layer()),
        head=(linear(3, hidden),),
        reads="all",
    )


def moved(value, device):
    """Weights, or a part of them, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, EncoderWeights):
        return EncoderWeights(**{key: moved(one, device) for key, one in vars(value).items()})
    if isinstance(value, tuple):
        parts = [moved(one, device) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def run(weights, ids, mask):
    """The outputs in FP64; of weights in FP8 what each product reads is rounded as the kernels round it."""
    before = weights.norm
    x = normalized(weights.words.double()[ids] + weights.positions.double()[: ids.shape[1]], before)
    for layer in weights.layers:
        query, key, value = product(x, layer.qkv, before.factor).chunk(3, -1)
        context = attended(query, key, value, mask, weights.heads)
        x = normalized(x + product(context, layer.out, layer.factor), layer.norm)
        wide = product(x, layer.up, layer.norm.factor)
        x = normalized(x + product(wide, layer.down, layer.up.factor), layer.end)
        before = layer.end
    return ended(weights, x, mask)


def product(x, linear, factor):
    """What a product gives; in FP8 ``factor`` is by what it reads larger numbers."""
    weight = linear.weight.double()
    if linear.scale is not None:
        assert x.abs().max() * factor <= 448
        x, weight = (x * factor).to(E4M3).double(), weight * linear.scale.double()[:, None]
    return ACTIVATED[linear.activation](x @ weight.T + linear.bias.double())


def normalized(x, norm):
    """LayerNorm."""
    return functional.layer_norm(x, x.shape[-1:], norm.gain.double(), norm.offset.double(), norm.epsilon)


def attended(query, key, value, mask, heads):
    """Attention over tokens that are no padding."""
    parts = [one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (query, key, value)]
    real = (mask != 0)[:, None, None, :]
    return functional.scaled_dot_product_attention(*parts, attn_mask=real).transpose(1, 2).flatten(2)


def ended(weights, x, mask):
    """The outputs of a head, or of a pooling where there is none."""
    if not weights.head:
        real = (mask != 0)[..., None]
        pooled = x[:, 0] if weights.reads == "cls" else (x * real).sum(1) / real.sum(1)
        return (functional.normalize(pooled) if weights.normalize else pooled,)
    y = x[:, 0] if weights.reads == "first" else x
    for linear in weights.head:
        y = product(y, linear, 1.0)
    return y.unbind(-1) if weights.separate else (y,)
