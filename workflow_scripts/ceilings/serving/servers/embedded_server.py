"""What runs in the process of the embedded server: MLServer, with the executor of the pipeline as its model.

MLServer 1.7 turns every number of a request into an object of Python, also where they come as bytes, and joins requests
only after that; it counts no time in its queue. So tensors that come as bytes (the binary extension over HTTP, raw
contents over gRPC) are read here, and :mod:`ceilings.serving.servers.batcher` joins requests. Requests in JSON go
MLServer's way to the same model.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlserver.grpc.server
import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.grpc import dataplane_pb2
from mlserver.grpc.servicers import InferenceServicer
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from ceilings.files import read_json, write_task
from ceilings.serving.batching import Batching
from ceilings.serving.executor import Executor
from ceilings.serving.kserve import NUMBERS
from ceilings.serving.servers.batcher import Batcher, Tally
from ceilings.serving.servers.metrics import SIZES
from ceilings.serving.servers.server import report

HEADER = "inference-header-content-length"

NUMPY = {theirs: ours for ours, theirs in NUMBERS.items() if ours != "bfloat16"}
"""NumPy's names of the protocol's types that it has."""

MODELS: dict[str, CellModel] = {}
"""Models that are loaded, by name."""


LOADING = asyncio.Lock()
"""Of the model that is loading: MLServer loads all at once."""


class CellModel(MLModel):
    """A model of MLServer that executes a cell's runner."""

    async def load(self) -> bool:
        """Make every instance ready and run every batch."""
        content = read_json(self.settings.parameters.extra["task"])
        batching = Batching.from_json(content["batching"]) if content["batching"] else None
        try:
            self.batcher = Batcher(lambda: Executor(content["task"], batching), content["instances"], batching)
            async with LOADING:  # libraries that import their parts late fail when two threads do so at once
                await self.batcher.load()
        except Exception as error:
            report(error)
            raise
        for index, executor in enumerate(self.batcher.executors):
            write_task(Path(f"{content['facts']}.{index}.json"), executor.facts())
        MODELS[self.name] = self
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The answer to a request in JSON, which MLServer has decoded."""
        arrived = time.perf_counter_ns()
        with self.batcher.counting():
            inputs = {one.name: np.asarray(NumpyCodec.decode_input(one)) for one in payload.inputs}
            outputs = await self.batcher.answer(inputs, arrived)
        answer = InferenceResponse(
            model_name=self.name,
            model_version="1",
            outputs=[NumpyCodec.encode_output(name, values) for name, values in outputs.items()],
        )
        self.batcher.answered(arrived)
        return answer


class Refused(Exception):
    """A request that is not the protocol's, or asks for what is not here."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def model_of(name: str, version: str) -> CellModel:
    """The model that a request names.

    Raises:
        Refused: There is none.
    """
    if (model := MODELS.get(name)) is None or version not in ("", "1"):
        raise Refused(f"no model {name!r}{f' of version {version!r}' if version else ''} is here", 404)
    return model


def array(name: str, kind: str, shape: Sequence[int], raw: memoryview) -> np.ndarray:
    """A tensor from its bytes, where they lie.

    Raises:
        Refused: They are not those of such a tensor.
    """
    if kind not in NUMPY:
        raise Refused(f"the input {name!r} has the type {kind!r}; here are {', '.join(NUMPY)}")
    try:
        return np.frombuffer(raw, NUMPY[kind]).reshape(shape)
    except ValueError as error:
        raise Refused(f"the input {name!r} has {len(raw)} bytes, not those of {kind} {list(shape)}: {error}") from None


