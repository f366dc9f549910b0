"""Requests over gRPC, serialised once and sent as bytes through a generic stub: a client's share stays small.

One connection carries all requests in flight, as gRPC has it.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping
from typing import Any

import numpy as np

from ceilings import foreign
from ceilings.serving.kserve import TransportError, datatype, named, numbered, pack, unpack
from ceilings.serving.shared_memory import Place, Region
from ceilings.serving.transports import Done, Transport, clock

SERVICE = "/inference.GRPCInferenceService/"

SPIN_NS = 100_000
"""So long before a set time the thread is awake (:mod:`ceilings.serving.alarm`)."""

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Fields of values that came one by one; FP16 and BF16 have none."""


def _messages() -> Any:
    """The protocol's messages; they come with a server's packages."""
    try:
        from tritonclient.grpc import service_pb2
    except ImportError as error:
        raise TransportError(f"no gRPC here ({error}); make .venv/serving") from None
    return service_pb2


class GrpcTransport(Transport):
    """Requests to one server over gRPC."""

    kind = "grpc"

    def prepare(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        placed: Mapping[str, Place] | None = None,
        outputs: Mapping[str, Place | None] | None = None,
    ) -> bytes:
        """The bytes of one request."""
        name, version = named(model)
        request = _messages().ModelInferRequest(model_name=name, model_version=version)
        for tensor, array in inputs.items():
            described = request.inputs.add(name=tensor, datatype=datatype(array), shape=list(array.shape))
            place = (placed or {}).get(tensor)
            if place is None:
                request.raw_input_contents.append(pack(array))
            else:
                _place(described.parameters, place)
        for tensor, place in (outputs or {}).items():
            asked = request.outputs.add(name=tensor)
            if place is not None:
                _place(asked.parameters, place)
        serialised: bytes = request.SerializeToString()
        return serialised

    def decode(
        self,
        answer: bytes | bytearray,
        regions: Mapping[str, Region] | None = None,
        outputs: Mapping[str, Place | None] | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs in an answer, by name."""
        try:
            response = _messages().ModelInferResponse.FromString(bytes(answer))
        except Exception as error:  # protobuf's class for this differs between its versions
            if isinstance(error, TransportError):
                raise
            raise TransportError(f"the answer is no message of the protocol ({type(error).__name__})") from None
        arrays = {}
        raw = iter(response.raw_output_contents)
        for output in response.outputs:
            shape = list(output.shape)
            field = _CONTENTS.get(output.datatype)
            place = _placed(output) or (outputs or {}).get(output.name)
            # Triton does not repeat where it was to put an output, and has no bytes for it.
            values = None if _placed(output) or not response.raw_output_contents else _next(raw, output.name)
            if place and not values:
                arrays[output.name] = _from_region(output, shape, place, (regions or {}).get(place.region))
            elif values is not None:
                arrays[output.name] = unpack(output.name, values, output.datatype, shape)
            elif field:
                arrays[output.name] = numbered(output.datatype, list(getattr(output.contents, field)), shape)
            else:
                raise TransportError(f"the answer holds no values of {output.name!r}")
        if next(raw, None) is not None:
            raise TransportError("bytes of the answer belong to no output")
        return arrays

    def driver(self) -> GrpcDriver:
        """A new one, with a connection of its own."""
        return GrpcDriver(self.address, self.timeout, self.largest)

    def register(self, region: Region) -> None:
        """Let the server use shared memory."""
        of = {"name": region.name, "byte_size": region.nbytes}
        if region.kind == "cuda":
            of |= {"raw_handle": region.handle, "device_id": region.device}
        else:
            of |= {"key": region.key, "offset": 0}
        self._ask(f"{region.kind.capitalize()}SharedMemoryRegister", of)

    def unregister(self, region: Region) -> None:
        """Have the server forget shared memory."""
        self._ask(f"{region.kind.capitalize()}SharedMemoryUnregister", {"name": region.name})

    def _ask(self, method: str, fields: Mapping[str, Any]) -> None:
        driver = GrpcDriver(self.address, self.timeout, self.largest, method)
        try:
            driver.submit(getattr(_messages(), f"{method}Request")(**fields).SerializeToString(), 0)
            while not (done := driver.poll(clock() + 10**9)):
                pass
        finally:
            driver.close()
        if done[0].error is not None:
            raise TransportError(done[0].error)


def _place(parameters: Any, place: Place) -> None:
    parameters["shared_memory_region"].string_param = place.region
    parameters["shared_memory_offset"].int64_param = place.offset
    parameters["shared_memory_byte_size"].int64_param = place.nbytes


def _placed(output: Any) -> Place | None:
    """Where the answer says that an output lies."""
    if not (region := output.parameters["shared_memory_region"].string_param):
        return None
    offset, size = (output.parameters[f"shared_memory_{what}"].int64_param for what in ("offset", "byte_size"))
    return Place(region, offset, size)


def _from_region(output: Any, shape: list[int], place: Place, region: Region | None) -> np.ndarray:
    if region is None:
        raise TransportError(f"the output {output.name!r} lies in shared memory that is not at hand")
    return unpack(output.name, region.read(place.offset, place.nbytes), output.datatype, shape)


def _next(raw: Any, name: str) -> bytes:
    value: bytes | None = next(raw, None)
    if value is None:
        raise TransportError(f"the answer holds no values of {name!r}")
    return value


class GrpcDriver:
    """Requests in flight to one server, on one connection."""

    opened = 1

    def __init__(self, address: str, timeout: float, largest: int, method: str = "ModelInfer") -> None:
        try:
            import grpc
        except ImportError as error:
            raise TransportError(f"no gRPC here ({error}); make .venv/serving") from None
        self._ok = grpc.StatusCode.OK
        options = {
            "grpc.max_send_message_length": -1,
            "grpc.max_receive_message_length": min(largest, 2**31 - 1),
            "grpc.use_local_subchannel_pool": 1,
            "grpc.enable_retries": 0,
            "grpc.enable_http_proxy": 0,
        }
        self._timeout = timeout
        self._channel = grpc.insecure_channel(address, list(options.items()))
        self._call = self._channel.unary_unary(f"{SERVICE}{method}")
        self._over: queue.SimpleQueue[tuple[int, int, Any]] = queue.SimpleQueue()

    def submit(self, prepared: bytes, tag: int) -> None:
        """Send a request now."""
        # The answer's time is taken in gRPC's own thread, as it comes.
        future = self._call.future(prepared, timeout=self._timeout)
        future.add_done_callback(lambda done: self._over.put((tag, clock(), done)))

    def poll(self, until_ns: int) -> list[Done]:
        """Requests that are over, or none when the clock has reached a time."""
        over: list[tuple[int, int, Any]] = []
        while not over:
            left = until_ns - clock()
            try:
                if left > SPIN_NS:
                    over.append(self._over.get(timeout=(left - SPIN_NS) / 1e9))
                else:
                    over.append(self._over.get_nowait())
            except queue.Empty:
                if left <= 0:
                    break
        while not self._over.empty():
            over.append(self._over.get_nowait())
        return [self._done(*one) for one in over]

    def close(self) -> None:
        """Close its connection."""
        self._channel.close()

    def _done(self, tag: int, ended_ns: int, call: Any) -> Done:
        if call.code() is self._ok:
            return Done(tag, ended_ns, None, call.result())
        return Done(tag, ended_ns, f"gRPC {call.code().name}: {foreign.one_line(call.details() or '', 300)}", b"")
