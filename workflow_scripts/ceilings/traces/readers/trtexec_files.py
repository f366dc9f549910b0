"""Reads the files of trtexec's ``--exportTimes``, ``--exportProfile`` and ``--exportLayerInfo``.

Their keys are those of TensorRT's ``samples/common/sampleReporting.cpp``. Numbers have six digits: a point in time
after 100 s is known to the nearest millisecond, while durations stay exact.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.engines import inspect
from ceilings.errors import UserError
from ceilings.files import read_json
from ceilings.traces.readers import own_account
from ceilings.traces.readers.json_stream import Stream
from ceilings.traces.recording import Progress
from ceilings.traces.verdict import MEANINGS

Times = NDArray[np.float64]

POINTS = tuple(f"{edge}{what}Ms" for what in ("Enq", "H2d", "Compute", "D2h") for edge in ("start", "end"))
DURATIONS = ("h2dMs", "computeMs", "d2hMs", "latencyMs")

ENQUEUE_BOUND = 0.8
"""trtexec itself warns from this ratio of the medians of enqueue time and compute time on."""

UNSTABLE = 2.5
"""trtexec itself warns from this coefficient of variation of the compute time on, in percent."""

DIGITS = 6
LARGEST_LAYERS = 256 << 20
MOST_ROWS = 5_000_000
MS, LARGEST_MS = 1e6, 1e12


def read_times(path: Path | str, progress: Progress | None = None) -> dict[str, Any]:
    """Of ``--exportTimes``: what bounds an inference, the share of copies, and how inferences overlap.

    Raises:
        UserError: The file is none, or has no inference.
    """
    stream, rows = _rows(path, progress)
    kept = [row for row in rows if all(_is_number(row.get(key)) for key in (*POINTS, *DURATIONS))]
    if not kept:
        raise UserError(f"{path} holds no inference with times; give the file of trtexec --exportTimes")
    column = {key: np.array([row[key] for row in kept], float) * MS for key in (*POINTS, *DURATIONS)}
    order = np.argsort(column["startComputeMs"], kind="stable")
    column = {key: values[order] for key, values in column.items()}
    times = _Times(column)
    health = [*_damage(stream, len(rows) - len(kept)), *times.health()]
    inside = _union(column["startEnqMs"], column["endD2hMs"])
    first, last = column["startEnqMs"].min(), max(column["endD2hMs"].max(), column["endComputeMs"].max())
    return own_account.content(
        "trtexec-times",
        "trtexec --exportTimes",
        counts={"inferences": len(kept), **({"left out": len(rows) - len(kept)} if len(rows) > len(kept) else {})},
        lacks=[
            "It holds no kernels, layers or calls: only when an inference was enqueued, copied and computed.",
            "It does not say in which stream an inference ran. Those of warming up are not in it.",
            "Points in time have six digits; durations other than that of enqueuing are exact.",
        ],
        health=health,
        groups=[times.group()],
        why="trtexec writes a row for each inference; its length is the latency: copies and compute, without waiting",
        span=(inside, max(0.0, float(last - first) - inside)),
    )


class _Times:
    """Inferences by the begin of their compute, times in ns."""

    def __init__(self, column: Mapping[str, Times]) -> None:
        self._column = column
        self.compute, self.latency = column["computeMs"], column["latencyMs"]
        self.h2d, self.d2h = column["h2dMs"], column["d2hMs"]
        self.enqueue = np.maximum(0.0, column["endEnqMs"] - column["startEnqMs"])
        largest = max(float(np.abs(column[key]).max()) for key in POINTS) / MS
        self.resolution = MS * 10.0 ** (math.floor(math.log10(largest)) - DIGITS + 1) if largest > 0 else 0.0
        # Rounded ends have the right mean, where their median may be that of the rounding.
        self.blurred = self.resolution > 0.05 * max(1.0, float(np.median(self.compute)))
        self.enqueue_middle = float(np.mean(self.enqueue) if self.blurred else np.median(self.enqueue))

    def group(self) -> dict[str, Any]:
        middle = {name: float(np.median(values)) for name, values in self._parts().items()}
        middle["enqueue, on the host"] = self.enqueue_middle
        compute, latency = float(np.median(self.compute)), float(np.median(self.latency))
        return own_account.group(
            "inferences",
            self.latency.tolist(),
            1.0,
            middle,
            verdict=self._verdict(),
            what_if=self._changes(latency, compute),
            levers=self._levers(latency, compute),
        )

    def _parts(self) -> dict[str, Times]:
        column = self._column
        return {
            "copy of inputs to the device": self.h2d,
            "compute": self.compute,
            "copy of outputs to the host": self.d2h,
            "enqueue, on the host": self.enqueue,
            "between inputs and compute": np.maximum(0.0, column["startComputeMs"] - column["endH2dMs"]),
            "device idle before the next compute": self._gaps(),
        }

    def _gaps(self) -> Times:
        """Between the end of a compute and the begin of the next; none where they overlap."""
        last = np.maximum.accumulate(self._column["endComputeMs"])
        gaps = np.maximum(0.0, self._column["startComputeMs"][1:] - last[:-1])
        return gaps if len(gaps) else np.zeros(1)

    def _verdict(self) -> dict[str, Any] | None:
        """By trtexec's thresholds; the majority is the share of inferences that meet them each for itself."""
        compute = float(np.median(self.compute))
        if self.resolution > 0.5 * max(1.0, compute) and self.blurred and len(self.enqueue) < 100:
            return None
        bounds = {
            "launch-bound": (
                self.enqueue_middle > ENQUEUE_BOUND * compute,
                self.enqueue > ENQUEUE_BOUND * self.compute,
            ),
            "transfer-bound": (
                max(float(np.median(self.h2d)), float(np.median(self.d2h))) >= compute,
                np.maximum(self.h2d, self.d2h) >= self.compute,
            ),
        }
        name, each = next(
            ((name, each) for name, (holds, each) in bounds.items() if holds),
            ("kernel-bound", ~(bounds["launch-bound"][1] | bounds["transfer-bound"][1])),
        )
        return {"name": name, "meaning": MEANINGS[name], "majority": float(np.mean(each))}

    def _changes(self, latency: float, compute: float) -> list[dict[str, Any]]:
        copies = float(np.median(self.latency - self.h2d - self.d2h))
        bound = self.enqueue_middle > ENQUEUE_BOUND * compute
        faster = None if bound else float(np.median(self.latency - self.compute / 2))
        unknown = "the file does not say what the host does while it enqueues"
        return [
            own_account.change("host", latency, None, unknown),
            own_account.change("graph", latency, None, unknown),
            own_account.change("copies", latency, copies),
            own_account.change(
                "kernels",
                latency,
                faster,
                "enqueuing takes as long as computing, so it would set the pace" if bound else None,
            ),
        ]

    def _levers(self, latency: float, compute: float) -> list[tuple[str, str, float | None]]:
        found: list[tuple[str, str, float | None]] = []
        if self.enqueue_middle > ENQUEUE_BOUND * compute:
            found.append(
                (
                    "CUDA graph",
                    f"enqueuing takes {self.enqueue_middle / MS:.4g} ms of the host, computing {compute / MS:.4g} ms: "
                    "capture the inference into a CUDA graph (--useCudaGraph; newer versions: without --noCudaGraph)",
                    None,
                )
            )
        copies = float(np.median((self.h2d + self.d2h) / np.maximum(self.latency, 1.0)))
        if copies > 0.1:
            found.append(
                (
                    "keep inputs and outputs on the device, or copy beside compute",
                    f"copies between host and device are {copies:.0%} of the latency",
                    copies,
                )
            )
        if found and found[0][0] == "CUDA graph":
            return found
        found.append(
            (
                "faster layers (precision, fusion, a larger batch)",
                f"compute is {compute / latency:.0%} of the latency and the host keeps up"
                if latency
                else "compute decides",
                None,
            )
        )
        return found

    def health(self) -> list[tuple[str, str]]:
        """What to know of the times, by level."""
        column, count = self._column, len(self.latency)
        compute, latency = float(np.median(self.compute)), float(np.median(self.latency))
        before = np.maximum.accumulate(column["endComputeMs"])[:-1]
        together = _share(column["startComputeMs"][1:] + self.resolution < before)
        ahead = _share(column["startEnqMs"][1:] < before)
        variation = 100 * float(np.std(self.compute)) / max(1.0, float(np.mean(self.compute)))
        slow = int((self.latency > 2 * latency).sum())
        remarks = (
            (True, "note", own_account.percentiles("Latency", self.latency)),
            (True, "note", own_account.percentiles("Compute", self.compute)),
            (variation > UNSTABLE, "warning", f"Compute time is unstable: its variation is {variation:.1f}%."),
            (
                self.blurred,
                "warning",
                f"Points in time are rounded to {self.resolution / MS:g} ms, and compute takes {compute / MS:.4g} ms: "
                "times of enqueuing and between inferences are uncertain. Time a shorter run.",
            ),
            (
                together > 0.05,
                "warning",
                f"{together:.0%} of the inferences compute while another does, as in several streams: a latency is "
                "that of an inference beside others.",
            ),
            (ahead > 0.5, "note", f"{ahead:.0%} of the inferences were enqueued before the last one was computed."),
            (slow > 0.001 * count, "note", f"{slow:,} of {count:,} inferences took more than twice the median."),
        )
        return [(level, text) for holds, level, text in remarks if holds]


