"""What the data say: sentences computed from the cells, each with its effect, interval and the cells it rests on.

A sentence that calls something faster, slower or flat rests on ``statistics.verdict``: the interval excludes 1 and the
estimate lies beyond the noise floor. Everything that was compared and not decided is said to be undecided.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ceilings.measure.quantiles import Interval
from ceilings.measure.statistics import Verdict, mean_over_processes
from ceilings.report import text
from ceilings.report.measured import Cell, Comparison, Measured, group_by, growth_exponent
from ceilings.report.precision import PrecisionSeries, precision_series
from ceilings.report.tables import COLD_START, KEY, Tables

FLAT_GAIN = 0.10
"""A step in batch that gains less throughput than this counts as flat."""


@dataclass(frozen=True)
class Finding:
    """One thing that the data say.

    Attributes:
        topic: The group it is shown under.
        text: Markdown, one line.
        cells: Names of the cells it rests on.
        effect: The number that it states, None for a warning.
        verdict: What it claims; None where it claims no difference at all.
    """

    topic: str
    text: str
    cells: tuple[str, ...]
    effect: Interval | None = None
    verdict: Verdict | None = None

    @property
    def claims_difference(self) -> bool:
        return self.verdict in {"faster", "slower"}


def findings(tables: Tables) -> list[Finding]:
    """All findings of a study, in the order a reader needs them."""
    measured = Measured(tables)
    rules: list[Callable[[Measured, Tables], list[Finding]]] = [
        fastest,
        runtimes,
        precisions,
        batching,
        sequences,
        boundness,
        other_boundaries,
        cold_start,
        noise,
        warnings,
    ]
    return [finding for rule in rules for finding in rule(measured, tables)]


# --- which configuration ---------------------------------------------------------------------------------------------


def fastest(measured: Measured, tables: Tables) -> list[Finding]:
    """The configuration with the lowest median at the common shape, and what cannot be told from it."""
    found = []
    for cells in _panels_at_common_shape(measured):
        best, *others = sorted(cells, key=lambda cell: cell.p50.estimate)
        behind = [measured.compare(other, best) for other in others]
        if not behind:
            continue
        tied = [pair for pair in behind if pair.verdict != "slower"]
        told = f"{_where(measured, best)}: "
        if len(tied) == len(behind):
            told += f"no configuration is established as the fastest of {len(cells)}"
            found.append(Finding("Fastest", told + ".", _names(cells), None, "undecided"))
            continue
        first = min((pair for pair in behind if pair.verdict == "slower"), key=lambda pair: pair.ratio.estimate)
        if tied:
            group = text.listed(f"**{cell.label}**" for cell in (best, *(pair.a for pair in tied)))
            told += f"fastest are {group} (not told apart); the best, {best.label}, has "
        else:
            told += f"the fastest is **{best.label}** with "
        told += (
            f"a median of {text.interval(best.p50, 'ms')}; next is {first.a.label}, slower by "
            f"{text.interval(first.ratio, '×')}."
        )
        found.append(Finding("Fastest", told, _names((best, *others)), first.ratio, "slower"))
    return found


def runtimes(measured: Measured, tables: Tables) -> list[Finding]:
    """Runtimes against the eager one at the same precision: one thing changed at a time."""
    found = []
    for cells in _panels_at_common_shape(measured):
        for precision, same in group_by(cells, lambda cell: cell.precision).items():
            base = _baseline(same)
            for cell in sorted(same, key=lambda cell: cell.p50.estimate):
                if cell is base:
                    continue
                pair = measured.compare(cell, base)
                told = (
                    f"{_where(measured, cell)}, {precision}: {cell.label} against {base.label}: "
                    f"{_speedup(pair)} ({text.number(cell.p50.estimate)} against "
                    f"{text.number(base.p50.estimate)} ms)."
                )
                found.append(_finding("Runtimes at one precision", told, pair))
    return found


def precisions(measured: Measured, tables: Tables) -> list[Finding]:
    """Lower precision against FP32 at every shape, with the crossover or its absence."""
    found = []
    for series in precision_series(measured):
        shapes = "; ".join(_precision_point(series, point) for point in series.points)
        told = f"{_panel(measured, series.device, series.model)}{series.label} against {series.reference_label}"
        other = "sequence" if series.axis == "batch" else "batch"
        if len(series.points) == 1:
            told += f" at batch {series.points[0].a.batch}, {other} {series.fixed}: {shapes}."
        else:
            told += f" over {series.axis} ({other} {series.fixed}): {_precision_summary(series)} "
            told += f"By {series.axis}: {shapes}."
        strongest = max(series.points, key=lambda pair: (pair.verdict in {"faster", "slower"}, _strength(pair)))
        cells = _names(cell for pair in series.points for cell in (pair.a, pair.b))
        found.append(Finding("Lower precision", told, cells, strongest.ratio, strongest.verdict))
    return found


def _precision_summary(series: PrecisionSeries) -> str:
    verdicts = [point.verdict for point in series.points]
    span = f"{series.sizes[0]} to {series.sizes[-1]}"
    name = series.precision.upper()
    if series.crossovers:
        return " ".join(
            f"{name} {'starts to win' if crossing.gains else 'stops winning'} between {series.axis} "
            f"{crossing.below} and {crossing.above} (about {text.number(crossing.size)})."
            for crossing in series.crossovers
        )
    for verdict in ("faster", "slower"):
        if all(each == verdict for each in verdicts):
            return f"{name} is {verdict} throughout {span}, no crossover."
        if verdict in verdicts:
            count = verdicts.count(verdict)
            told = f"{name} is {verdict} at {count} of {len(verdicts)} sizes, the others are not decided; "
            return told + "no crossover found."
    if all(each == "same within noise" for each in verdicts):
        return f"no difference beyond the noise floor at any size {span}."
    return f"no difference established at any size {span}."


def _precision_point(series: PrecisionSeries, pair: Comparison) -> str:
    size = f"{getattr(pair.a, series.axis)}: " if len(series.points) > 1 else ""
    return size + _speedup(pair)


# --- how it scales ---------------------------------------------------------------------------------------------------


def batching(measured: Measured, tables: Tables) -> list[Finding]:
    """What batching buys an inference, and where throughput flattens."""
    found = []
    for cells in _sweeps(measured, "batch"):
        first, last = cells[0], cells[-1]
        whole = measured.compare_per_inference(last, first)
        steps = [measured.compare_per_inference(b, a) for a, b in itertools.pairwise(cells)]
        told = (
            f"{_configuration(measured, first)} at sequence {first.sequence}: an inference in a batch of {last.batch} "
        )
        if whole.verdict == "faster":
            told += f"takes {text.interval(whole.ratio, '×')} the time of one in a batch of {first.batch}"
        elif whole.verdict == "slower":
            told += f"takes longer, {text.interval(whole.ratio, '×')}, than one in a batch of {first.batch}"
        else:
            told += (
                f"takes {text.interval(whole.ratio, '×')} the time of one in a batch of {first.batch}, "
                f"{_no_claim(whole)}"
            )
        told += f"; {_flattening(cells, steps)}."
        found.append(Finding("Batching", told, _names(cells), whole.ratio, whole.verdict))
    return found


def _flattening(cells: Sequence[Cell], steps: Sequence[Comparison]) -> str:
    for cell, step in zip(cells, steps, strict=False):
        gain = step.ratio.inverted()
        if step.verdict == "faster" and gain.estimate - 1 >= FLAT_GAIN:
            continue
        change = (
            f"{_signed_percent(gain.estimate)} [{_signed_percent(gain.low)}, {_signed_percent(gain.high)}] throughput"
        )
        why = "" if step.verdict in {"faster", "slower"} else f", {_no_claim(step)}"
        return f"throughput flattens at batch {cell.batch}: going to {step.a.batch} changes it by {change}{why}"
    gain = steps[-1].ratio.inverted()
    return (
        f"throughput still rises at batch {cells[-1].batch} ({_signed_percent(gain.estimate)} from "
        f"{cells[-2].batch} to {cells[-1].batch})"
    )


def sequences(measured: Measured, tables: Tables) -> list[Finding]:
    """How latency grows with the sequence: the exponent over the sweep and over its last step."""
    found = []
    for cells in _sweeps(measured, "sequence"):
        sizes = [cell.sequence for cell in cells]
        exponent = growth_exponent(cells, sizes)
        told = (
            f"{_configuration(measured, cells[0])} at batch {cells[0].batch}: latency grows as sequence to the "
            f"power of {_exponent(exponent)} over {sizes[0]} to {sizes[-1]}"
        )
        if len(cells) > 2:
            last = growth_exponent(cells[-2:], sizes[-2:])
            told += f", {_exponent(last)} over the last step ({sizes[-2]} to {sizes[-1]})"
        found.append(Finding("Sequence length", told + ".", _names(cells), exponent))
    return found


# --- what else a latency holds ---------------------------------------------------------------------------------------


HOST_BOUND_SHARE = 0.9
"""Of the latency, spent by the host in submitting: from here on the GPU has nothing to do but to wait for it."""

DEVICE_BOUND_SHARE = 0.5
"""Up to here the host is done early, and the latency is the device's."""


