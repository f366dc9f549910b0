"""A study as cells, and for each file of it the slice of the study that it depends on.

Slices are canonical JSON texts: as a rule's param they change exactly when something changes that the file depends on.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings import SCHEMA_VERSION
from ceilings.errors import UserError
from ceilings.models.catalogue import ARCHITECTURES
from ceilings.runtimes.catalogue import PRECISIONS, RUNTIMES, Runtime
from ceilings.study.code import digest
from ceilings.study.config import checked, nearest
from ceilings.study.engines import Engines
from ceilings.study.hosts import Availability, Host, availability, installed
from ceilings.traces import source

TWIN = ".twin"
"""Suffix of the runtime's name in the second of the two cells of an A/A pair."""

TRACE_PROTOCOL = ("warmup_seconds", "warmup_max_seconds", "time_limit_seconds")
"""What of the protocol matters to a capture."""

LAYER_ITERATIONS = 100
"""Inferences of which each layer is timed."""

LOCAL_FILES = ("config.json", "model.safetensors")
"""What a folder of weights holds."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A static input shape."""

    batch: int
    sequence: int

    def __str__(self) -> str:
        return f"b{self.batch}-s{self.sequence}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing to measure: a model, as a runtime executes it, at a precision and a shape, on a device.

    Attributes:
        runtime: Name of the runtime, with ``.twin`` for the second of an A/A pair.
        device: Slug of the device that runs it; None if this machine has none of its kind.
        sweeps: The sweeps of the study that ask for it.
        available: Whether it can be measured here.
        runs: Its run records, one for each fresh process; empty if it can neither be measured nor was recorded.
        floor: The record of the least time that its device allows; None where nothing bounds it.
        engine: The record of the engine that it executes, which says what its layers compute in; None without one.
        budget: Its budget, if the study asks for a capture of it and one can be made or was.
        recorded: Whether these were made earlier, on another device or in another environment; they are only read.
    """

    device: str | None
    runtime: str
    model: str
    precision: str
    shape: Shape
    sweeps: tuple[str, ...]
    available: Availability
    runs: tuple[str, ...]
    floor: str | None = None
    engine: str | None = None
    budget: str | None = None
    recorded: bool = False

    @property
    def twin_of(self) -> str | None:
        """The runtime whose A/A twin this is, if it is one."""
        return self.runtime.removesuffix(TWIN) if self.runtime.endswith(TWIN) else None

    @property
    def spec(self) -> Runtime:
        """The runtime that executes it."""
        return RUNTIMES[self.twin_of or self.runtime]

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            "device": self.device,
            "runtime": self.runtime,
            "twin_of": self.twin_of,
            "model": self.model,
            "precision": self.precision,
            "batch": self.shape.batch,
            "sequence": self.shape.sequence,
            "sweeps": list(self.sweeps),
            "available": bool(self.available),
            "reason": self.available.reason,
            "remedy": self.available.remedy,
            "runs": list(self.runs),
            "floor": self.floor,
            "engine": self.engine,
            "budget": self.budget,
        }


class Study:
    """A checked study on a host.

    Args:
        config: The study as read from YAML.
        host: The machine that would run it.
        results: The folder of all results.

    Raises:
        UserError: The study asks for something that cannot be; all such things are named at once.
    """

    def __init__(self, config: Mapping[str, Any], host: Host, results: str = "results") -> None:
        self.config = checked(config)
        self.host = host
        self.results = results
        self.engines = Engines(self.config, host, results)
        self._refuse_the_impossible()

    # ---- cells -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """Every cell that the study asks for, each once a device, the twins of a device's A/A pairs after its cells."""
        asked: dict[tuple[str, str, str, Shape], list[str]] = {}
        for name, runtime, model, precision, shape in self._asked():
            asked.setdefault((runtime, model, precision, shape), []).append(name)
        planned = [self._cell(*key, sweeps=tuple(sweeps)) for key, sweeps in asked.items()]
        own = self._own_devices
        here = [cell for cell in planned if {"auto", cell.device} & set(self.config["devices"])]
        cells = [*here, *self._twins(here)]
        for slug in self.config["devices"]:
            if slug not in ("auto", *own):
                twins = (dataclasses.replace(cell, runtime=cell.runtime + TWIN) for cell in planned)
                cells += [found for cell in (*planned, *twins) if (found := self._recorded(cell, slug))]
        return cells

    @functools.cached_property
    def measured(self) -> list[Cell]:
        """The cells that this machine measures."""
        return [cell for cell in self.cells if cell.available and not cell.recorded]

    @functools.cached_property
    def runs(self) -> list[str]:
        """The run records that this machine makes."""
        return [run for cell in self.measured for run in cell.runs]

    @functools.cached_property
    def budgets(self) -> list[str]:
        """The budgets that this machine makes."""
        return [cell.budget for cell in self.measured if cell.budget]

    @functools.cached_property
    def trace_source(self) -> tuple[str | None, str | None]:
        """What records captures here, and why nothing does."""
        return source.choose(self.config["traces"]["source"])

    @functools.cached_property
    def recorded_runs(self) -> list[str]:
        """Run records of other machines and other environments: read, never made."""
        return [run for cell in self.cells if cell.recorded for run in cell.runs]

    @functools.cached_property
    def floors(self) -> list[str]:
        """The floors of the cells that this machine measures: those of its GPU."""
        return sorted({cell.floor for cell in self.measured if cell.floor})

    @functools.cached_property
    def engine_records(self) -> list[str]:
        """The records of the engines that its cells execute."""
        return sorted({cell.engine for cell in self.measured if cell.engine})

    @functools.cached_property
    def graphs(self) -> list[tuple[str, str]]:
        """(model, graph) of every ONNX variant that is measured, such as ``("distilbert", "fp16.fused")``."""
        cells = [*self.measured, *self._crossed]
        return sorted({(cell.model, graph) for cell in cells if (graph := graph_name(cell.spec, cell.precision))})

    @functools.cached_property
    def engine_files(self) -> list[str]:
        """The engines that this machine builds, less their suffix: what its cells run on, and those of the targets."""
        here = {
            self.engines.path(cell.spec, cell.model, cell.precision, str(cell.shape), cell.device or "")
            for cell in self.measured
            if cell.spec.executes == "engine"
        }
        elsewhere = {
            self.engines.path(cell.spec, cell.model, cell.precision, str(cell.shape), target)
            for cell in self._crossed
            for target in self.engines.targets
        }
        return sorted(here | elsewhere)

    @functools.cached_property
    def evidence(self) -> list[str]:
        """What the summary rests on beside the tables: provenance of weights, reports of graphs, parity."""
        models = sorted({cell.model for cell in (*self.measured, *self._crossed)})
        exported = sorted({model for model, _ in self.graphs})
        return [
            *(f"{self.results}/models/{model}/weights/provenance.json" for model in models),
            *(f"{self.results}/onnx/{model}/simplified.json" for model in exported),
            *(f"{self.results}/onnx/{model}/{graph}.json" for model, graph in self.graphs),
            *(f"{self.results}/parity/{model}/{graph}.json" for model, graph in self.graphs),
            *(f"{engine}.json" for engine in self.engine_files),
            *(
                f"{self.results}/hosts/{device}/peaks.json"
                for device in sorted({cell.device or "" for cell in self.measured if cell.spec.device == "cuda"})
            ),
        ]

    @functools.cached_property
    def recorded_evidence(self) -> list[str]:
        """The same of other machines, as far as it came with their records: read, never made."""
        cells = [cell for cell in self.cells if cell.recorded]
        graphs = [(cell.model, graph) for cell in cells if (graph := graph_name(cell.spec, cell.precision))]
        found = [
            *(f"{self.results}/models/{cell.model}/weights/provenance.json" for cell in cells),
            *(f"{self.results}/onnx/{model}/simplified.json" for model, _ in graphs),
            *(f"{self.results}/onnx/{model}/{graph}.json" for model, graph in graphs),
            *(f"{self.results}/parity/{model}/{graph}.json" for model, graph in graphs),
            *(f"{self.results}/hosts/{cell.device}/peaks.json" for cell in cells),
        ]
        return [path for path in dict.fromkeys(found) if path not in self.evidence and Path(path).is_file()]

    def runtime(self, name: str) -> Runtime:
        """The runtime of a cell, also of an A/A twin.

        Raises:
            UserError: No such runtime.
        """
        plain = name.removesuffix(TWIN)
        if plain not in RUNTIMES:
            raise UserError(f"no runtime is called {plain!r}, {nearest(plain, RUNTIMES)}")
        return RUNTIMES[plain]

    def model(self, name: str) -> dict[str, Any]:
        """The definition of a model.

        Raises:
            UserError: No such model.
        """
        if name not in self.config["models"]:
            raise UserError(f"no model is called {name!r}, {nearest(name, self.config['models'])}")
        return self.config["models"][name]

    def artifact(self, runtime: str, model: str, precision: str, shape: str, device: str) -> list[str]:
        """The files that a cell executes: an ONNX graph, an engine with its record, or the weights."""
        spec = self.runtime(runtime)
        if spec.executes == "engine":
            engine = self.engines.path(spec, model, precision, shape, device)
            return [f"{engine}.engine", f"{engine}.json"]
        if spec.executes == "engine-cache":
            kept = self.engines.cache(model, precision, shape, device)
            return [f"{kept}.cache.json", f"{kept}.cache", self.engine_graph(model, precision)]
        graph = graph_name(spec, precision)
        if graph:
            return [f"{self.results}/onnx/{model}/{graph}.onnx"]
        weights = f"{self.results}/models/{model}/weights"
        return [f"{weights}/model.safetensors", f"{weights}/config.json"]

    def counted_graph(self, model: str, work: str) -> str:
        """The graph that holds a cell's work, by its name from :func:`counted_work`."""
        return f"{self.results}/onnx/{model}/{stored_precision(work)}.onnx"

    def plan(self) -> str:
        """The content of ``plan.json``."""
        gpu, config = self.host.gpu, self.config
        devices: list[dict[str, Any]] = [  # whose names the machine tells; those of others stand in their records
            {"slug": self.host.cpu_slug, "kind": "cpu", "name": self.host.cpu_name, "cores": self.host.cores}
        ]
        if gpu:
            devices.append({"kind": "cuda", **dataclasses.asdict(gpu)})
        plan = {
            "schema_version": SCHEMA_VERSION,
            "study": config["study"],
            "seed": config["seed"],
            "devices": devices,
            "protocol": config["protocol"],
            "traces": {**config["traces"], "source": self.trace_source[0], "reason": self.trace_source[1]},
            "price_per_hour": config["price_per_hour"],
            "models": {
                name: {"architecture": model["architecture"], "weights": model.get("weights", config["weights"])}
                for name, model in config["models"].items()
                if any(cell.model == name for cell in self.cells)
            },
            "cells": [cell.to_json() for cell in self.cells],
        }
        return json.dumps(plan, indent=1, ensure_ascii=False)

    # ---- slices ------------------------------------------------------------------------------------------------

    @functools.cache  # noqa: B019 - one study lives as long as the process
    def weights_slice(self, model: str) -> str:
        """What a model's weights depend on."""
        definition = self.model(model)
        return canonical(
            {
                "name": model,
                "architecture": definition["architecture"],
                "hub": definition.get("hub"),
                "config": definition.get("config", {}),
                "weights": definition.get("weights", self.config["weights"]),
                "seed": self.config["seed"],
            }
        )

    def inputs_slice(self, shape: str) -> str:
        """What the inputs of one shape depend on beside the tokenizer."""
        batch, sequence = (int(part[1:]) for part in shape.split("-"))
        return canonical(
            {"batch": batch, "sequence": sequence, "ring": self.config["inputs"]["ring"], "seed": self.config["seed"]}
        )

    def local_weights(self, model: str) -> list[str]:
        """The files of the user that a model's weights come from, so that a change is seen; none if from elsewhere."""
        weights = self.model(model).get("weights", self.config["weights"])
        return [f"{weights['path']}/{name}" for name in LOCAL_FILES] if isinstance(weights, dict) else []

    def sensitivity_inputs(self, model: str) -> list[str]:
        """The inputs by which the most sensitive layers are found; none if the study keeps none as such."""
        wanted = self.config["quantization"]["keep_most_sensitive"]
        return [f"{self.results}/models/{model}/inputs/{self.parity_shape}.npz"] if wanted else []

    def engine_graph(self, model: str, precision: str) -> str:
        """The ONNX graph that an engine is built from."""
        self.model(model)
        return f"{self.results}/onnx/{model}/{_engine_graph(precision)}.onnx"

    def timing_caches(self, device: str, builder: str) -> list[str]:
        """What the builds of one builder for one device timed.

        Raises:
            UserError: The study has no such builds.
        """
        folder = f"{self.results}/engines/{device}/{builder}/"
        found = [f"{engine}.timing.cache" for engine in self.engine_files if engine.startswith(folder)]
        if not found:
            raise UserError(
                f"the study builds no engine with {builder} on {device}; name one of its runtimes in a sweep"
            )
        return found

    def section(self, key: str) -> str:
        """One section of the study, whole, as a slice."""
        return canonical(self.config[key])

    def calibration_slice(self, method: str) -> str:
        """What a calibration with ``method`` depends on."""
        wanted = {**self.config["calibration"], "method": method, "seed": self.config["seed"]}
        if method != "percentile":
            del wanted["percentile"]
        return canonical(wanted)

    @functools.cached_property
    def cpu_threads(self) -> int:
        """Threads that a CPU cell uses."""
        threads = self.config["cpu_threads"]
        return self.host.cores if threads == "physical" else int(threads)

    @functools.cache  # noqa: B019
    def measure_slice(self, runtime: str, precision: str) -> str:
        """What a run record depends on beside graph and inputs: the protocol, the runtime, its packages, our code."""
        spec = self.runtime(runtime)
        return canonical(
            {
                "runtime": spec.name,
                "module": spec.module,
                "code": digest(
                    "ceilings.measure.supervisor", "ceilings.measure.worker", f"ceilings.runtimes.{spec.module}"
                ),
                "options": dict(spec.options),
                "packages": installed(spec.packages),
                "driver": self.host.gpu.driver if spec.device == "cuda" and self.host.gpu else None,
                "threads": self.cpu_threads,
                "tolerance": self.config["parity"][precision],
                "protocol": {key: value for key, value in self.config["protocol"].items() if key != "processes"},
            }
        )

    @functools.cache  # noqa: B019
    def trace_slice(self, runtime: str, precision: str) -> str:
        """What a capture depends on beside graph and inputs: of the protocol, the warm-up and the time limit alone."""
        spec = self.runtime(runtime)
        wanted = json.loads(self.measure_slice(runtime, precision))
        del wanted["tolerance"]
        modules = (
            "capture_trace",
            "ceilings.traces.target",
            "ceilings.traces.cupti",
            f"ceilings.runtimes.{spec.module}",
        )
        wanted |= {
            "code": digest(*modules),
            "iterations": self.config["traces"]["iterations"],
            "source": self.trace_source[0] or "nsys",
            "protocol": {key: wanted["protocol"][key] for key in TRACE_PROTOCOL},
        }
        return canonical(wanted)

    def layers_slice(self, runtime: str) -> str:
        """What the times of an engine's layers depend on beside the engine and the inputs.

        Raises:
            UserError: The runtime executes no engine whose layers could be timed.
        """
        spec = self.runtime(runtime)
        if spec.executes != "engine":
            known = [name for name, other in RUNTIMES.items() if other.executes == "engine"]
            raise UserError(f"{runtime!r} executes no TensorRT engine of ours; layers are timed of {', '.join(known)}")
        return canonical(
            {"options": dict(spec.options), "packages": installed(spec.packages), "iterations": LAYER_ITERATIONS}
        )

    @functools.cached_property
    def comparison(self) -> dict[str, Any]:
        """What ``results/comparison.md`` holds these results against.

        Raises:
            UserError: The study names nothing.
        """
        if "compare" not in self.config:
            raise UserError(
                "the study does not say what to compare with; add compare: {before: FOLDER}, an earlier results folder"
            )
        return self.config["compare"]

    @functools.cached_property
    def parity_shape(self) -> str:
        """The shape at which a graph is compared with PyTorch: fixed axes of the export kept, else 8 rows."""
        fixed = self.config["export"]["axes"]
        fixed = {} if fixed == "dynamic" else fixed
        return str(Shape(fixed.get("batch", 8), fixed.get("sequence", self.config["calibration"]["sequence"])))

    @functools.cached_property
    def expected_seconds(self) -> dict[str, float]:
        """A first guess of a job's length per rule, for the time left."""
        protocol = self.config["protocol"]
        timed = sum(protocol[key] for key in ("warmup_seconds", "min_seconds", "saturated_seconds"))
        return {
            "measure_latency": 2 + 1.5 * timed,
            "export_onnx": 10,
            "simplify_onnx": 10,
            "calibrate_ranges": 20,
            "capture_trace": 30,
            "build_engine": 60,
        }

    def refuse_unwritable_results(self) -> None:
        """Raise UserError now where every job would fail to write later."""
        folder = Path(self.results)
        holder = folder if folder.exists() else folder.absolute().parent
        if not holder.is_dir() or not os.access(holder, os.W_OK | os.X_OK):
            raise UserError(
                f"the results folder {folder.absolute()} cannot be written; make it a writable folder, or run in "
                "another with snakemake --directory"
            )

    # ---- inner -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _own_devices(self) -> tuple[str | None, ...]:
        return tuple(slug for kind in ("cpu", "cuda") if (slug := self.host.device(kind)))

    @functools.cached_property
    def _crossed(self) -> list[Cell]:
        """Cells whose engines are built for compute capabilities that this machine does not have."""
        if not self.engines.targets:
            return []
        return [cell for cell in self.cells if cell.spec.builder == "tensorrt-rtx" and cell.spec.engine != "external"]

    def _asked(self) -> Iterator[tuple[str, str, str, str, Shape]]:
        """Every (sweep, runtime, model, precision, shape); precisions that a runtime does not know are left out."""
        for name, sweep in self.config["sweeps"].items():
            for runtime in sweep["runtimes"]:
                for model in sweep["models"]:
                    for precision in sweep["precisions"]:
                        if precision in RUNTIMES[runtime].precisions:
                            for batch in sweep["batches"]:
                                for sequence in sweep["sequences"]:
                                    yield name, runtime, model, precision, Shape(batch, sequence)

    def _cell(self, runtime: str, model: str, precision: str, shape: Shape, sweeps: tuple[str, ...]) -> Cell:
        device = self.host.device(RUNTIMES[runtime].device)
        can = self._availability(runtime, precision)
        cell = Cell(device, runtime, model, precision, shape, sweeps, can, ())
        if not device:
            return cell
        if can:
            runs = self._runs(device, runtime, model, precision, shape)
            traced = self._asked_to_trace(cell) and self.trace_source[0]
            budget = self._budget(cell) if traced else None
            floor, engine = self._floor(cell, device), self._engine(cell, device)
            return dataclasses.replace(cell, runs=runs, floor=floor, engine=engine, budget=budget)
        # Two generations of TensorRT exclude each other: what one environment recorded stays when the other runs.
        return self._recorded(cell, device) or cell

    def _recorded(self, cell: Cell, slug: str) -> Cell | None:
        """``cell`` as measured earlier on another device or in another environment; None if it was not."""
        if cell.spec.device != ("cpu" if slug.startswith("cpu-") else "cuda"):
            return None
        runs = self._runs(slug, cell.runtime, cell.model, cell.precision, cell.shape)
        if not all(Path(run).is_file() for run in runs):
            return None
        found = dataclasses.replace(cell, device=slug, available=Availability(), runs=runs, recorded=True)
        floor, engine, budget = (
            path if path and Path(path).is_file() else None
            for path in (self._floor(cell, slug), self._engine(cell, slug), self._budget(found))
        )
        return dataclasses.replace(found, floor=floor, engine=engine, budget=budget)

    @functools.cache  # noqa: B019
    def _availability(self, runtime: str, precision: str) -> Availability:
        return availability(RUNTIMES[runtime], precision, self.host)

    def _runs(self, device: str | None, runtime: str, model: str, precision: str, shape: Shape) -> tuple[str, ...]:
        folder = f"{self.results}/benchmarks/{device}/{runtime}/{model}/{precision}/{shape}"
        return tuple(f"{folder}/run{run}.json" for run in range(1, self.config["protocol"]["processes"] + 1))

    def _engine(self, cell: Cell, device: str) -> str | None:
        if cell.spec.executes != "engine":
            return None
        return f"{self.engines.path(cell.spec, cell.model, cell.precision, str(cell.shape), device)}.json"

    def _floor(self, cell: Cell, device: str) -> str | None:
        work = counted_work(cell.spec, cell.precision)
        return f"{self.results}/floors/{device}/{cell.model}/{work}/{cell.shape}.json" if work else None

    def _twins(self, cells: list[Cell]) -> list[Cell]:
        """A second measurement of the noise cells: the named ones, else the first that can run on each device."""
        if "noise_cells" in self.config:
            chosen = [cell for cell in cells if _identity(cell) in self.config["noise_cells"]]
        else:
            first: dict[str | None, Cell] = {}
            for cell in cells:
                if cell.available and not cell.recorded:
                    first.setdefault(cell.device, cell)
            chosen = list(first.values())
        return [
            self._cell_twin(cell) if cell.available else dataclasses.replace(cell, runtime=cell.runtime + TWIN)
            for cell in chosen
        ]

    def _cell_twin(self, cell: Cell) -> Cell:
        twin = dataclasses.replace(cell, runtime=cell.runtime + TWIN, budget=None)
        if cell.recorded:
            missing = Availability("recorded in another environment, without a twin", "run the study there")
            return self._recorded(twin, cell.device or "") or dataclasses.replace(
                twin, available=missing, runs=(), recorded=False
            )
        return dataclasses.replace(
            twin, runs=self._runs(cell.device, twin.runtime, cell.model, cell.precision, cell.shape)
        )

    def _refuse_the_impossible(self) -> None:
        problems = [
            *self._unknown_names(),
            *self._impossible_shapes(),
            *self._unknown_noise_cells(),
            *self._unknown_traces(),
            *self._impossible_engines(),
        ]
        if problems:
            raise UserError(
                "the study asks for what cannot be:\n" + "\n".join(f"  {p}" for p in dict.fromkeys(problems))
            )

    def _unknown_names(self) -> Iterator[str]:
        known = {"models": list(self.config["models"]), "runtimes": list(RUNTIMES), "precisions": list(PRECISIONS)}
        for name, sweep in self.config["sweeps"].items():
            for key, names in known.items():
                for value in sweep[key]:
                    if value not in names:
                        yield f"sweeps.{name}.{key}: {value!r} is unknown, {nearest(value, names)}"
            for runtime in sweep["runtimes"]:
                can = RUNTIMES[runtime].precisions if runtime in RUNTIMES else sweep["precisions"]
                if not set(can) & set(sweep["precisions"]):
                    yield (
                        f"sweeps.{name}.runtimes: {runtime!r} runs none of {', '.join(sweep['precisions'])}; "
                        f"it runs {', '.join(can)}"
                    )

    def _impossible_shapes(self) -> Iterator[str]:
        positions = {name: self._positions(name) for name in self.config["models"]}
        fixed = self.config["export"]["axes"]
        for name, sweep in self.config["sweeps"].items():
            for model in sweep["models"]:
                for sequence in sweep["sequences"]:
                    if sequence > positions.get(model, sequence):
                        yield (
                            f"sweeps.{name}.sequences: {sequence} is longer than the {positions[model]} positions of "
                            f"{model!r}; shorten it, or set models.{model}.config.max_position_embeddings with "
                            "weights: random"
                        )
                if "int8" in sweep["precisions"] and self.config["calibration"]["sequence"] > positions.get(
                    model, 1 << 30
                ):
                    yield (
                        f"calibration.sequence: {self.config['calibration']['sequence']} is longer than the "
                        f"{positions[model]} positions of {model!r}; shorten it"
                    )
            if fixed != "dynamic":
                for axis, sizes in (("batch", sweep["batches"]), ("sequence", sweep["sequences"])):
                    for size in sizes:
                        if axis in fixed and size != fixed[axis]:
                            yield (
                                f"sweeps.{name}: {axis} {size} cannot run on a graph exported with {axis} fixed to "
                                f"{fixed[axis]}; set export.axes to dynamic"
                            )

    def _unknown_noise_cells(self) -> Iterator[str]:
        if "noise_cells" not in self.config or list(self._unknown_names()):
            return
        identities = {f"{runtime}/{model}/{precision}/{shape}" for _, runtime, model, precision, shape in self._asked()}
        for wanted in self.config["noise_cells"]:
            if wanted not in identities:
                yield f"noise_cells: {wanted!r} is no cell of the study, {nearest(wanted, sorted(identities))}"

    def _asked_to_trace(self, cell: Cell) -> bool:
        return cell.spec.device == "cuda" and any(
            fnmatch.fnmatchcase(_identity(cell), pattern) for pattern in self.config["traces"]["cells"]
        )

    def _budget(self, cell: Cell) -> str:
        folder = f"{self.results}/traces/{cell.device}/{cell.runtime}/{cell.model}/{cell.precision}"
        return f"{folder}/{cell.shape}.budget.json"

    def _unknown_traces(self) -> Iterator[str]:
        if list(self._unknown_names()):
            return
        known = {
            f"{runtime}/{model}/{precision}/{shape}"
            for _, runtime, model, precision, shape in self._asked()
            if RUNTIMES[runtime].device == "cuda"
        }
        for pattern in self.config["traces"]["cells"]:
            if not fnmatch.filter(known, pattern):
                hint = nearest(pattern, sorted(known)) if known else "it has none on a GPU"
                yield f"traces.cells: {pattern!r} fits no cell of the study on a GPU, {hint}"

    def _impossible_engines(self) -> Iterator[str]:
        if not list(self._unknown_names()):
            asked = (
                (sweep, RUNTIMES[runtime], model, precision) for sweep, runtime, model, precision, _ in self._asked()
            )
            yield from self.engines.problems(asked)

    def _positions(self, model: str) -> int:
        """The longest sequence that a model takes: of its own configuration file, if it comes from a folder."""
        definition = self.config["models"][model]
        weights = definition.get("weights", self.config["weights"])
        config = dict(definition.get("config", {}))
        if isinstance(weights, dict):
            folder = Path(weights["path"])
            try:
                config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"models.{model}.weights.path: {folder} holds no readable config.json ({error}); name a folder "
                    "with config.json and model.safetensors"
                ) from None
        return ARCHITECTURES[definition["architecture"]].positions(config)


