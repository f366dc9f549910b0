"""What each file of a study depends on beside its inputs.

Slices are canonical JSON texts: as a rule's param they change exactly when something changes that the file depends on.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from ceilings import environment
from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.measure import catalogue as measurements
from ceilings.models.catalogue import FAMILIES
from ceilings.runtimes.catalogue import RUNTIMES, Runtime
from ceilings.serving.deployment import Deployment
from ceilings.study import colocations, deployments
from ceilings.study.availability import installed
from ceilings.study.batch_searches import search_of
from ceilings.study.cell import SECOND
from ceilings.study.changing_cells import requests_of
from ceilings.study.code import digest, libraries
from ceilings.study.config import nearest
from ceilings.study.machines import Machines
from ceilings.study.products import products
from ceilings.study.study_models import BATCH, StudyModels
from ceilings.study.sweeps import smallest_sizes
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS, Task

TRACE_PROTOCOL = ("warmup_seconds", "warmup_max_seconds", "time_limit_seconds")
"""What of the protocol matters to a capture."""

COUNTED_WARMUP = 1.0
"""Seconds that a cell warms up at most before its kernels are counted: each pass of the counters begins with it."""

WINDOWS_PROTOCOL = ("warmup_seconds", "warmup_max_seconds", "min_seconds", "time_limit_seconds")
"""What of it matters to what is measured in windows: co-locations, copies beside compute."""

SEARCHED = (measurements.CLOSED_LOOP.name,)
"""What is measured of each batch of a search."""

LAYER_ITERATIONS = 100
"""Inferences of which each layer is timed."""


class Slices:
    """Cuts a study to what each file depends on.

    Args:
        config: The study, checked, with its defaults.
        machines: What measures.
        models: The models of the study.
        trace_source: What records captures.
    """

    def __init__(self, config: Mapping[str, Any], machines: Machines, models: StudyModels, trace_source: str) -> None:
        self.config = config
        self.machines = machines
        self.models = models
        self.trace_source = trace_source

    @property
    def cpu_threads(self) -> int:
        """Threads of what makes artifacts: this machine's."""
        return self._threads(self.machines.here)

    def threads(self, device: str | None = None) -> int:
        """Threads of a process that executes a cell on a device; None is this machine's."""
        return self._threads(self.machines.of(device))

    def _threads(self, host: Host) -> int:
        threads = self.config["cpu_threads"]
        return host.cores if threads == "physical" else int(threads)

    def section(self, key: str) -> str:
        """One section of the study, whole."""
        return canonical(self.config[key])

    # ---- models and graphs -------------------------------------------------------------------------------------------

    @functools.cache  # noqa: B019 - one study lives as long as the process
    def model(self, name: str) -> str:
        """What a model's weights, or the graph of an ONNX file, depend on."""
        return canonical({"name": name, **self.models.definition(name).to_json()})

    def inputs(self, shape: str) -> str:
        """What the inputs of one shape depend on beside the model."""
        lengths = Shape.parse(shape).lengths
        known = self.config["inputs"]["lengths"]
        if lengths and lengths not in known:
            raise UserError(f"inputs.lengths has no {lengths!r}, {nearest(lengths, known)}")
        distribution = known[lengths] if lengths else None
        return canonical({"pool": self.config["inputs"]["pool"], "seed": self.config["seed"], "lengths": distribution})

    def export(self, model: str) -> str:
        """What an export depends on beside the weights: of fixed axes, those that the model has."""
        wanted = dict(self.config["export"])
        if wanted["axes"] != "dynamic":
            axes = self.models.outline(model).axes
            wanted["axes"] = {axis: size for axis, size in wanted["axes"].items() if axis in axes} or "dynamic"
        return canonical(wanted)

    def fusion(self, model: str) -> str:
        """What a fusion depends on beside graph and sizes: what the optimiser needs of the architecture, or what writes
        the graph of a decoder."""
        outline = self.models.outline(model)
        if outline.fusion is None:
            return ""
        written = {"code": digest("ceilings.graphs.gqa_decoder")} if TASKS[outline.task].generates else {}
        return canonical({**dataclasses.asdict(outline.fusion), **written})

    def step(self, model: str) -> str:
        """Digest of the modules that make a forward pass of a decoder; empty of what generates nothing."""
        generates = TASKS[self.models.outline(model).task].generates
        return digest("ceilings.models.decoder_step", "ceilings.graphs.tied_head") if generates else ""

    @functools.cache  # noqa: B019
    def parity_shape(self, model: str) -> Shape:
        """The shape at which a model's graphs are compared with the reference: 8 inputs, or as many as it takes."""
        return self._chosen(model, BATCH, self.config["calibration"]["sequence"])

    def calibration(self, model: str, method: str) -> str:
        """What a calibration with ``method`` depends on beside the graph."""
        wanted = {**self.config["calibration"], "method": method, "seed": self.config["seed"]}
        wanted["sequence"] = self.parity_shape(model).get("sequence")
        if method != "percentile":
            del wanted["percentile"]
        return canonical({key: value for key, value in wanted.items() if value is not None})

    def data(self, model: str) -> str:
        """What a model's rows for quality depend on beside their file and the tokenizer.

        Without labelled data they are texts and images of the package, on which precisions are held against FP32.
        """
        data = self.models.definition(model).data or {}
        given = {"file": data} if isinstance(data, str) else dict(data)
        return canonical({**given, "limit": self.config["quality"]["limit"], "seed": self.config["seed"]})

    @functools.cache  # noqa: B019
    def quality_shape(self, model: str) -> Shape:
        """The shape at which the quality of a model's cells is evaluated."""
        return self._chosen(model, self.config["quality"]["batch"], self.config["quality"]["sequence"])

    # ---- what runs ---------------------------------------------------------------------------------------------------

    @functools.cache  # noqa: B019
    def measure(self, runtime: str, model: str, precision: str, device: str | None = None) -> str:
        """What a run record depends on beside artifact and inputs: protocol, runtime, packages, measurements, code."""
        spec = self.runtime(runtime)
        names = self.config["protocol"].get("measurements")
        kind = measurements.kind_of(self._task(model))
        return canonical(
            {
                **self._execution(spec, model, device),
                "code": digest(
                    *measurements.modules(spec.device, names, kind),
                    *self._executed(spec, model),
                ),
                "tolerance": self.config["parity"][precision],
                "protocol": {
                    key: value
                    for key, value in self.config["protocol"].items()
                    if key not in ("processes", "measurements", "serving")
                },
                "measurements": measurements.task_entries(spec.device, names, kind),
            }
        )

    @functools.cache  # noqa: B019
    def changing(self, runtime: str, model: str, precision: str, sequence: str, device: str | None = None) -> str:
        """What a record of changing shapes depends on beside artifact and inputs."""
        spec = self.runtime(runtime)
        modules = ("ceilings.measure.changing_worker", f"ceilings.measure.{spec.device}_bench")
        family = self._family(model) if spec.artifact == "weights" else ()
        return canonical(
            {
                **self._execution(spec, model, device),
                "module": spec.changing,
                "code": digest(*modules, f"ceilings.runtimes.{spec.changing}", *family),
                "tolerance": self.config["parity"][precision],
                "protocol": {
                    key: value
                    for key, value in self.config["protocol"].items()
                    if key not in ("processes", "measurements")
                },
                "requests": requests_of(self.config, self.models, sequence, model).to_json(),
            }
        )

    @functools.cache  # noqa: B019
    def changing_trace(self, runtime: str, model: str, sequence: str, device: str | None = None) -> str:
        """What a capture of changing shapes depends on beside artifact and inputs."""
        spec = self.runtime(runtime)
        recorded = ("ceilings.traces.cupti",) if spec.device == "cuda" else ()
        family = self._family(model) if spec.artifact == "weights" else ()
        modules = ("ceilings.traces.changing_target", *recorded, f"ceilings.runtimes.{spec.changing}", *family)
        return canonical(
            {
                **self._execution(spec, model, device),
                "module": spec.changing,
                "code": digest(*modules),
                "iterations": self.config["traces"]["iterations"],
                "source": self.trace_source if spec.device == "cuda" else _cpu_source(spec),
                "protocol": {key: self.config["protocol"][key] for key in TRACE_PROTOCOL},
                "requests": requests_of(self.config, self.models, sequence, model).to_json(),
            }
        )

    @functools.cache  # noqa: B019
    def best_batch(self, runtime: str, model: str, precision: str, device: str | None = None) -> str:
        """What a search for the best batch depends on beside the artifact, the model's files and its inputs."""
        spec = self.runtime(runtime)
        programs = ("make_inputs", "compute_reference")  # which it runs for each batch
        modules = (*measurements.modules(spec.device, SEARCHED), *self._executed(spec, model), *self._family(model))
        return canonical(
            {
                **self._execution(spec, model, device),
                "code": digest(*programs, *dict.fromkeys(modules)),
                "tolerance": self.config["parity"][precision],
                "protocol": {
                    key: value
                    for key, value in self.config["protocol"].items()
                    if key not in ("processes", "measurements", "serving")
                },
                "measurements": measurements.task_entries(spec.device, SEARCHED),
                "search": search_of(self.config),
            }
        )

    @functools.cache  # noqa: B019
    def serving(self, deployment: str, device: str | None = None) -> str:
        """What a deployment's record depends on beside artifacts and inputs: entry, cells, code and packages."""
        served = Deployment.from_json(self.config["serving"][deployment])
        cells, modules = {}, list(deployments.modules(served))
        for cell in served.cells:
            runtime, model, precision, _ = cell.split("/")
            spec = self.runtime(runtime)
            cells[cell] = {**self._execution(spec, model, device), "tolerance": self.config["parity"][precision]}
            modules += self._executed(spec, model)
        protocol = {key: value for key, value in self.config["protocol"]["serving"].items() if key != "limit_ms"}
        return canonical(
            {
                "deployment": served.to_json(),
                "cells": cells,
                "protocol": protocol,
                "seed": self.config["seed"],
                "code": digest(*dict.fromkeys(modules)),
                "packages": deployments.packages_of(served),
            }
        )

    @functools.cache  # noqa: B019
    def colocation(self, group: str, device: str | None = None) -> str:
        """What a co-location's records depend on beside artifacts and inputs: its cells, their execution, code."""
        cells = self.config["colocation"][group]["cells"]
        executions, modules = {}, []
        for cell in dict.fromkeys(cells):
            runtime, model, precision, _ = cell.split("/")
            spec = self.runtime(runtime)
            executions[cell] = {**self._execution(spec, model, device), "tolerance": self.config["parity"][precision]}
            modules += [*colocations.modules(spec.device), *self._executed(spec, model)]
        return canonical(
            {
                "cells": cells,
                "executions": executions,
                "threads": self.threads(device),
                "variables": environment.recorded(environment.shaping()),
                "code": digest(*dict.fromkeys(modules)),
                "protocol": {key: self.config["protocol"][key] for key in WINDOWS_PROTOCOL},
            }
        )

    @functools.cache  # noqa: B019
    def overlap(self, runtime: str, model: str, precision: str, device: str | None = None) -> str:
        """What a record of copies beside compute depends on beside artifact and inputs."""
        spec = self.runtime(runtime)
        modules = ("ceilings.measure.overlap_worker", "ceilings.measure.cuda_bench")
        return canonical(
            {
                **self._execution(spec, model, device),
                "code": digest(*modules, *self._executed(spec, model)),
                "tolerance": self.config["parity"][precision],
                "protocol": {key: self.config["protocol"][key] for key in WINDOWS_PROTOCOL},
                "streams": self.config["overlap"]["streams"],
            }
        )

    @functools.cache  # noqa: B019
    def overlap_trace(self, runtime: str, model: str, device: str | None = None) -> str:
        """What a capture of copies beside compute depends on beside artifact and inputs."""
        spec = self.runtime(runtime)
        modules = ("ceilings.traces.overlap_target", "ceilings.traces.cupti")
        return canonical(
            {
                **self._execution(spec, model, device),
                "code": digest(*modules, *self._executed(spec, model)),
                "source": self.trace_source,
                "protocol": {key: self.config["protocol"][key] for key in TRACE_PROTOCOL},
                "streams": self.config["overlap"]["streams"],
            }
        )

    @functools.cache  # noqa: B019
    def trace(self, runtime: str, model: str, device: str | None = None) -> str:
        """What a capture depends on beside artifact and inputs: of the protocol, the warm-up and the time limit."""
        spec = self.runtime(runtime)
        modules = ("ceilings.traces.target", "ceilings.traces.cupti")
        return canonical(
            {
                **self._execution(spec, model, device),
                "code": digest(*modules, *self._executed(spec, model)),
                "iterations": self.config["traces"]["iterations"],
                "source": self.trace_source,
                "protocol": {key: self.config["protocol"][key] for key in TRACE_PROTOCOL},
            }
        )

    @functools.cache  # noqa: B019
    def counters(self, runtime: str, model: str, device: str | None = None) -> str:
        """What the counters of a cell's kernels depend on beside artifact and inputs: of one iteration."""
        spec = self.runtime(runtime)
        return canonical(
            {
                **self._execution(spec, model, device),
                "code": digest("ceilings.traces.target", *self._executed(spec, model)),
                "iterations": 1,
                "caches": self.config["traces"]["counters"]["caches"],
                "protocol": {
                    **{key: self.config["protocol"][key] for key in TRACE_PROTOCOL},
                    "warmup_max_seconds": min(COUNTED_WARMUP, self.config["protocol"]["warmup_max_seconds"]),
                },
            }
        )

    @functools.cache  # noqa: B019
    def quality(self, runtime: str, model: str, device: str | None = None) -> str:
        """What a record of quality depends on beside artifact and rows."""
        spec = self.runtime(runtime)
        return canonical(
            {
                **self._execution(spec, model, device),
                "code": digest("ceilings.measure.evaluation_worker", *self._executed(spec, model)),
                "protocol": {"time_limit_seconds": self.config["protocol"]["time_limit_seconds"]},
            }
        )

    def layers(self, runtime: str) -> str:
        """What the times of an engine's layers depend on beside the engine and the inputs.

        Raises:
            UserError: The runtime executes no engine whose layers could be timed.
        """
        spec = self.runtime(runtime)
        if spec.artifact != "engine":
            known = [name for name, other in RUNTIMES.items() if other.artifact == "engine"]
            raise UserError(f"{runtime!r} executes no TensorRT engine of ours; layers are timed of {', '.join(known)}")
        return canonical(
            {"options": dict(spec.options), "packages": installed(spec.packages), "iterations": LAYER_ITERATIONS}
        )

    @functools.cached_property
    def products(self) -> str:
        """The products whose rates are measured: those of every model that a sweep puts on a GPU."""
        names = [
            model
            for sweep in self.config["sweeps"].values()
            if any(RUNTIMES[runtime].device == "cuda" for runtime in sweep["runtimes"])
            for model in sweep["models"]
        ]
        unique = dict.fromkeys(names)
        return json.dumps(products((self.models.definition(name), self.models.outline(name).task) for name in unique))

    def runtime(self, name: str) -> Runtime:
        """The runtime of a cell, also of the second of an A/A pair.

        Raises:
            UserError: No such runtime.
        """
        plain = name.removesuffix(SECOND)
        if why := RUNTIMES.misnamed(plain):
            raise UserError(f"{plain!r} {why}")
        if plain not in RUNTIMES:
            raise UserError(f"no runtime is called {plain!r}, {nearest(plain, RUNTIMES)}")
        return RUNTIMES[plain]

    # ---- inner -------------------------------------------------------------------------------------------------------

    def _execution(self, spec: Runtime, model: str, device: str | None) -> dict[str, Any]:
        """What every execution of a model by a runtime depends on."""
        family = self.models.outline(model).family if spec.artifact == "weights" else ""
        packages = (*spec.packages, *(FAMILIES[family].packages if family else ()), "numpy")
        gpu = self.machines.of(device).gpu
        return {
            "runtime": spec.name,
            "module": self._module(spec, model),
            "options": dict(spec.options),
            "packages": installed(packages),
            "driver": gpu.driver if spec.device == "cuda" and gpu else None,
            "threads": self.threads(device),
            "variables": environment.recorded(environment.shaping()),
        }

    def family(self, model: str) -> str:
        """Digest of the module that answers for a model: its family's, or what runs an ONNX file."""
        return digest(*self._family(model), *self._reference(model))

    def family_packages(self, model: str) -> str:
        """Packages of that module, with their versions."""
        return libraries(*self._family(model), *self._reference(model))

    def _executed(self, spec: Runtime, model: str) -> tuple[str, ...]:
        """Modules of the runtime, and of the model's family where the runtime executes that and no graph."""
        family = self._family(model) if spec.artifact == "weights" else ()
        return f"ceilings.runtimes.{self._module(spec, model)}", *family

    def _module(self, spec: Runtime, model: str) -> str:
        """The module that runs a model on a runtime; of a pair that cannot be, any."""
        return spec.module_of(self._task(model)) or spec.module or spec.generator

    def _task(self, model: str) -> Task:
        return TASKS[self.models.outline(model).task]

    def _family(self, model: str) -> tuple[str, ...]:
        outline = self.models.outline(model)
        return (FAMILIES[outline.family].module if outline.family else "ceilings.models.graph_reference",)

    def _reference(self, model: str) -> tuple[str, ...]:
        """What answers for a model instead of its module: of one that generates, a loop around that."""
        return ("ceilings.models.token_reference",) if TASKS[self.models.outline(model).task].generates else ()

    def reader(self, model: str) -> str:
        """Digest of what reads a runtime's text as the reference does; empty of what generates nothing."""
        return digest(*self._reader(model)) if self._reader(model) else ""

    def reader_packages(self, model: str) -> str:
        """Packages of that, with their versions."""
        return libraries(*self._reader(model))

    def _reader(self, model: str) -> tuple[str, ...]:
        """Modules of the same."""
        reference = self._reference(model)
        return ("ceilings.measure.text_worker", *reference, *self._family(model)) if reference else ()

    def _chosen(self, model: str, batch: int, sequence: int) -> Shape:
        return self.models.chosen_shape(model, batch, sequence, smallest_sizes(self.config, self.models, model))


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys: equal for equal values."""
    return json.dumps(value, sort_keys=True)


def _cpu_source(spec: Runtime) -> str:
    """The profiler that sees what a runtime does on a CPU."""
    return "onnxruntime" if any("onnxruntime" in package for package in spec.packages) else "torch"