def boundness(measured: Measured, tables: Tables) -> list[Finding]:
    """Whether the host's submitting or the device decides the latency, and at which batch that changes.

    Read from the host's time in the submitting calls. The span between two events does not tell: it holds the time in
    which the GPU waits for the next launch, so it is close to the latency in either case.
    """
    found = []
    for panel in _panels_at_common_shape(measured):
        for kind, cells in group_by([cell for cell in panel if pd.notna(cell.row["enqueue_p50_ms"])], _bound).items():
            shown = text.listed(
                f"{cell.label} ({text.number(cell.row['enqueue_p50_ms'])} of {text.number(cell.p50.estimate)} ms)"
                for cell in cells
            )
            told = f"{_where(measured, cells[0])}: {BOUND[kind]}: {shown}."
            found.append(Finding("Host or device", told, _names(cells)))
    for sweep in _sweeps(measured, "batch"):
        cells = [cell for cell in sweep if pd.notna(cell.row["enqueue_p50_ms"]) and _bound(cell) != "waits"]
        kinds = {kind: [cell.batch for cell in own] for kind, own in group_by(cells, _bound).items()}
        if len(kinds) > 1:
            places = "; ".join(f"{kind} at batch {text.listed(batches)}" for kind, batches in kinds.items())
            told = f"{_configuration(measured, cells[0])} at sequence {cells[0].sequence}: {places}."
            found.append(Finding("Host or device", told, _names(cells)))
    return found