def _identity(cell: Cell) -> str:
    return f"{cell.runtime}/{cell.model}/{cell.precision}/{cell.shape}"


def graph_name(runtime: Runtime, precision: str) -> str | None:
    """The ONNX variant that a runtime executes, as its file is called without ``.onnx``; None for PyTorch modules."""
    if runtime.executes == "weights":
        return None
    if runtime.executes == "engine" or runtime.floats == "fp16":
        return _engine_graph(precision)
    stored = stored_precision(precision)
    if runtime.executes == "fused":
        return f"{stored}.fused"
    return "int8.cpu" if (runtime.device, stored) == ("cpu", "int8") else stored


def counted_work(runtime: Runtime, precision: str) -> str | None:
    """The work that bounds a cell: that of the graph which its runtime executes, before anything is fused.

    The name of the unfused variant, except that tf32 stands for fp32's computed in TF32. None without a bound: the
    limits of CPUs are not measured, and what an engine from elsewhere computes is in no graph of ours.
    """
    if runtime.device != "cuda" or runtime.engine == "external":
        return None
    return precision if precision == "tf32" else (graph_name(runtime, precision) or precision).removesuffix(".fused")


def stored_precision(precision: str) -> str:
    """The precision that a graph is stored in: tf32 is a way to compute fp32's."""
    return "fp32" if precision == "tf32" else precision


def _engine_graph(precision: str) -> str:
    """The variant that TensorRT gets: what is not quantised stays in FP16, where it fuses attention."""
    return f"{precision}.half" if precision in ("int8", "fp8") else stored_precision(precision)


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys: equal for equal values."""
    return json.dumps(value, sort_keys=True)
