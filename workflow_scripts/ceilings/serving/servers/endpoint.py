"""A server that is there already and speaks version 2 of KServe's protocol: measured, never started or stopped."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from ceilings import foreign
from ceilings.errors import CellFailure, UserError
from ceilings.serving import server_python
from ceilings.serving.http_answers import refusal
from ceilings.serving.servers import metrics
from ceilings.serving.servers.metrics import Counters, MetricsError
from ceilings.serving.servers.server import Server, Unavailable, get

READY_SECONDS = 10.0
"""So long an endpoint may take to say that it is ready."""

BINARY = "binary_tensor_data"
"""The extension of the protocol by which tensors come as bytes after the header of a request."""

SERVICE = "/inference.GRPCInferenceService/"


class Endpoint(Server):
    """Somebody's server.

    Args:
        url: ``http://HOST:PORT`` or ``grpc://HOST:PORT``.
        models: What it is asked for, ``NAME`` or ``NAME/VERSION``.
        metrics_url: ``http://HOST:PORT/PATH`` of its metrics, if known. Without, what the statistics extension counts.
    """

    kind = "endpoint"

    def __init__(self, url: str, models: Iterable[str], metrics_url: str | None = None) -> None:
        scheme, address = parsed(url)
        self.addresses = {scheme: address}
        self.models = tuple(models)
        self._metrics = metrics_url
        self._composing: dict[str, frozenset[str]] = {}
        self._ask: _Http | _Grpc = _Http(address) if scheme == "http" else _Grpc(address)

    def start(self) -> dict[str, int]:
        began = time.perf_counter_ns()
        self._wait(self._ask.ready, "the server")
        for model in self.models:
            name = _named(model)
            self._wait(functools.partial(self._ask.model_ready, *name), f"its model {model}", self._about(*name))
        if self._metrics is not None and not metrics.counts_inferences(text := self._scraped()):
            first = text.strip().partition("\n")[0]
            raise MetricsError(
                f"{self._metrics} counts no requests by a name that is known here "
                f"({', '.join(f'{prefix}*' for prefix in metrics.FAMILIES)}); it begins with "
                f"{foreign.one_line(first, 80)!r}; correct metrics, or remove it"
            )
        return {"ready": time.perf_counter_ns() - began}

    def _about(self, name: str, version: str | None) -> Callable[[], object]:
        """Asks what a model is: of one that is not there a server says so here, and elsewhere only "not ready"."""
        return functools.partial(self._ask.model_about, name, version)

    def _wait(self, ready: Callable[[], bool], what: str, about: Callable[[], object] | None = None) -> None:
        """Wait until something is ready.

        Args:
            ready: Whether it is.
            what: Its name in the message.
            about: Raises an OSError that says why not, if it knows.

        Raises:
            CellFailure: It is not, in time.
        """
        deadline, reason = time.monotonic() + READY_SECONDS, "it says that it is not ready"
        while True:
            try:
                if ready():
                    return
            except OSError as error:
                reason = _words(error)
            if time.monotonic() > deadline:
                try:
                    if about:
                        about()
                except OSError as error:
                    reason = _words(error)
                (address,) = self.addresses.values()
                raise CellFailure("runtime-error", f"{what} at {address} is not ready: {reason}")
            time.sleep(0.1)

    def hint(self) -> str:
        """Whether its HTTP may be without binary tensors, which MLServer's is."""
        if "http" not in self.addresses:
            return ""
        with contextlib.suppress(OSError, ValueError):
            if BINARY not in (self._ask.about().get("extensions") or ()):
                return f"it does not name the extension {BINARY}, which requests over HTTP use: try its gRPC"
        return ""

    def stop(self) -> None:
        """Leave it as it is."""
        self._ask.close()

    def counters(self, model: str) -> Counters:
        if self._metrics is not None:
            return metrics.counters(self._scraped(), *_named(model))
        entry = self._statistics(model)
        return Counters() if entry is None else metrics.statistics_counters(entry)

    def _scraped(self) -> str:
        """The text of its metrics.

        Raises:
            MetricsError: There is none at that address.
        """
        address, path = metrics_place(str(self._metrics))
        try:
            status, text = get(address, path)
        except OSError as error:
            raise MetricsError(f"no metrics at {self._metrics}: {_words(error)}; correct metrics") from None
        if status != HTTPStatus.OK:
            raise MetricsError(f"{self._metrics} answers with {refusal(status, text[:80].encode())}; correct metrics")
        return text

    def asked(self, beside: str) -> Mapping[str, int] | None:
        by_model: Mapping[str, int] | None = None
        if self._metrics is not None:
            by_model = metrics.requests_by_model(self._scraped())
        else:
            with contextlib.suppress(OSError, ValueError):
                by_model = metrics.statistics_requests(self._ask.statistics("", None))
        if by_model is None:
            return None
        name, version = _named(beside)
        parts = self._parts(beside)
        return {
            other: count
            for other, count in by_model.items()
            if other.partition("/")[0] not in parts
            and (other != f"{name}/{version}" if version else other.partition("/")[0] != name)
        }

    def _parts(self, model: str) -> frozenset[str]:
        """The models that an ensemble executes, and those of ensembles among them; none of other models.

        Where the server does not say it, none, and it is asked again the next time.
        """
        if model not in self._composing:
            found: set[str] = set()
            try:
                self._collect(model, found)
            except (OSError, ValueError):
                return frozenset()
            self._composing[model] = frozenset(found)
        return self._composing[model]

    def _collect(self, model: str, found: set[str]) -> None:
        for step in (self._ask.config(*_named(model)).get("ensemble_scheduling") or {}).get("step") or ():
            if (name := str(step.get("model_name") or "")) and name not in found:
                found.add(name)
                self._collect(name, found)

    def batch_sizes(self, model: str) -> dict[int, int] | None:
        entry = self._statistics(model)
        return None if entry is None else metrics.statistics_sizes(entry)

    def _statistics(self, model: str) -> Mapping[str, Any] | None:
        name, version = _named(model)
        try:
            return metrics.statistics_entry(self._ask.statistics(name, version), name, version)
        except (OSError, ValueError, MetricsError):
            return None

    def facts(self) -> dict[str, Any]:
        about: Mapping[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            about = self._ask.about()
        counted = all(self._statistics(model) is not None for model in self.models)
        return {
            "kind": self.kind,
            "version": " ".join(str(about[key]) for key in ("name", "version") if about.get(key)) or None,
            "backend": None,
            "extensions": list(about.get("extensions", [])),
            "options": [],
            "executor": {},
            "metrics": self._metrics,
            "notes": [] if counted or self._metrics else ["the server counts nothing that can be read here"],
        }


def parsed(url: str) -> tuple[str, str]:
    """Transport and ``host:port`` of an endpoint's URL.

    >>> parsed("grpc://localhost:8001"), parsed("http://[::1]:8000/")
    (('grpc', 'localhost:8001'), ('http', '[::1]:8000'))

    Raises:
        UserError: It is none.
    """
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "grpc") and parts.hostname and parts.port
    except ValueError:
        named = None
    if not named or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise UserError(f"{url!r} is no endpoint; write http://HOST:PORT or grpc://HOST:PORT")
    return parts.scheme, parts.netloc