BOUND = {
    "host-bound": f"**host-bound**, submitting takes at least {HOST_BOUND_SHARE:.0%} of the latency",
    "between": "between the two, neither the host nor the device alone",
    "device-bound": f"**device-bound**, the host is done within {DEVICE_BOUND_SHARE:.0%} of the latency",
    "waits": "not decided, the submitting call itself waits for the device",
}


def _bound(cell: Cell) -> str:
    if pd.isna(cell.row["e2e_p50_ms"]):  # no boundary on the device: the call copies and waits
        return "waits"
    share = cell.row["enqueue_p50_ms"] / cell.p50.estimate
    return "host-bound" if share >= HOST_BOUND_SHARE else "device-bound" if share <= DEVICE_BOUND_SHARE else "between"


def other_boundaries(measured: Measured, tables: Tables) -> list[Finding]:
    """End to end and cold caches against the closed loop, where they were measured."""
    found = []
    for column, what in (("e2e_p50_ms", "End to end (with copies)"), ("cold_p50_ms", "With cold caches")):
        for panel in _panels_at_common_shape(measured):
            cells = [cell for cell in panel if pd.notna(cell.row[column])]
            if not cells:
                continue
            factors = {}
            for cell in cells:
                own = _runs(tables, cell)
                factors[cell.label] = mean_over_processes(own[column] / own["p50_ms"])
            clear = [
                f"{label} {text.interval(factor, '×')}"
                for label, factor in factors.items()
                if factor.bounded and not factor.low <= 1 <= factor.high
            ]
            told = (
                f"{_where(measured, cells[0])}: {what}, against the closed-loop median: "
                f"{text.listed(clear) or 'no difference established'}"
                f"{f'; no difference established for {len(cells) - len(clear)} others' if clear else ''}."
            )
            found.append(Finding("Beyond the closed loop", told, _names(cells)))
    return found


