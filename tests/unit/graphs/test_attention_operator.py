"""Our operator in the place of ONNX Runtime's fused attention: the same answers, and refusals by the node's name."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ceilings import records
from ceilings.errors import CellFailure, UserError
from ceilings.files import sha256
from ceilings.graphs import attention_operator, fuse, graph, operator_library, precision
from ceilings.graphs.attention_operator import DOMAIN, MICROSOFT, Heads
from ceilings.kernels import onnxruntime_attention
from ceilings.runtimes.onnxruntime_cpu import OnnxRuntimeCpu

HIDDEN, HEADS = 24, 3
SHARPER = 20
"""Factor on the weights of queries, keys and values: at their first size all shares of a softmax are nearly alike."""
NEAR = {"fp32": 1e-5, "fp16": 4e-3}

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("library") / "attention.so"
    onnxruntime_attention.compile_library(path, ())
    return path


def answers(model, library, feed, names=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(names, {value.name: feed[value.name] for value in session.get_inputs()})


def off(found, expected):
    return np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected.astype(np.float64))


# ---- whole models --------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_a_model_s_attentions_give_what_they_gave(tiny, library, tmp_path, kind):
    converted = precision.convert(tiny.model, kind)[0]
    graph.save(converted, tmp_path / f"{kind}.onnx")
    fused = fuse.fuse(tmp_path / f"{kind}.onnx", tiny.weights).model
    for tensor in fused.graph.initializer:
        if tensor.name.endswith("qkv_weight"):
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values * SHARPER).astype(values.dtype), tensor.name))
    placed, heads = attention_operator.place(fused)
    assert heads == [Heads(16, True, {"fp32": "float32", "fp16": "float16"}[kind])] * 2
    assert graph.op_types(placed)[f"{DOMAIN}::Attention"] == 2 and f"{MICROSOFT}::Attention" not in graph.op_types(
        placed
    )
    attentions = [node.output[0] for node in fused.graph.node if node.op_type == "Attention"]
    for model in (fused, placed):
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in attentions)
    feed = tiny.feed()
    feed["attention_mask"] = np.ones_like(feed["attention_mask"])
    feed["attention_mask"][1, 20:] = 0
    names = [*attentions, fused.graph.output[0].name]
    for found, expected in zip(
        answers(placed, library, feed, names), answers(fused, library, feed, names), strict=True
    ):
        real = (slice(None), slice(0, 20)) if expected.ndim == 3 else ...  # what padding answers is nobody's question
        assert off(found[real], expected[real]) < NEAR[kind]


def wider(model):
    """A copy whose square products weigh more, also where three stand in one matrix."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for tensor in copied.graph.initializer:
        if tuple(tensor.dims) in {(32, 32), (32, 96)}:
            tensor.CopyFrom(numpy_helper.from_array(6 * numpy_helper.to_array(tensor), tensor.name))
    return copied


@needs_compiler
def test_padding_on_the_left_is_padding_too(tiny, library):
    """The fused graph counts tokens from the left: there ONNX Runtime's own attention is another model's."""
    fused = fuse.fuse(tiny.simplified, tiny.weights).model
    feed = tiny.feed()
    feed["attention_mask"] = np.ones_like(feed["attention_mask"])
    feed["attention_mask"][1, :12] = 0
    plain, counted, ours = (
        answers(wider(model), library, feed)[0] for model in (tiny.model, fused, attention_operator.place(fused)[0])
    )
    assert off(ours, plain) < NEAR["fp32"] < 100 * NEAR["fp32"] < off(counted[1], plain[1])


@needs_compiler
def test_a_rewritten_graph_passes_parity_with_the_library_beside_it(distilbert, library, tmp_path):
    fused = fuse.fuse(distilbert.simplified, distilbert.weights).model
    path = tmp_path / "fp32.operator.onnx"
    graph.save(attention_operator.place(fused)[0], path)
    with pytest.raises(UserError, match=r"fp32.attention.so, which does not exist; run the rule that makes it"):
        distilbert.check(path, "fp32")
    shutil.copy(library, operator_library.library_of(path))
    record = distilbert.check(path, "fp32")
    assert record["status"] == "ok" and record["relative_l2"] < 1e-5
    runner = OnnxRuntimeCpu(path, "fp32", distilbert.workload, distilbert.shape, 1, {})
    runner.load()  # as a runner's session gets it
    feed = distilbert.feed()
    found = runner.outputs(runner.run(runner.place(feed)))["logits"]
    assert off(found, graph.session(distilbert.simplified, 1).run(["logits"], feed)[0]) < NEAR["fp32"]