def read_profile(path: Path | str, progress: Progress | None = None) -> dict[str, Any]:
    """Of ``--exportProfile``: the layers with their times.

    Raises:
        UserError: The file is none, or has no layer.
    """
    stream, rows = _rows(path, progress)
    count = next((int(row["count"]) for row in rows if _is_number(row.get("count")) and "name" not in row), 0)
    layers = [row for row in rows if isinstance(row.get("name"), str) and _is_number(row.get("averageMs"))]
    if not layers:
        raise UserError(f"{path} holds no layer with a time; give the file of trtexec --exportProfile")
    total = sum(max(0.0, float(row["averageMs"])) for row in layers) * MS
    listed = sorted(
        (
            (
                row["name"],
                "",
                1.0,
                max(0.0, float(row["medianMs" if _is_number(row.get("medianMs")) else "averageMs"])) * MS,
            )
            for row in layers
        ),
        key=lambda row: -row[3],
    )
    group = own_account.group("layers", [total], 1.0, {}, layers=listed)
    group |= {"count": max(1, count), "lengths_ns": []}
    largest = listed[0]
    health = [
        *_damage(stream, len(rows) - len(layers) - (count > 0)),
        ("note", f"The length of an iteration is the sum of the averages of {len(layers):,} layers."),
    ]
    if not count:
        health.append(("warning", "It does not say over how many iterations the times are."))
    if total and largest[3] > 0.3 * total:
        group["levers"] = [
            {
                "lever": "the slowest layer",
                "why": f"one layer takes {largest[3] / total:.0%} of the time of all: {largest[0]}",
                "gain": min(1.0, largest[3] / total),
            }
        ]
    inside = total * max(1, count)
    return own_account.content(
        "trtexec-profile",
        "trtexec --exportProfile",
        counts={"layers": len(layers), "iterations": count},
        lacks=[
            "It holds averages and medians of each layer, not the single iterations.",
            "Layers are timed one after the other: what runs beside another counts twice. CUDA graphs are not used.",
            "It does not say what a layer is, or what the host does; --exportLayerInfo says the former.",
        ],
        health=health,
        groups=[group],
        why="trtexec says over how many iterations it profiled",
        span=(inside, 0.0),
    )


