"""How latency grows: with the batch, with the size of an input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ceilings.report import text
from ceilings.report.analysis.findings.bottleneck import ORCHESTRATION, decides
from ceilings.report.analysis.findings.energy import clock
from ceilings.report.analysis.findings.finding import Finding, configuration, names, no_claim, signed_percent, times
from ceilings.report.analysis.findings.selection import on_gpu, sweeps
from ceilings.report.analysis.measured import Cell, Comparison, Measured, growth_exponent, without_axis
from ceilings.statistics.quantiles import Interval

FLAT_GAIN = 0.10
"""A step in batch that gains less throughput than this counts as flat."""


def batching(measured: Measured) -> list[Finding]:
    """What batching buys an inference, and where throughput flattens; token_costs.py says it of tokens."""
    findings = []
    everything = [cells for cells in sweeps(measured, "batch") if cells[0].phase is None]
    curves = [cells for cells in everything if len(cells) > 2]
    for cells in curves or everything:
        first, last = cells[0], cells[-1]
        whole = measured.compare_per_inference(last, first)
        steps = [measured.compare_per_inference(b, a) for a, b in itertools.pairwise(cells)]
        subject = f"{configuration(measured, first)}{_at(first, 'batch')}"
        sentence = f"{subject}: batch {last.batch} takes {text.interval(whole.ratio, '×')} the time of batch "
        sentence += f"{first.batch} per inference{'' if whole.decided else f' ({no_claim(whole)})'}"
        sentence += f"; {flattening(steps)}"
        brief = f"{subject}: per inference, batch {last.batch} is {times(whole)} than batch {first.batch}."
        sentence += (
            f". At batch {last.batch} the SM clock is {at}." if (at := clock(measured, last, "latency")) else "."
        )
        findings.append(
            Finding(
                *("Batching", sentence, names(cells), whole.ratio, whole.verdict),
                measure="latency per inference",
                brief=brief if whole.decided else "",
            )
        )
    return findings


def flattening(steps: Sequence[Comparison]) -> str:
    """The batch from which the next one gains less than ``FLAT_GAIN``, as far as the intervals decide it."""
    flat = next((step for step in steps if _flat(step)), None)
    before = steps[: steps.index(flat)] if flat else steps
    open_ = next((step for step in before if not _rises(step)), None)
    if flat and open_:
        return (
            f"throughput flattens at batch {flat.b.batch} at the latest: {_step(flat)} (undecided from batch "
            f"{open_.b.batch} on: {_step(open_)})"
        )
    if flat:
        return f"throughput flattens at batch {flat.b.batch}: {_step(flat)}"
    if open_:
        return f"whether throughput flattens at batch {open_.b.batch} is not decided: {_step(open_)}"
    return f"throughput still rises at batch {steps[-1].a.batch}: {_step(steps[-1])}"


def _flat(step: Comparison) -> bool:
    """Whether a step provably gains less than ``FLAT_GAIN``; a noise floor above that leaves it open."""
    return (step.floor or 0.0) <= FLAT_GAIN and step.ratio.inverted().high < 1 + FLAT_GAIN


def _rises(step: Comparison) -> bool:
    """Whether a step provably gains at least ``FLAT_GAIN``."""
    return step.verdict == "faster" and step.ratio.inverted().low >= 1 + FLAT_GAIN


def _step(step: Comparison) -> str:
    """``going from 4 to 8 changes it by +12% [+3%, +22%]``."""
    gain = step.ratio.inverted()
    bounds = f"[{signed_percent(gain.low)}, {signed_percent(gain.high)}]" if gain.bounded else "[one process]"
    bounds = bounds if gain.high <= text.TOO_NOISY * gain.low or not gain.bounded else "[too noisy]"
    return f"going from {step.b.batch} to {step.a.batch} changes it by {signed_percent(gain.estimate)} {bounds}"


def sizes(measured: Measured) -> list[Finding]:
    """How latency grows with the size of an input: the exponent over each sweep and over its last step."""
    return [finding for axis in measured.swept_axes if axis != "batch" for finding in _along(measured, axis)]


def _along(measured: Measured, axis: str) -> list[Finding]:
    findings = []
    topic, what = TOPICS.get(axis, (f"Size along {axis}", f"size along {axis}"))
    for cells in sweeps(measured, axis):
        sizes = [cell.axis(axis) for cell in cells]
        exponent = growth_exponent(cells, sizes)
        whole = measured.compare(cells[-1], cells[0])
        sentence = (
            f"{configuration(measured, cells[0])}{_at(cells[0], axis)}: {sizes[-1] / sizes[0]:.3g} times "
            f"the {what} ({sizes[0]} to {sizes[-1]}) take {text.interval(whole.ratio, '×')} the time"
        )
        if not whole.decided:
            sentence += f" ({no_claim(whole)})"
        sentence += f"; latency ∝ {axis}^{_exponent(exponent)}"
        if len(cells) > 2:
            last = growth_exponent(cells[-2:], sizes[-2:])
            sentence += f", over the last step ({sizes[-2]} to {sizes[-1]}) ∝ {axis}^{_exponent(last)}"
        if on_gpu(cells[0]) and {decides(measured, cell) for cell in cells} <= ORCHESTRATION:
            sentence += ". It is host-bound at each of these sizes"
        brief = (
            f"{configuration(measured, cells[0])}{_at(cells[0], axis)}: {sizes[-1] / sizes[0]:.3g} times the {what} "
            f"take {text.number(whole.ratio.estimate)}× the time."
        )
        findings.append(
            Finding(
                *(topic, sentence + ".", names(cells), exponent),
                measure=f"exponent of the {axis}",
                absolute=True,
                brief=brief if whole.decided else "",
            )
        )
    return findings


TOPICS = {
    "sequence": ("Sequence length", "tokens"),
    "prompt": ("Prompt length", "tokens of the prompt"),
    "image": ("Image size", "pixels along an edge"),
    "samples": ("Recording length", "samples of the waveform"),
}
"""Topic of an axis, and what it counts."""


def _at(cell: Cell, axis: str) -> str:
    """The rest of a cell's shape, where there is any."""
    rest = text.sizes(without_axis(cell.shape, axis))
    return f" at {rest}" if rest else ""


def _exponent(value: Interval) -> str:
    if not math.isfinite(value.high):
        return f"{value.estimate:.2f} [one process: no interval]"
    return f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"
