"""The fused encoder on a real card: each kernel against FP64, whole models against PyTorch, launches that overlap."""

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
from gpu.tiny_artifacts import TOLERANCE, Artifacts
from unit.kernels import agreement

from ceilings import gpu
from ceilings.kernels import encoder_weights
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.tiles import Tiles
from ceilings.models.families import text_encoder
from ceilings.runtimes.catalogue import RUNTIMES

DEVICE, TASK = "cuda", "sequence-classification"
NAMES = [name for name, runtime in RUNTIMES.items() if runtime.module == "ceilings_fused"]


@pytest.fixture(autouse=True)
def hopper():
    if (capability := gpu.visible().capability) != (9, 0):
        pytest.skip(f"the tiles are of compute capability 9.0, and this card has {capability[0]}.{capability[1]}")


@pytest.fixture(params=range(3))
def random(request):
    return np.random.default_rng(request.param)


@pytest.mark.parametrize("activation", list(agreement.ACTIVATED))
def test_a_product(random, activation):
    agreement.product(random, DEVICE, activation)


@pytest.mark.parametrize("splits", [1, 2, 3])
def test_a_cut_product_and_its_normalisation(random, splits):
    agreement.cut_product(random, DEVICE, splits)


def test_cuts_that_have_nothing_to_add_add_nothing(random):
    agreement.cut_product(random, DEVICE, splits=4, inner=64)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_head(random, transposed):
    agreement.head(random, DEVICE, transposed)


@pytest.mark.parametrize("masked", [True, False])
def test_attention(random, masked):
    agreement.attention(random, DEVICE, masked)


@pytest.mark.parametrize(("kind", "normalize"), [("mean", False), ("mean", True), ("cls", True)])
def test_a_pooling(random, kind, normalize):
    agreement.pooling(random, DEVICE, kind, normalize)


def test_an_embedding(random):
    agreement.embedding(random, DEVICE)
    agreement.attention_of_padding(random, DEVICE)


def whole(architecture, dtype):
    """A model of its usual size with the same random weights, which FP16 holds."""
    model = text_encoder.build(architecture, TASK, None, {}, seed=0, name=architecture).half().to(dtype)
    return text_encoder.wrap(model, TASK).eval().requires_grad_(False).to(DEVICE)


def request(batch, sequence):
    torch.manual_seed(batch)
    ids = torch.randint(0, 30_000, (batch, sequence))
    lengths = torch.randint(1, sequence + 1, (batch, 1))
    lengths[0] = sequence
    return ids.to(DEVICE), (torch.arange(sequence) < lengths).long().to(DEVICE)


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize(("batch", "sequence"), [(1, 128), (4, 127)])
@pytest.mark.parametrize("architecture", ["distilbert", "bert"])
def test_a_model_is_as_near_to_fp64_as_pytorch_in_fp16(architecture, batch, sequence, overlapped):
    """In a graph replayed one time after the other: a launch that did not wait would change an answer."""
    inputs = request(batch, sequence)
    exact = whole(architecture, torch.float64)(*inputs)[0]
    half = whole(architecture, torch.float16)(*inputs)[0]
    weights = encoder_weights.of(whole(architecture, torch.float16))
    encoder = Encoder(weights, batch, sequence, Tiles(), overlapped=overlapped)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        encoder(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        encoder(*inputs)
    answers = []
    for _ in range(50):
        graph.replay()
        answers.append(encoder.outputs()[0].clone())
    assert torch.norm(answers[0].double() - exact) <= 2 * torch.norm(half.double() - exact)
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@pytest.fixture(scope="module", params=["classifier", "answerer"])
def artifacts(request, tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("name", NAMES)
def test_a_runner_gives_the_reference_s_outputs(artifacts, name):
    runner = artifacts.loaded(name, "fp16")
    for element, expected in zip(artifacts.pool, artifacts.expected, strict=False):
        found = runner.outputs(runner.run(runner.place(element)))
        assert found.keys() == expected.keys()
        for output, values in expected.items():
            difference = np.linalg.norm(found[output] - values) / np.linalg.norm(values)
            assert difference < TOLERANCE["fp16"], f"{output} differs by {difference:.2g}"
    facts = runner.describe()
    assert (facts["attention"], facts["mode"], facts["tiles_from"]) == ("ceilings", "cudagraph", "defaults")


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_measured(artifacts, name):
    from ceilings.measure.supervisor import supervise

    record = supervise(artifacts.task(name, "fp16"))
    assert record["status"] == "ok", record["failure"]
