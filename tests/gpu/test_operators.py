"""Attention as an operator on a real card: against PyTorch's, in models, and as measured cells."""

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
from gpu.tiny_artifacts import TOLERANCE, Artifacts
from unit.kernels import operator_graph

from ceilings.kernels import onnxruntime_attention, torch_operator
from ceilings.kernels.onnxruntime_attention import Heads
from ceilings.kernels.tiles import MANY_TOKENS
from ceilings.runtimes import onnxruntime_cuda, placement
from ceilings.runtimes.catalogue import OPERATOR, RUNTIMES

NAMES = [name for name, runtime in RUNTIMES.items() if runtime.device == "cuda" and OPERATOR in runtime.levers]
WIDTHS = (16, 32, 64)


pytestmark = pytest.mark.usefixtures("hopper")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("classifier"), "classifier")


@pytest.mark.parametrize("masked", [None, torch.int64, torch.bool])
@pytest.mark.parametrize(("batch", "sequence", "heads", "width"), [(1, 128, 12, 64), (3, 77, 4, 32)])
def test_it_agrees_with_pytorch_s(batch, sequence, heads, width, masked):
    torch.manual_seed(0)
    three = [torch.randn(batch, sequence, heads * width, device="cuda").half() for _ in range(3)]
    mask = None
    if masked is not None:
        mask = (
            torch.arange(sequence, device="cuda").expand(batch, -1)
            < sequence - 5 * torch.arange(batch, device="cuda")[:, None]
        )
        mask = mask.to(masked).contiguous()
    found = torch_operator.attention(*three, mask, heads)
    apart = [one.view(batch, sequence, heads, width).transpose(1, 2).double() for one in three]
    shown = None if mask is None else mask.bool()[:, None, None, :]
    exact = torch.nn.functional.scaled_dot_product_attention(*apart, attn_mask=shown).transpose(1, 2).reshape_as(found)
    assert torch.norm(found.double() - exact) < 1e-3 * torch.norm(exact)


def test_it_is_registered_as_pytorch_asks():
    three = [torch.randn(2, 40, 64, device="cuda").half() for _ in range(3)]
    results = torch.library.opcheck(
        torch_operator.attention, (*three, None, 4), test_utils=["test_schema", "test_faketensor"]
    )
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", NAMES)
def test_a_runner_gives_the_reference_s_outputs(artifacts, name):
    runner = artifacts.loaded(name, "fp16")
    for element, expected in zip(artifacts.pool, artifacts.expected, strict=False):
        found = runner.outputs(runner.run(runner.place(element)))
        for output, values in expected.items():
            difference = np.linalg.norm(found[output] - values) / np.linalg.norm(values)
            assert difference < TOLERANCE["fp16"], f"{output} differs by {difference:.2g}"
    facts = runner.describe()
    assert facts.get("attention", torch_operator.NAME) == torch_operator.NAME
    if (placed := facts.get("placement")) is not None:  # of ONNX Runtime
        assert placed["operators"]["Attention"] == 2 and "Attention" not in placed["on_cpu"], placed


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_measured(artifacts, name):
    from ceilings.measure.supervisor import supervise

    record = supervise(artifacts.task(name, "fp16"))
    assert record["status"] == "ok", record["failure"]


# ---- in ONNX Runtime, alone ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """With kernels for three widths of heads, with a mask and without."""
    path = tmp_path_factory.mktemp("library") / "attention.so"
    heads = [Heads(width, masked, "float16") for width in WIDTHS for masked in (False, True)]
    built = onnxruntime_attention.build(heads, path)
    assert "cuda float16" in built["kernels"] and len(built["images"]) == 2 * len(heads)
    onnxruntime_cuda.preload()
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["apart", "packed"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("width", WIDTHS)
def test_onnxruntime_s_operator_agrees_with_fp64(library, width, packed, masked):
    """One session for requests of few and of many tokens: they have tiles of their own."""
    graph = operator_graph.model("float16", 4, packed=packed, masked=masked)
    session = operator_graph.session(graph, library, onnxruntime_cuda.PROVIDER)
    nodes = placement.assigned(session)
    assert [node.provider for node in nodes if node.operator == "Attention"] == [onnxruntime_cuda.PROVIDER]
    random = np.random.default_rng(width)
    for batch, sequence in ((1, 128), (3, 77), (1, 1), (9, MANY_TOKENS // 8 + 5)):
        values = operator_graph.feed(random, "float16", (batch, sequence, 4 * width), masked=masked)
        found = session.run(None, operator_graph.packed(values) if packed else values)[0].astype(np.float64)
        exact = operator_graph.exact(values, 4)
        assert np.linalg.norm(found - exact) < 1e-3 * np.linalg.norm(exact), (batch, sequence)


def test_onnxruntime_s_operator_refuses_heads_that_were_not_compiled(library):
    session = operator_graph.session(
        operator_graph.model("float16", 2, packed=True, masked=False), library, onnxruntime_cuda.PROVIDER
    )
    with pytest.raises(Exception, match="compiled for other heads"):
        session.run(None, {"query": np.ones((1, 8, 3 * 2 * 48), np.float16)})
