"""What is measured of a cell: an entry a measurement. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal, get_args

from ceilings import plugins
from ceilings.errors import UserError
from ceilings.quantity import Quantity
from ceilings.workload.task import Task

NS_TO_MS = 1e-6
BYTES_TO_MB = 1e-6

LATENCY = "Latency"
THROUGHPUT = "Throughput"
GENERATION = "Requests"
ENERGY = "Energy"
MEMORY = "Peak memory"
COLD_START = "Before the steady state"
EXACTNESS = "Exactness"


Kind = Literal["inference", "generation"]
"""What a cell's model is asked for: one inference an input, or a request that gives tokens one by one."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One thing that is measured of every cell.

    Attributes:
        name: As studies name it.
        module: Of ``ceilings.measure.measurements``: its function ``measure(bench)`` returns series by name, which
            become ``series`` of the run record.
        devices: Kinds of devices that it can be done on: ``cpu``, ``cuda``.
        quantities: Columns of the table of cells that come from it.
        meaning: One sentence.
        kinds: Kinds of tasks that it can be done of.
    """

    name: str
    module: str
    devices: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    meaning: str
    kinds: tuple[Kind, ...] = ("inference",)


def _median(column: str, label: str, source: str, meaning: str) -> Quantity:
    return Quantity(column, label, "ms", "number", meaning, LATENCY, source=source, scale=NS_TO_MS)


def _of_requests(column: str, label: str, key: str, meaning: str, interval: bool = True) -> Quantity:
    source = f"series.requests.{key}"
    return Quantity(column, label, "ms", "number", meaning, GENERATION, interval, source, NS_TO_MS)


def _percentile(column: str, label: str, share: str) -> Quantity:
    meaning = f"{share} of all iterations of all processes took no longer; empty where they are too few to bound it."
    return Quantity(column, label, "ms", "number", meaning, LATENCY, interval=True)


def _energy_error(column: str, label: str, series: str, what: str) -> Quantity:
    meaning = f"By what share the energy of {what} may differ: the counter stands still between two refreshes."
    return Quantity(column, label, "", "percent", meaning, ENERGY, source=f"energy.{series}.uncertainty", over="max")


def _energy(column: str, label: str, key: str, unit: str, meaning: str) -> Quantity:
    return Quantity(column, label, unit, "number", meaning, ENERGY, source=f"energy.{key}")


CLOSED_LOOP = Measurement(
    "closed-loop",
    "closed_loop",
    ("cpu", "cuda"),
    (
        Quantity(
            "p50_ms",
            "p50",
            "ms",
            "number",
            "Median over processes, in logarithms, of each one's median latency; inferences follow one another.",
            LATENCY,
            interval=True,
        ),
        _percentile("p90_ms", "p90", "90%"),
        _percentile("p95_ms", "p95", "95%"),
        _percentile("p99_ms", "p99", "99%"),
        _percentile("p99_9_ms", "p99.9", "99.9%"),
        Quantity("mean_ms", "mean", "ms", "number", "Mean over all iterations of all processes.", LATENCY),
        _median(
            "gpu_p50_ms",
            "GPU p50",
            "series.latency.gpu_ns",
            "Between two events on the stream; the device's waits for the host count.",
        ),
        _median("enqueue_p50_ms", "enqueue p50", "series.latency.enqueue_ns", "The host's submitting calls alone."),
        Quantity(
            "inferences_per_s", "inferences/s", "1/s", "number", "Batch over median latency, one at a time.", THROUGHPUT
        ),
        _energy(
            "energy_j",
            "energy",
            "latency.joules_per_inference",
            "J",
            "Energy of the device for one inference in the closed loop, by its cumulative counter.",
        ),
        _energy_error("energy_error", "energy within", "latency", "an inference"),
        _energy("power_w", "mean power", "latency.mean_watts", "W", "Mean power of the device over the closed loop."),
    ),
    "Latency with inputs and outputs on the device, each inference waiting for the one before. A model that generates "
    "has that of a token: the first one, or one after it.",
    ("inference", "generation"),
)

REQUESTS = Measurement(
    "requests",
    "requests",
    ("cpu", "cuda"),
    (
        _of_requests(
            "first_token_p50_ms",
            "TTFT p50",
            "first_token_ns",
            "Time to first token: from the prompts to the first token.",
        ),
        _of_requests(
            "per_token_p50_ms",
            "TPOT p50",
            "per_token_ns",
            "Time per output token: mean gap between the tokens of a request, the first token left out; median of "
            "requests.",
        ),
        Quantity(
            "token_p99_ms",
            "ITL p99",
            "ms",
            "number",
            "99% of all gaps between two tokens of a request are no longer (inter-token latency); empty where they are "
            "too few to bound it.",
            GENERATION,
            interval=True,
        ),
        _of_requests(
            "jitter_ms",
            "ITL jitter",
            "jitter_ns",
            "Interquartile range of the gaps between the tokens of a request; median of requests.",
            interval=False,
        ),
        _of_requests(
            "worst_gap_ms",
            "worst gap",
            "worst_gap_ns",
            "Longest gap between two tokens of a request; median of requests.",
            interval=False,
        ),
        _of_requests("request_p50_ms", "request p50", "request_ns", "From the prompts to the last token, end to end."),
        Quantity(
            "tokens_per_s",
            "tokens/s of one request",
            "1/s",
            "number",
            "Tokens of one prompt over the median time of its request, first token included.",
            GENERATION,
        ),
        Quantity(
            "total_tokens_per_s",
            "tokens/s in total",
            "1/s",
            "number",
            "Tokens of all prompts of a batch over the median time of its request, first token included.",
            GENERATION,
        ),
        _energy(
            "token_j",
            "energy of a token",
            "requests.joules_per_inference",
            "J",
            "Energy of the device for one token of one prompt over whole requests, by its cumulative counter.",
        ),
        _energy_error("token_j_error", "token energy within", "requests", "a token"),
        Quantity(
            "tokens_per_j", "tokens per joule", "1/J", "number", "Tokens over the energy of their requests.", ENERGY
        ),
        Quantity(
            "cache_mb",
            "KV cache",
            "MB",
            "number",
            "Memory that the runtime holds for keys and values, whether or not a request fills it.",
            MEMORY,
            source="series.requests.cache_bytes",
            scale=BYTES_TO_MB,
            over="max",
        ),
        Quantity(
            "peak_without_cache_mb",
            "device without KV cache",
            "MB",
            "number",
            "Highest memory of the process on the device, less what it holds for keys and values.",
            MEMORY,
        ),
    ),
    "Whole requests as their readers see them: first token, gaps between tokens, end to end.",
    ("generation",),
)


def _problem(measurement: Measurement) -> str | None:
    """What is wrong with a plug-in's measurement."""
    if unknown := [device for device in measurement.devices if device not in ("cpu", "cuda")]:
        return f"the device {unknown[0]!r}; give cpu, cuda or both"
    if unknown := [kind for kind in measurement.kinds if kind not in get_args(Kind)]:
        return f"the kind of tasks {unknown[0]!r}; give {', '.join(get_args(Kind))} or both"
    for one in measurement.quantities:
        if not isinstance(one, Quantity):
            return f"{one!r:.60} among its quantities; make it a Quantity"
        if not re.fullmatch(r"series\.[^.]+\.[^.]+", one.source):
            return (
                f"the quantity {one.column!r} with source {one.source!r}; give series.NAME.KEY, where NAME is a series "
                "that its measure(bench) returns"
            )
    return None


MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (
        CLOSED_LOOP,
        Measurement(
            "boundaries",
            "boundaries",
            ("cuda",),
            (
                _median(
                    "e2e_p50_ms",
                    "end to end p50",
                    "series.latency_end_to_end.latency_ns",
                    "With copies of inputs and outputs from and to pinned host memory.",
                ),
                _median(
                    "e2e_pageable_p50_ms",
                    "pageable p50",
                    "series.latency_end_to_end_pageable.latency_ns",
                    "With copies of inputs and outputs from and to pageable host memory.",
                ),
            ),
            "Latency end to end: copies in, inference, copies out, with pinned and with pageable host memory.",
        ),
        Measurement(
            "saturated",
            "saturated",
            ("cpu", "cuda"),
            (
                Quantity(
                    "saturated_per_s",
                    "saturated/s",
                    "1/s",
                    "number",
                    "Inferences a second with requests queued.",
                    THROUGHPUT,
                    interval=True,
                ),
            ),
            "Throughput with requests queued, so that the device never waits for the next one.",
        ),
        Measurement(
            "cold-cache",
            "cold_cache",
            ("cuda",),
            (
                _median(
                    "cold_p50_ms",
                    "cold p50",
                    "series.latency_cold.latency_ns",
                    "With the L2 cache overwritten before each inference.",
                ),
            ),
            "Latency when the L2 cache holds nothing of the inference.",
        ),
        REQUESTS,
        *plugins.entries("MEASUREMENTS", Measurement, _problem),
    )
}
"""Every measurement by name, in the order in which they are done: those of plug-ins last."""

