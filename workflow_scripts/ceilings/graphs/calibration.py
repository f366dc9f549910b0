"""Activation ranges by ONNX Runtime's calibrators, as readable JSON and as TensorRT's calibration cache."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ceilings import files, options, records
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import examples, graph
from ceilings.graphs.bounds import bounds
from ceilings.lifetime import temporary_folder
from ceilings.models import inputs, pool
from ceilings.provenance import provenance
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization.calibrate import CalibraterBase

CHUNK_TOKENS = 512
"""Tokens calibrated at once. The histogram methods hold every calibrated tensor of a chunk in memory: some 75,000
numbers a token on DistilBERT, so 150 MB."""

CHUNK_INPUTS = 4
"""Inputs calibrated at once where they have no sequence: images become some 50 to 200 tokens each."""

ENTROPY_BINS = 512
PERCENTILE_BINS = 2048
"""Bins of the first histogram. Entropy searches every threshold with ever more of them: time grows with the square."""

CACHE_HEADER = "TRT-101601-EntropyCalibration2"
"""TensorRT 10.16.1, major * 10000 + minor * 100 + patch, and the calibrator that reads it.

TensorRT ignores a cache of another version, or of another calibrator than the one that reads it, whatever method found
the scales. trtexec reads with IInt8EntropyCalibrator2, so its name stands here for every method; ONNX Runtime's
provider parses the lines for itself, below any header. TensorRT 10 is the last generation with calibration caches."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How to calibrate.

    Attributes:
        method: ``minmax``, ``entropy`` (least Kullback-Leibler divergence) or ``percentile``.
        count: Inputs.
        sequence: Tokens an input, of models that have that axis; cut to what a model takes.
        percentile: Share of the values, in percent, that the range of ``percentile`` covers.
        seed: Of the inputs.
    """

    method: Literal["minmax", "entropy", "percentile"]
    count: int
    sequence: int = 128
    percentile: float = 99.99
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Range:
    """Lowest and highest value of a tensor that quantisation should represent."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        return max(abs(self.low), abs(self.high))


def read(value: Mapping[str, Any]) -> Calibration:
    """Check a calibration's slice of the study."""
    calibration = options.read(Calibration, value, "--calibration")
    if calibration.count < 1:
        raise UserError(f"--calibration has count = {calibration.count}; it must be at least 1")
    if not 50 < calibration.percentile <= 100:
        raise UserError(f"--calibration has percentile = {calibration.percentile}; it must be above 50, at most 100")
    return calibration