class BinaryRoute(Route):
    """Takes the requests whose tensors come as bytes; MLServer's own route takes the others."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """Whether this route takes a request."""
        if scope["type"] == "http" and any(key == HEADER.encode() for key, _ in scope["headers"]):
            return super().matches(scope)
        return Match.NONE, {}


async def infer(request: Request) -> Response:
    """The answer to a request with binary tensors."""
    body = await request.body()
    arrived = time.perf_counter_ns()
    try:
        model = model_of(request.path_params["model_name"], request.path_params.get("model_version", ""))
        with model.batcher.counting():
            inputs, header = from_bytes(body, request.headers[HEADER])
            outputs = await model.batcher.answer(inputs, arrived)
            answer = to_response(model.name, outputs, header)
    except Refused as error:
        return JSONResponse({"error": str(error)}, error.status)
    except Exception as error:
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)
    model.batcher.answered(arrived)
    return answer


def from_bytes(body: bytes, length: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Inputs and header of a request with binary tensors.

    Raises:
        Refused: It is none.
    """
    try:
        at = int(length)
        header = json.loads(body[:at])
        described = [
            (one["name"], one["datatype"], one["shape"], int(one["parameters"]["binary_data_size"]))
            for one in header["inputs"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"the request's header does not describe binary inputs ({error!r})") from None
    inputs, view = {}, memoryview(body)
    for name, kind, shape, size in described:
        inputs[name] = array(name, kind, shape, view[at : at + size])
        at += size
    if at != len(body):
        raise Refused(f"the request has {len(body)} bytes; its inputs end at {at}")
    return inputs, header


def to_response(model: str, outputs: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> Response:
    """The answer: as bytes those outputs for which a request asks so, the others in JSON."""
    every = bool((header.get("parameters") or {}).get("binary_data_output"))
    asked = {one["name"]: one.get("parameters") or {} for one in header.get("outputs") or ()}
    described, blobs = [], []
    for name, values in outputs.items():
        if asked and name not in asked:
            continue
        entry: dict[str, Any] = {"name": name, "datatype": NUMBERS[values.dtype.name], "shape": list(values.shape)}
        if asked.get(name, {}).get("binary_data", every):
            blobs.append(np.ascontiguousarray(values).tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = values.ravel().tolist()
        described.append(entry)
    text = json.dumps({"model_name": model, "model_version": "1", "outputs": described}).encode()
    return Response(b"".join((text, *blobs)), headers={HEADER: str(len(text))}, media_type="application/octet-stream")


def from_contents(request: Any) -> dict[str, np.ndarray]:
    """Inputs of a request with raw contents.

    Raises:
        Refused: They do not fit what it says of them.
    """
    if len(request.inputs) != len(request.raw_input_contents):
        raise Refused(f"{len(request.inputs)} inputs came with {len(request.raw_input_contents)} contents")
    return {
        one.name: array(one.name, one.datatype, one.shape, memoryview(raw))
        for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


class RawServicer(InferenceServicer):
    """Takes the requests whose tensors come as raw contents; MLServer takes the others."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """The answer to a request."""
        if not request.raw_input_contents:
            return await super().ModelInfer(request, context)
        from grpc import StatusCode

        arrived = time.perf_counter_ns()
        try:
            model = model_of(request.model_name, request.model_version)
            with model.batcher.counting():
                outputs = await model.batcher.answer(from_contents(request), arrived)
        except Refused as error:
            code = StatusCode.NOT_FOUND if error.status == 404 else StatusCode.INVALID_ARGUMENT
            await context.abort(code, str(error))
        except Exception as error:
            await context.abort(StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        answer = dataplane_pb2.ModelInferResponse(model_name=model.name, model_version="1", id=request.id)
        asked = {one.name for one in request.outputs}
        for name, values in outputs.items():
            if not asked or name in asked:
                answer.outputs.add(name=name, datatype=NUMBERS[values.dtype.name], shape=values.shape)
                answer.raw_output_contents.append(np.ascontiguousarray(values).tobytes())
        model.batcher.answered(arrived)
        return answer


class Counts(Collector):
    """What the models have counted, read when somebody asks: nothing of it is on a request's way."""

    def collect(self) -> Iterator[Metric]:
        """A counter of each sum, and the batches by size."""
        for field in dataclasses.fields(Tally):
            if field.name == "sizes":
                continue
            family = CounterMetricFamily(f"ceilings_{field.name}", field.name, labels=["model", "version"])
            for name, model in MODELS.items():
                family.add_metric([name, "1"], getattr(model.batcher.tally, field.name))
            yield family
        sizes = CounterMetricFamily(SIZES, "executions by rows", labels=["model", "version", "size"])
        for name, model in MODELS.items():
            for size, count in sorted(model.batcher.tally.sizes.items()):
                sizes.add_metric([name, "1", str(size)], count)
        yield sizes


async def serve(config: Mapping[str, Any]) -> None:
    """Serve models until a signal comes."""
    mlserver.grpc.server.InferenceServicer = RawServicer
    REGISTRY.register(Counts())
    settings = Settings(
        debug=False,
        parallel_workers=0,
        host="127.0.0.1",
        http_port=config["ports"]["http"],
        grpc_port=config["ports"]["grpc"],
        metrics_port=config["ports"]["metrics"],
        grpc_max_message_length=-1,
        gzip_enabled=False,
        load_models_at_startup=False,
    )
    models = [
        ModelSettings(
            name=name,
            implementation=f"{CellModel.__module__}.{CellModel.__name__}",
            parameters={"version": "1", "extra": {"task": task}},
        )
        for name, task in config["models"].items()
    ]
    server = MLServer(settings)
    for path in ("/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{model_version}/infer"):
        server._rest_server._app.router.routes.insert(0, BinaryRoute(path, infer, methods=["POST"]))
    await server.start(models)


def main() -> None:
    """Read what to serve, and serve it."""
    install_uvloop_event_loop()
    asyncio.run(serve(read_json(sys.argv[1])))
