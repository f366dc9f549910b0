"""Real engines of models with two outputs and of images, with profiles over the axes that each has."""

from __future__ import annotations

import pytest
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER, EMBEDDER

from ceilings import files
from ceilings.engines import produce
from ceilings.graphs import graph, precision

CASES = {
    "answers": (ANSWERER, {"batch": [1, 2, 4], "sequence": [8, 16, 32]}),
    "images": (EMBEDDER, {"batch": [1, 2, 4], "image": [16, 16, 16]}),
}


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
@pytest.mark.parametrize("case", list(CASES))
def test_an_engine_takes_ranges_of_the_axes_that_its_model_has(case, kind, spec, tmp_path):
    workload, profile = CASES[case]
    source, engine = tmp_path / "g.onnx", tmp_path / "x.engine"
    tiny.export(workload, tiny.module(workload), source)
    graph.save(precision.convert(graph.load(source), kind)[0], source)
    record = produce.produce(spec("wide", profiles=[profile]), source, engine, precision=kind, device="sm-8.9")
    assert (record["status"], record["failure"], record["profiles"]) == ("ok", None, [profile])
    tensors = files.read_json(tmp_path / "x.layers.json")["I/O Tensors"]
    assert [tensor["Name"] for tensor in tensors] == [t.name for t in (*workload.inputs, *workload.outputs)]
    largest = {"input_ids": [4, 32], "attention_mask": [4, 32], "pixel_values": [4, 3, 16, 16]}
    for tensor in tensors[: len(workload.inputs)]:
        assert [each["MaxShape"] for each in tensor["ProfileInfo"]] == [largest[tensor["Name"]]]
    assert set(record["summary"]["products"]) == {kind}
    words = {"answers": "input_ids:1x8,attention_mask:1x8", "images": "pixel_values:1x3x16x16"}
    assert f" --minShapes={words[case]} " in record["trtexec"]


def test_an_image_of_another_size_lies_outside(spec, tmp_path):
    source = tmp_path / "fp32.onnx"
    tiny.export(EMBEDDER, tiny.module(EMBEDDER), source)
    profile = {"batch": [1, 1, 1], "image": [32, 32, 32]}
    record = produce.produce(spec(profiles=[profile]), source, tmp_path / "x.engine", precision="fp32", device="sm-8.9")
    assert record["failure"]["kind"] == "outside-profiles"
    assert (
        "no input of the graph has the image of b1-i32: pixel_values ('batch', 3, 16, 16)"
        in record["failure"]["message"]
    )
