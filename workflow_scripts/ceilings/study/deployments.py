"""The deployments of a study: what of them cannot be, where they are measured, and what their code and packages are."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ceilings import private
from ceilings.runtimes import settings
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.serving import namespaces, server_python
from ceilings.serving.deployment import SERVERS, Deployment, share_of
from ceilings.study.availability import Availability
from ceilings.study.cell import SECOND, Cell
from ceilings.study.config import nearest, no_cell
from ceilings.study.paths import Paths
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import Asked
from ceilings.workload.task import TASKS

REMEDY = "make .venv/serving"

ENGINE, ENGINE_CACHE = "engine", "engine-cache"
"""Artifacts of runtimes: an engine of TensorRT's, and one that ONNX Runtime's TensorRT provider kept, of one shape."""


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A deployment on one device.

    Attributes:
        name: As the study calls it, with ``.aa`` for the second of an A/A pair.
        device: Slug of the device that its cells run on; None if this machine has none of their kind.
        available: Whether it can be measured here.
        runs: Its records, one for each fresh server; empty if it can neither be measured nor was recorded.
        recorded: Whether these were made elsewhere; they are only read.
    """

    name: str
    device: str | None
    deployment: Deployment
    available: Availability
    runs: tuple[str, ...] = ()
    recorded: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            "deployment": self.name,
            "aa_of": plain(self.name) if self.name != plain(self.name) else None,
            "device": self.device,
            "cells": list(self.deployment.cells),
            "runs": list(self.runs),
            "available": bool(self.available),
            "reason": private.anonymous(self.available.reason),
            "remedy": private.anonymous(self.available.remedy),
            "recorded": self.recorded,
        }


def plain(name: str) -> str:
    """The deployment of the study that a name stands for: the second of an A/A pair is its first once more.

    >>> plain("texts.aa"), plain("texts")
    ('texts', 'texts')
    """
    return name.removesuffix(SECOND)


def deployed(config: Mapping[str, Any], cells: Sequence[Cell], paths: Paths) -> list[Deployed]:
    """Every deployment, once a device that the study has its cells on, and then the second ones of A/A pairs.

    Args:
        config: The study, checked, with its defaults.
        cells: Its cells.
        paths: The results tree.
    """
    runs = config["protocol"]["processes"]
    found: list[Deployed] = []
    seconds: list[Deployed] = []
    for name, entry in config["serving"].items():
        one = Deployment.from_json(entry)
        by_device: dict[str | None, dict[str, Cell]] = {}
        for cell in cells:
            if cell.identity in one.cells:
                by_device.setdefault(cell.device, {})[cell.identity] = cell
        for device, served in by_device.items():
            found += _on_device(name, one, device, served, runs, paths)
            seconds += _on_device(f"{name}{SECOND}", one, device, served, runs, paths)
    return [*found, *_chosen(config, found, seconds)]


def _chosen(config: Mapping[str, Any], found: Sequence[Deployed], seconds: Iterable[Deployed]) -> Iterator[Deployed]:
    """Of all second ones those that the study asks for.

    They are those of the deployments that it names, else of the first of each device with several: one deployment alone
    is compared with no other server. What is recorded of a second one is read in any case.
    """
    measured = [one for one in found if one.runs and not one.recorded]
    first: dict[str | None, str] = {}
    for one in measured:
        if sum(other.device == one.device for other in measured) > 1:
            first.setdefault(one.device, one.name)
    for one in seconds:
        if "noise_deployments" in config:
            asked = plain(one.name) in config["noise_deployments"]
        else:
            asked = bool(one.runs) and first.get(one.device) == plain(one.name)
        if asked or one.recorded:
            yield one


def _on_device(  # noqa: PLR0917 - all of one deployment
    name: str, one: Deployment, device: str | None, served: Mapping[str, Cell], runs: int, paths: Paths
) -> Iterator[Deployed]:
    records = tuple(paths.serving(device or "", name, run=run) for run in range(1, runs + 1))
    there = device is not None and all(Path(path).is_file() for path in records)
    if any(cell.recorded for cell in served.values()):
        if there:
            yield Deployed(name, device, one, Availability(), records, recorded=True)
        return
    lacking = [cell.available for cell in served.values() if not cell.available]
    available = lacking[0] if lacking else available_here(one)
    if not available and there:  # measured in another environment
        yield Deployed(name, device, one, Availability(), records, recorded=True)
    else:
        yield Deployed(name, device, one, available, records if available and device else ())


def available_here(one: Deployment) -> Availability:
    """Whether a server can be started here, and reached as the study says; with reason and remedy if not."""
    package = SERVERS.get(one.kind)
    needed = [] if package is None or "path" in one.triton else [package]
    for name in (*needed, *(["grpc", "tritonclient"] if one.transport == "grpc" else [])):
        if problem := _lacking(name):
            named = os.environ.get(server_python.FOLDER)
            return Availability(problem, f"correct or unset {server_python.FOLDER}" if named else REMEDY)
    if "path" in one.triton and not Path(one.triton["path"], "bin/tritonserver").is_file():
        return Availability(
            f"no Triton is in {one.triton['path']}: bin/tritonserver is not there",
            "correct triton.path, or leave it out to use that of nvidia-pytriton",
        )
    if one.round_trip_ms > 0 and (problem := _no_namespaces()):
        return Availability(problem, "run as root, or set round_trip_ms to 0")
    return Availability()


