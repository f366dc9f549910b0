"""Profiles that ONNX Runtime writes here, and planted ones of its CUDA provider.

No CUDA provider runs here: its events are planted as ``cupti_manager.cc`` and ``gpu_profiler_common.h`` write them.
"""

# An event is all of its fields, and a line of them reads best.
# ruff: noqa: PLR0917

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ceilings.errors import UserError
from ceilings.schemas import explanation
from ceilings.traces.readers import onnxruntime_profile, own_account, read


def flaw(content):
    """What is wrong with a content as an explanation, but for its origin."""
    source = {**content["source"], "bytes": 1, "sha256": "0" * 64}
    found = explanation.SCHEMA({**content, "name": "x", "source": source, "provenance": {}})
    return None if found is None or ".provenance" in found else found


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """Twelve runs of two sizes of a model with a graph within a node, whose names are hard to write."""
    folder = tmp_path_factory.mktemp("profile")
    then = helper.make_graph([helper.make_node("Relu", ["s"], ["t"], name="then/Relu")], "then", [], [_value("t")])
    other = helper.make_graph([helper.make_node("Neg", ["s"], ["e"], name="else/Neg")], "else", [], [_value("e")])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name='/a "b"\\c/MatMul'),
        helper.make_node("Sigmoid", ["m"], ["s"]),
        helper.make_node("ReduceMax", ["s"], ["r"], keepdims=0),
        helper.make_node("Greater", ["r", "zero"], ["c"], name="greater"),
        helper.make_node("If", ["c"], ["y"], name="branch", then_branch=then, else_branch=other),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.ones((16, 16), np.float32), "w"),
        onnx.numpy_helper.from_array(np.float32(0), "zero"),
    ]
    graph = helper.make_graph(nodes, "graph", [_value("x")], [_value("y")], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for number in range(12):
        session.run(None, {"x": np.ones((2 if number % 3 else 512, 16), np.float32)})
    return session.end_profiling()


def _value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16])


def test_a_profile_of_the_cpu(profile):
    content = read(profile)
    assert flaw(content) is None
    assert content["source"]["format"] == "onnxruntime-profile"
    assert content["source"]["counts"]["runs"] == 12
    groups = {group["label"]: group for group in content["groups"]}
    assert set(groups) == {"first inputs float[2,16]", "first inputs float[512,16]"}
    left_out = sum("warming up" in one["text"] for one in content["health"])
    assert sum(group["count"] for group in groups.values()) >= 12 - 3 * left_out
    with open(profile, encoding="utf-8") as file:
        events = json.load(file)
    runs = [event["dur"] * 1000 for event in events if event["name"] == "model_run"]
    assert sum(sum(group["lengths_ns"]) for group in groups.values()) <= sum(runs)
    for group in groups.values():
        kinds = {layer["kind"] for layer in group["layers"]}
        assert kinds == {"MatMul", "Sigmoid", "ReduceMax", "Greater", "If", "Relu"}
        assert {layer["count"] for layer in group["layers"]} == {1.0}
        parts = {part["part"]: part["ns"] for part in group["parts"]}
        assert parts["nodes of CPUExecutionProvider"] <= group["length_ns"]["median"]
        assert abs(sum(parts.values()) - group["length_ns"]["median"]) <= 0.25 * group["length_ns"]["most"]
    assert any(layer["name"] == '/a "b"\\c/MatMul' for layer in content["groups"][0]["layers"])
    assert any("initialising the session" in one["text"] for one in content["health"])