def read_layers(path: Path | str, progress: Progress | None = None) -> dict[str, Any]:
    """Of ``--exportLayerInfo``: how many layers of which kind and precision; it holds no times.

    Raises:
        UserError: The file is none, is damaged, or has no layer.
    """
    if (size := Path(path).stat().st_size) > LARGEST_LAYERS:
        raise UserError(f"{path} has {size:,} bytes, more than any description of an engine; give that of one engine")
    described = read_json(path, "write it anew with trtexec --exportLayerInfo")
    entries = described.get("Layers") if isinstance(described, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} holds no layers; give the file of trtexec --exportLayerInfo")
    named = [entry if isinstance(entry, dict) else {"Name": str(entry)} for entry in entries]
    kinds = collections.Counter(str(entry.get("LayerType", "not said")) for entry in named)
    health = [("note", f"Kinds of layers: {', '.join(f'{many} {kind}' for kind, many in kinds.most_common(12))}.")]
    if set(kinds) == {"not said"}:
        health.append(("warning", "It holds names only: build the engine with --profilingVerbosity=detailed."))
    else:
        listed = inspect.layers({"Layers": named})
        precisions = collections.Counter(layer.precision for layer in listed if layer.product and layer.precision)
        products = ", ".join(f"{many} in {precision}" for precision, many in precisions.most_common())
        if products:
            health.append(("note", f"Products and convolutions: {products}."))
        reformats = sum(bool(inspect.REFORMAT_LAYER.search(layer.name) or layer.kind == "Reformat") for layer in listed)
        if reformats:
            health.append(("note", f"{reformats:,} of {len(listed):,} layers only convert types or layouts."))
    return own_account.content(
        "trtexec-layers",
        "trtexec --exportLayerInfo",
        counts={"layers": len(named)},
        lacks=["It holds no times: give the file of --exportProfile or --exportTimes for those."],
        health=health,
        groups=[],
        why="It holds no iterations",
    )


def _rows(path: Path | str, progress: Progress | None) -> tuple[Stream, list[dict[str, Any]]]:
    stream = Stream(path, dict, progress)
    rows: list[dict[str, Any]] = []
    for batch in stream.batches():
        rows += batch
        if len(rows) > MOST_ROWS:
            raise UserError(f"{path} holds more than {MOST_ROWS:,} rows; give a shorter run")
    return stream, rows


def _damage(stream: Stream, left_out: int) -> Sequence[tuple[str, str]]:
    said = []
    if stream.cut:
        said.append(("warning", "The file ends before its rows do: what came before was read."))
    if lost := stream.unreadable + left_out:
        said.append(("warning", f"{lost:,} rows hold no times and were left out."))
    return said


def _share(holds: NDArray[np.bool_]) -> float:
    return float(np.mean(holds)) if len(holds) else 0.0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST_MS


def _union(start: Times, end: Times) -> float:
    """Length of the time that at least one interval covers."""
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    before = np.concatenate([[start[0]], np.maximum.accumulate(end)[:-1]])
    return float(np.maximum(end - np.maximum(start, before), 0).sum())
