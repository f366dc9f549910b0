"""A whole decode step against GPT-2 in plain PyTorch, that one against Transformers', and requests of a cell."""

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ceilings.errors import CellFailure
from ceilings.kernels import decoder_weights, plain_decoder
from ceilings.kernels.decoder import Decoder
from ceilings.kernels.decoder_tiles import ContextTile, StepTile, StepTiles
from ceilings.runtimes.ceilings_fused_generating import FusedDecoding
from ceilings.runtimes.torch_decoding import StaticDecoding
from ceilings.workload.generation import Decoder as Facts
from ceilings.workload.shape import Shape

PROMPT, STEPS, LENGTH = 5, 9, 16
TILES = StepTiles(*(StepTile(8), ContextTile(4, 2), StepTile(4), StepTile(8), StepTile(4), StepTile(16)))


def config(**changes):
    return GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=61, n_positions=24, bos_token_id=0, **changes)


def started(weights, ids, tiles=TILES):
    """A decoder that has read a prompt, and what it continues with."""
    logits, cache = plain_decoder.forward(weights, ids, torch.float16)
    token = logits[:, -1].argmax(-1, keepdim=True)
    decoder = Decoder(weights, plain_decoder.static_cache(cache, LENGTH), token.clone(), tiles)
    decoder.position.fill_(ids.shape[1])
    return decoder, token


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("batch", [1, 3])
def test_steps_continue_a_text_as_pytorch_does(batch):
    """Places of the cache that no token fills are not numbers: none of them is read."""
    weights = plain_decoder.random(2, 32, 2, 61, 24, seed=batch)
    ids = torch.randint(0, 61, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
    decoder, token = started(weights, ids)
    for step in range(STEPS):
        ids = torch.cat([ids, token], 1)
        exact = plain_decoder.forward(weights, ids, torch.float64)[0][:, -1]
        half = plain_decoder.forward(weights, ids, torch.float16)[0][:, -1]
        decoder()
        off = torch.norm(decoder.logits.double() - exact)
        assert off <= 2 * torch.norm(half.double() - exact) + 1e-3 * torch.norm(exact)
        token = decoder.logits.argmax(-1, keepdim=True)
        assert torch.equal(decoder.token, token) and int(decoder.position) == PROMPT + step + 1


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
def test_requests_of_a_cell_give_pytorchs_tokens():
    """As a cell runs them: the model is loaded, then everything else is done in inference mode."""
    shape, given = Shape.parse("b2-p5-g5"), []
    ids = torch.randint(0, 61, (2, 2, PROMPT), generator=torch.Generator().manual_seed(1))
    for kind, cut in ((StaticDecoding, ()), (FusedDecoding, (TILES,))):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config(initializer_range=0.4)).half().eval()
        with torch.inference_mode():
            decoding = kind(model, Facts(2, 2, 2, 16, 61, 24), shape, "cpu", *cut)
            decoding.warm(1)
            for prompt in ids:
                decoding.begin()
                decoding.prompt.copy_(prompt)
                decoding.prefill()
                given.append([decoding.newest.tolist()])
                for _ in range(4):
                    decoding.step()
                    given[-1].append(decoding.newest.tolist())
    assert given[:2] == given[2:] and given[0] != given[1]
    assert decoding.describe()["prefill"] == "PyTorch"


@pytest.mark.parametrize("activation", decoder_weights.ACTIVATIONS)
def test_the_plain_decoder_is_transformers(activation):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config(activation_function=activation)).half().eval()
    ids = torch.randint(0, 61, (2, 7))
    weights = decoder_weights.of(model)
    with torch.inference_mode():
        expected = model.double()(ids).logits
    got, cache = plain_decoder.forward(weights, ids, torch.float64)
    assert torch.norm(got - expected) < 1e-9 * torch.norm(expected)
    assert [tuple(one.shape) for one in cache[0]] == [(2, 2, 7, 16)] * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_function": "silu"}, "the FFN has 'silu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: True"),
        ({"n_embd": 24}, "these have 12"),
    ],
)
def test_what_the_kernels_do_not_do_is_refused_by_name(changes, said):
    made = GPT2Config(**{**config().to_dict(), **changes})
    with pytest.raises(CellFailure, match=said):
        decoder_weights.of(GPT2LMHeadModel(made).half())


def test_what_does_not_fit_is_refused():
    weights = plain_decoder.random(1, 32, 2, 61, 24)
    cache = [(torch.zeros(9, 2, 16, 16).half(), torch.zeros(9, 2, 16, 16).half())]
    with pytest.raises(CellFailure, match="take 1 to 8 rows, and these are 9"):
        Decoder(weights, cache, torch.zeros(9, 1, dtype=torch.int64), TILES)
    cache = [(torch.zeros(1, 2, 32, 16).half(), torch.zeros(1, 2, 32, 16).half())]
    with pytest.raises(CellFailure, match="a cache of 32 tokens, and 24 positions"):
        Decoder(weights, cache, torch.zeros(1, 1, dtype=torch.int64), TILES)


@pytest.mark.usefixtures("interpreted")
def test_logits_that_are_no_numbers_name_a_token_of_the_vocabulary():
    weights = plain_decoder.random(1, 32, 2, 61, 24)
    weights.end.gain.fill_(float("nan"))
    decoder, _ = started(weights, torch.randint(0, 61, (2, PROMPT)))
    decoder()
    assert decoder.logits.isnan().all()
    assert ((decoder.token >= 0) & (decoder.token < 61)).all()
