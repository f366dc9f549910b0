"""Triton's model repository: each configuration is read by Triton's own messages."""

import dataclasses
import json
from pathlib import Path

import pytest
from unit.serving.served_model import task, workload

from ceilings.errors import CellFailure
from ceilings.serving import server_python
from ceilings.serving.batching import Batching
from ceilings.serving.servers.repository import Served, config, write
from ceilings.serving.servers.triton import Triton
from ceilings.workload.tensors import TensorSpec

with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend("")  # so that what follows is undone
    server_python.extend_path()
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="make .venv/serving")


def parsed(text):
    from google.protobuf import text_format

    return text_format.Parse(text, model_config_pb2.ModelConfig())


def of(tmp_path, shape="b1", batching=None, instances=1, rowed=True, **cell):
    made = task(tmp_path / "cell", shape, rowed)
    made["cell"] |= cell
    return Served("tiny", made, batching, instances)


def test_a_model_that_joins_nothing(tmp_path):
    read = parsed(config(of(tmp_path, "b2"), "python", {"task": "/a/b c.json"}))
    assert (read.name, read.backend, read.platform, read.max_batch_size) == ("tiny", "python", "", 2)
    assert not read.HasField("dynamic_batching")
    assert [(one.name, list(one.dims)) for one in read.input] == [("x", [4]), ("shift", [1])]
    types = [model_config_pb2.DataType.Name(one.data_type) for one in read.input]
    assert types == ["TYPE_FP32", "TYPE_INT64"]
    assert [(one.name, list(one.dims)) for one in read.output] == [("y", [3])]
    assert read.parameters["task"].string_value == "/a/b c.json"


def test_dynamic_batching_and_instances(tmp_path):
    read = parsed(config(of(tmp_path, batching=Batching(8, 2.5, (4, 8)), instances=3), "python"))
    assert read.max_batch_size == 8
    assert list(read.dynamic_batching.preferred_batch_size) == [4, 8]
    assert read.dynamic_batching.max_queue_delay_microseconds == 2500
    (group,) = read.instance_group
    assert (group.count, model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind)) == (3, "KIND_CPU")


def test_batching_without_a_delay_or_preferred_sizes(tmp_path):
    read = parsed(config(of(tmp_path, batching=Batching(4)), "python"))
    assert read.HasField("dynamic_batching") and read.dynamic_batching.max_queue_delay_microseconds == 0


def test_a_model_without_a_batch_axis_keeps_all_its_axes(tmp_path):
    read = parsed(config(of(tmp_path, rowed=False), "python"))
    assert read.max_batch_size == 0
    assert [list(one.dims) for one in read.input] == [[1, 4], [1, 1]]


def accelerators(served, **options):
    """The providers of a configuration for ONNX Runtime's backend, in order."""
    read = parsed(config(served, "onnxruntime", **options))
    listed = read.optimization.execution_accelerators.gpu_execution_accelerator
    return read, {one.name: dict(one.parameters) for one in listed}


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("tf32", "1"), ("fp16", "0")])
def test_onnx_runtime_on_a_gpu_computes_in_the_types_of_the_bare_cell(tmp_path, precision, tf32):
    """Its CUDA provider uses TF32 unless it is told not to."""
    served = of(tmp_path, device="nvidia-h100", runtime="onnxruntime-cuda", precision=precision)
    read, providers = accelerators(served, engine_cache=tmp_path / "engines")
    assert (read.platform, read.backend) == ("onnxruntime_onnx", "")
    assert providers == {"cuda": {"use_tf32": tf32}}
    assert read.parameters["intra_op_thread_count"].string_value == "1"
    (group,) = read.instance_group
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == "KIND_GPU"
    assert list(group.gpus) == [0], "else each GPU would have an instance"
    assert not read.output  # Triton reads their types in the graph


def test_engines_of_onnx_runtime_are_kept_for_each_model_apart(tmp_path):
    served = of(tmp_path, device="nvidia-h100", runtime="onnxruntime-tensorrt", precision="fp16")
    _, providers = accelerators(served, engine_cache=tmp_path / "engines")
    kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(tmp_path / "engines/tiny")}
    assert list(providers) == ["tensorrt", "cuda"], "what TensorRT leaves goes to the CUDA provider"
    assert providers["tensorrt"] == kept and (tmp_path / "engines/tiny").is_dir()
    with pytest.raises(CellFailure, match="have no folder here"):
        config(served, "onnxruntime")