@needs_compiler
def test_a_library_that_could_not_be_built_or_is_another_is_refused(library, tmp_path):
    path = tmp_path / "fp32.operator.onnx"
    built, report = operator_library.files_of(path)
    shutil.copy(library, built)
    facts = {"status": "ok", "compiler": "cc", "kernels": ["cpu float32"], "images": [], "bytes": 1}
    source = {"python": "3", "packages": {}, "modules": {}, "project_revision": None, "sources": {}}
    records.write(report, "operator-library", {**facts, "sha256": sha256(library)[::-1], "provenance": source})
    with pytest.raises(UserError, match=r"fp32\.attention\.so is not what was made, by its report"):
        operator_library.register(onnxruntime.SessionOptions(), path)
    library_of = tmp_path / "fp32.attention.so"
    library_of.write_bytes(b"")
    failure = {"kind": "build-failed", "message": "there is no cc"}
    records.write(report, "operator-library", {"status": "failed", "failure": failure})
    with pytest.raises(CellFailure, match="there is no cc"):
        operator_library.register(onnxruntime.SessionOptions(), path)


# ---- one node ------------------------------------------------------------------------------------------------------


def fused_node(random, *, mask=None, bias=True, extra=(), op_type="Attention", **attributes):
    """A graph of one fused attention, its mask a cast of the request's in INT64, or what ``mask`` names."""
    weight = random.normal(size=(HIDDEN, 3 * HIDDEN)).astype(np.float32)
    constants = {"weight": weight, "bias": random.normal(size=3 * HIDDEN).astype(np.float32)}
    inputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "sequence", HIDDEN])]
    nodes = []
    if mask:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", "sequence"]))
        nodes.append(helper.make_node("Cast", ["mask"], ["cast"], to=TensorProto.INT32))
        nodes.append(helper.make_node("ReduceSum", ["cast"], ["sums"], "counts", keepdims=0))
        nodes.append(helper.make_node("Identity", ["sums"], ["unused"]))
    read = ["rows", "weight", "bias" if bias else "", mask or "", *extra]
    node = helper.make_node(op_type, read, ["result"], "attention 7", domain=MICROSOFT, num_heads=HEADS)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    output = helper.make_tensor_value_info("result", TensorProto.FLOAT, ["batch", "sequence", HIDDEN])
    made = helper.make_graph([*nodes, node], "one", inputs, [output], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


@needs_compiler
@pytest.mark.parametrize("mask", [None, "cast"], ids=["all", "masked"])
@pytest.mark.parametrize(
    "given",
    [{}, {"bias": False}, {"unidirectional": 0, "mask_filter_value": -1e4}, {"scale": (HIDDEN / HEADS) ** -0.5}],
)
def test_every_form_that_is_understood_gives_the_same(library, mask, given):
    random = np.random.default_rng(5)
    model = fused_node(random, mask=mask, **given)
    placed, heads = attention_operator.place(model)
    assert heads == [Heads(HIDDEN // HEADS, bool(mask), "float32")]
    feed = {"rows": random.normal(size=(2, 9, HIDDEN)).astype(np.float32), "mask": np.ones((2, 9), np.int64)}
    feed["mask"][0, 6:] = 0
    if not given.get("bias", True):  # ONNX Runtime 1.31.1 crashes in its own without one: the reference gets zeros
        zeros = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
        zeros.CopyFrom(numpy_helper.from_array(np.zeros(3 * HIDDEN, np.float32), "bias"))
        model.graph.node[-1].input[2] = "bias"
    assert off(answers(placed, library, feed)[0], answers(model, library, feed)[0]) < NEAR["fp32"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unidirectional": 1}, "its unidirectional is 1"),
        ({"scale": 0.5}, "its scale is 0.5"),
        ({"do_rotary": 1}, "its do_rotary is 1"),
        ({"qkv_hidden_sizes": [24, 24, 12]}, r"its qkv_hidden_sizes is \[24, 24, 12\]"),
        ({"mask": "sums"}, "its mask comes from ReduceSum 'counts'"),
        ({"extra": ("past",)}, "it reads past beside its input, weights, bias, mask_index"),
        ({"op_type": "MultiHeadAttention"}, "only Attention, of one packed product, is understood"),
    ],
)
def test_what_is_not_understood_is_refused_by_the_node_s_name(given, message):
    model = fused_node(np.random.default_rng(5), **given)
    expected = f"ai.ceilings::Attention cannot stand for {given.get('op_type', 'Attention')} 'attention 7': {message}"
    with pytest.raises(CellFailure, match=expected) as caught:
        attention_operator.place(model)
    assert caught.value.kind == "unsupported"


def test_a_mask_that_is_not_the_request_s_is_refused():
    model = fused_node(np.random.default_rng(5), mask="cast")
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT32
    with pytest.raises(CellFailure, match=r"its mask is mask, which is no input of \(batch, sequence\) in int64"):
        attention_operator.place(model)


def test_weights_that_are_no_constant_are_refused():
    model = fused_node(np.random.default_rng(5))
    del model.graph.initializer[0]
    with pytest.raises(CellFailure, match="its weights are no constant matrix for queries, keys and values together"):
        attention_operator.place(model)


def test_a_graph_without_fused_attention_is_refused(distilbert):
    with pytest.raises(CellFailure, match="the graph has no fused attention, in whose place"):
        attention_operator.place(onnx.load(distilbert.simplified))
