"""Real engines of decoders' forward passes, built here without a GPU: a decode step and a prefill in one engine."""

from __future__ import annotations

import pytest
from unit.graphs import decoder_folders

from ceilings import files
from ceilings.engines import produce
from ceilings.engines.profiles import Profile
from ceilings.graphs import export, graph, precision
from ceilings.workload.shape import Shape


def test_profiles_of_a_request_are_its_steps_and_its_prefill():
    step, prefill = Profile.of(Shape.parse("b2-p16-g8"))
    # Seven steps after the first token, the first over 16 tokens before it, the last over 16 + 6.
    assert step.to_json() == {"batch": [2, 2, 2], "past": [16, 19, 22], "tokens": [1, 1, 1]}
    assert prefill.to_json() == {"batch": [2, 2, 2], "past": [0, 0, 0], "tokens": [16, 16, 16]}
    assert (step.problem(), prefill.problem()) == (None, None)
    assert [one.to_json()["past"] for one in Profile.of(Shape.parse("b1-p16-g2"))] == [[16] * 3, [0] * 3]
    assert Profile.of(Shape.parse("b2-p16-g1")) == [prefill]
    assert Profile.of(Shape.parse("b8-s128")) == [Profile.static(Shape.parse("b8-s128"))]
    assert (
        Profile({"tokens": (0, 1, 1)}).problem() == "tokens has min 0, opt 1, max 1; 1 <= min <= opt <= max must hold"
    )
    assert Profile({"past": (2, 1, 1)}).problem() == "past has min 2, opt 1, max 1; 0 <= min <= opt <= max must hold"


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def step_graph(request, tmp_path_factory):
    """Its graph of a forward pass in FP16, and its layers' count of heads of keys."""
    folder = tmp_path_factory.mktemp(request.param)
    decoder_folders.write(decoder_folders.model(request.param), folder / "weights")
    export.export_onnx(folder / "weights", export.Export(), folder / "exported.onnx")
    half, _ = precision.convert(graph.load(folder / "exported.onnx"), "fp16")
    graph.save(half, folder / "fp16.onnx")
    return folder / "fp16.onnx", {"gpt2": 4, "llama": 2}[request.param]


def test_one_engine_takes_the_steps_and_the_prefill_of_a_request(step_graph, spec, tmp_path):
    path, heads = step_graph
    profiles = [profile.to_json() for profile in Profile.of(Shape.parse("b2-p16-g8"))]
    record = produce.produce(
        spec("b2-p16-g8", profiles=profiles), path, tmp_path / "x.engine", precision="fp16", device="sm-8.9"
    )
    assert (record["status"], record["failure"]) == ("ok", None)
    assert record["profiles"] == profiles and len(record["summary"]["layers"]) == 2
    assert record["engine_sha256"] == files.sha256(tmp_path / "x.engine")
    tensors = {tensor["Name"]: tensor for tensor in files.read_json(tmp_path / "x.layers.json")["I/O Tensors"]}
    assert len([name for name in tensors if name.startswith(("past.", "present."))]) == 2 * 2 * 2
    ids, past = (tensors[name]["ProfileInfo"] for name in ("input_ids", "past.1.value"))
    assert [(one["MinShape"], one["MaxShape"]) for one in ids] == [([2, 1], [2, 1]), ([2, 16], [2, 16])]
    assert [(one["MinShape"], one["MaxShape"]) for one in past] == [
        ([2, heads, 16, 16], [2, heads, 22, 16]),
        ([2, heads, 0, 16], [2, heads, 0, 16]),
    ]
    assert "--minShapes=input_ids:2x16" in record["trtexec"] and f"past.0.key:2x{heads}x0x16" in record["trtexec"]