def test_onnx_runtime_reads_the_graph_that_an_engine_was_made_of(tmp_path):
    served = of(tmp_path, device="nvidia-h100", runtime="onnxruntime-tensorrt")
    record = tmp_path / "b1.cache.json"
    record.write_text(json.dumps({"plan": {"graph": served.task["artifact"]}}))
    kept = dataclasses.replace(served, task={**served.task, "artifact": str(record)})
    model = write(tmp_path / "run/repository", kept, "onnxruntime", tmp_path / "engines")
    assert (model / "1/model.onnx").resolve() == Path(served.task["artifact"])


@pytest.mark.parametrize(("precisions", "switch"), [(("fp32",), "0"), (("tf32",), None), (("fp16", "int8"), "0")])
def test_tensorrt_within_onnx_runtime_uses_no_tf32_that_the_cell_has_not(tmp_path, precisions, switch):
    gpu = {"device": "nvidia-h100", "runtime": "onnxruntime-tensorrt"}
    models = [of(tmp_path / one, precision=one, **gpu) for one in precisions]
    server = Triton(models, tmp_path, path=tmp_path, backend="onnxruntime", engine_cache=tmp_path / "engines")
    assert server.variables().get("NVIDIA_TF32_OVERRIDE") == switch
    assert "NVIDIA_TF32_OVERRIDE" not in Triton(models, tmp_path).variables()  # the runner sets it itself


def test_one_process_has_one_switch_of_tf32(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tritonserver").touch()
    (tmp_path / "backends/onnxruntime").mkdir(parents=True)
    gpu = {"device": "nvidia-h100", "runtime": "onnxruntime-tensorrt"}
    models = [of(tmp_path / one, precision=one, **gpu) for one in ("fp32", "tf32")]
    server = Triton(models, tmp_path / "run", path=tmp_path, backend="onnxruntime", engine_cache=tmp_path / "engines")
    with pytest.raises(CellFailure, match="serve tf32 by a separate deployment"):
        server.prepare()


def test_onnx_runtime_on_a_cpu_has_no_accelerator(tmp_path):
    read = parsed(config(of(tmp_path), "onnxruntime", engine_cache=tmp_path))
    assert not read.HasField("optimization")


def test_engines_of_tensorrt(tmp_path):
    read = parsed(config(of(tmp_path, device="h100"), "tensorrt"))
    assert read.platform == "tensorrt_plan" and read.max_batch_size == 1


def test_names_are_quoted(tmp_path):
    served = dataclasses.replace(of(tmp_path), name='a "b" \\ é\n')
    assert parsed(config(served, "python")).name == 'a "b" \\ é\n'


def test_an_axis_that_no_input_gives_is_free(tmp_path):
    served = of(tmp_path)
    tokens = TensorSpec("y", "float32", ("batch", "found", 3))
    dataclasses.replace(workload(), outputs=(tokens,)).write(tmp_path / "cell")
    assert [list(one.dims) for one in parsed(config(served, "python")).output] == [[-1, 3]]


def test_the_folder_of_the_python_backend(tmp_path):
    served = of(tmp_path, batching=Batching(4, 1))
    model = write(tmp_path / "run/repository", served)
    parameters = parsed((model / "config.pbtxt").read_text()).parameters
    content = json.loads(Path(parameters["task"].string_value).read_text())
    assert content["task"] == served.task
    assert Batching.from_json(content["batching"]) == served.batching
    assert "TritonPythonModel" in (model / "1/model.py").read_text()


def test_the_folder_of_onnx_runtimes_backend_names_graph_and_weights(tmp_path):
    served = of(tmp_path)
    artifact = tmp_path / "cell/tiny.onnx"
    (tmp_path / "cell/tiny.onnx.data").write_bytes(b"weights")
    model = write(tmp_path / "run/repository", served, "onnxruntime")
    assert (model / "1/model.onnx").resolve() == artifact
    assert (model / "1/tiny.onnx.data").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("backend", "change", "words"),
    [
        ("onnxruntime", {"artifact": "weights"}, "reads ONNX graphs, not weights"),
        ("onnxruntime", {"batching": Batching(4, pad=True)}, "does not pad"),
        ("tensorrt", {"batching": Batching(4, pad=True)}, "does not pad"),
    ],
)
def test_what_a_backend_cannot_serve_is_refused(tmp_path, backend, change, words):
    served = of(tmp_path, batching=change.get("batching"), device="h100", precision=change.get("precision", "fp32"))
    if artifact := change.get("artifact"):
        served = dataclasses.replace(served, task={**served.task, "artifact": artifact})
    with pytest.raises(CellFailure, match=words):
        write(tmp_path / "run/repository", served, backend, tmp_path / "engines")