@functools.cache
def _lacking(package: str) -> str | None:
    problem = server_python.problem(package)
    return problem and problem.partition(";")[0]


@functools.cache
def _no_namespaces() -> str | None:
    return namespaces.problem()


def modules(one: Deployment) -> list[str]:
    """The modules that shape its record beside those of its cells' runtimes; servers come by name."""
    servers = "ceilings.serving.servers"
    started = {
        "embedded": [f"{servers}.embedded", f"{servers}.embedded_server"],
        "triton": [f"{servers}.triton", f"{servers}.triton_model"],
        "endpoint": [f"{servers}.endpoint"],
    }[one.kind]
    devices = {RUNTIMES[cell.split("/")[0]].device for cell in one.cells}
    return [
        "ceilings.serving.session",
        "ceilings.serving.load_worker",
        *(["ceilings.measure.gpu_watch"] if "cuda" in devices else []),
        *started,
        f"ceilings.serving.{one.transport}_transport",
    ]


def packages_of(one: Deployment) -> dict[str, str]:
    """Versions of what its server brings, and of what a client over gRPC needs."""
    return dict(_versions()) if one.kind in SERVERS or one.transport == "grpc" else {}


@functools.cache
def _versions() -> Mapping[str, str]:
    return server_python.versions()


# ---- what cannot be --------------------------------------------------------------------------------------------------


def problems(config: Mapping[str, Any], models: StudyModels, cells: Iterable[Asked]) -> Iterator[str]:
    """What of the deployments cannot be, each with its place in the study and its remedy."""
    known = {cell.identity: cell for cell in cells}
    for name in config.get("noise_deployments", ()):
        if name not in config["serving"]:
            yield f"noise_deployments: {name!r} is no deployment of the study, {nearest(name, config['serving'])}"
    for name, entry in config["serving"].items():
        one, where = Deployment.from_json(entry), f"serving.{name}"
        unknown = list(_unknown_cells(where, one, known))
        yield from unknown
        if not unknown:
            asked = [known[cell] for cell in one.cells]
            yield from _impossible_cells(where, one, asked, models)
            yield from _impossible_batching(where, one, asked, models)
            yield from _impossible_server(where, one, asked)
        yield from _impossible_way(where, one, entry)
        yield from _impossible_loads(where, one)


def _unknown_cells(where: str, one: Deployment, known: Mapping[str, Asked]) -> Iterator[str]:
    for cell in one.cells:
        if cell.count("/") != 3:
            yield f"{where}.cells: {cell!r} names no cell; write RUNTIME/MODEL/PRECISION/SHAPE, as {next(iter(known))}"
        elif cell not in known:
            yield f"{where}.cells: {no_cell(cell, known)}"


def _impossible_cells(where: str, one: Deployment, asked: Sequence[Asked], models: StudyModels) -> Iterator[str]:
    for cell in asked:
        if TASKS[models.outline(cell.model).task].generates:
            yield (
                f"{where}.cells: {cell.identity!r} generates text, which is not served yet (requests that join a "
                "running batch need a server of their own); name a cell that answers at once"
            )
    devices = {RUNTIMES[cell.runtime].device: cell.identity for cell in asked}
    if len(devices) > 1:
        yield f"{where}.cells: {' and '.join(devices.values())} run on two devices; make two deployments"


def _impossible_batching(where: str, one: Deployment, asked: Sequence[Asked], models: StudyModels) -> Iterator[str]:
    if one.batching is None:
        return
    largest, preferred = one.batching["largest"], one.batching.get("preferred", ())
    for size in preferred:
        if size > largest:
            yield f"{where}.batching.preferred: {size} is above largest, {largest}; lower the first or raise the second"
    for cell in asked:
        outline, fixed = models.outline(cell.model), models.fixed_axes(cell.model)
        rows = cell.shape.batch
        if "batch" not in outline.axes:
            yield f"{where}.batching: {cell.model!r} has no batch axis by which requests join; set batching: off"
            continue
        only = outline.fixed.get("batch", fixed.get("batch"))
        most = outline.limits.get("batch")
        if only is not None:
            yield f"{where}.batching: {cell.model!r} takes batches of {only} alone; set batching: off"
        elif most is not None and largest > most:
            yield f"{where}.batching.largest: {largest} is more than the {most} that {cell.model!r} takes; lower it"
        if largest < rows:
            yield (
                f"{where}.batching.largest: {largest} takes no request of {cell.shape}, which has {rows} rows; "
                f"raise it to a multiple of {rows}"
            )
        for key, size in (("largest", largest), *(("preferred", size) for size in preferred)):
            if size >= rows and size % rows and not one.batching.get("pad"):
                yield (
                    f"{where}.batching.{key}: {size} is no multiple of the {rows} rows of a request of {cell.shape}; "
                    f"give one, such as {-(-size // rows) * rows}, or set pad: true"
                )