def cold_start(measured: Measured, tables: Tables) -> list[Finding]:
    """Time to the first answer of a fresh process, in steady-state inferences."""
    found = []
    for cells in _panels_at_common_shape(measured):
        prices = {}
        for cell in cells:
            own = _runs(tables, cell)
            total = own[[f"{stage}_ms" for stage in COLD_START]].sum(axis=1)
            if len(total) and (total > 0).all():
                prices[cell] = mean_over_processes(total)
        if not prices:
            continue
        ranked = sorted(prices, key=lambda cell: prices[cell].estimate)
        told = "; ".join(
            f"{cell.label} {_seconds(prices[cell])} (as long as {prices[cell].estimate / cell.p50.estimate:,.0f} "
            "steady requests)"
            for cell in ranked
        )
        told = f"{_where(measured, ranked[0])}: a fresh process gives its first answer after: {told}."
        found.append(Finding("Cold start", told, _names(ranked), prices[ranked[0]]))
    return found


# --- how far to believe it -------------------------------------------------------------------------------------------


def noise(measured: Measured, tables: Tables) -> list[Finding]:
    """The A/A pairs, and their absence."""
    found = [
        Finding(
            "Noise",
            f"{pair.cell.label} on {pair.cell.device}, measured twice under two names (batch {pair.cell.batch}, "
            f"sequence {pair.cell.sequence}): ratio {text.interval(pair.ratio)}. The noise floor is "
            f"**{text.percent(pair.floor)}**: no smaller difference is called one.",
            _names((pair.cell, pair.twin)),
            pair.ratio,
        )
        for pair in measured.twin_pairs
    ]
    for device in sorted({cell.device for cell in measured.cells}):
        if measured.noise_floor(device) is None:
            told = f"No A/A pair was measured on {device}: differences there rest on their intervals alone."
            found.append(Finding("Noise", told, ()))
    return found


def warnings(measured: Measured, tables: Tables) -> list[Finding]:
    """What a reader should hold against the numbers."""
    cells = measured.cells
    causes: list[tuple[str, Callable[[Cell], bool]]] = [
        ("rest on one process, so nothing bounds them", lambda cell: len(cell.groups) < 2),
        ("never became stable in the warm-up", lambda cell: cell.row["warmup_stable"] is False),
        ("stopped at a cap before the precision asked for", lambda cell: "cap" in str(cell.row["stop_reasons"])),
        (
            "have processes that differ by more than 10%",
            lambda cell: cell.row["process_spread"] > 0.1,
        ),
    ]
    found = []
    for told, holds in causes:
        hit = [cell for cell in cells if holds(cell)]
        if hit:
            where = "" if len(hit) == len(cells) else f" ({text.cut((_short(cell) for cell in hit), 3)})"
            found.append(Finding("Warnings", f"{len(hit)} of {len(cells)} measured cells {told}{where}.", _names(hit)))
    flags = tables.runs.loc[tables.runs["flags"].fillna("") != "", [*KEY, "run", "flags"]]
    flags = flags.assign(flag=flags["flags"].str.split("; ")).explode("flag")
    # Two flags that differ by a number only are one kind: "used 35% of a core".
    flags["kind"] = flags["flag"].str.replace(r"\d+(\.\d+)?", "…", regex=True)
    for _, own in flags.groupby("kind", sort=True):
        names = (
            f"{row.runtime} {row.precision} b{row.batch}-s{row.sequence} run {row.run}" for row in own.itertuples()
        )
        example = "" if len(own) == 1 else ", for one"
        told = f"{text.plural(len(own), 'run')} flagged{example}: {own['flag'].iloc[0]} ({text.cut(names, 3)})."
        found.append(Finding("Warnings", told, ()))
    return found


