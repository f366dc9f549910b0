"""A study as the rules ask it: cells, targets, artifacts, and for each file the slice that it depends on."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.errors import UserError
from ceilings.files import expanded
from ceilings.graphs import operator_library
from ceilings.host import Host
from ceilings.measure.colocation import CARDS
from ceilings.schemas.side_by_side import ALLOWED
from ceilings.study import captures, changing_captures, machines, plan, prediction_log, progress
from ceilings.study.batch_searches import BatchSearch, batch_searches
from ceilings.study.cell import Cell
from ceilings.study.cells import Planner
from ceilings.study.changing_cells import ChangingCell, changing_cells, requests_of
from ceilings.study.colocations import Colocation, colocations
from ceilings.study.config import checked, nearest, of_captures
from ceilings.study.contents import Contents
from ceilings.study.deployments import Deployed, deployed, plain
from ceilings.study.engines import Engines
from ceilings.study.lacking import lacking
from ceilings.study.next_cells import RUN, with_next_cells
from ceilings.study.overlaps import Overlap, overlaps
from ceilings.study.paths import Paths
from ceilings.study.prediction_log import Prediction
from ceilings.study.slices import Slices, canonical
from ceilings.study.study_models import StudyModels
from ceilings.study.targets import Targets
from ceilings.study.validation import refuse_the_impossible
from ceilings.study.variants import counted_work, engine_graph, graph_name, stored_precision
from ceilings.traces import source
from ceilings.workload import generation
from ceilings.workload.batches import shape_of
from ceilings.workload.shape import Shape

WEIGHTS = ("model.safetensors", "config.json")
"""What a model's folder of weights holds beside its workload, where it has weights."""