STAGES = {
    "interpreter": "Starting Python, from the start of the process.",
    "import": "All imports, wherever they happen: also those that a library makes while it loads or compiles.",
    "instrument": "Opening what measures; a server has no such stage.",
    "inputs": "Reading the inputs and placing them on the device.",
    "context": "Creating the device's context and the stream.",
    "libraries": "Loading the libraries of kernels.",
    "load": "Reading the weights or the graph.",
    "quantize": "Quantising weights.",
    "deserialize": "Reading an engine.",
    "execution_context": "Creating what executes an engine.",
    "cache": "Allocating the memory of keys and values.",
    "compile": "Compiling kernels.",
    "other_shapes": "Compiling for further shapes.",
    "capture": "Capturing the CUDA graph.",
    "first_run": "The first inference; of a model that generates the first token.",
}
"""Stages before the steady state, none within another; not every runtime has all. Their sum is the time from the start
of the process to its first answer."""

IMPORTS = {
    "torch": "PyTorch",
    "transformers": "Transformers",
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "TensorRT",
    "numpy": "NumPy",
    "cuda": "CUDA's Python bindings",
    "ceilings": "Ceilings itself",
    "other": "anything else",
}
"""Packages whose imports are counted apart, and how they are called. What else a package imports counts as its own."""

COMMON: tuple[Quantity, ...] = (
    *(
        Quantity(
            f"{stage}_ms",
            stage.replace("_", " "),
            "ms",
            "number",
            meaning,
            COLD_START,
            source=f"cold_start_ns.{stage}",
            scale=NS_TO_MS,
        )
        for stage, meaning in STAGES.items()
    ),
    *(
        Quantity(
            f"import_{package}_ms",
            f"import: {package}",
            "ms",
            "number",
            f"Of import: {name}, and what it imports that has no row here.",
            COLD_START,
            source=f"imports_ns.{package}",
            scale=NS_TO_MS,
        )
        for package, name in IMPORTS.items()
    ),
    Quantity(
        "first_answer_ms",
        "first answer",
        "ms",
        "number",
        "From the start of the process to the end of its first inference, or to its first token.",
        COLD_START,
        source="first_answer_ns",
        scale=NS_TO_MS,
    ),
    Quantity(
        "peak_rss_mb",
        "process",
        "MB",
        "number",
        "Highest resident memory of the process on the host.",
        MEMORY,
        source="memory.peak_rss_bytes",
        scale=BYTES_TO_MB,
        over="max",
    ),
    Quantity(
        "peak_device_mb",
        "device",
        "MB",
        "number",
        "Highest memory of the process on the device, context and libraries included.",
        MEMORY,
        source="memory.peak_device_bytes",
        scale=BYTES_TO_MB,
        over="max",
    ),
    Quantity(
        "relative_l2",
        "relative L2 error",
        "",
        "powers",
        "Norm of the outputs' difference from the FP32 reference over the reference's norm; the worst process.",
        EXACTNESS,
    ),
    Quantity(
        "cosine",
        "cosine",
        "",
        "number",
        "Lowest cosine similarity of any row of an output with the FP32 reference's; the worst process.",
        EXACTNESS,
    ),
    Quantity(
        "top1_agreement",
        "same top class",
        "",
        "percent",
        "Share of the answers whose top class is the FP32 reference's; of texts that are not its own, of the tokens "
        "that it would choose too. The worst process.",
        EXACTNESS,
    ),
    Quantity(
        "token_agreement",
        "same tokens",
        "",
        "percent",
        "Share of the generated tokens that are the FP32 reference's; after the first other one a text goes on "
        "otherwise, and the share falls. The worst process.",
        EXACTNESS,
    ),
    Quantity(
        "largest_margin_sigma",
        "largest margin",
        "σ",
        "number",
        "Standard errors of its logits by which the FP32 reference, given a text, prefers another token at most; the "
        "worst process.",
        EXACTNESS,
        source="parity.largest_margin",
        over="max",
    ),
)
"""What every run record holds, whichever measurements were done."""


