"""The operator in the real ONNX Runtime: against FP64, what it refuses, and what its build says where it cannot."""

import shutil
import subprocess

import numpy as np
import onnx
import pytest
from unit.kernels import operator_graph

from ceilings.errors import CellFailure, UserError
from ceilings.graphs import operator_library
from ceilings.kernels import onnxruntime_attention

if shutil.which("cc") is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

TOLERANCE = {"float32": 2e-6, "float16": 1e-3}
"""Of the largest result: rounding of sums of 40 numbers in FP32, and of what is stored."""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("operator") / "attention.so"
    onnxruntime_attention.compile_library(path, ())
    return path


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("packed", [False, True], ids=["apart", "packed"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_it_agrees_with_fp64(library, random, kind, packed, masked):
    heads, width = int(random.integers(1, 5)), int(random.integers(3, 40))
    sizes = int(random.integers(1, 4)), int(random.integers(1, 40)), heads * width
    values = operator_graph.feed(random, kind, sizes, masked=masked)
    session = operator_graph.session(operator_graph.model(kind, heads, packed=packed, masked=masked), library)
    found = session.run(None, operator_graph.packed(values) if packed else values)[0]
    expected = operator_graph.exact(values, heads)
    assert found.dtype == kind and found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE[kind] * np.abs(expected).max()


def test_an_element_without_any_token_is_an_average_and_no_nan(library, random):
    values = operator_graph.feed(random, "float32", (2, 6, 8), masked=True)
    values["mask"][1] = 0
    session = operator_graph.session(operator_graph.model("float32", 2, packed=False, masked=True), library)
    found = session.run(None, values)[0]
    np.testing.assert_allclose(found[1], np.broadcast_to(values["value"][1].mean(0), (6, 8)), rtol=1e-5, atol=1e-6)


def test_an_empty_batch_gives_an_empty_answer(library):
    session = operator_graph.session(operator_graph.model("float32", 2, packed=True, masked=False), library)
    assert session.run(None, {"query": np.zeros((0, 5, 24), np.float32)})[0].shape == (0, 5, 8)


@pytest.mark.parametrize(
    ("sizes", "packed", "mask", "message"),
    [
        ((1, 4, 10), False, None, "10 numbers a row do not divide among 3 heads"),
        ((1, 4, 12), True, None, "12 numbers a row do not divide among 3 heads, three times"),
        ((2, 4, 12), False, (2, 5), r"mask is \(2, 5\) and must be \(2, 4\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(library, sizes, packed, mask, message):
    values = operator_graph.feed(np.random.default_rng(1), "float32", sizes, masked=False)
    if packed:
        values = {"query": values["query"]}
    if mask:
        values["mask"] = np.ones(mask, np.int64)
    graph = operator_graph.model("float32", 3, packed=packed, masked=bool(mask))
    for value in graph.graph.input:  # else ONNX Runtime itself refuses the axes of one name that differ
        for axis in value.type.tensor_type.shape.dim:
            axis.Clear()
    with pytest.raises(Exception, match=f"ai.ceilings::Attention: {message}"):
        operator_graph.session(graph, library).run(None, values)


def test_two_of_three_inputs_are_refused(library, random):
    graph = operator_graph.model("float32", 2, packed=False, masked=False)
    graph.graph.node[0].input[2] = ""
    del graph.graph.input[2]
    values = operator_graph.feed(random, "float32", (1, 4, 8), masked=False)
    with pytest.raises(Exception, match="the same sizes, or query holds all three"):
        operator_graph.session(graph, library).run(None, {name: values[name] for name in ("query", "key")})


def test_no_heads_are_refused_when_the_session_opens(library):
    with pytest.raises(Exception, match="num_heads is 0 and must be 1 or more"):
        operator_graph.session(operator_graph.model("float32", 0, packed=True, masked=False), library)


def test_without_a_compiler_the_build_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CellFailure, match="PATH has none of cc, gcc, clang; install gcc 12 or newer") as caught:
        onnxruntime_attention.compile_library(tmp_path / "attention.so", ())
    assert caught.value.kind == "build-failed" and not list(tmp_path.iterdir())


def test_a_compiler_that_refuses_the_source_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime_attention, "FLAGS", ("-std=c89", "-shared", "-fPIC"))
    with pytest.raises(CellFailure, match=r"cc refuses attention_operator.c \(.*; gcc 12 or newer takes it"):
        onnxruntime_attention.compile_library(tmp_path / "attention.so", ())


def test_a_graph_whose_library_is_not_there_is_refused(tmp_path):
    graph = tmp_path / "fp32.operator.onnx"
    onnx.save(operator_graph.model("float32", 2, packed=True, masked=False), graph)
    with pytest.raises(UserError, match=r"fp32\.attention\.so, which does not exist; run the rule"):
        operator_library.register(None, graph)


def test_the_library_exports_its_entry_alone_and_needs_no_driver(library):
    if shutil.which("nm") is None or shutil.which("ldd") is None:
        pytest.skip("nm or ldd is not installed")
    said = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in said.stdout.splitlines()] == ["RegisterCustomOps"]
    assert "libcuda" not in subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout
