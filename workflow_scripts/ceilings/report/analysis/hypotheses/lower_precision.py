"""Claims about precision: what it gains, where, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Status, change, named, panel
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.hypotheses.judgement import Judgement, concluded, in_range, turned_out, unknown
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.analysis.narrow_products import arithmetic, float_only
from ceilings.report.analysis.precision_series import precision_series
from ceilings.report.analysis.stack_levers import runtime_of, runtimes_of
from ceilings.report.tables.evidence import Evidence
from ceilings.runtimes.catalogue import GRAPH, ORT_CPU, ORT_CUDA, PYTORCH, TENSORRT


def int8_needs_size(measured: Measured, _: Evidence) -> Judgement:
    """Supported where INT8 loses at the smallest size and wins at a larger one, refuted where it wins throughout."""
    everything = [one for one in precision_series(measured) if one.precision == "int8" and len(one.points) > 1]
    gpu = any(on_gpu(cell) for cell in measured.cells)
    runtime = runtime_of(TENSORRT) if gpu else runtime_of(ORT_CPU, device="cpu")
    wanted = unknown(measured, (runtime,), ("fp32", "int8"), (1, 8, 32))
    if not everything:
        return wanted
    statuses: list[Status] = []
    lines = []
    for series in everything:
        verdicts = [point.verdict for point in series.points]
        if any(float_only(point.a) for point in series.points):
            statuses.append("not decidable")  # a latency without INT8 arithmetic says nothing about it
        elif verdicts[0] == "faster":
            statuses.append("refuted")
        else:
            small = verdicts[0] in {"slower", "same within noise"}
            statuses.append("supported" if small and "faster" in verdicts[1:] else "not decidable")
        first, last = series.points[0], series.points[-1]
        lines.append(
            f"{panel(measured, first.a)}{series.label} by {series.axis}: {first.a.axis(series.axis)} {change(first)}, "
            f"{last.a.axis(series.axis)} {change(last)}.{arithmetic(series.points)}".removesuffix(".")
        )
    cells = [point.a for series in everything for point in series.points]
    return concluded(statuses, lines, cells, wanted.missing if all(map(float_only, cells)) else ())


def dynamic_int8_on_cpu(measured: Measured, _: Evidence) -> Judgement:
    """At the smallest batch and at the largest, of each model."""
    everything = [
        series.points
        for series in precision_series(measured)
        if _dynamic_int8(series.points[0].a) and series.axis == "batch" and len(series.points) > 1
    ]
    if not everything:
        return unknown(measured, (EAGER, DYNAMIC), ("fp32", "int8"), (1, 4, 8, 16))
    ends = [(points[0], points[-1]) for points in everything]
    lines = (
        f"{panel(measured, first.a)}batch {first.a.batch} {change(first)}; batch {last.a.batch} {change(last)}"
        for first, last in ends
    )
    statuses = [status for first, last in ends for status in (turned_out(first, "slower"), turned_out(last, "faster"))]
    return concluded(statuses, lines, [pair.a for pairs in ends for pair in pairs])


PLAIN = {ORT_CPU, ORT_CUDA}
EAGER = runtime_of(PYTORCH, device="cpu")
DYNAMIC = runtime_of(PYTORCH, device="cpu", precision="int8")


def _dynamic_int8(cell: Cell) -> bool:
    """PyTorch on a CPU with weights quantised when they are loaded, ranges of activations as they come."""
    return cell.stack == PYTORCH and cell.precision == "int8" and not on_gpu(cell)


def runtime_over_precision(measured: Measured, _: Evidence) -> Judgement:
    """At the common shape: ONNX Runtime as it is over eager at FP32, against the best precision over FP32 in eager."""
    cells = measured.at_common_shape
    statuses: list[Status] = []
    lines, rests_on = [], list[Cell]()
    for eager in (cell for cell in cells if cell.precision == "fp32" and cell.is_eager):
        members = [cell for cell in cells if (cell.device, cell.model) == (eager.device, eager.model)]
        # The eager stack with a lower precision and no other lever.
        lower = [one for one in members if one.precision != "fp32" and one.stack == PYTORCH and not one.levers]
        graphs = [one for one in members if one.precision == "fp32" and one.stack in PLAIN and one.as_it_is]
        if not (lower and graphs):
            continue
        precision = min(lower, key=lambda cell: cell.p50.estimate)
        runtime = min(graphs, key=lambda cell: cell.p50.estimate)
        related = measured.factor([runtime, precision], [1.0, -1.0])
        lines.append(
            f"{named(measured, runtime)} {change(measured.compare(runtime, eager))} than eager FP32, "
            f"{precision.label} {change(measured.compare(precision, eager))}; the one over the "
            f"other {text.interval(related.ratio, '×')}{_elsewhere(measured, members, precision)}"
        )
        statuses.append(turned_out(related, "faster"))
        rests_on += [runtime, precision]
    if not lines:
        return unknown(measured, (EAGER, DYNAMIC, runtime_of(ORT_CPU, device="cpu")), ("fp32", "int8"))
    return concluded(statuses, lines, rests_on)


def _elsewhere(measured: Measured, cells: Sequence[Cell], precision: Cell) -> str:
    """The same precision on the fastest stack that has it and FP32: eager's host may hide what it gains."""
    same = [cell for cell in cells if cell.precision == precision.precision and cell is not precision]
    pairs = [(cell, base) for cell in same if (base := measured.find(cell, precision="fp32"))]
    if not pairs:
        return ""
    fastest = min(pairs, key=lambda pair: pair[0].p50.estimate)
    return f"; on the fastest stack, {fastest[0].label} {change(measured.compare(*fastest))} than FP32"


def fp16_cosine(measured: Measured, _: Evidence) -> Judgement:
    cells = [cell for cell in measured.cells if cell.precision == "fp16" and pd.notna(cell.row["cosine"])]
    if not cells:
        return unknown(measured, runtimes_of(ORT_CUDA, ()), ("fp16",))
    lowest = min(cells, key=lambda cell: cell.row["cosine"])
    sentence = (
        f"the lowest cosine of any output with the FP32 reference's is {lowest.row['cosine']:.6f}, of "
        f"{named(measured, lowest)}, over {text.plural(len(cells), 'cell')}"
    )
    return Judgement("supported" if lowest.row["cosine"] > 0.999 else "refuted", sentence)


def factors_of_precision(measured: Measured, _: Evidence) -> Judgement:
    ranges = {"fp16": (2.0, 4.0), "int8": (4.0, 8.0), "tf32": (1.8, 2.2), "fp8": (4.0, 8.0)}
    statuses: list[Status] = []
    lines, rests_on = [], list[Cell]()
    gpu = [s for s in precision_series(measured) if on_gpu(s.points[0].a)]
    for precision, (low, high) in ranges.items():
        points = {pair.a: pair for series in gpu if series.precision == precision for pair in series.points}
        if not points:
            continue
        without = [cell for cell in points if float_only(cell)]
        gains = [pair.ratio.inverted() for pair in points.values()]
        # Where no product ran in the precision, the factor is not the precision's.
        members: list[Status] = [
            "not decidable" if cell in without else in_range(gain, low, high)
            for cell, gain in zip(points, gains, strict=True)
        ]
        statuses += members
        low_gain, high_gain = (pick(gains, key=lambda gain: gain.estimate) for pick in (min, max))
        span = text.interval(low_gain, "×")
        span += f" to {text.interval(high_gain, '×')}" if len(members) > 1 else ""
        lines.append(f"{precision.upper()} {span}, outside the range in {members.count('refuted')} of {len(members)}")
        if without:
            lines[-1] += f", without any product in {precision.upper()} in {len(without)} of {len(members)}"
        else:
            rests_on += points
    wanted = unknown(
        measured, (runtime_of(ORT_CUDA, GRAPH), runtime_of(TENSORRT)), ("fp32", "tf32", "fp16", "int8"), (1, 32)
    )
    return concluded(statuses, lines, rests_on, () if rests_on else wanted.missing) if lines else wanted
