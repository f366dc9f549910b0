"""What TensorRT tells of an engine, in its three wordings. The third is tested on real builds in test_builder.py.

The inspector's two are written after NVIDIA's page on migrating IEngineInspector from TensorRT 10 to 11: no engine of
either could be built here.
"""

from __future__ import annotations

import json

import pytest

from ceilings.engines import inspect

OPERATORS = {"q": "MatMul", "k": "MatMul", "add": "Add", "norm": "LayerNormalization", "quantize": "QuantizeLinear"}
NODES = "[ONNX Layer: {}]"
BINDINGS = {"Bindings": ["x"]}
IO_TENSORS = {"I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Int64", "Dimensions": [1, 128]}]}


def tensor(name, kind, wording):
    if wording == "10":
        return {"Name": name, "Dimensions": [1, 128, 768], "Format/Datatype": f"Row major linear {kind} format"}
    return {"Name": name, "Dimensions": [1, 128, 768], "Datatype": kind, "Format": "Row major linear format"}


@pytest.fixture(params=["10", "11"])
def told(request):
    """As the inspector of either generation words it: a reformat, an int8 product, a fused normalisation, a name."""
    wording = request.param
    layers = [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to q",
            "LayerType": "Reformat",
            "Inputs": [tensor("x", "FP16", wording)],
            "Outputs": [tensor("y", "INT8", wording)],
            "Metadata": "",
        },
        {
            "Name": "q+k_myl0_1",
            "LayerType": "gemm",
            "Inputs": [tensor("y", "INT8", wording)],
            "Outputs": [tensor("z", "FP16", wording)],
            "Metadata": "\x1e".join(map(NODES.format, ("q", "k", "quantize"))),
        },
        {
            "Name": "__myl_AddMean_myl0_2",
            "LayerType": "kgen",
            "Inputs": [tensor("z", "FP16", wording), tensor("ids", "INT64", wording)],
            "Outputs": [tensor("out", "FP16", wording)],
            "Metadata": "\x1f".join(map(NODES.format, ("add", "norm"))),
        },
        "a layer of an engine that keeps only names",
    ]
    return json.dumps({"Layers": layers, **(BINDINGS if wording == "10" else IO_TENSORS)})


def test_both_generations_give_the_same_summary(told):
    found = inspect.read(told, "json")
    assert [tensor["Name"] for tensor in found["I/O Tensors"]] == ["x"] and found["source"] == "inspector"
    summary = inspect.summary(inspect.layers(found), OPERATORS, ["q", "k"])
    assert summary["layers"] == [4] and summary["reformats"] == 1
    assert summary["products"] == {"int8": 1}
    assert summary["types"]["gemm"] == {"int8": 1} and summary["types"]["kgen"] == {"fp16": 1}
    assert {(each["operators"], each["precision"]) for each in summary["fused"]} == {
        ("MatMul+MatMul", "int8"),
        ("Add+LayerNormalization", "fp16"),
    }
    assert summary["quantized"] == {"asked": 2, "ran": 2, "elsewhere": {}}


def test_a_product_that_does_not_run_quantised_is_named(told):
    layers = inspect.layers(inspect.read(told.replace("INT8", "FP16"), "json"))
    assert inspect.summary(layers, OPERATORS, ["q", "lost"])["quantized"] == {
        "asked": 2,
        "ran": 0,
        "elsewhere": {"q": ["fp16"], "lost": ["not found"]},
    }


def test_lines_of_a_build_log_are_read_whole():
    """Commas within brackets and names with brackets belong to a value."""
    line = (
        "Name: [Copy 0], LayerType: kgen, "
        "Inputs: [ { Name: a, Dimensions: [1,2], Datatype: Half, Format: order [1,0] }, { Name: b, Datatype: Float }], "
        "Constants: [], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: q][ONNX Layer: k]"
    )
    (layer,) = inspect.read(f"Layers:\n{line}\n\nI/O Tensors:\n Name: a, IOMode: Input\n", "text")["Layers"]
    assert layer["Name"] == "[Copy 0]" and layer["Constants"] == [] and layer["StreamId"] == 0
    assert layer["Inputs"][0] == {"Name": "a", "Dimensions": [1, 2], "Datatype": "Half", "Format": "order [1,0]"}
    (found,) = inspect.layers({"Layers": [layer]})
    assert (found.precision, found.nodes) == ("fp32", ("q", "k"))