def _impossible_server(where: str, one: Deployment, asked: Sequence[Asked]) -> Iterator[str]:
    for cell in asked:
        artifact, device = RUNTIMES[cell.runtime].artifact, RUNTIMES[cell.runtime].device
        plain, chosen = settings.split(cell.runtime)
        if one.shared_memory == "cuda" and device == "cpu":
            yield f"{where}.shared_memory: cuda is memory of a GPU, and {cell.identity} runs on the CPU; write system"
        if one.kind == "triton" and one.backend == "tensorrt" and artifact != ENGINE:
            yield f"{where}.triton.backend: tensorrt reads engines, and {cell.identity} executes none; write python"
        if one.backend != "python" and one.kind == "triton" and chosen:
            yield (
                f"{where}.triton.backend: {one.backend} opens sessions of its own, without the settings of "
                f"{cell.runtime}; write python, or name a cell of {plain}"
            )
        if one.kind == "triton" and one.backend == "onnxruntime" and RUNTIMES[cell.runtime].options.get("cuda_graph"):
            yield (
                f"{where}.triton.backend: onnxruntime captures no CUDA graph, and {cell.identity} replays one; "
                "write python, or name a cell of a runtime without one"
            )
        if one.kind != "endpoint" and one.backend == "python" and one.batching and artifact == ENGINE_CACHE:
            yield (
                f"{where}.batching: {cell.identity} has an engine for batches of {cell.shape.batch} alone; "
                "set batching: off, or name a cell of the CUDA provider"
            )
        if one.kind == "triton" and one.backend == "onnxruntime" and artifact in ("weights", ENGINE, "operator"):
            yield (
                f"{where}.triton.backend: onnxruntime reads graphs of its operators alone, not what {cell.identity} "
                "executes; write python"
            )


def _impossible_way(where: str, one: Deployment, entry: Mapping[str, Any]) -> Iterator[str]:
    if one.kind != "triton" and one.triton:
        yield f"{where}.triton: the server is {one.server}; remove the key, or write server: triton"
    if one.kind == "embedded" and one.shared_memory != "none":
        yield f"{where}.shared_memory: MLServer knows none; write none, or server: triton"
    if one.shared_memory != "none" and (one.round_trip_ms > 0 or not one.at_home):
        yield f"{where}.shared_memory: client and server share none over a network; write none"
    if one.kind == "triton" and one.backend != "python" and "path" not in one.triton:
        yield (
            f"{where}.triton.backend: nvidia-pytriton's server has the Python backend alone; "
            f"name a Triton that has {one.backend} in triton.path"
        )
    if one.kind == "triton" and one.backend != "python" and (one.batching or {}).get("pad"):
        yield f"{where}.batching.pad: Triton's {one.backend} backend does not pad; remove it, or write backend: python"
    if one.kind != "endpoint":
        if one.endpoint_models:
            yield f"{where}.endpoint_models: the server is {one.server}, which is started here; remove the key"
        if one.metrics:
            yield f"{where}.metrics: the server is {one.server}, whose metrics are known; remove the key"
        return
    scheme = one.server.partition("://")[0]
    for key, url in (("server", one.server), ("metrics", one.metrics)):
        if url and not 0 < int(urlsplit(url).netloc.rpartition(":")[2]) < 1 << 16:
            yield f"{where}.{key}: {url} names no port from 1 to 65535; correct it"
    if one.transport != scheme:
        yield f"{where}.transport: {one.transport} is asked of {one.server}; write transport: {scheme}"
    for key in ("batching", "instances"):
        if entry.get(key) not in (None, False, "off"):
            yield f"{where}.{key}: {one.server} is somebody's server, which is measured as it is; remove the key"
    for cell in one.cells:
        if cell not in one.endpoint_models:
            yield f"{where}.endpoint_models: nothing says what {one.server} calls {cell}; add {cell}: NAME"
    for cell in one.endpoint_models:
        if cell not in one.cells:
            yield f"{where}.endpoint_models: {cell!r} is none of its cells, {nearest(cell, one.cells)}"


def _impossible_loads(where: str, one: Deployment) -> Iterator[str]:
    if not one.concurrency and not one.rates:
        yield f"{where}: asks for no load; add concurrency: [USERS] or rates: [REQUESTS A SECOND]"
    shares = [rate for rate in one.rates if share_of(rate) is not None]
    if shares and not one.concurrency:
        yield f"{where}.rates: {shares[0]} is a share of a closed loop's throughput; add concurrency: [USERS]"
    values = [(share_of(rate) is None, share_of(rate) or float(str(rate).rstrip("x"))) for rate in one.rates]
    for at, value in enumerate(values):
        if value in values[:at]:
            yield f"{where}.rates: {one.rates[at]} stands there more than once; name each once"