def calibrate(
    graph_path: Path | str,
    weights_dir: Path | str,
    calibration: Calibration,
    threads: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[dict[str, Range], dict[str, Any]]:
    """Ranges of the tensors around every product with constant weights.

    Args:
        graph_path: An FP32 graph.
        weights_dir: Whose workload and tokenizer make the inputs.
        calibration: Method and inputs.
        threads: CPU threads.
        progress: Called after each chunk with inputs done, inputs in all, seconds so far.

    Returns:
        Ranges by tensor name, and what describes the inputs: ``inputs_sha256``, ``inputs_source`` and ``shape`` (of
        one input).

    Raises:
        UserError: The graph is damaged.
        CellFailure: It has nothing to quantise, gives NaN or infinities, or its fixed batch does not divide the inputs.
    """
    model = graph.load(graph_path, values=False)
    # Inputs are what explicit quantisation needs, outputs what TensorRT's own (the cache) asks for too.
    watched = [name for product in graph.weight_products(model) for name in (product.activation, product.output)]
    wanted = set(watched)
    if not wanted:
        raise CellFailure(
            "unsupported", "the graph has no MatMul or Gemm with constant weights, so nothing to calibrate"
        )
    watched += [value.name for value in model.graph.output]
    workload = Workload.read(weights_dir)
    shape = _shape(model, weights_dir, workload, calibration)
    if calibration.count % shape.batch:
        raise CellFailure(
            "unsupported",
            f"the graph takes batches of {shape.batch}; calibration.count ({calibration.count}) is no multiple of that",
        )
    sample = inputs.sample(weights_dir, shape, calibration.count // shape.batch, calibration.seed)
    chunk = _at_once(model, shape)
    large = graph.data_path(graph_path).exists()
    with temporary_folder() as folder, _quiet():
        try:
            calibrator = _calibrator(Path(graph_path), calibration, wanted, Path(folder, "augmented.onnx"), large)
            calibrator.augment_graph()
            calibrator.infer_session = _Finite(graph.session(calibrator.augmented_model_path, threads), watched)
            start = time.monotonic()
            for first in range(0, calibration.count // shape.batch, chunk):
                rows = {
                    tensor.name: _joined(tensor, sample.arrays[tensor.name][first : first + chunk])
                    for tensor in workload.inputs
                }
                calibrator.collect_data(_Reader(examples.feed(model, rows)))
                if progress is not None:
                    done = min((first + chunk) * shape.batch, calibration.count)
                    progress(done, calibration.count, time.monotonic() - start)
            found = calibrator.compute_data()
        except (CellFailure, UserError):
            raise
        except MemoryError as error:
            raise CellFailure("out-of-memory", f"calibration: {error}") from error
        except Exception as error:  # ONNX's and ONNX Runtime's errors share no class
            line = graph.first_line(error)
            raise CellFailure("unsupported", f"ONNX Runtime cannot run the graph for calibration: {line}") from error
    ranges = {
        name: Range(*(float(np.asarray(end).item()) for end in found[name].range_value)) for name in sorted(wanted)
    }
    described = {"inputs_sha256": pool.digest(sample.arrays), "inputs_source": sample.source, "shape": str(shape)}
    return ranges, described


def _joined(tensor: TensorSpec, inputs: np.ndarray) -> np.ndarray:
    """Inputs (count, *dims) as one of a larger batch; one without a batch is the same for all."""
    if "batch" not in tensor.dims:
        return inputs[0]
    return np.concatenate(list(inputs), axis=tensor.dims.index("batch"))


def _shape(model: onnx.ModelProto, weights_dir: Path | str, workload: Workload, calibration: Calibration) -> Shape:
    """The shape of one input: of batch 1 if the graph takes that."""
    if workload.task.generates:
        raise CellFailure(
            "unsupported", "ranges of a model that generates text are not calibrated, nor is it quantised"
        )
    fixed, able = graph.fixed_axes(model), bounds(weights_dir)
    sizes = {"batch": 1, "sequence": calibration.sequence}
    unknown = [axis for axis in workload.axes if axis not in {*sizes, *fixed, *able.fixed}]
    if unknown:
        raise CellFailure("unsupported", f"nothing says how large {unknown[0]} is for calibration; fix it in the graph")
    return Shape.of({axis: fixed.get(axis) or able.size(axis, sizes.get(axis, 0)) for axis in workload.axes})


def _at_once(model: onnx.ModelProto, shape: Shape) -> int:
    """How many inputs go through the graph as one."""
    if "batch" not in graph.dynamic_axes(model):
        return 1
    sequence = shape.get("sequence")
    return max(1, CHUNK_TOKENS // sequence) if sequence else CHUNK_INPUTS


def write(
    path: Path | str,
    *,
    cache: Path | str,
    graph_path: Path | str,
    calibration: Calibration,
    ranges: Mapping[str, Range],
    described: Mapping[str, Any],
) -> None:
    """Write the ranges as JSON and as TensorRT's cache."""
    files.write_text(cache, tensorrt_cache(ranges))
    record = {
        **dataclasses.asdict(calibration),
        "status": "ok",
        "graph_sha256": graph.sha256(graph_path),
        "cache_sha256": files.sha256(cache),
        **described,
        "ranges": {name: dataclasses.asdict(span) for name, span in ranges.items()},
        "provenance": provenance(graph.PACKAGES, {"graph": graph_path}),
    }
    records.write(path, "calibration", record)


def load(path: Path | str, graph_path: Path | str) -> dict[str, Range]:
    """The ranges of a calibration that was made for this graph.

    Raises:
        UserError: Missing, damaged, made for another graph, or with tensors that the graph does not have.
        CellFailure: It could not be made.
    """
    record = records.read(path, "calibration")
    if record["status"] == "failed":
        raise CellFailure(record["failure"]["kind"], record["failure"]["message"])
    made_for, given = record["graph_sha256"], graph.sha256(graph_path)
    if made_for != given:
        raise UserError(
            f"the calibration {path} was made for graph {made_for[:12]}, but {graph_path} is {given[:12]}; "
            f"delete the calibration and run again to calibrate this graph"
        )
    model = graph.load(graph_path, values=False)
    known = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if unknown := next((name for name in record["ranges"] if name not in known), None):
        raise UserError(f"{path} has a range for {unknown!r}, which {graph_path} has not; {records.anew(path)}")
    cache = Path(path).with_suffix(".cache")
    if cache.is_file() and files.sha256(cache) != record["cache_sha256"]:
        raise UserError(f"{cache} is not what was written beside {path}; {records.anew(cache)}")
    return {name: Range(float(span["low"]), float(span["high"])) for name, span in record["ranges"].items()}


def tensorrt_cache(ranges: Mapping[str, Range]) -> str:
    """TensorRT's text format: a header, then a tensor a line with its scale as the hex digits of a big-endian float32.

    The scale is that of symmetric int8, largest magnitude / 127; of a tensor of zeros, any that is not 0. Source:
    README of sampleINT8 in NVIDIA's TensorRT repository ("Calibration file"), and caches that TensorRT 10.3 wrote
    (TRT-100300-EntropyCalibration2).
    """
    lines = [CACHE_HEADER]
    lines += [f"{name}: {struct.pack('>f', (span.largest or 1.0) / 127).hex()}" for name, span in ranges.items()]
    return "\n".join(lines) + "\n"


def say_progress(done: int, total: int, seconds: float) -> None:
    """One line on stderr, at most twenty in all."""
    step = max(1, total // 20)
    if done == total or done // step != (done - 1) // step:
        left = seconds / done * (total - done)
        print(f"calibrated {done} of {total} inputs, {left:.0f} s left", file=sys.stderr, flush=True)


class _Finite:
    """A session that refuses NaN and infinities, which the calibrators leave out or stop at with a traceback.

    Args:
        session: Of the graph with the calibrators' outputs.
        names: Tensors, in the order in which one is named; NaN that no range shows is still in the graph's outputs.
    """

    def __init__(self, session: Any, names: Iterable[str]) -> None:
        self.session, self.names = session, list(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, names: list[str] | None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self.session.run(names, feed)
        given = names or [value.name for value in self.session.get_outputs()]
        # The method minmax asks for the ends of a tensor only.
        broken = {
            name.removesuffix("_ReduceMin").removesuffix("_ReduceMax")
            for name, values in zip(given, outputs, strict=True)
            if values.dtype.kind == "f" and not np.isfinite(values).all()
        }
        if first := next((name for name in self.names if name in broken), None):
            raise CellFailure("unsupported", f"the graph gives NaN or infinities at {first}: no scale represents them")
        return outputs


class _Reader:
    """One chunk, as ONNX Runtime's calibrators ask for data."""

    def __init__(self, feed: dict[str, np.ndarray]) -> None:
        self.feed: dict[str, np.ndarray] | None = feed

    def get_next(self) -> dict[str, np.ndarray] | None:
        feed, self.feed = self.feed, None
        return feed


def _calibrator(path: Path, calibration: Calibration, wanted: set[str], augmented: Path, large: bool) -> CalibraterBase:
    """The calibrator of a method, told to look at the wanted tensors and no others."""
    from onnxruntime.quantization import calibrate as ort

    common: dict[str, Any] = {
        "model_path": path,
        "augmented_model_path": str(augmented),
        "use_external_data_format": large,
    }
    calibrator: CalibraterBase
    if calibration.method == "minmax":
        calibrator = ort.MinMaxCalibrater(**common)
    elif calibration.method == "entropy":
        calibrator = ort.EntropyCalibrater(**common, num_bins=ENTROPY_BINS)
    else:
        # Not its symmetric form: that bins by explicit edges, which numpy does ten times slower.
        calibrator = ort.PercentileCalibrater(
            **common, num_bins=PERCENTILE_BINS, percentile=calibration.percentile, symmetric=False
        )
    select = calibrator.select_tensors_to_calibrate

    def only_wanted(model: onnx.ModelProto) -> tuple[set[str], dict[str, Any]]:
        found, value_infos = select(model)
        return found & wanted, value_infos

    calibrator.select_tensors_to_calibrate = only_wanted  # type: ignore[method-assign]
    return calibrator


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the calibrators' chatter on stdout and their advice to preprocess."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