class Planted:
    """Events as ``profiler.cc`` writes them, in microseconds."""

    def __init__(self):
        self.events = []

    def add(self, category, name, begin, length, tid=7, **args):
        event = {
            "cat": category,
            "pid": 4,
            "tid": tid,
            "dur": length,
            "ts": begin,
            "ph": "X",
            "name": name,
            "args": args,
        }
        self.events.append(event)

    def node(self, name, operator, begin, length, provider="CUDAExecutionProvider", shape=None, tid=7, **args):
        shapes = [{"float": shape or [1, 8]}]
        args |= {"op_name": operator, "provider": provider, "node_index": "0", "input_type_shape": shapes}
        self.add("Node", f"{name}_kernel_time", begin, length, tid, **args)

    def kernel(self, name, begin, length, parent, operator, stream="13"):
        grid = {f"{what}_{axis}": "1" for what in ("grid", "block") for axis in "xyz"}
        self.add("Kernel", name, begin, length, -1, stream=stream, op_name=operator, parent_name=parent, **grid)
        self.events[-1]["pid"] = -1

    def read(self, tmp_path):
        path = tmp_path / "profile.json"
        lines = ",\n".join(json.dumps(event, separators=(",", " :")) for event in self.events)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        content = onnxruntime_profile.read(path)
        assert flaw(content) is None
        return content


def test_a_profile_of_the_cuda_provider(tmp_path):
    planted = Planted()
    planted.add("Session", "session_initialization", 0, 5000)
    for number in range(10):
        at = 10_000 + 1000 * number
        planted.add("Node", "in_fence_before", at + 20, 5, op_name="MemcpyFromHost")
        planted.node("in", "MemcpyFromHost", at + 30, 20)
        planted.kernel("MemcpyHostToDevice", at + 40, 15, "in_kernel_time", "MemcpyFromHost")
        planted.node("product", "MatMul", at + 60, 100)
        planted.kernel("cutlass_80_tensorop_s16816gemm", at + 100, 200, "product_kernel_time", "MatMul")
        planted.node("shape", "Range", at + 200, 300, provider="CPUExecutionProvider")
        planted.add("Session", "SequentialExecutor::Execute", at + 10, 780)
        planted.add("Session", "model_run", at, 800)
    content = planted.read(tmp_path)
    (group,) = content["groups"]
    parts = {part["part"]: part["ns"] for part in group["parts"]}
    assert parts == {
        "nodes of CUDAExecutionProvider": 120_000,
        "nodes of CPUExecutionProvider": 300_000,
        "fences": 5000,
        "executor, outside nodes": 780_000 - 420_000 - 5000,
        "outside the executor": 20_000,
        "kernels on the device": 215_000,
    }
    assert group["length_ns"]["median"] == 800_000
    kernels = {kernel["name"]: kernel for kernel in group["kernels"]}
    assert kernels["cutlass_80_tensorop_s16816gemm"]["class"] == "gemm"
    assert kernels["MemcpyHostToDevice"] | {"short": ""} == {
        **{"name": "MemcpyHostToDevice", "short": "", "class": "copy", "count": 1, "ns": 15_000, "path_ns": None}
    }
    (device,) = content["devices"]
    assert (device["kernels"], device["copies"], device["streams"], device["busy_ns"]) == (10, 10, 1, 2_150_000)
    assert [lever["lever"] for lever in group["levers"]] == ["fewer and larger nodes", "run all nodes on one provider"]
    assert group["levers"][1]["gain"] == pytest.approx(0.4)
    assert "1 nodes a run are on the CPU (Range)" in group["levers"][1]["why"]
    assert content["iterations"]["inside_ns"] == 8_000_000
    assert content["iterations"]["between_ns"] == 9 * 200_000


def test_nodes_with_graphs_within_them_count_once(tmp_path):
    planted = Planted()
    for number in range(3):
        at = 1000 * number
        planted.node("inner", "Relu", at + 20, 30)
        planted.node("inner", "Relu", at + 60, 30)
        planted.node("loop", "Loop", at + 10, 100)
        planted.add("Session", "model_run", at, 200)
    (group,) = planted.read(tmp_path)["groups"]
    layers = {layer["name"]: (layer["count"], layer["ns"]) for layer in group["layers"]}
    assert layers == {"loop": (1, 40_000), "inner": (2, 60_000)}
    assert group["parts"][0]["ns"] == 100_000


