"""Passes over tiny decoders on the CPU, against Transformers' own ``generate``, token by token."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import MistralConfig, MistralForCausalLM, StaticCache
from unit.runtimes import tiny_decoders

from ceilings.errors import CellFailure
from ceilings.runtimes.torch_decoding import GrowingDecoding, StaticDecoding
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape

ARCHITECTURES = sorted(tiny_decoders.DECODERS)
KINDS = [GrowingDecoding, StaticDecoding]


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def made(kind, architecture, shape, **changes):
    model = tiny_decoders.model(architecture, **changes)
    return kind(model, tiny_decoders.DECODERS[architecture], Shape.parse(shape), "cpu")


def request(decoding, ids, top=5):
    """Tokens (batch, generated), and the largest logits of each, (batch, generated, top)."""
    decoding.begin()
    decoding.prompt.copy_(torch.from_numpy(ids))
    decoding.prefill()
    tokens, logits = [decoding.newest.copy()], [decoding.top_logits(len(ids), top)[1]]
    for _ in range(decoding.shape["generated"] - 1):
        decoding.step()
        tokens.append(decoding.newest.copy())
        logits.append(decoding.top_logits(len(ids), top)[1])
    return np.stack(tokens, 1), np.stack(logits, 1)


@functools.cache
def expected(architecture, shape):
    """By element of the pool: tokens and largest logits of Transformers' own ``generate``."""
    shape = Shape.parse(shape)
    made = [
        tiny_decoders.generated(tiny_decoders.model(architecture), ids, shape["generated"])
        for ids in tiny_decoders.prompts(shape)
    ]
    assert not np.array_equal(made[0][0], made[1][0])  # else a runtime that ignores its prompt would pass
    return [(tokens, np.sort(logits)[..., ::-1][..., :5]) for tokens, logits in made]


