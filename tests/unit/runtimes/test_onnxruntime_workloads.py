"""ONNX Runtime on models with two outputs and on images; its IO binding on the host's memory."""

from __future__ import annotations

import ctypes
import importlib
import types

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER, CLASSIFIER, EMBEDDER

from ceilings.errors import CellFailure
from ceilings.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

CASES = {"answers": (ANSWERER, "b2-s16"), "images": (EMBEDDER, "b3-i16")}


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    """Workload, shape, module and graph."""
    workload, shape = CASES[request.param][0], Shape.parse(CASES[request.param][1])
    model, path = tiny.module(workload), tmp_path_factory.mktemp(request.param) / "fp32.onnx"
    tiny.export(workload, model, path)
    return workload, shape, model, path


def close(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_every_output_is_that_of_the_module(case):
    workload, shape, model, path = case
    runner = OnnxRuntimeCpu(path, "fp32", workload, shape, 1, {})
    runner.load()
    inputs = tiny.element(workload, shape.batch, 16, seed=5)
    close(runner.outputs(runner.run(runner.place(inputs))), tiny.expected(workload, model, inputs))


def test_a_graph_of_another_model_is_refused(case):
    workload, shape, _, path = case
    other = EMBEDDER if workload is ANSWERER else ANSWERER
    with pytest.raises(CellFailure, match=r"the graph reads .*; the inputs are ") as caught:
        OnnxRuntimeCpu(path, "fp32", other, shape, 1, {}).load()
    assert caught.value.kind == "unsupported"


def test_an_output_that_the_graph_does_not_write_is_refused(tmp_path):
    path = tmp_path / "fp32.onnx"
    tiny.export(ANSWERER, tiny.module(ANSWERER), path)
    with pytest.raises(CellFailure, match="writes start_logits, end_logits, and not logits"):
        OnnxRuntimeCpu(path, "fp32", CLASSIFIER, Shape.parse("b2-s16"), 1, {}).load()


# ---- IO binding ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bound(monkeypatch):
    """Makes runners of the CUDA provider that execute on the CPU's, from buffers in the host's memory."""
    pytest.importorskip("cuda.bindings")
    import onnxruntime
    import tensorrt_double as double

    from ceilings.cuda import device as cuda

    cudart = importlib.import_module("ceilings.runtimes.cuda_runner")
    memory: dict[int, ctypes.Array] = {}

    def allocate(nbytes):
        block = (ctypes.c_byte * nbytes)()
        memory[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    fake = double.Cuda.namespace(
        cudaMalloc=allocate, cudaStreamCreateWithFlags=lambda flags: (0, 4711), cudaStreamNonBlocking=1
    )
    for module in (cuda, cudart):
        monkeypatch.setattr(module, "cudart", fake)
    runtime = importlib.import_module("ceilings.runtimes.onnxruntime_cuda")

    class Binding:
        def __init__(self, session):
            self.session, self.real = session, session.io_binding()

        def bind_input(self, name, device, *others):
            assert device == "cuda"
            self.real.bind_input(name, "cpu", *others)

        def bind_output(self, name, device, *others):
            assert device == "cuda"
            self.real.bind_output(name, "cpu", *others)

    class OnTheCpu(runtime.OnnxRuntimeCuda):
        def _preload(self):
            return ""

        def _open(self):
            with self.phase("load"):
                real = onnxruntime.InferenceSession(
                    str(self.artifact), self._options(), providers=["CPUExecutionProvider"]
                )
            self.fed = []

            def run(names, feed):
                self.fed.append({name: value.shape for name, value in feed.items()})
                return real.run(names, feed)

            self.session = types.SimpleNamespace(
                get_inputs=real.get_inputs,
                get_outputs=real.get_outputs,
                run=run,
                io_binding=lambda: Binding(real),
                run_with_iobinding=lambda binding, _options=None: real.run_with_iobinding(binding.real),
            )

    class NotBound(OnTheCpu, runtime.OnnxRuntimeCudaNoBinding):
        pass

    return lambda path, workload, shape, **options: (OnTheCpu if options.pop("io_binding", True) else NotBound)(
        path, "fp32", workload, Shape.parse(str(shape)), 1, options
    )


@pytest.mark.parametrize("io_binding", [True, False], ids=["bound", "not bound"])
def test_every_input_and_output_is_bound_and_read(case, bound, io_binding):
    workload, shape, model, path = case
    runner = bound(path, workload, shape, io_binding=io_binding)
    runner.load()
    pool = [tiny.element(workload, shape.batch, 16, seed) for seed in (1, 2)]
    slots = [runner.place(element) for element in pool]
    for index in (0, 1, 0):
        close(runner.outputs(runner.run(slots[index])), tiny.expected(workload, model, pool[index]))
    read = {tensor.name: tensor.nbytes(shape) for tensor in workload.inputs} if io_binding else {}
    assert {name: nbytes for name, (_, nbytes) in runner.input_buffers.items()} == read
    assert runner.output_bytes == tuple(output.nbytes(shape) for output in workload.outputs)


def test_other_shapes_run_first_along_symbolic_axes_only(case, bound):
    workload, shape, _, path = case
    runner = bound(path, workload, shape, dynamic=True)
    runner.load()
    fed = [next(iter(shapes.values())) for shapes in runner.fed]
    assert fed == ([(1, 16), (2, 8)] if workload is ANSWERER else [(1, 3, 16, 16)])


def test_outputs_keep_the_types_that_the_graph_gives_them(tmp_path, bound):
    """Halves, bfloat16 and whole numbers are bound as they are, and read as float32."""
    kinds = {"half": TensorProto.FLOAT16, "brain": TensorProto.BFLOAT16, "whole": TensorProto.INT64}
    nodes = [helper.make_node("Cast", ["x"], [name], to=kind) for name, kind in kinds.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in kinds.items()],
    )
    path = tmp_path / "casts.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    outputs = tuple(TensorSpec(name, "float32", ("batch", 3)) for name in reversed(kinds))
    workload = Workload(TASKS["tensors"], (TensorSpec("x", "float32", ("batch", 3), "reals"),), outputs)
    runner = bound(path, workload, "b2")
    runner.load()
    values = np.array([[1.5, -2.25, 3], [4, 5, 6]], np.float32)
    found = runner.outputs(runner.run(runner.place({"x": values})))
    assert (runner.output_types, runner.output_bytes) == (("int64", "bfloat16", "float16"), (48, 12, 12))
    assert found["half"].tolist() == found["brain"].tolist() == values.tolist()
    assert found["whole"].tolist() == np.trunc(values).tolist()


def test_an_output_whose_size_follows_from_no_input_is_refused(case, bound):
    workload, shape, _, path = case
    first, *others = workload.outputs
    odd = Workload(workload.task, workload.inputs, (TensorSpec(first.name, "float32", ("batch", "words")), *others))
    with pytest.raises(CellFailure, match=f"size of {first.name} along words follows from no input"):
        bound(path, odd, shape).load()
