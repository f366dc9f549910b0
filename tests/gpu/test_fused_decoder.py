"""A decode step on our kernels on a real card: each kernel against FP64, whole texts against FP32, and cells."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
from unit.kernels import step_agreement

from ceilings.kernels import decoder_tiles, plain_decoder
from ceilings.kernels.decoder import Decoder

DEVICE, PROMPT, STEPS = "cuda", 60, 40


pytestmark = pytest.mark.usefixtures("hopper")


@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_new", "relu"])
def test_a_product_of_normed_rows(random, activation):
    step_agreement.product_of_normed(random, DEVICE, activation)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_product_added_to_the_residual(random, batch):
    step_agreement.product_added(random, DEVICE, batch)


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_attention_in_parts_and_what_they_amount_to(random, parts):
    step_agreement.cached_attention(random, DEVICE, parts)
    step_agreement.product_of_parts(random, DEVICE, parts)


def test_the_other_kernels_of_a_step(random):
    step_agreement.product_cached(random, DEVICE)
    step_agreement.product_judged(random, DEVICE)
    step_agreement.new_token(random, DEVICE)
    step_agreement.likeliest(random, DEVICE)


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_graph_s_replays_continue_a_text_as_fp32_does(batch, overlapped):
    """A launch that did not wait would change an answer; a second run of the same text has the same bits."""
    weights = plain_decoder.random(12, 768, 12, 5_003, 256, seed=batch, device=DEVICE)
    text = torch.randint(0, 5_003, (batch, PROMPT), device=DEVICE)
    logits, cache = plain_decoder.forward(weights, text, torch.float32)
    first = logits[:, -1].argmax(-1, keepdim=True)
    length = PROMPT + STEPS + 1
    buffers = plain_decoder.static_cache(cache, length)
    cut = decoder_tiles.defaults(batch, length, 12)
    decoder = Decoder(weights, buffers, first.clone(), cut, overlapped=overlapped)
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    decoder.position.fill_(PROMPT)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        decoder()
        side.synchronize()
        with torch.cuda.graph(graph, stream=side):
            decoder()
    runs = []
    for _ in range(2):
        decoder.position.fill_(PROMPT)
        decoder.token.copy_(first)
        found = []
        for _ in range(STEPS):
            graph.replay()
            found.append((decoder.token.clone(), decoder.logits.clone()))
        runs.append(found)
    assert all(torch.equal(one[1], other[1]) for one, other in zip(*runs, strict=True))
    text = torch.cat([text, first, *(token for token, _ in runs[0])], 1)
    exact = plain_decoder.forward(weights, text[:, :-1], torch.float32)[0][:, PROMPT:]
    got = torch.stack([logits for _, logits in runs[0]], 1)
    assert torch.norm(got - exact) < 5e-3 * torch.norm(exact)
    chosen = exact.gather(-1, text[:, PROMPT + 1 :, None])[..., 0]
    assert (exact.amax(-1) - chosen).max() < 2e-2 * exact.std()