def test_warming_up_is_left_out_by_name_and_time(tmp_path):
    planted = Planted()
    for number, length in enumerate([9000, 700, 100, 101, 99, 100, 102]):
        planted.node("a", "MatMul", 20_000 * number, 50)
        planted.add("Session", "model_run", 20_000 * number, length)
    content = planted.read(tmp_path)
    (group,) = content["groups"]
    assert (group["count"], group["length_ns"]["median"]) == (5, 100_000)
    assert {"level": "note", "text": "Left out as warming up: the first 2 runs (all runs), 9.700 ms."} in content[
        "health"
    ]


def test_threads_that_run_one_session_at_the_same_time(tmp_path):
    planted = Planted()
    for number in range(4):
        for thread in (1, 2):
            at = 1000 * number + 100 * thread
            planted.node(f"of {thread}", "MatMul", at + 10, 50, tid=thread)
            planted.add("Session", "model_run", at, 800, tid=thread)
    content = planted.read(tmp_path)
    (group,) = content["groups"]
    assert group["counts"]["nodes"] == 1
    assert any("Runs overlap" in one["text"] for one in content["health"])
    assert content["iterations"]["inside_ns"] == 4 * 900_000


def test_many_sizes_become_one_group(tmp_path):
    planted = Planted()
    for number in range(40):
        planted.node("a", "MatMul", 1000 * number + 1, 50, shape=[1, number + 1])
        planted.add("Session", "model_run", 1000 * number, 100)
    (group,) = planted.read(tmp_path)["groups"]
    assert (group["label"], group["count"]) == ("all runs", 40)


def test_threads_of_the_pool_that_are_waited_for(tmp_path):
    planted = Planted()
    stats = {"main_thread": {"thread_pool_name": "p", "Run": 20, "Wait": 30, "WaitRevoke": 5}, "sub_threads": {}}
    planted.node("a", "MatMul", 1, 60, provider="CPUExecutionProvider", thread_scheduling_stats=stats)
    planted.add("Session", "model_run", 0, 100)
    (group,) = planted.read(tmp_path)["groups"]
    assert {part["part"]: part["ns"] for part in group["parts"]}[
        "within nodes: waiting for threads of the pool"
    ] == 35_000


def test_a_profile_without_runs_says_so(tmp_path):
    planted = Planted()
    planted.node("a", "MatMul", 1, 60)
    content = planted.read(tmp_path)
    assert content["groups"] == []
    assert "error" in {one["level"] for one in content["health"]}


def test_a_profile_that_was_cut(tmp_path, profile):
    path = tmp_path / "cut.json"
    with open(profile, encoding="utf-8") as file:
        text = file.read()
    path.write_text(text[: len(text) * 3 // 4], encoding="utf-8")
    content = read(path)
    assert flaw(content) is None
    assert any("ends before its events do" in one["text"] for one in content["health"])


def test_other_events_are_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"cat": "kernel", "name": "x", "ph": "X", "ts": 1, "dur": 1}]', encoding="utf-8")
    with pytest.raises(UserError, match="holds no event of ONNX Runtime"):
        onnxruntime_profile.read(path)


def test_hostile_names_and_times(tmp_path):
    planted = Planted()
    for name in ("<script>", "\x1b[31m", "a" * (1 << 20), "|`*_"):
        planted.node(name, "MatMul", 1, 60)
    planted.node("far", "MatMul", 1e300, 60)
    planted.node("no time", "MatMul", "soon", 60)
    planted.add("Session", "model_run", 0, 500)
    content = planted.read(tmp_path)
    layers = content["groups"][0]["layers"]
    assert len(layers) == 4
    assert max(len(layer["name"]) for layer in layers) == 4000
    assert any("2 events have no name or no time" in one["text"] for one in content["health"])


def test_nodes_beyond_what_a_record_holds_are_one_row():
    layers = [(f"node {k}", "Gemm", 1.0, 10.0) for k in range(own_account.MOST_LAYERS + 20)]
    shown = own_account.group("all runs", [6000.0], 1.0, {}, layers=layers)["layers"]
    assert len(shown) == own_account.MOST_LAYERS + 1
    assert shown[-1] == {"name": "20 others", "kind": "others", "count": 20.0, "ns": 200.0}
    assert sum(one["ns"] for one in shown) == 10.0 * len(layers)