class Study:
    """A checked study on a host.

    Args:
        config: The study as read from YAML.
        host: This machine: it measures, unless the study names nodes.
        results: The folder of all results.

    Raises:
        UserError: The study asks for something that cannot be; all such things are named at once.
    """

    def __init__(self, config: Mapping[str, Any], host: Host, results: str = "results") -> None:
        self.host = host
        self.paths = Paths(results)
        self.given = checked(config)
        """The study as it is written, with its defaults."""
        rounds = prediction_log.read(self.paths.predictions)
        self.predictions = prediction_log.last_of_each(rounds, self.given["study"])
        """What was predicted of cells of this study, the last of each."""
        self.machines = machines.read(self.given, host, self.paths)
        self.models = StudyModels(self.given)
        mine = [one for one in self.predictions if self._takes(*one["cell"].split("/")[1::2])]
        self.config = with_next_cells(self.given, mine, self.machines.devices, self.paths)
        self.contents = Contents()
        self.engines = Engines(self.config, self.machines, self.paths, self.models)
        self.trace_source = source.choose(self.config["traces"]["source"])
        """What records captures here, and why nothing does."""
        self.counters_lack = source.missing("ncu")
        """Why no hardware counters are read here; None if they can be."""
        self.slices = Slices(self.config, self.machines, self.models, self.trace_source[0] or "nsys")
        refuse_the_impossible(self.config, self.models, self.engines, results)

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """Every cell that the study asks for; none of one that has only captures.

        Raises:
            UserError: There is none: only other devices are asked for, and nothing is recorded of them.
        """
        if of_captures(self.given):
            return []
        cells = self._planner.cells()
        if not cells and "auto" in self.config["devices"]:
            raise UserError("sweeps: all have unless: gpu, and this machine has a GPU; remove the key from one of them")
        if not cells:
            devices = ", ".join(self.config["devices"])
            raise UserError(
                f"devices: {self.paths.results} holds no record of this study's cells on {devices}; bring their "
                "results folder here, correct the names, or add auto to measure on this machine"
            )
        if "auto" not in self.config["devices"] and not any(cell.runs for cell in cells):
            one, lacking = cells[0].identity, cells[0].available
            raise UserError(
                f"devices: nothing is recorded in whole of {len(cells)} cells: of {one}, {lacking.reason}; "
                f"{lacking.remedy}"
            )
        return cells

    @functools.cached_property
    def _planner(self) -> Planner:
        tools = {"traced": self.trace_source[0] is not None, "counted": self.counters_lack is None}
        return Planner(self.config, self.machines, self.paths, self.models, self.engines, **tools)

    @property
    def side_by_side(self) -> bool:
        """Whether a record of this tree allows cells of this card to be timed beside those of others."""
        if (card := self.host.gpu) is None or not (path := Path(self.paths.side_by_side(card.slug))).is_file():
            return False
        record = records.read(path, "side-by-side")
        return bool(record["verdict"] == ALLOWED and card.uuid in record["cards"])

    @functools.cached_property
    def targets(self) -> Targets:
        """The files that it asks for."""
        return Targets(
            self.cells,
            self.paths,
            self.engines,
            self.config["captures"],
            self.deployed,
            changing=self.changing,
            changes=[one["path"] for one in self.changes],
            recorded_changes=[one["path"] for one in self.recorded_changes],
            searches=self.searches,
            colocated=self.colocated,
            overlaps=self.overlaps,
            transfers=self.config["transfers"],
            reads_of_others=not self.machines.nodes,  # no node has their devices
        )

    @functools.cached_property
    def changing(self) -> list[ChangingCell]:
        """Its cells of changing shapes."""
        return changing_cells(self.config, self.cells, self.paths, self.models)

    @functools.cached_property
    def changes(self) -> list[dict[str, Any]]:
        """Those of its cells of changing shapes that are captured here, with their records."""
        return changing_captures.changes(
            self.config, self.changing, self.paths, traced=self.trace_source[0] is not None
        )

    @functools.cached_property
    def recorded_changes(self) -> list[dict[str, Any]]:
        """Those that were captured elsewhere."""
        return changing_captures.recorded_changes(self.config, self.changing, self.paths)

    @functools.cached_property
    def searches(self) -> list[BatchSearch]:
        """Its searches for the best batch."""
        return batch_searches(self.config, self.cells, self.paths, self.machines.devices)

    @functools.cached_property
    def overlaps(self) -> list[Overlap]:
        """Its cells whose copies are run beside their compute."""
        return overlaps(
            self.config,
            self.cells,
            self.paths,
            here=self.machines.devices,
            traced=self.trace_source[0] is not None,
        )

    @functools.cached_property
    def deployed(self) -> list[Deployed]:
        """Every deployment that the study asks for, once a device."""
        return deployed(self.config, self.cells, self.paths)

    @functools.cached_property
    def colocated(self) -> list[Colocation]:
        """Every co-location that the study asks for, once a device and a way to share it."""
        return colocations(self.config, self.cells, self.paths, self.machines)

    @property
    def int8_saturates(self) -> bool:
        """Whether products of uint8 and int8 saturate on a machine that measures: its graph is made for all."""
        return any(host.int8_saturates for host in self.machines.hosts)

    def plan(self) -> str:
        """The content of ``plan.json``."""
        models = dict.fromkeys(cell.model for cell in self.cells)
        return plan.plan(
            self.config,
            self.machines.hosts,
            self.models,
            self.cells,
            self.trace_source,
            counters_lack=self.counters_lack,
            lacking=lacking(self.machines.hosts, models, self._planner.availability),
            predictions=self.predictions_of_cells,
            changing=self.changing,
            changes=[*self.changes, *self.recorded_changes],
            searches=self.searches,
            deployed=self.deployed,
            colocated=self.colocated,
            overlaps=self.overlaps,
            transfers=[*self.targets.transfers, *self.targets.recorded_transfers],
        )

    @property
    def next_slice(self) -> str:
        """The study as what is proposed takes it over: as it is written, less defaults, captures and the flag."""
        if of_captures(self.given):
            return canonical({})
        needed = {key: self.given[key] for key in ("study", "models", "sweeps")}
        defaults = checked(needed)
        kept = {key: value for key, value in self.given.items() if key != "captures"}
        differing = {key: value for key, value in kept.items() if key not in defaults or defaults[key] != value}
        return canonical({**differing, **needed, "next": "plan"})

    @property
    def next_record(self) -> str:
        """The option to record predictions; none while recorded ones are measured, so that this comes to an end."""
        return "" if self.given["next"] == RUN else f"--record {self.paths.predictions}"

    @property
    def predictions_of_cells(self) -> list[Prediction]:
        """What was predicted of the study's cells, as ``plan.json`` has it."""
        cells = {(cell.device, cell.identity) for cell in self.cells if cell.runs}
        mine = (one for one in self.predictions if (one["device"], one["cell"]) in cells)
        return [{key: value for key, value in one.items() if key != "proposed"} for one in mine]

    @functools.cached_property
    def plan_in_short(self) -> list[str]:
        """What ``plan.json`` depends on, a line for each of its sections: Snakemake shows those that changed."""
        return plan.in_short(self.plan())

    # ---- files that a rule reads -------------------------------------------------------------------------------------

    def model_files(self, model: str) -> list[str]:
        """What is known of a model: its workload, its provenance and, unless it is an ONNX file, its weights."""
        folder = self.paths.weights(model)
        weights = WEIGHTS if not self.models.definition(model).onnx else ()
        return [self.paths.workload(model), self.paths.provenance(model), *(f"{folder}/{name}" for name in weights)]

    def read_runs(self, runtime: str, model: str, precision: str, shape: str, device: str) -> list[str]:
        """The run records of a cell whose texts the reference reads.

        Raises:
            UserError: The model generates none.
        """
        if not self.slices.reader(model):
            raise UserError(f"{model!r} generates no text; ask for a cell of a model that does")
        processes = range(1, self.config["protocol"]["processes"] + 1)
        return [self.paths.run(device, runtime, model, precision, shape, process=number) for number in processes]

    def reference_graph(self, model: str) -> list[str]:
        """The graph that gives the FP32 reference; none where the weights do."""
        return [self.paths.graph(model, "exported")] if self.models.definition(model).onnx else []

    def artifact(self, runtime: str, model: str, precision: str, shape: str, device: str) -> list[str]:
        """The files that a cell executes, that of ``--artifact`` first, each with the report that vouches for it."""
        spec, asked = self.slices.runtime(runtime), Shape.parse(shape)
        if spec.artifact == "engine":
            engine = self.engines.path(spec, model, precision, [asked], device)
            return [f"{engine}.engine", f"{engine}.json"]
        if spec.artifact == "engine-cache":
            kept = self.engines.cache(model, precision, asked, device)
            graph = engine_graph(precision)
            return [f"{kept}.cache.json", f"{kept}.cache", *self._vouched_graph(model, graph)]
        if named := graph_name(spec, precision):
            return self._vouched_graph(model, named)
        if self.models.definition(model).onnx:
            raise UserError(
                f"{model!r} is an ONNX file, and {runtime} executes PyTorch modules; choose another runtime"
            )
        return [*(f"{self.paths.weights(model)}/{name}" for name in WEIGHTS), self.paths.provenance(model)]

    def serving_slice(self, deployment: str, device: str) -> str:
        """What the record of a deployment depends on beside its files.

        Raises:
            UserError: The study has no such deployment.
        """
        name = plain(deployment)
        if name not in self.config["serving"]:
            raise UserError(f"no deployment is called {name!r}, {nearest(name, self.config['serving'])}")
        return self.slices.serving(name, device)

    def served(self, deployment: str, device: str) -> dict[str, list[str]]:
        """The files of a deployment by cell: artifact, inputs, reference, workload, and what vouches for the artifact.

        Raises:
            UserError: The study has no such deployment.
        """
        self.serving_slice(deployment, device)
        return self._files_of(self.config["serving"][plain(deployment)]["cells"], device)

    def colocation_slice(self, group: str, device: str) -> str:
        """What the records of a co-location depend on beside its files.

        Raises:
            UserError: The study has no such group.
        """
        if group not in self.config["colocation"]:
            raise UserError(f"no co-location is called {group!r}, {nearest(group, self.config['colocation'])}")
        return self.slices.colocation(group, device)

    def runs_to_judge(self, device: str) -> list[str]:
        """The runs on separate cards of a kind, of which the verdict on them is made.

        Raises:
            UserError: None can be measured here; with the reason.
        """
        if not (runs := self.targets.runs_on_cards(device)):
            lacking = [one.available for one in self.colocated if one.sharing.how == CARDS and one.device == device]
            why = next((f"{one.reason}; {one.remedy}" for one in lacking if not one), None)
            raise UserError(
                f"{self.paths.side_by_side(device)}: no co-location on separate cards is measured here: "
                f"{why or f'name cells of {device} in a co-location with how: [cards]'}"
            )
        return runs

    def colocated_files(self, group: str, device: str) -> dict[str, list[str]]:
        """The files of a co-location by cell, as of :meth:`served`.

        Raises:
            UserError: The study has no such group.
        """
        self.colocation_slice(group, device)
        return self._files_of(self.config["colocation"][group]["cells"], device)

    def _files_of(self, cells: Sequence[str], device: str) -> dict[str, list[str]]:
        files = {}
        for cell in dict.fromkeys(cells):
            runtime, model, precision, shape = cell.split("/")
            artifact, *vouching = self.artifact(runtime, model, precision, shape, device)
            paths = self.paths
            of_model = (paths.inputs(model, shape), paths.reference(model, shape), paths.workload(model))
            files[cell] = [artifact, *of_model, *vouching]
        return files

    def _vouched_graph(self, model: str, graph: str) -> list[str]:
        path = self.paths.graph(model, graph)
        return [path, self.paths.graph_report(model, graph), *operator_library.files_of(path)]

    def engine_graph(self, model: str, precision: str) -> str:
        """The ONNX graph that an engine is built from."""
        self.models.definition(model)
        return self.paths.graph(model, engine_graph(precision))

    def counted_graph(self, model: str, work: str) -> str:
        """The graph that holds a cell's work, by its name from :func:`counted_work`."""
        return self.paths.graph(model, stored_precision(work))

    def floor(self, runtime: str, model: str, precision: str, shape: str, device: str) -> list[str]:
        """The record of a cell's floor, as a rule's input; none where nothing bounds it."""
        work = counted_work(self.slices.runtime(runtime), precision)
        return [self.paths.floor(device, model, work, Shape.parse(shape))] if work else []

    def sensitivity_inputs(self, model: str) -> list[str]:
        """The inputs by which the most sensitive layers are found; none if the study keeps none as such."""
        wanted = self.config["quantization"]["keep_most_sensitive"]
        return [self.paths.inputs(model, self.slices.parity_shape(model))] if wanted else []

    def engine_layers(self, runtime: str, model: str, precision: str, shape: str, device: str) -> dict[str, str]:
        """The options that join a capture to the layers of an engine of ours; none for what runs no such engine.

        What each layer takes is among them once somebody had it profiled.
        """
        spec = self.slices.runtime(runtime)
        if spec.artifact != "engine":
            return {}
        times = f"{self.paths.trace(device, runtime, model, precision, shape)}.layers.json"
        engine = self.engines.path(spec, model, precision, [Shape.parse(shape)], device)
        profiled = {"--layer-times": times} if Path(times).is_file() else {}
        return {"--layers": f"{engine}.layers.json"} | profiled

    def changing_pools(self, model: str, sequence: str) -> tuple[list[str], list[str]]:
        """Inputs and references of each shape of a sequence, in its order."""
        shapes = requests_of(self.config, self.models, sequence, model).shapes
        return [self.paths.inputs(model, one) for one in shapes], [self.paths.reference(model, one) for one in shapes]

    def changing_artifact(self, runtime: str, model: str, precision: str, sequence: str, device: str) -> list[str]:
        """The files that a cell of changing shapes executes: one graph, one engine, or the weights, for all of them.

        Raises:
            UserError: The runtime has no runner of changing shapes.
        """
        if not (spec := self.slices.runtime(runtime)).changing:
            raise UserError(f"{spec.name} has no runner of changing shapes; docs/shapes.md lists those that have")
        shapes = requests_of(self.config, self.models, sequence, model).shapes
        if spec.artifact == "engine":
            engine = self.engines.path(spec, model, precision, shapes, device)
            return [f"{engine}.engine", f"{engine}.json"]
        return self.artifact(runtime, model, precision, str(shapes[0]), device)

    def searched_artifact(self, runtime: str, model: str, precision: str, rest: str, device: str) -> list[str]:
        """The files that a search for the best batch executes: one graph, or the weights, for all batches.

        Raises:
            UserError: The study has no such search, or the runtime's engines are built for batches that are known.
        """
        identity = f"{runtime}/{model}/{precision}/{rest}"
        known = {one.identity: one for one in self.searches if one.device == device}
        if identity not in known:
            raise UserError(f"best_batch.cells: no search of this study is {identity!r}, {nearest(identity, known)}")
        if not (available := known[identity].available):
            raise UserError(f"{identity}: {available.reason}; {available.remedy}")
        return self.artifact(runtime, model, precision, str(shape_of(rest, 1)), device)

    @property
    def bucket_limits(self) -> str:
        """What buckets are chosen under; JSON.

        Raises:
            UserError: The study asks for none.
        """
        given = self.config["changing"].get("buckets")
        if given is None:
            raise UserError("the study asks for no buckets; add changing: {buckets: {most: 4}}")
        return canonical({"memory_mb": None, **given})

    def timing_caches(self, device: str, builder: str) -> list[str]:
        """What the builds of one builder for one device timed.

        Raises:
            UserError: The study has no such builds.
        """
        folder = f"{self.paths.engines(device, builder)}/"
        caches = [f"{engine}.timing.cache" for engine in self.targets.engine_files if engine.startswith(folder)]
        if not caches:
            raise UserError(
                f"the study builds no engine with {builder} on {device}; name one of its runtimes in a sweep"
            )
        return caches

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
    def trends(self) -> dict[str, Any]:
        """Whose trees ``results/trends.html`` follows up to these results.

        Raises:
            UserError: The study names nothing.
        """
        if "trends" not in self.config:
            raise UserError(
                "the study names no earlier results; add trends: {trees: FOLDER}, a folder of results trees"
            )
        return self.config["trends"]

    @property
    def trend_contents(self) -> str:
        """The tables of these trees, and archives of trees."""
        folder = Path(self.trends["trees"])
        return self.contents.counted(path for path in folder.rglob("*") if path.suffix in {".parquet", ".gz", ".tgz"})

    # ---- files from outside the workflow: names and digests, empty where there are none -----------------------------

    def model_contents(self, model: str) -> str:
        """The files of the user that a model is made from."""
        definition = self.models.definition(model)
        folder = definition.folder or expanded(definition.onnx or "").parent
        return self.contents.named(self.models.files(model), folder)

    def length_contents(self, shape: str) -> str:
        """The file of texts whose lengths the inputs of a shape follow."""
        distribution = self.config["inputs"]["lengths"].get(Shape.parse(shape).lengths, {})
        return self._content(distribution.get("file"))

    def data_contents(self, model: str) -> str:
        """The labelled file of a model, whose quality is else agreement with FP32."""
        data = self.models.definition(model).data
        return self._content(data.get("file") if isinstance(data, Mapping) else data)

    def engine_contents(self, builder: str, name: str) -> str:
        """What an engine is made from beside its graph."""
        return ", ".join(map(self._content, self.engines.files(builder, name)))

    def capture(self, name: str) -> captures.Capture:
        """A trace that others made, by its name.

        Raises:
            UserError: The study names no such trace.
        """
        return captures.capture(self.config, name)

    def capture_contents(self, name: str) -> str:
        """The file of such a trace."""
        return self._content(self.capture(name).path)

    def recorded_contents(self, paths: Sequence[str]) -> str:
        """Records of other machines and other environments."""
        return self.contents.counted(paths)

    def _content(self, file: object) -> str:
        path = expanded(str(file))
        return self.contents.named([path], path.parent) if file else ""

    # ---- the run -----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def expected_seconds(self) -> dict[str, float]:
        """A first guess of a job's length per rule, for the time left."""
        served = [one.deployment for one in self.deployed if one.runs and not one.recorded]
        colocated = [one for one in self.colocated if one.runs and not one.recorded]
        return progress.expected_seconds(
            self.config["protocol"], self.targets.measured, served, colocated, self.config["overlap"]["streams"]
        )

    def refuse_unfit(self, model: str, shape: str) -> None:
        """Raise UserError where a model does not take a shape that a target names."""
        outline = self.models.outline(model)
        asked = Shape.parse(shape)
        if set(asked.axes) != set(outline.axes):
            raise UserError(
                f"{shape} is no shape of {model!r}, which has the axes {', '.join(outline.axes)}; give the size of each"
            )
        for axis, size in asked.sizes:
            only, most = outline.fixed.get(axis), outline.limits.get(axis, size)
            least = outline.least.get(axis, 1)
            if not least <= size <= most or only not in (None, size):
                takes = (
                    f"{only} alone" if only is not None else f"at most {most}" if size > most else f"at least {least}"
                )
                raise UserError(f"{shape}: {model!r} takes {takes} as {axis}; ask for that")
        if outline.positions and generation.context(asked) > outline.positions:
            raise UserError(generation.too_long(repr(model), asked, outline.positions))

    def _takes(self, model: str, shape: str) -> bool:
        """Whether a model of the study takes a shape: it may have been another one when its cell was predicted."""
        try:
            self.refuse_unfit(model, shape)
        except UserError:
            return False
        return True

    def refuse_unwritable_results(self) -> None:
        """Raise UserError now where every job would fail to write later."""
        folder = Path(self.paths.results)
        if folder.is_symlink() and not folder.exists():
            raise UserError(
                f"the results folder {folder} is a link to {folder.readlink()}, which does not exist; make that folder "
                "or remove the link"
            )
        holder = folder if folder.exists() else folder.absolute().parent
        if not holder.is_dir() or not os.access(holder, os.W_OK | os.X_OK):
            raise UserError(
                f"the results folder {folder.absolute()} cannot be written; make it a writable folder, or run in "
                "another with snakemake --directory"
            )