@pytest.mark.parametrize("shape", ["b1-p9-g8", "b4-p9-g8", "b2-p1-g5", "b2-p6-g1"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_requests_one_after_another_give_what_generate_gives(kind, architecture, shape):
    """What the request before left in a static cache, beyond the context of this one, has no weight."""
    decoding = made(kind, architecture, shape)
    for ids, (tokens, logits) in zip(tiny_decoders.prompts(decoding.shape), expected(architecture, shape), strict=True):
        found, largest = request(decoding, ids)
        np.testing.assert_array_equal(found, tokens)
        np.testing.assert_allclose(largest, logits, rtol=1e-4, atol=1e-5)


def test_what_lies_beyond_the_context_has_no_weight():
    """With the largest numbers that a cache may hold, where a request has not written yet."""
    decoding = made(StaticDecoding, "llama", "b1-p9-g8")
    ids = tiny_decoders.prompts(decoding.shape)[0]
    for layer in decoding.cache.layers:
        layer.keys.fill_(1e4)
        layer.values.fill_(-1e4)
    np.testing.assert_array_equal(request(decoding, ids)[0], expected("llama", "b1-p9-g8")[0][0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cache_takes_as_many_bytes_as_the_workload_says(architecture):
    decoder, shape = tiny_decoders.DECODERS[architecture], Shape.parse("b2-p9-g8")
    static, growing = (made(kind, architecture, str(shape)) for kind in (StaticDecoding, GrowingDecoding))
    assert static.cache_bytes() == decoder.cache_bytes(2, 17, 4)
    request(growing, tiny_decoders.prompts(shape)[0])
    assert growing.cache_bytes() == decoder.cache_bytes(2, 16, 4)  # the last token is never read
    growing.begin()
    assert growing.cache_bytes() == decoder.cache_bytes(2, 16, 4)


# --- nothing waits for the device ------------------------------------------------------------------------------------

ATEN = torch.ops.aten
READS = {ATEN._local_scalar_dense, ATEN.item, ATEN.is_nonzero, ATEN.equal, ATEN.nonzero, ATEN.masked_select}
"""What needs numbers on the host: ``item``, ``bool``, ``tolist``, masks as indices."""


class NothingRead(TorchDispatchMode):
    """Fails where a tensor is read on the host; on a GPU it would wait for all that is enqueued."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket not in READS, f"{function} reads a tensor"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_pass_reads_a_tensor_on_the_host(kind, architecture):
    decoding = made(kind, architecture, "b2-p9-g4", pad_token_id=0)
    for ids in tiny_decoders.prompts(decoding.shape):
        decoding.begin()
        decoding.prompt.copy_(torch.from_numpy(ids))
        with NothingRead():
            decoding.prefill()
            decoding.step()


def test_transformers_itself_reads():
    """So that the test above can fail: its warning about padding, and its question whether a used cache is empty."""
    ids = torch.from_numpy(tiny_decoders.prompts(Shape.parse("b1-p9-g4"))[0])
    padded, plain = tiny_decoders.model("gpt2", pad_token_id=0), tiny_decoders.model("llama")
    with pytest.raises(AssertionError, match="reads a tensor"), NothingRead():
        padded(input_ids=ids)
    cache = StaticCache(plain.config, max_cache_len=16)
    plain(input_ids=ids, past_key_values=cache)
    cache.reset()
    with pytest.raises(AssertionError, match="reads a tensor"), NothingRead():
        plain(input_ids=ids, past_key_values=cache)


# --- compiled --------------------------------------------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are compiled, which then run as they are: Inductor takes a minute for each."""
    torch._dynamo.reset()
    counters.clear()
    seen = []

    def keep(graph, inputs):
        seen.append(graph)
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, mode, dynamic: compiled(call, backend=keep, dynamic=dynamic))
    yield seen
    torch._dynamo.reset()


@pytest.mark.slow  # compiles every pass
@pytest.mark.parametrize("shape", ["b1-p9-g8", "b2-p6-g1"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_pass_is_compiled_once_for_all_positions(graphs, architecture, shape):
    decoding = made(StaticDecoding, architecture, shape)
    decoding.compile("default")
    decoding.warm(2)
    passes = 2 if decoding.shape["generated"] > 1 else 1
    assert len(graphs) == counters["stats"]["unique_graphs"] == passes and not counters["graph_break"]
    for ids, (tokens, _) in zip(tiny_decoders.prompts(decoding.shape), expected(architecture, shape), strict=True):
        np.testing.assert_array_equal(request(decoding, ids)[0], tokens)
    assert len(graphs) == counters["stats"]["unique_graphs"] == passes


def test_a_compiled_prefill_runs_the_attention_that_runs_eagerly(graphs):
    """Without a mask, and over the prompt alone; a step with one, over the whole buffer."""
    decoding = made(StaticDecoding, "llama", "b1-p9-g8")
    decoding.compile("default")
    decoding.warm(1)
    calls = [
        [node.kwargs for node in graph.graph.nodes if node.target is torch.nn.functional.scaled_dot_product_attention]
        for graph in graphs
    ]
    prefill, step = ({(one["attn_mask"] is None, one["is_causal"]) for one in each} for each in calls)
    assert prefill == {(True, True)} and step == {(False, False)}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_inductor_makes_gives_the_same_tokens(architecture):
    torch._dynamo.reset()
    counters.clear()
    decoding = made(StaticDecoding, architecture, "b4-p9-g8")
    decoding.compile("default")
    decoding.warm(1)
    for ids, (tokens, _) in zip(tiny_decoders.prompts(decoding.shape), expected(architecture, "b4-p9-g8"), strict=True):
        np.testing.assert_array_equal(request(decoding, ids)[0], tokens)
    assert counters["stats"]["unique_graphs"] == 2


# --- what cannot be --------------------------------------------------------------------------------------------------


def test_passes_out_of_order_are_refused():
    decoding = made(StaticDecoding, "gpt2", "b1-p9-g2")
    with pytest.raises(RuntimeError, match="no step after 0 tokens of b1-p9-g2; begin a request first"):
        decoding.step()
    decoding.prefill()
    with pytest.raises(RuntimeError, match="begin a request first"):
        decoding.prefill()
    decoding.step()
    with pytest.raises(RuntimeError, match="no step after 2 tokens"):  # would write past the buffer
        decoding.step()


def test_a_window_counts_where_a_context_is_longer():
    config = MistralConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=tiny_decoders.VOCABULARY,
        max_position_embeddings=128,
        sliding_window=16,
    )
    decoder = Decoder(2, 4, 2, 16, tiny_decoders.VOCABULARY, 128)
    torch.manual_seed(1)
    model = MistralForCausalLM(config).eval()
    for shape, kinds in {"b2-p8-g8": KINDS, "b2-p8-g12": [GrowingDecoding]}.items():
        ids = tiny_decoders.prompts(Shape.parse(shape))[0]
        tokens, _ = tiny_decoders.generated(model, ids, Shape.parse(shape)["generated"])
        for kind in kinds:
            decoding = kind(model, decoder, Shape.parse(shape), "cpu")
            np.testing.assert_array_equal(request(decoding, ids)[0], tokens)
    with pytest.raises(CellFailure, match="the last 16 tokens only, and a static cache of 20") as caught:
        StaticDecoding(model, decoder, Shape.parse("b2-p8-g12"), "cpu")
    assert caught.value.kind == "unsupported"
