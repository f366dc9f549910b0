"""A study as cells, and for each file of it the slice of the study that it depends on.

Slices are canonical JSON texts: as a rule's param they change exactly when something changes that the file depends on.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings import SCHEMA_VERSION
from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.runtimes.catalogue import RUNTIMES, Runtime
from ceilings.study.availability import Availability, availability, installed
from ceilings.study.cell import TWIN, Cell, Shape
from ceilings.study.code import digest
from ceilings.study.config import checked, nearest
from ceilings.study.engines import Engines
from ceilings.study.impossible import asked_cells, refuse_the_impossible
from ceilings.study.variants import counted_work, engine_graph, graph_name, stored_precision
from ceilings.traces import source

TRACE_PROTOCOL = ("warmup_seconds", "warmup_max_seconds", "time_limit_seconds")
"""What of the protocol matters to a capture."""

LAYER_ITERATIONS = 100
"""Inferences of which each layer is timed."""

LOCAL_FILES = ("config.json", "model.safetensors")
"""What a folder of weights holds."""


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
        refuse_the_impossible(self.config, self.engines)

    # ---- cells -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """Every cell that the study asks for, each once a device, the twins of a device's A/A pairs after its cells."""
        asked: dict[tuple[str, str, str, Shape], list[str]] = {}
        for name, runtime, model, precision, shape in asked_cells(self.config):
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

    def engine_layers(self, runtime: str, model: str, precision: str, shape: str, device: str) -> dict[str, str]:
        """The options that join a capture to the layers of an engine of ours; none for what runs no such engine.

        What each layer takes is among them once somebody had it profiled.
        """
        spec = self.runtime(runtime)
        if spec.executes != "engine":
            return {}
        times = f"{self.results}/traces/{device}/{runtime}/{model}/{precision}/{shape}.layers.json"
        told = f"{self.engines.path(spec, model, precision, shape, device)}.layers.json"
        return {"--layers": told} | ({"--layer-times": times} if Path(times).is_file() else {})

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
        return f"{self.results}/onnx/{model}/{engine_graph(precision)}.onnx"

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
                    "ceilings.measure.supervisor",
                    "ceilings.measure.worker",
                    *(["ceilings.measure.gpu_loop"] if spec.device == "cuda" else []),
                    f"ceilings.runtimes.{spec.module}",
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
            chosen = [cell for cell in cells if cell.identity in self.config["noise_cells"]]
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

    def _asked_to_trace(self, cell: Cell) -> bool:
        return cell.spec.device == "cuda" and any(
            fnmatch.fnmatchcase(cell.identity, pattern) for pattern in self.config["traces"]["cells"]
        )

    def _budget(self, cell: Cell) -> str:
        folder = f"{self.results}/traces/{cell.device}/{cell.runtime}/{cell.model}/{cell.precision}"
        return f"{folder}/{cell.shape}.budget.json"


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys: equal for equal values."""
    return json.dumps(value, sort_keys=True)
