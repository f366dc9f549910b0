"""One run of a deployment: start its server twice, hold its answers against the reference, give it its loads, stop it.

The server is started in a folder of its own and once more over the caches that the first start left. Outputs that are
wrong, or that belong to another request, end the run before any load is timed. Modules of servers come by name, so that
a deployment depends on its own server alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import random
import statistics
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ceilings import environment
from ceilings.errors import CellFailure
from ceilings.host import kind_of, physical_cores
from ceilings.lifetime import temporary_folder
from ceilings.measure.bystanders import Bystanders
from ceilings.measure.gate import constant, gate, stacked
from ceilings.measure.neighbours import Neighbours
from ceilings.measure.setup import artifact_file
from ceilings.models import pool
from ceilings.provenance import package_flags, provenance
from ceilings.runtimes.compile_cache import CACHE
from ceilings.serving import server_python
from ceilings.serving.batching import Batching
from ceilings.serving.core_split import APART, split
from ceilings.serving.deployment import Deployment, Load
from ceilings.serving.kserve import TransportError
from ceilings.serving.load_client import LoadClient
from ceilings.serving.own_answers import Arrays, changed, finer, swapped
from ceilings.serving.relay import Relay
from ceilings.serving.servers.metrics import Counters, MetricsError
from ceilings.serving.servers.repository import Served
from ceilings.serving.servers.server import Server, Unavailable
from ceilings.serving.transports import TIMEOUT_SECONDS
from ceilings.workload.workload import Workload

Task = Mapping[str, Any]
MODULES = {"embedded": "Embedded", "triton": "Triton", "endpoint": "Endpoint"}
"""The class of each kind of server, in the module of its name."""

LONGEST_CHECK = 600.0
"""Seconds that answers under concurrency are waited for at most."""

LAST_PRINTED = 20_000
"""Characters of a server's log that the run's log gets where it fails."""

FARTHEST = 2.0
"""Of the tolerance: two answers to one request, each within it of the reference, are at most so far from each other."""


def run(task: Task) -> dict[str, Any]:
    """Measure the deployment that ``task`` describes.

    Args:
        task: ``deployment``, ``device``, ``run``; ``gpu``, the UUID of the device if it is one; ``spec``, a slice of
            the study; ``files``, by cell the paths ``artifact``, ``inputs``, ``reference`` and ``workload``.

    Returns:
        The record's part that comes from measuring: ``status``, ``failure`` and, where it is ok, all the rest.

    Raises:
        UserError: A file is damaged, or something else that the user can mend.
    """
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(temporary_folder()))
            stack.push(lambda kind, *_: _print_logs(folder) if kind else None)
            return {"status": "ok", "failure": None, **_Session(task, folder).run(stack)}
    except CellFailure as failure:
        return failed(failure.kind, str(failure))
    except Unavailable as lack:
        return failed("unsupported", str(lack))
    except (TransportError, MetricsError, ConnectionError, TimeoutError) as error:
        return failed("runtime-error", str(error))


def _print_logs(folder: Path) -> None:
    """Show what the servers printed last: their folders go with the run."""
    for log in sorted(folder.glob("*/log")):
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-LAST_PRINTED:])


def failed(kind: str, message: str) -> dict[str, Any]:
    """The record's part of a run that failed."""
    return {"status": "failed", "failure": {"kind": kind, "message": message}, "flags": []}


@dataclasses.dataclass
class _Cell:
    """A cell behind the server.

    Attributes:
        name: As the study names it.
        model: As the server names it.
        task: As a process that measures the bare cell gets it, with the server's threads.
        tolerance: Of its precision.
    """

    name: str
    model: str
    task: dict[str, Any]
    tolerance: float

    def __post_init__(self) -> None:
        self.workload = Workload.read(self.task["workload"])
        arrays = pool.load_pool(self.task["inputs"])
        self.asked = len(pool.elements(arrays))
        self.reference = pool.load_outputs(self.task["reference"], pool.digest(arrays))
        self.elements = pool.elements(arrays)[: len(next(iter(self.reference.values())))]
        self.alone: Mapping[int, Arrays] = {}

    @property
    def output_bytes(self) -> dict[str, int]:
        """Bytes of each output of one request, in float32 as runners give them."""
        return {name: values[0].astype(np.float32).nbytes for name, values in self.reference.items()}

    def parity(self, answers: Path) -> tuple[dict[str, Any], Mapping[int, Arrays]]:
        """How far answers are from the reference, as a run record has it; and the answers, by element.

        Raises:
            CellFailure: Too far, or none was answered that the reference has.
        """
        given = _answers(answers)
        indices = [index for index in range(len(self.elements)) if index in given]
        if not indices:
            raise CellFailure("runtime-error", f"no request to {self.name} was answered")
        outputs = [{name: np.asarray(values, np.float32) for name, values in given[i].items()} for i in indices]
        reference = {name: values[indices] for name, values in self.reference.items()}
        elements = [self.elements[index] for index in indices]
        try:
            parity = gate(self.workload, elements, stacked(outputs), reference, self.tolerance)
        except (KeyError, ValueError) as error:  # another output, or another shape in one of the answers
            raise CellFailure("parity", f"{self.name}: the answers are not alike ({error})") from None
        except CellFailure as failure:
            raise CellFailure(failure.kind, f"{self.name}: {failure}") from None
        return parity, given

    def refuse_others(self, answers: Path, load: str) -> Mapping[int, Arrays]:
        """The answers under a load, by element: those of their own requests, and what these got alone.

        Raises:
            CellFailure: Others.
        """
        given = _answers(answers)
        for wrong, what in (
            (swapped(self.alone, given), "belonged to another request"),
            (changed(self.alone, given, FARTHEST * self.tolerance), "differed from what the same request got alone"),
        ):
            if wrong:
                count = _counted(len(wrong), "request")
                raise CellFailure("parity", f"{self.name}: with {load}, an answer to {count} of {len(given)} {what}")
        return given


