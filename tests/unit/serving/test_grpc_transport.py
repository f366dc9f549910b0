"""Requests over gRPC, against a server of gRPC's own library; both live in processes that see its packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit.serving import pools

from ceilings.environment import SCRIPTS, known
from ceilings.models import pool
from ceilings.serving.kserve import TransportError
from ceilings.serving.load_client import LoadClient

PACKAGES = Path(os.environ.get("CEILINGS_SERVING") or SCRIPTS.parent / ".venv/serving")
needs_grpc = pytest.mark.skipif(not (PACKAGES / "grpc").is_dir(), reason="no gRPC here; make .venv/serving")

SERVER = '''
import sys, threading, time
from concurrent import futures
import grpc
from tritonclient.grpc import service_pb2

regions = {}


def infer(raw, context):
    """By the model's name: doubles, or fails in its way."""
    request = service_pb2.ModelInferRequest.FromString(raw)
    name = request.model_name
    if name == "absent":
        context.abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'absent' is not found")
    if name == "hangs":
        time.sleep(5)
    if name == "raises":
        raise RuntimeError("a bug of the server")
    if name == "dies":
        import os
        os._exit(0)
    if name == "nonsense":
        return b"\\xff\\xff\\xff"
    response = service_pb2.ModelInferResponse(model_name=name, model_version=request.model_version)
    if name == "large":
        response.outputs.add(name="y", datatype="UINT8", shape=[30_000_000])
        response.raw_output_contents.append(bytes(30_000_000))
        return response.SerializeToString()
    for index, tensor in enumerate(request.inputs):
        output = response.outputs.add(name=tensor.name.upper(), datatype=tensor.datatype, shape=tensor.shape)
        if "shared_memory_region" in tensor.parameters:
            memory = regions[tensor.parameters["shared_memory_region"].string_param]
            place = request.outputs[index].parameters
            with open(memory, "r+b") as file:
                file.seek(tensor.parameters["shared_memory_offset"].int64_param)
                values = file.read(tensor.parameters["shared_memory_byte_size"].int64_param)
                file.seek(place["shared_memory_offset"].int64_param)
                file.write(values)
            if name == "silent":  # as Triton is
                response.raw_output_contents.append(b"")
            else:
                for key in place:
                    output.parameters[key].CopyFrom(place[key])
        elif name == "one-by-one":
            import numpy
            values = numpy.frombuffer(request.raw_input_contents[index], numpy.float32)
            output.contents.fp32_contents.extend(values.tolist())
        else:
            response.raw_output_contents.append(request.raw_input_contents[index])
    return response.SerializeToString()


def register(raw, context):
    request = service_pb2.SystemSharedMemoryRegisterRequest.FromString(raw)
    regions[request.name] = "/dev/shm" + request.key
    return b""


def unregister(raw, context):
    del regions[service_pb2.SystemSharedMemoryUnregisterRequest.FromString(raw).name]
    return b""


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        does = {"ModelInfer": infer, "SystemSharedMemoryRegister": register, "SystemSharedMemoryUnregister": unregister}
        return grpc.unary_unary_rpc_method_handler(does[details.method.rpartition("/")[2]])


sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Handler()], options=sizes)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
'''

KINDS = ("float16", "float32", "int64", "bool", "uint8")
POOL = {kind[:2] + str(index): np.arange(6).reshape(2, 1, 3).astype(kind) for index, kind in enumerate(KINDS)}


@pytest.fixture
def address():
    variables = known()
    variables["PYTHONPATH"] += f":{PACKAGES}"
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables) as server:
        yield f"127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


@needs_grpc
def test_windows_and_answers_over_grpc(address, tmp_path):
    inputs = pools.write(tmp_path / "pool.npz", POOL)
    one = pools.write(tmp_path / "one.npz", {"x": np.ones((1, 1, 2), np.float32)})
    with LoadClient("grpc", address, packages=[PACKAGES], timeout=2) as client:
        client.prepare("all", "m/3", inputs)
        room = {name.upper(): arrays[0].nbytes for name, arrays in POOL.items()}
        client.prepare("shared", "m", inputs, shared="system", outputs=room)
        client.prepare("silent", "silent", inputs, shared="system", outputs=room)
        for cell in ("all", "shared", "silent"):
            client.ask(cell, tmp_path / "asked.npz")
            closed = client.closed(cell, 4, 0.3, tmp_path / "closed.npz")
            opened = client.open(cell, 100, 0.3, seed=1, connections=1)
            assert closed["failed"] == opened["failed"] == {} and closed["connections"] == 4
            assert closed["sent"] == closed["answered"] > 10
            for name in ("asked", "closed"):
                outputs = pool.load(tmp_path / f"{name}.npz")
                for index in range(2):
                    for tensor, arrays in POOL.items():
                        output = outputs[f"{index}/{tensor.upper()}"]
                        assert output.dtype == arrays.dtype and output.tolist() == arrays[index].tolist()
        client.prepare("one", "one-by-one", one)
        client.ask("one", tmp_path / "asked.npz")
        assert pool.load(tmp_path / "asked.npz")["0/X"].tolist() == [[1, 1]]
        client.prepare("large", "large", one)
        client.ask("large", tmp_path / "asked.npz")
        assert pool.load(tmp_path / "asked.npz")["0/y"].size == 30_000_000
    assert not list(Path("/dev/shm").glob(f"ceilings-{client.pid}-*"))


@needs_grpc
def test_failures_over_grpc_are_counted_by_the_servers_words(address, tmp_path):
    one = pools.write(tmp_path / "one.npz", {"x": np.ones((1, 1, 2), np.float32)})
    words = {
        "absent": "gRPC NOT_FOUND: Request for unknown model: 'absent' is not found",
        "raises": "gRPC UNKNOWN: Exception calling application: a bug of the server",
    }
    with LoadClient("grpc", address, packages=[PACKAGES]) as client:
        for model, expected in words.items():
            client.prepare(model, model, one)
            window = client.open(model, 20, 0.3, seed=2)
            assert sum(window["failed"].values()) == window["sent"] > 0
            assert all(message.startswith(expected) for message in window["failed"]), window["failed"]
        client.prepare("nonsense", "nonsense", one)
        with pytest.raises(TransportError, match="no message of the protocol"):
            client.ask("nonsense", tmp_path / "asked.npz")
        client.prepare("dies", "dies", one)
        window = client.closed("dies", 2, 0.3)
        assert window["sent"] == sum(window["failed"].values()) > 2 and window["answered"] == 0
        assert all(message.startswith("gRPC UNAVAILABLE") for message in window["failed"])


@needs_grpc
def test_a_server_that_hangs_is_given_up_after_the_time_of_a_request(address, tmp_path):
    one = pools.write(tmp_path / "one.npz", {"x": np.ones((1, 1, 2), np.float32)})
    with LoadClient("grpc", address, packages=[PACKAGES], timeout=0.5) as client:
        client.prepare("hangs", "hangs", one)
        window = client.open("hangs", 20, 0.3, seed=2)
    assert sum(window["failed"].values()) == window["sent"] > 0
    # gRPC words it by how far the request had come.
    assert all(message.startswith("gRPC DEADLINE_EXCEEDED: ") for message in window["failed"]), window["failed"]


@needs_grpc
def test_a_cuda_region_is_registered_by_the_protocols_message():
    program = """
import json
from ceilings.serving import grpc_transport
asked = []
class Gpu: kind, name, nbytes, device, handle = "cuda", "r", 10, 1, bytes(64)
grpc = grpc_transport.GrpcTransport("127.0.0.1:1")
messages = grpc_transport._messages()
grpc._ask = lambda method, fields: asked.append((method, getattr(messages, method + "Request")(**fields)))
grpc.register(Gpu); grpc.unregister(Gpu)
print(json.dumps([[method, str(message)] for method, message in asked]))
"""
    variables = known()
    variables["PYTHONPATH"] += f":{PACKAGES}"
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    (first, message), (second, _) = json.loads(done.stdout)
    assert (first, second) == ("CudaSharedMemoryRegister", "CudaSharedMemoryUnregister")
    assert 'name: "r"' in message and "device_id: 1" in message and "byte_size: 10" in message


@pytest.mark.skipif((PACKAGES / "grpc").is_dir(), reason="gRPC is here")
def test_without_grpc_the_remedy_is_said(tmp_path):
    one = pools.write(tmp_path / "one.npz", {"x": np.ones((1, 1, 2), np.float32)})
    with LoadClient("grpc", "127.0.0.1:1") as client, pytest.raises(TransportError, match=r"make \.venv/serving"):
        client.prepare("a", "m", one)
