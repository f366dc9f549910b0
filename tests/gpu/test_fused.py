"""The fused encoder on a real card: whole models against PyTorch, launches that overlap, cells."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
from gpu.tiny_artifacts import TOLERANCE, Artifacts
from unit.kernels import plain_encoder

from ceilings.kernels import encoder_weights, fp8_weights, tiles
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.tiles import Tiles
from ceilings.models.families import text_encoder
from ceilings.runtimes.catalogue import RUNTIMES

DEVICE, TASK = "cuda", "sequence-classification"
NAMES = [name for name, runtime in RUNTIMES.items() if runtime.module == "ceilings_fused"]


pytestmark = pytest.mark.usefixtures("hopper")


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
    inputs = request(batch, sequence)
    exact = whole(architecture, torch.float64)(*inputs)[0]
    half = whole(architecture, torch.float16)(*inputs)[0]
    weights = encoder_weights.of(whole(architecture, torch.float16))
    answer = replayed(Encoder(weights, batch, sequence, Tiles(), overlapped=overlapped), inputs)
    assert torch.norm(answer - exact) <= 2 * torch.norm(half.double() - exact)


@pytest.mark.parametrize("architecture", ["distilbert", "bert"])
def test_a_model_in_fp8_is_as_near_to_fp64_as_one_whose_products_are_rounded_so(architecture):
    """By the first token's 768 numbers: a classifier's two say little."""
    inputs = request(1, 128)
    weights = encoder_weights.of(whole(architecture, torch.float16))
    weights = dataclasses.replace(weights, head=(), reads="cls")
    (exact,), narrow = plain_encoder.run(weights, *inputs), fp8_weights.quantised(weights)
    (rounded,) = plain_encoder.run(narrow, *inputs)
    answer = replayed(Encoder(narrow, 1, 128, tiles.defaults(128, "fp8"), overlapped=True), inputs)
    found, allowed = (float(torch.norm(one - exact) / torch.norm(exact)) for one in (answer, rounded))
    print(f"{architecture} in FP8 is off by {found:.3f}, and exact arithmetic on the same roundings by {allowed:.3f}")
    assert 0 < found <= 1.5 * allowed < TOLERANCE["fp8"]


def replayed(encoder, inputs):
    """The answer in FP64, the same of 50 replays in a row: a launch that did not wait would change one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
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
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    return answers[0].double()


@pytest.fixture(scope="module", params=["classifier", "answerer"])
def artifacts(request, tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_runner_gives_the_reference_s_outputs(artifacts, name, precision):
    runner = artifacts.loaded(name, precision)
    for element, expected in zip(artifacts.pool, artifacts.expected, strict=False):
        found = runner.outputs(runner.run(runner.place(element)))
        assert found.keys() == expected.keys()
        for output, values in expected.items():
            difference = np.linalg.norm(found[output] - values) / np.linalg.norm(values)
            assert difference < TOLERANCE[precision], f"{output} differs by {difference:.2g}"
    facts = runner.describe()
    assert set(facts["products"]) == {"fp16", precision}
    assert (facts["attention"], facts["mode"], facts["tiles_from"]) == ("ceilings", "cudagraph", "defaults")


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_measured(artifacts, name, precision):
    from ceilings.measure.supervisor import supervise

    record = supervise(artifacts.task(name, precision))
    assert record["status"] == "ok", record["failure"]
