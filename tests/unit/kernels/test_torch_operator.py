"""Attention as an operator of PyTorch: its registration, models of Transformers that use it, refusals with a reason."""

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertModel,
    ViTConfig,
    ViTModel,
)
from unit.kernels import operands

from ceilings.kernels import torch_operator

torch_operator.register()
pytestmark = pytest.mark.usefixtures("interpreted")

TOKENS = {"vocab_size": 90, "max_position_embeddings": 32}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**TOKENS, **SMALL)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(**TOKENS, dim=64, n_layers=2, n_heads=4, hidden_dim=80)),
}


def three(seed=0, batch=2, sequence=19, hidden=48):
    random = np.random.default_rng(seed)
    return [operands.half(random, batch, sequence, hidden, device="cpu")[0] for _ in range(3)]


@pytest.mark.parametrize("masked", [None, torch.int64, torch.bool])
def test_it_is_registered_as_pytorch_asks(masked):
    mask = None if masked is None else torch.tensor([[1] * 19, [1] * 7 + [0] * 12]).to(masked)
    results = torch.library.opcheck(
        torch_operator.attention, (*three(), mask, 3), test_utils=["test_schema", "test_faketensor"]
    )
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("padded", [True, False])
def test_a_model_of_transformers_is_as_near_to_fp64_as_with_its_attention(name, padded):
    torch.manual_seed(0)
    model = MODELS[name]().eval().half()
    ids = torch.randint(0, 90, (2, 21))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 9:] = 0
    with torch.inference_mode():
        answers = {}
        for attention in ("eager", torch_operator.NAME):
            model.set_attn_implementation(attention)
            answers[attention] = model(ids, attention_mask=mask).last_hidden_state.double()
        model.set_attn_implementation("eager")
        exact = model.double()(ids, attention_mask=mask).last_hidden_state
    real = mask.bool()
    off = {attention: torch.norm((answer - exact)[real]) for attention, answer in answers.items()}
    assert 0 < off[torch_operator.NAME] <= 2 * off["eager"]


def test_a_model_without_a_mask():
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**SMALL, image_size=16, patch_size=4)).eval().half()
    image = torch.randn(2, 3, 16, 16).half()
    with torch.inference_mode():
        plain = model(image).last_hidden_state
        model.set_attn_implementation(torch_operator.NAME)
        torch.testing.assert_close(model(image).last_hidden_state, plain, rtol=2e-2, atol=5e-3)


def test_a_compiled_program_keeps_it_as_one_operator():
    seen = []

    def backend(graph, _):
        seen.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.manual_seed(0)
    model = MODELS["bert"]().eval().half()
    model.set_attn_implementation(torch_operator.NAME)
    ids = torch.randint(0, 90, (2, 21))
    with torch.inference_mode():
        compiled = torch.compile(model, backend=backend, fullgraph=True)(ids, attention_mask=torch.ones_like(ids))
        torch.testing.assert_close(compiled.last_hidden_state, model(ids, torch.ones_like(ids)).last_hidden_state)
    assert sum(target is torch.ops.ceilings.attention.default for target in seen) == SMALL["num_hidden_layers"]


def test_a_causal_model_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=50, n_positions=32)).eval().half()
    model.set_attn_implementation(torch_operator.NAME)
    with pytest.raises(ValueError, match="this layer is causal"):
        model(torch.ones(1, 5, dtype=torch.int64))


def rotary(local):
    """A model whose queries and keys are turned by their positions; its second layer sees all tokens, or near ones."""
    torch.manual_seed(0)
    kinds = ["full_attention", "sliding_attention" if local else "full_attention"]
    config = ModernBertConfig(**TOKENS, **SMALL, pad_token_id=0, local_attention=8, layer_types=kinds)
    return ModernBertModel(config).eval().half(), torch.randint(1, 90, (2, 21))


def test_rows_that_stand_apart_in_different_ways_are_copied():
    model, ids = rotary(local=False)
    with torch.inference_mode():
        plain = model(ids, torch.ones_like(ids)).last_hidden_state
        model.set_attn_implementation(torch_operator.NAME)
        torch.testing.assert_close(model(ids, torch.ones_like(ids)).last_hidden_state, plain, rtol=2e-2, atol=5e-3)


def test_a_layer_that_sees_near_tokens_alone_is_refused():
    model, ids = rotary(local=True)
    model.set_attn_implementation(torch_operator.NAME)
    with pytest.raises(ValueError, match="has no sliding_window, and this layer asks for it"):
        model(ids, torch.ones_like(ids))


def test_another_text_s_tokens_are_refused():
    query, key = torch.zeros(1, 2, 5, 16).half(), torch.zeros(1, 2, 7, 16).half()
    with pytest.raises(ValueError, match="as many heads, tokens and columns of each"):
        torch_operator.attend(torch.nn.Identity(), query, key, key, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v, m: (q.float(), k, v, m, 3), "takes FP16, and this is torch.float32"),
        (lambda q, k, v, m: (q, k[:, :5], v, m, 3), "three times alike"),
        (lambda q, k, v, m: (q, k, v, m, 5), "share the hidden size of 48 alike, and 5 do not"),
        (lambda q, k, v, m: (q, k, v, m, 0), "share the hidden size of 48 alike, and 0 do not"),
        (lambda q, k, v, m: (q, k.mT.contiguous().mT, v, m, 3), "rows that stand equally apart"),
        (lambda q, k, v, m: (q[:, ::2], k[:, ::2], v[:, ::2], m[:, ::2], 3), "a mask of INT64|rows that stand"),
        (lambda q, k, v, m: (q, k, v, m.float(), 3), "a mask of INT64 or bool, 2 x 19"),
        (lambda q, k, v, m: (q, k, v, m[:1], 3), "a mask of INT64 or bool, 2 x 19"),
    ],
)  # fmt: skip
def test_what_the_kernel_cannot_read_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        torch_operator.attention(*change(*three(), torch.ones(2, 19, dtype=torch.int64)))