# --- words -----------------------------------------------------------------------------------------------------------


def _finding(topic: str, told: str, pair: Comparison) -> Finding:
    return Finding(topic, told, _names((pair.a, pair.b)), pair.ratio, pair.verdict)


def _speedup(pair: Comparison) -> str:
    """``2.1× [1.9, 2.3] faster``, or the ratio and what keeps it from being a difference."""
    if pair.verdict == "faster":
        return f"**{text.interval(pair.ratio.inverted(), '×')} faster**"
    if pair.verdict == "slower":
        return f"**{text.interval(pair.ratio, '×')} slower**"
    return f"{text.interval(pair.ratio, '×')} the latency, {_no_claim(pair)}"


def _no_claim(pair: Comparison) -> str:
    if pair.verdict == "same within noise":
        return "the same within noise"
    return "not established as a difference" if pair.beyond_noise else "within the noise floor"


def _strength(pair: Comparison) -> float:
    return abs(math.log(pair.ratio.estimate))


def _signed_percent(factor: float) -> str:
    if not math.isfinite(factor):
        return "∞"
    change = (factor - 1) * 100
    return f"{change:+.1f}%" if abs(change) < 10 else f"{change:+.0f}%"


def percent_interval(share: Interval) -> str:
    ends = f" [{text.percent(share.low)}, {text.percent(min(share.high, 1))}]" if share.bounded else ""
    return text.percent(share.estimate) + ends


def _exponent(value: Interval) -> str:
    if not math.isfinite(value.high):
        return f"{value.estimate:.2f} [one process: no interval]"
    return f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _seconds(value: Interval) -> str:
    return text.interval(value, "ms") if value.estimate < 1000 else text.interval(value.scaled(1e-3), "s")


def _names(cells: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.name for cell in cells))


def _short(cell: Cell) -> str:
    return f"{cell.label} b{cell.batch}-s{cell.sequence}"


def _panel(measured: Measured, device: str, model: str) -> str:
    """Names the device and the model only where there are several to confuse."""
    devices = {cell.device for cell in measured.cells}
    models = {cell.model for cell in measured.cells}
    words = ([model] if len(models) > 1 else []) + ([device] if len(devices) > 1 else [])
    return f"{', '.join(words)}: " if words else ""


def _where(measured: Measured, cell: Cell) -> str:
    return f"{_panel(measured, cell.device, cell.model)}batch {cell.batch}, sequence {cell.sequence}"


def _configuration(measured: Measured, cell: Cell) -> str:
    return f"{_panel(measured, cell.device, cell.model)}{cell.label}"


# --- which cells -----------------------------------------------------------------------------------------------------


def _at_common_shape(measured: Measured) -> list[Cell]:
    return measured.at(measured.common_shape)


def _panels_at_common_shape(measured: Measured) -> list[list[Cell]]:
    return list(group_by(_at_common_shape(measured), lambda cell: (cell.device, cell.model)).values())


def _baseline(cells: Sequence[Cell]) -> Cell:
    """The eager runtime; without one, the slowest."""
    eager = [cell for cell in cells if cell.runtime.endswith("-eager")]
    return eager[0] if eager else max(cells, key=lambda cell: cell.p50.estimate)


def _sweeps(measured: Measured, axis: str) -> list[list[Cell]]:
    """Cells that differ in one axis only, at the most common value of the other, ascending."""
    other = "sequence" if axis == "batch" else "batch"
    found = []
    for cells in measured.panels.values():
        for own in group_by(cells, lambda cell: cell.configuration).values():
            rows = group_by(own, lambda cell: getattr(cell, other)).values()
            longest = max(rows, key=len)
            if len(longest) > 1:
                found.append(sorted(longest, key=lambda cell: getattr(cell, axis)))
    return found


def _runs(tables: Tables, cell: Cell) -> pd.DataFrame:
    mask = np.logical_and.reduce([tables.runs[name] == getattr(cell, name) for name in KEY])
    return tables.runs[mask]
