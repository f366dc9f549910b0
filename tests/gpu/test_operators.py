"""Attention as an operator on a real card: against PyTorch's, in models, and as measured cells."""

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
from gpu.tiny_artifacts import TOLERANCE, Artifacts

from ceilings import gpu
from ceilings.kernels import torch_operator
from ceilings.runtimes.catalogue import RUNTIMES

NAMES = [name for name, runtime in RUNTIMES.items() if runtime.module == "torch_operator_cuda"]


@pytest.fixture(autouse=True)
def hopper():
    if (capability := gpu.visible().capability) != (9, 0):
        pytest.skip(f"the tile is of compute capability 9.0, and this card has {capability[0]}.{capability[1]}")


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
    assert runner.describe()["attention"] == torch_operator.NAME


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_measured(artifacts, name):
    from ceilings.measure.supervisor import supervise

    record = supervise(artifacts.task(name, "fp16"))
    assert record["status"] == "ok", record["failure"]