class _Session:
    def __init__(self, task: Task, folder: Path) -> None:
        self._spec, self._folder, self._run = task["spec"], folder, task["run"]
        self._name, self._gpu = task["deployment"], task.get("gpu")
        self._deployment = Deployment.from_json(self._spec["deployment"])
        self._protocol = self._spec["protocol"]
        self.flags: list[str] = []
        groups = physical_cores()
        self._split = split(groups, relayed=self._deployment.round_trip_ms > 0)
        if not self._deployment.at_home:  # somebody else's cores
            self._split = self._split._replace(server=(), shared=False)
        elif self._split.shared:
            self.flags.append(APART)
        self._cores = sum(group[0] in self._split.server for group in groups)
        self._cells = [self._cell(task, one) for one in self._deployment.cells]
        self._server: Server | None = None

    def _cell(self, task: Task, name: str) -> _Cell:
        runtime, model, precision, shape = name.split("/")
        served = dict(self._spec["cells"][name])
        if self._deployment.kind != "endpoint":
            served["threads"] = self._threads(name, served["threads"], kind_of(task["device"]) == "cpu")
        cell = {"device": task["device"], "runtime": runtime, "model": model, "precision": precision, "shape": shape}
        paths = dict(task["files"][name])
        if Path(paths["artifact"]).suffix == ".safetensors":
            paths["artifact"] = str(Path(paths["artifact"]).parent)
        absolute = {key: str(Path(path).absolute()) for key, path in paths.items()}  # the server works elsewhere
        of = {"cell": cell, "spec": served, **absolute, "folder": str(Path.cwd())}
        return _Cell(name, self._deployment.model(name), of, served["tolerance"])

    def _threads(self, name: str, bare: int, on_cpu: bool) -> int:
        """Threads of a served cell: the bare cell's, as far as the server has cores. A GPU's cell computes on none."""
        threads = max(1, min(bare, self._cores))
        if threads != bare and on_cpu:
            self.flags.append(
                f"{name} computes with {_counted(threads, 'thread')} here and with {bare} as a bare cell: the cores "
                f"are shared with the client; for a fair difference measure both with cpu_threads: {threads}"
            )
        busy = threads * self._deployment.instances
        if busy > self._cores and on_cpu:
            self.flags.append(
                f"{self._deployment.instances} instances with {_counted(threads, 'thread')} each share "
                f"{_counted(self._cores, 'core')}"
            )
        return threads

    def run(self, stack: contextlib.ExitStack) -> dict[str, Any]:
        compiled = self._folder / "compiled"
        compiled.mkdir()
        os.environ[CACHE] = str(compiled)  # what the first start compiles, the second finds
        first, warm = {}, None
        if self._deployment.kind != "endpoint":
            with self._made("first") as server:
                first = server.start()
        self._server = server = stack.enter_context(self._made("warm"))
        warm = server.start()
        if self._deployment.kind == "endpoint":
            first, warm = warm, None
        with _explained(server):
            return self._measured(stack, server, first, warm)

    def _made(self, folder: str) -> Server:
        """The server, not started yet."""
        one = self._deployment
        module = importlib.import_module(f"ceilings.serving.servers.{one.kind}")
        make = getattr(module, MODULES[one.kind])
        if one.kind == "endpoint":
            server: Server = make(one.server, [cell.model for cell in self._cells], one.metrics)
            return server
        below = self._folder / folder
        below.mkdir()
        batching = Batching.from_json(one.batching) if one.batching else None
        served = [Served(cell.model, cell.task, batching, one.instances) for cell in self._cells]
        threads = max(cell.task["spec"]["threads"] for cell in self._cells)
        options: dict[str, Any] = {}
        if one.kind == "triton":
            engines = self._folder / "engines"
            engines.mkdir(exist_ok=True)
            options = {"backend": one.backend, "path": Path(one.triton["path"]) if "path" in one.triton else None}
            if one.backend == "onnxruntime":
                options["engine_cache"] = engines
        started: Server = make(served, below, list(self._split.server), threads, **options)
        return started

    def _measured(
        self,
        stack: contextlib.ExitStack,
        server: Server,
        first: Mapping[str, int],
        warm: Mapping[str, int] | None,
    ) -> dict[str, Any]:
        one, target = self._deployment, server.addresses[self._deployment.transport]
        relay = None
        if one.round_trip_ms > 0:
            relay = stack.enter_context(Relay([target], one.round_trip_ms, self._split.relay))
        client = stack.enter_context(
            LoadClient(
                one.transport,
                relay.address(target) if relay else target,
                cores=self._split.client,
                packages=[server_python.packages()],
                namespace=relay.namespace if relay else None,
                limit=self._limit,
            )
        )
        for cell in self._cells:
            shared = one.shared_memory
            sizes = cell.output_bytes if shared != "none" else None
            client.prepare(cell.name, cell.model, cell.task["inputs"], shared=shared, outputs=sizes)
        cells = {cell.name: self._checked(server, client, cell) for cell in self._cells}
        facts = server.facts()
        for cell in self._cells:
            cells[cell.name]["warmed"] = _prepared(facts, cell.model) or sorted(server.batch_sizes(cell.model) or ())
        trip = int(statistics.median(client.round_trips(relay.echo))) if relay else 0
        ours = [client.pid, *([relay.pid] if relay else [])]
        with (
            Bystanders(lambda: [*server.pids, *ours], one.kind == "endpoint" and one.at_home) as neighbours,
            self._watching([*server.pids, client.pid]) as watch,
        ):
            windows = self._windows(server, client)
            gpu = {**watch.end(), **watch.facts()} if watch else None
        self.flags += watch.flags() if watch else []
        return {
            "server": {
                **facts,
                "kind": one.kind,
                "instances": one.instances if one.kind != "endpoint" else None,
                "batching": dict(one.batching) if one.batching else None,
                "packages": self._spec["packages"],
                "cores": list(self._split.server),
                "threads": {cell.name: cell.task["spec"]["threads"] for cell in self._cells} if one.at_home else None,
                "first_start_ns": dict(first),
                "warm_start_ns": dict(warm) if warm else None,
            },
            "client": {
                "transport": one.transport,
                "shared_memory": one.shared_memory,
                "round_trip_ms": one.round_trip_ms,
                "measured_round_trip_ns": trip,
                "cores": list(self._split.client),
                "relay_cores": list(self._split.relay) if relay else None,
            },
            "cells": cells,
            "windows": windows,
            "gpu": gpu,
            "neighbours": neighbours.to_json(),
            **self._origin(neighbours),
        }

    @contextlib.contextmanager
    def _watching(self, ours: Collection[int]) -> Iterator[Any]:
        """What watches the GPU that a server of ours computes on; None where there is none."""
        if self._gpu is None or self._deployment.kind == "endpoint":
            yield None
            return
        watches = importlib.import_module("ceilings.measure.gpu_watch")
        with watches.GpuWatch(self._gpu, {*ours}) as watch:
            watch.begin()
            yield watch

    def _origin(self, neighbours: Neighbours) -> dict[str, Any]:
        packages = dict(item for cell in self._cells for item in cell.task["spec"]["packages"].items())
        sources: dict[str, str] = {}
        for cell in self._cells:
            named = {key: cell.task[key] for key in ("inputs", "reference", "workload")}
            named["artifact"] = str(artifact_file(cell.task))
            sources |= {f"{cell.name} {key}": path for key, path in named.items()}
        origin = provenance([*packages, "numpy"], sources, executed_in=environment.executing(1))
        planned = next(iter(self._spec["cells"].values())).get("variables")
        flags = [
            *neighbours.flags(),
            *self.flags,
            *environment.flags(origin["variables"], planned),
            *package_flags({name: version for name, version in packages.items() if version is not None}),
        ]
        return {"flags": list(dict.fromkeys(flags)), "provenance": origin}

    # ---- the gate ----------------------------------------------------------------------------------------------------

    def _checked(self, server: Server, client: LoadClient, cell: _Cell) -> dict[str, Any]:
        """Hold the answers to requests one by one, and to many at once, against the reference and each other."""
        alone, together = self._folder / "alone.npz", self._folder / "together.npz"
        before = server.counters(cell.model)
        asked = client.ask(cell.name, alone)["latency_ns"]
        parity, cell.alone = cell.parity(alone)
        self.flags += [f"{cell.name}: {flag}" for flag in constant(cell.elements, cell.reference)]
        if self._deployment.kind == "endpoint" and finer(cell.task["cell"]["precision"], parity["relative_l2"]):
            self.flags.append(
                f"the answers to {cell.name} are as near to the FP32 reference as FP32 is: the endpoint may serve "
                "another precision under this name"
            )
        users = self._most_users(cell)
        # So long that each element had its turn: at once they take no longer than one by one, but for the start.
        seconds = min(LONGEST_CHECK, max(self._protocol["warmup_seconds"], 2 * sum(asked) / 1e9))
        window = client.closed(cell.name, users, seconds, together)
        if window["failed"]:
            message, count = next(iter(window["failed"].items()))
            raise CellFailure("runtime-error", f"{cell.name}: {count} of {window['sent']} at once failed: {message}")
        server.since(cell.model, before, len(asked) + window["sent"])  # none of these is a request of a load
        many = cell.refuse_others(together, f"{users} requests at once")
        beside, _ = cell.parity(together)
        return {
            "parity": parity,
            "at_once": {"users": users, "elements": len(many), "relative_l2": beside["relative_l2"]},
        }

    @property
    def _limit(self) -> float:
        """Seconds after which the client ends in any case."""
        windows = len(self._deployment.loads) * self._protocol["rounds"]
        checks = len(self._cells) * LONGEST_CHECK
        return 3600.0 + checks + windows * (self._protocol["window_seconds"] + 2 * TIMEOUT_SECONDS)

    def _most_users(self, cell: _Cell) -> int:
        """Requests at once by which a server forms its largest batch, and which loads ask for."""
        rows = int((self._deployment.batching or {}).get("largest", 1))
        return max(2, rows, *self._deployment.concurrency, cell.asked)

    # ---- windows -----------------------------------------------------------------------------------------------------

    def _windows(self, server: Server, client: LoadClient) -> list[dict[str, Any]]:
        cells = {cell.name: cell for cell in self._cells}
        seed = f"{self._spec['seed']} {self._name} {self._run}"
        windows: list[dict[str, Any]] = []
        highest: dict[str, float] = {}
        for number, loads in enumerate(self._deployment.rounds(self._protocol["rounds"], seed), 1):
            for load in loads:
                window = self._window(server, client, cells[load.cell], load, highest, f"{seed} {number}")
                if load.kind == "closed" and number == 1:
                    seconds = (window["ended_ns"] - window["began_ns"]) / 1e9
                    highest[load.cell] = max(highest.get(load.cell, 0.0), window["answered_inside"] / seconds)
                windows.append({"cell": load.cell, "kind": load.kind, "round": number, **window})
        return windows

    def _window(  # noqa: PLR0917 - all of one window
        self, server: Server, client: LoadClient, cell: _Cell, load: Load, highest: Mapping[str, float], seed: str
    ) -> dict[str, Any]:
        seconds = self._protocol["window_seconds"]
        asked_before = server.asked(cell.model)
        before, sizes = server.counters(cell.model), server.batch_sizes(cell.model)
        answers = self._folder / "window.npz"
        if load.concurrency is not None:
            window = client.closed(cell.name, load.concurrency, seconds, answers)
            asked: dict[str, Any] = {"concurrency": load.concurrency, "rate": None, "asked": None}
        else:
            rate = load.rate(highest)
            if not rate:
                raise CellFailure(
                    "runtime-error", f"no request was answered in closed loops; {load.asked} of it is none"
                )
            number = random.Random(f"{seed} {load.cell} {load.asked}").getrandbits(32)
            window = client.open(cell.name, rate, seconds, seed=number, answers=answers)
            asked = {"concurrency": None, "rate": rate, "asked": load.asked}
        counted = _since(server, cell.model, before, sizes, window["sent"])
        counted["others"] = _others(asked_before, server.asked(cell.model))
        if window.pop("answers"):
            cell.refuse_others(answers, load.words)
        return {**asked, **window, "server": counted}