def metrics_place(url: str) -> tuple[str, str]:
    """``host:port`` and path of an endpoint's metrics.

    >>> metrics_place("http://localhost:8002"), metrics_place("http://[::1]:80/v1/metrics")
    (('localhost:8002', '/metrics'), ('[::1]:80', '/v1/metrics'))
    """
    parts = urlsplit(url)
    return parts.netloc, parts.path.rstrip("/") or "/metrics"


def _words(error: OSError) -> str:
    return foreign.one_line(error.strerror or str(error), 200)


def _named(model: str) -> tuple[str, str | None]:
    name, _, version = model.partition("/")
    return name, version or None


class _Http:
    def __init__(self, address: str) -> None:
        self._address = address

    def ready(self) -> bool:
        return self._is_ready("/v2/health/ready")

    def model_ready(self, name: str, version: str | None) -> bool:
        return self._is_ready(f"{_path(name, version)}/ready")

    def model_about(self, name: str, version: str | None) -> object:
        return self._is_ready(_path(name, version))

    def _is_ready(self, path: str) -> bool:
        """True, or ConnectionError with the server's words."""
        status, words = get(self._address, path)
        if status != HTTPStatus.OK:
            raise ConnectionError(refusal(status, words.encode()))
        return True

    def statistics(self, name: str, version: str | None) -> Mapping[str, Any]:
        """Of a model; of all of them where the name is empty."""
        return self._described(f"{_path(name, version)}/stats" if name else "/v2/models/stats")

    def config(self, name: str, version: str | None) -> Mapping[str, Any]:
        return self._described(f"{_path(name, version)}/config")

    def _described(self, path: str) -> Mapping[str, Any]:
        status, text = get(self._address, path)
        if status != HTTPStatus.OK:
            raise ValueError(f"status {status}")
        return _object(text)

    def about(self) -> Mapping[str, Any]:
        return _object(get(self._address, "/v2")[1])

    def close(self) -> None:
        pass


def _object(text: str) -> Mapping[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _path(name: str, version: str | None) -> str:
    return f"/v2/models/{name}" + (f"/versions/{version}" if version else "")


class _Grpc:
    """The same questions over gRPC; its messages come with the servers' packages."""

    def __init__(self, address: str) -> None:
        server_python.extend_path()
        try:
            import grpc
            from google.protobuf import json_format
            from tritonclient.grpc import service_pb2
        except ImportError as error:
            raise Unavailable(f"no gRPC here ({error}); {server_python.REMEDY}") from None
        self._messages, self._json, self._error = service_pb2, json_format, grpc.RpcError
        self._channel = grpc.insecure_channel(address)

    def ready(self) -> bool:
        return bool(self._call("ServerReady").ready)

    def model_ready(self, name: str, version: str | None) -> bool:
        return bool(self._call("ModelReady", name=name, version=version or "").ready)

    def model_about(self, name: str, version: str | None) -> object:
        return self._call("ModelMetadata", name=name, version=version or "")

    def statistics(self, name: str, version: str | None) -> Mapping[str, Any]:
        """Of a model; of all of them where the name is empty."""
        return self._described(self._call("ModelStatistics", name=name, version=version or ""))

    def config(self, name: str, version: str | None) -> Mapping[str, Any]:
        return self._described(self._call("ModelConfig", name=name, version=version or "").config)

    def _described(self, message: Any) -> Mapping[str, Any]:
        entries: Mapping[str, Any] = self._json.MessageToDict(message, preserving_proto_field_name=True)
        return entries

    def about(self) -> Mapping[str, Any]:
        answer = self._call("ServerMetadata")
        return {"name": answer.name, "version": answer.version, "extensions": list(answer.extensions)}

    def _call(self, method: str, **fields: str) -> Any:
        request = getattr(self._messages, f"{method}Request")(**fields)
        response = getattr(self._messages, f"{method}Response")
        call = self._channel.unary_unary(f"{SERVICE}{method}", type(request).SerializeToString, response.FromString)
        try:
            return call(request, timeout=5)
        except self._error as error:
            words = error.details() or str(error.code())
            raise ConnectionError(words.rpartition("Failed to connect to remote host: ")[2]) from None

    def close(self) -> None:
        self._channel.close()
