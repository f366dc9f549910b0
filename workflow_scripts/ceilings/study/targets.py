"""The files that a study asks for, from its cells."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from ceilings.measure.colocation import CARDS
from ceilings.study.batch_searches import BatchSearch
from ceilings.study.cell import Cell
from ceilings.study.changing_cells import ChangingCell
from ceilings.study.colocations import Colocation
from ceilings.study.deployments import Deployed
from ceilings.study.engines import Engines
from ceilings.study.overlaps import Overlap
from ceilings.study.paths import Paths
from ceilings.study.variants import graph_name
from ceilings.workload.generation import is_request


class Targets:
    """What the rules must make, and what of other machines they may read.

    Args:
        cells: Every cell of the study.
        paths: The results tree.
        engines: The engines of the study.
        captures: Names of the captures that others made.
        deployed: Every deployment of the study.
        changing: Its cells of changing shapes.
        changes: Of those that are captured, the records of what a change costs.
        recorded_changes: Such records that were made elsewhere; they are only read.
        searches: Its searches for the best batch.
        colocated: Its co-locations.
        overlaps: Its cells whose copies are run beside their compute.
        transfers: Whether it measures transfers between its hosts and their GPUs.
        reads_of_others: Whether this machine reads texts that others generated, where nobody has.
    """

    def __init__(
        self,
        cells: list[Cell],
        paths: Paths,
        engines: Engines,
        captures: Iterable[str] = (),
        deployed: Iterable[Deployed] = (),
        *,
        changing: Iterable[ChangingCell] = (),
        changes: Iterable[str] = (),
        recorded_changes: Iterable[str] = (),
        searches: Iterable[BatchSearch] = (),
        colocated: Iterable[Colocation] = (),
        overlaps: Iterable[Overlap] = (),
        transfers: bool = False,
        reads_of_others: bool = True,
    ) -> None:
        self.cells = cells
        self.deployed = list(deployed)
        self.paths = paths
        self.engines = engines
        self.captures = list(captures)
        self.changing = list(changing)
        self.changes = list(changes)
        self.recorded_changes = list(recorded_changes)
        self.searches = list(searches)
        self.colocated = list(colocated)
        self.overlaps = list(overlaps)
        self._transfers = transfers
        self._reads_of_others = reads_of_others

    @functools.cached_property
    def measured(self) -> list[Cell]:
        """The cells that this machine measures."""
        return [cell for cell in self.cells if cell.available and not cell.recorded]

    @functools.cached_property
    def runs(self) -> list[str]:
        """The run records that this machine makes."""
        return [run for cell in self.measured for run in cell.runs]

    @functools.cached_property
    def parts(self) -> set[str]:
        """What of all that a study can have this one has, measured here or recorded: plots are of such a part."""
        has = {
            "generation": any(is_request(cell.shape) for cell in self.cells),
            "serving": bool(self.deployed),
            "changing": bool(self.changing),
            "searches": bool(self.searches),
            "colocation": bool(self.colocated),
            "overlap": bool(self.overlaps),
            "budgets": any(cell.budget for cell in self.cells),
            "counters": any(cell.counters for cell in self.cells),
            "floors": any(cell.floor for cell in self.cells),
            "transfers": bool(self.transfers or self.recorded_transfers),
        }
        return {name for name, held in has.items() if held}

    @functools.cached_property
    def served_runs(self) -> list[str]:
        """The records of deployments that this machine makes."""
        return [run for one in self.deployed if not one.recorded for run in one.runs]

    @functools.cached_property
    def colocated_runs(self) -> list[str]:
        """The records of co-locations that this machine makes."""
        return [run for one in self.colocated if not one.recorded for run in one.runs]

    @functools.cached_property
    def overlap_records(self) -> list[str]:
        """The records of copies beside compute that this machine makes."""
        return [path for one in self.overlaps if not one.recorded for path in one.records]

    @functools.cached_property
    def gpus(self) -> list[str]:
        """The GPUs that this machine measures on."""
        return sorted({cell.device or "" for cell in self.measured if cell.spec.device == "cuda"})

    @functools.cached_property
    def transfers(self) -> list[str]:
        """The records of transfers that this machine makes."""
        return [self.paths.transfers(gpu) for gpu in self.gpus] if self._transfers else []

    @functools.cached_property
    def recorded_transfers(self) -> list[str]:
        """Those of other machines, as far as they came with their records: read, never made."""
        if not self._transfers:
            return []
        others = {cell.device for cell in self.cells if cell.device and cell.spec.device == "cuda"}
        paths = [self.paths.transfers(device) for device in sorted(others - set(self.gpus))]
        return [path for path in paths if Path(path).is_file()]

    def runs_on_cards(self, device: str) -> list[str]:
        """The records of co-locations on separate cards of a kind that this machine makes."""
        return [
            run
            for one in self.colocated
            if one.sharing.how == CARDS and one.device == device and not one.recorded
            for run in one.runs
        ]

    @functools.cached_property
    def side_by_side(self) -> list[str]:
        """The verdicts on separate cards that this machine makes."""
        return [self.paths.side_by_side(gpu) for gpu in self.gpus if self.runs_on_cards(gpu)]

    @functools.cached_property
    def recorded_runs(self) -> list[str]:
        """Run records of other machines and other environments: read, never made."""
        return [run for cell in self.cells if cell.recorded for run in cell.runs]

    @functools.cached_property
    def recorded_records(self) -> list[str]:
        """All that the tables read of other machines and other environments."""
        read = [cell for cell in self.cells if cell.recorded]
        beside = ((cell.floor, cell.engine, cell.budget, cell.counters, cell.quality, cell.texts) for cell in read)
        served = (run for one in self.deployed if one.recorded for run in one.runs)
        colocated = (run for one in self.colocated if one.recorded for run in one.runs)
        overlapped = (path for one in self.overlaps if one.recorded for path in one.records)
        searched = (one.record for one in self.searches if one.record and one.recorded)
        changing = (path for one in self.changing if one.recorded for path in one.records)
        artifacts = sorted({path for paths in beside for path in paths if path and path not in self.texts})
        beside_cells = [*changing, *served, *searched, *colocated, *overlapped, *self.recorded_transfers]
        return [*self.recorded_runs, *artifacts, *beside_cells, *self.recorded_changes]

    @functools.cached_property
    def budgets(self) -> list[str]:
        """The budgets that this machine makes."""
        return [cell.budget for cell in self.measured if cell.budget]

    @functools.cached_property
    def counters(self) -> list[str]:
        """What limits kernels by their counters, of the cells of this machine."""
        return [cell.counters for cell in self.measured if cell.counters]

    @functools.cached_property
    def kernel_rooflines(self) -> list[str]:
        """The pictures of these kernels below the device's ceilings."""
        return [str(Path(path).with_suffix(f".{kind}")) for path in self.counters for kind in ("svg", "png")]

    @functools.cached_property
    def qualities(self) -> list[str]:
        """The records of quality that this machine makes."""
        return sorted({cell.quality for cell in self.measured if cell.quality})

    @functools.cached_property
    def texts(self) -> list[str]:
        """The verdicts on generated texts that this machine makes, also on those of others that came without one."""
        others = [cell for cell in self.cells if cell.recorded] if self._reads_of_others else []
        cells = (*self.measured, *(cell for cell in others if not self._came_read(cell)))
        return [cell.texts for cell in cells if cell.texts]

    @functools.cached_property
    def changing_records(self) -> list[str]:
        """The records of changing shapes that this machine makes: runs, buckets and padded runs."""
        return [path for cell in self.changing if not cell.recorded for path in cell.records]

    @functools.cached_property
    def search_records(self) -> list[str]:
        """The records of searches for the best batch that this machine makes."""
        return [one.record for one in self.searches if one.record and not one.recorded]

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
        return sorted(set(_graphs((*self.measured, *self._crossed))))

    @functools.cached_property
    def engine_files(self) -> list[str]:
        """The engines that this machine builds, less their suffix: what its cells run on, and those of the targets."""
        here = {self._engine(cell, cell.device or "") for cell in self.measured if cell.spec.artifact == "engine"}
        elsewhere = {self._engine(cell, target) for cell in self._crossed for target in self.engines.targets}
        return sorted(here | elsewhere)

    @functools.cached_property
    def evidence(self) -> list[str]:
        """What the summary rests on beside the tables: weights, reports of graphs, parity, limits, explanations."""
        paths = self.paths
        models = sorted({cell.model for cell in (*self.measured, *self._crossed)})
        exported = sorted({model for model, _ in self.graphs})
        return [
            *map(paths.provenance, models),
            *(paths.graph_report(model, "simplified") for model in exported),
            *(paths.graph_report(*graph) for graph in self.graphs),
            *(paths.parity(*graph) for graph in self.graphs),
            *(f"{engine}.json" for engine in self.engine_files),
            *map(paths.peaks, self.gpus),
            *map(paths.explanation, self.captures),
        ]

    @functools.cached_property
    def explained_pages(self) -> list[str]:
        """The pages of the captures that others made."""
        return [str(Path(self.paths.explanation(name)).with_suffix(".md")) for name in self.captures]

    @functools.cached_property
    def recorded_evidence(self) -> list[str]:
        """The same of other machines, as far as it came with their records: read, never made."""
        paths = self.paths
        cells = [cell for cell in self.cells if cell.recorded]
        graphs = list(_graphs(cells))
        found = [
            *(paths.provenance(cell.model) for cell in cells),
            *(paths.graph_report(model, "simplified") for model, _ in graphs),
            *(paths.graph_report(*graph) for graph in graphs),
            *(paths.parity(*graph) for graph in graphs),
            *(paths.peaks(cell.device or "") for cell in cells),
        ]
        return [path for path in dict.fromkeys(found) if path not in self.evidence and Path(path).is_file()]

    @functools.cached_property
    def _crossed(self) -> list[Cell]:
        """Cells whose engines are built for compute capabilities that this machine does not have."""
        if not self.engines.targets:
            return []
        built = [cell for cell in self.cells if cell.spec.builder == "tensorrt-rtx" and cell.spec.engine != "external"]
        # No graph of a forward pass is quantised.
        return [cell for cell in built if not is_request(cell.shape) or cell.precision in cell.spec.generates]

    def _came_read(self, cell: Cell) -> bool:
        """Whether a recorded cell came with a verdict: one that was made here has its log and its weights here."""
        name = (cell.device or "", cell.runtime, cell.model, cell.precision, cell.shape)
        made_with = (self.paths.texts_log(*name), f"{self.paths.weights(cell.model)}/model.safetensors")
        return Path(cell.texts or "").is_file() and not all(Path(path).is_file() for path in made_with)

    def _engine(self, cell: Cell, device: str) -> str:
        return self.engines.path(cell.spec, cell.model, cell.precision, [cell.shape], device)


def _graphs(cells: Iterable[Cell]) -> Iterator[tuple[str, str]]:
    for cell in cells:
        if graph := graph_name(cell.spec, cell.precision):
            yield cell.model, graph