def _answers(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """Outputs by element, of a file of ``INDEX/NAME``."""
    found: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as content:
        for key in content.files:
            index, slash, name = key.partition("/")
            if slash and index.isdecimal():
                found.setdefault(int(index), {})[name] = content[key]
    return found


def _prepared(facts: Mapping[str, Any], model: str) -> list[int]:
    """The batches that the executors of a model ran before the server was ready."""
    executors: Sequence[Mapping[str, Any]] = facts.get("executor", {}).get(model, [])
    return sorted({int(size) for one in executors for size in one.get("costs", {})})


def _since(
    server: Server, model: str, before: Counters, sizes: Mapping[int, int] | None, requests: int
) -> dict[str, Any]:
    """What the server counted since then, so many requests of ours among it."""
    counted: dict[str, Any] = server.since(model, before, requests).to_json()
    now = server.batch_sizes(model)
    if now is None or sizes is None:
        return {**counted, "batch_sizes": None}
    new = {str(size): now[size] - sizes.get(size, 0) for size in sorted(now)}
    return {**counted, "batch_sizes": {size: count for size, count in new.items() if count}}


def _others(before: Mapping[str, int] | None, now: Mapping[str, int] | None) -> dict[str, int] | None:
    """Requests to other models since then, by model; None where they are not counted."""
    if before is None or now is None:
        return None
    return {model: new for model, count in sorted(now.items()) if (new := count - before.get(model, 0)) > 0}


@contextlib.contextmanager
def _explained(server: Server) -> Iterator[None]:
    """Let the end of the server be the reason of a failure that follows from it, or add what may be."""
    try:
        yield
    except (CellFailure, TransportError, MetricsError, OSError) as error:
        if why := server.ended():
            raise why from error
        if isinstance(error, TransportError) and (hint := server.hint()):
            raise TransportError(f"{error}; {hint}") from None
        raise


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
