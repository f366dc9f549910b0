"""Every path of the results tree, by what lies there. Standard library only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

from ceilings.workload.shape import Shape


@dataclasses.dataclass(frozen=True)
class Paths:
    """The paths below a results folder.

    A graph is named as its file is without ``.onnx``: ``fp32``, ``int8.half``, ``fp16.fused``. What knows nothing of
    padding (engines, floors) lies under a shape's name without its length distribution.

    Attributes:
        results: The folder of all results.
    """

    results: str = "results"

    @property
    def predictions(self) -> str:
        """The record of predictions."""
        return f"{self.results}/predictions.json"

    def node(self, name: str) -> str:
        """What a node of a cluster is."""
        return f"{self.results}/nodes/{name}.json"

    def recorded_devices(self) -> list[str]:
        """Devices of which there are run records."""
        return sorted(path.name for path in Path(self.results, "benchmarks").glob("*") if path.is_dir())

    def weights(self, model: str) -> str:
        """Folder of a model's weights, workload and provenance."""
        return f"{self.results}/models/{model}/weights"

    def workload(self, model: str) -> str:
        """What a model reads and writes."""
        return f"{self.weights(model)}/workload.json"

    def provenance(self, model: str) -> str:
        """Where a model's weights come from."""
        return f"{self.weights(model)}/provenance.json"

    def inputs(self, model: str, shape: Shape | str) -> str:
        """The pool of inputs."""
        return f"{self.results}/models/{model}/inputs/{shape}.npz"

    def reference(self, model: str, shape: Shape | str) -> str:
        """What FP32 gives for these inputs."""
        return f"{self.results}/models/{model}/reference/{shape}.npz"

    def data(self, model: str) -> str:
        """The rows that a model's quality is evaluated on."""
        return f"{self.results}/models/{model}/data.npz"

    def graph(self, model: str, graph: str) -> str:
        """An ONNX graph."""
        return f"{self.results}/onnx/{model}/{graph}.onnx"

    def graph_report(self, model: str, graph: str) -> str:
        """How an ONNX graph was made."""
        return f"{self.results}/onnx/{model}/{graph}.json"

    def parity(self, model: str, graph: str) -> str:
        """How far a graph's outputs are from the reference."""
        return f"{self.results}/parity/{model}/{graph}.json"

    def engines(self, device: str, builder: str) -> str:
        """Folder of what a builder made for a device."""
        return f"{self.results}/engines/{device}/{builder}"

    def engine(self, device: str, builder: str, model: str, precision: str, name: str) -> str:
        """An engine or a kept engine, less its suffixes, by the name of its profile or shape."""
        return f"{self.engines(device, builder)}/{model}/{precision}/{name}"

    def run(self, device: str, runtime: str, model: str, precision: str, shape: Shape | str, *, process: int) -> str:
        """The record of one process."""
        return f"{self.results}/benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/run{process}.json"

    def texts(self, device: str, runtime: str, model: str, precision: str, shape: Shape | str) -> str:
        """What the reference finds in the texts that a cell generated; beside its runs."""
        return f"{self.results}/benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/texts.json"

    def texts_log(self, device: str, runtime: str, model: str, precision: str, shape: Shape | str) -> str:
        """What was printed where that was made; it does not travel."""
        return f"{self.results}/logs/read_texts/{device}/{runtime}/{model}/{precision}/{shape}.log"

    def changing(self, device: str, runtime: str, model: str, precision: str, sequence: str) -> str:
        """Folder of what was measured of a sequence of changing shapes: its runs, its buckets, the padded runs."""
        return f"{self.results}/changing/{device}/{runtime}/{model}/{precision}/{sequence}"

    def best_batch(self, device: str, runtime: str, model: str, precision: str, rest: str) -> str:
        """The record of a search for the best batch; ``rest`` is the shape without its batch."""
        return f"{self.results}/best_batch/{device}/{runtime}/{model}/{precision}/{rest}.json"

    def serving(self, device: str, deployment: str, *, run: int) -> str:
        """The record of one server of a deployment."""
        return f"{self.results}/serving/{device}/{deployment}/run{run}.json"

    def colocation(self, device: str, group: str, how: str, *, run: int) -> str:
        """The record of one run of a co-location."""
        return f"{self.results}/colocation/{device}/{group}/{how}/run{run}.json"

    def overlap(self, device: str, runtime: str, model: str, precision: str, shape: Shape | str) -> str:
        """Folder of what was measured of a cell's copies beside its compute: its runs, its capture, its account."""
        return f"{self.results}/overlap/{device}/{runtime}/{model}/{precision}/{shape}"

    def quality(self, device: str, runtime: str, model: str, precision: str) -> str:
        """What a cell's answers are worth."""
        return f"{self.results}/quality/{device}/{runtime}/{model}/{precision}.json"

    def trace(self, device: str, runtime: str, model: str, precision: str, shape: Shape | str) -> str:
        """What is captured of a cell, less the suffixes: ``.sqlite``, ``.budget.json``, ``.layers.json``."""
        return f"{self.results}/traces/{device}/{runtime}/{model}/{precision}/{shape}"

    def floor(self, device: str, model: str, work: str, shape: Shape) -> str:
        """The least time that the hardware allows."""
        return f"{self.results}/floors/{device}/{model}/{work}/{shape.full}.json"

    def explanation(self, capture: str) -> str:
        """What is said of a capture that others made."""
        return f"{self.results}/explained/{capture}.json"

    def peaks(self, device: str) -> str:
        """What a device reaches."""
        return f"{self.results}/hosts/{device}/peaks.json"

    def side_by_side(self, device: str) -> str:
        """Whether cells of separate cards of a host may be timed side by side."""
        return f"{self.results}/hosts/{device}/side_by_side.json"

    def transfers(self, device: str) -> str:
        """How data gets from a host to its GPU and back."""
        return f"{self.results}/hosts/{device}/transfers.json"


def leading(runs: Iterable[str]) -> tuple[str, ...]:
    """Of the runs of one thing those that are recorded, from the first to the last before one is missing."""
    return tuple(itertools.takewhile(lambda path: Path(path).is_file(), runs))