def _refuse_shared_columns() -> None:
    """Refuse two quantities of one column: a plug-in must not hide a number of another measurement."""
    owners = dict.fromkeys((quantity.column for quantity in COMMON), "every run record")
    for measurement in MEASUREMENTS.values():
        for quantity in measurement.quantities:
            if (owner := owners.setdefault(quantity.column, measurement.name)) != measurement.name:
                raise UserError(
                    f"plugins: the measurement {measurement.name!r} has the column {quantity.column!r}, which belongs "
                    f"to {owner}; give it another name"
                )


_refuse_shared_columns()


def quantities() -> tuple[Quantity, ...]:
    """Every quantity of a run record that is a column of the table of cells, in the order of a reader's interest."""
    return (*(one for measurement in MEASUREMENTS.values() for one in measurement.quantities), *COMMON)


def chosen(device: str, names: Sequence[str] | None = None, kind: Kind = "inference") -> tuple[Measurement, ...]:
    """The measurements that are done of a kind of task on a kind of device, in their order.

    Args:
        device: ``cpu`` or ``cuda``.
        names: Those that a study asks for; None: all. The closed loop is always among them: every record has it.
        kind: Of the cell's task.

    Raises:
        UserError: There is no such measurement.
    """
    if unknown := sorted(set(names or ()) - set(MEASUREMENTS)):
        raise UserError(f"there is no measurement {unknown[0]!r}; known: {', '.join(MEASUREMENTS)}")
    return tuple(
        measurement
        for name, measurement in MEASUREMENTS.items()
        if device in measurement.devices
        and kind in measurement.kinds
        and (names is None or name in names or measurement is CLOSED_LOOP)
    )


def kind_of(task: Task) -> Kind:
    """What a task asks for."""
    return "generation" if task.generates else "inference"


def task_entries(device: str, names: Sequence[str] | None = None, kind: Kind = "inference") -> list[list[str]]:
    """``spec["measurements"]`` of a worker's task: name and module of each measurement, in order."""
    return [[measurement.name, measurement.module] for measurement in chosen(device, names, kind)]


def modules(device: str, names: Sequence[str] | None = None, kind: Kind = "inference") -> tuple[str, ...]:
    """Modules that shape a run record on a kind of device, but for the runtime's and the model's: for a digest of code.

    A measurement of a plug-in is named as those of the package are: ``ceilings.measure.measurements.{module}``.
    """
    return (
        "ceilings.measure.supervisor",
        "ceilings.measure.worker",
        f"ceilings.measure.{device}_bench",
        *(f"ceilings.measure.measurements.{measurement.module}" for measurement in chosen(device, names, kind)),
    )
