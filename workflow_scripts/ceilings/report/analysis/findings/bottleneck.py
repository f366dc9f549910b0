"""Question 4: where latency turns from orchestration-bound to kernel-bound.

A capture's verdict decides where there is one. Else the host's time in the submitting calls does; the span between two
events decides nothing: it holds the time in which the GPU waits for the next launch, so it is close to the latency in
either case.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, configuration, names, sweep_entry, traces_entry, where
from ceilings.report.analysis.findings.operating import saturated
from ceilings.report.analysis.findings.selection import on_gpu, panels_at_common_shape, sweeps
from ceilings.report.analysis.measured import Cell, Measured, group_by, without_axis
from ceilings.report.analysis.stack_levers import runtimes_of
from ceilings.runtimes.catalogue import ORT_CUDA
from ceilings.statistics.intervals import mean_over_processes
from ceilings.statistics.quantiles import Interval

TOPIC = "Host or device"

HOST_BOUND_SHARE = 0.9
"""Of the latency, spent by the host in submitting: from here on the GPU has nothing to do but to wait for it."""

DEVICE_BOUND_SHARE = 0.5
"""Up to here the host is done early, and the latency is the device's."""

HIDDEN_SHOWN = 6

Bound = Literal["host-bound", "between", "device-bound", "undecided", "waits"]

BOUND: dict[Bound, str] = {
    "host-bound": f"**host-bound** (the host submits work for at least {HOST_BOUND_SHARE:.0%} of the latency)",
    "between": "host and device overlap, neither bounds the latency alone",
    "device-bound": f"**device-bound** (the host submits work for at most {DEVICE_BOUND_SHARE:.0%} of the latency)",
    "undecided": "not decided (the host's share is too noisy, or there is one process)",
    "waits": "not decided (the call copies and waits for the device, so it does not show the host's share)",
}

ORCHESTRATION = {"host-bound", "launch-bound", "sync-bound", "transfer-bound"}
KERNELS = {"device-bound", "kernel-bound"}
DECIDED = ORCHESTRATION | KERNELS

CLAIM = "The latency turns from host-bound to device-bound within the measured sizes"

CONSEQUENCE: dict[Bound, str] = {
    "host-bound": "faster kernels hardly help, fewer or cheaper launches do",
    "device-bound": "faster kernels help",
}
"""What follows from a bound that is known."""


def bottleneck(measured: Measured) -> list[Finding]:
    """What decides each latency at the common shape, and the size at which that changes."""
    cells = [cell for cell in measured.cells if on_gpu(cell)]
    if not cells:
        wanted = sweep_entry(measured, runtimes_of(ORT_CUDA, ()), ("fp16",), (1, 8, 64))
        sentence = "No cell of a GPU was measured."
        return [Finding(TOPIC, sentence, (), question=4, claim=CLAIM, status="not decidable", missing=(wanted,))]
    turns = [finding for axis in measured.swept_axes for finding in _turns(measured, axis)]
    return [*_shares(measured), *(turns or [_no_sweep(measured, cells)])]


def bound(measured: Measured, cell: Cell) -> Bound:
    """Read from the host's share of the latency, a ratio within each process."""
    generates = cell.shape.get("generated") is not None  # where a call waits, its submitting was not recorded
    if pd.isna(cell.row["e2e_p50_ms"]) and not generates:  # no boundary on the device: the call copies and waits
        return "waits"
    runs = measured.runs(cell)
    return bound_by(mean_over_processes(runs["enqueue_p50_ms"] / runs["p50_ms"]))


def bound_by(share: Interval) -> Bound:
    """What the whole interval of the host's share says."""
    if share.low >= HOST_BOUND_SHARE:
        return "host-bound"
    if share.high <= DEVICE_BOUND_SHARE:
        return "device-bound"
    return "between" if share.low > DEVICE_BOUND_SHARE and share.high < HOST_BOUND_SHARE else "undecided"


def decides(measured: Measured, cell: Cell) -> str:
    """A capture's verdict, else the host's share's; ``waits``, ``between`` and ``undecided`` decide nothing."""
    budget = measured.budget(cell)
    if budget and isinstance(budget["verdict"], str):
        return budget["verdict"]
    return bound(measured, cell) if pd.notna(cell.row["enqueue_p50_ms"]) else "unknown"


def queued(measured: Measured, cell: Cell) -> Interval | None:
    """Time of a batch with requests queued, in ms: a bound of the device's work, which one stream does in turn.

    None where it is not provably below the latency, so where queueing hides nothing of the host.
    """
    rate = saturated(cell)
    if rate is None or bound(measured, cell) == "waits":
        return None
    each = rate.inverted(cell.batch * 1e3)
    return each if each.high < cell.p50.low else None


def _hidden(measured: Measured, cells: list[Cell]) -> list[Finding]:
    """What a device-bound latency holds of the host all the same: a graph starts only once it has been submitted."""
    known = [
        (work, cell) for cell in cells if bound(measured, cell) == "device-bound" and (work := queued(measured, cell))
    ]
    if not known:
        return []
    known.sort(key=lambda pair: pair[0].estimate / pair[1].p50.estimate)
    listed = text.cut(
        (f"{cell.label} ({text.number(work.estimate)} of {text.number(cell.p50.estimate)} ms)" for work, cell in known),
        HIDDEN_SHOWN,
    )
    sentence = (
        f"{where(measured, cells[0])}: with requests queued, submission overlaps the request before. So the device's "
        f"work takes at most: {listed}."
    )
    return [Finding(TOPIC, sentence, names(cell for _, cell in known), question=4)]


def _shares(measured: Measured) -> list[Finding]:
    findings = []
    for cells in panels_at_common_shape(measured):
        shown = [cell for cell in cells if pd.notna(cell.row["enqueue_p50_ms"])]
        for kind, members in group_by(shown, lambda cell: bound(measured, cell)).items():
            listed = text.listed(
                f"{cell.label} ({text.number(cell.row['enqueue_p50_ms'])} of {text.number(cell.p50.estimate)} ms)"
                for cell in members
            )
            sentence = f"{where(measured, members[0])}: {BOUND[kind]}: {listed}."
            brief = ""
            if kind in CONSEQUENCE:
                subject = text.cut((cell.label for cell in members), 2)
                verb = "is" if len(members) == 1 else "are"
                brief = f"{where(measured, members[0])}: {subject} {verb} {kind}: {CONSEQUENCE[kind]}."
            findings.append(Finding(TOPIC, sentence, names(members), question=4, brief=brief))
        findings += _hidden(measured, shown)
        captured = [cell for cell in cells if measured.budget(cell)]
        for kind, members in group_by(captured, lambda cell: decides(measured, cell)).items():
            sentence = (
                f"{where(measured, members[0])}: **{kind}** by a capture: {text.listed(c.label for c in members)}."
            )
            findings.append(Finding(TOPIC, sentence, names(members), question=4, brief=sentence.replace("**", "")))
    return findings


def _turns(measured: Measured, axis: str) -> list[Finding]:
    """One finding a sweep that turns, one for all that stay on one side, one for all that nothing decides."""
    findings, staying, open_ = [], dict[str, list[list[Cell]]](), list[list[Cell]]()
    for sweep in sweeps(measured, axis):
        if not on_gpu(sweep[0]):
            continue
        kinds = [decides(measured, cell) for cell in sweep]
        known = [(kind in KERNELS, cell, kind) for kind, cell in zip(kinds, sweep, strict=True) if kind in DECIDED]
        sides = [kernels for kernels, *_ in known]
        if len(set(sides)) == 2 and sides == sorted(sides):
            turn = sides.index(True)
            sentence = f"{_by_size(measured, sweep, kinds, axis)}. It turns between {axis} "
            sentence += f"{known[turn - 1][1].axis(axis)} and {known[turn][1].axis(axis)}."
            subject = f"{sweep[0].label} over {axis}"
            brief = (
                f"{configuration(measured, sweep[0])} turns from {known[turn - 1][2]} to {known[turn][2]} between "
                f"{axis} {known[turn - 1][1].axis(axis)} and {known[turn][1].axis(axis)}."
            )
            findings.append(
                Finding(
                    *(TOPIC, sentence, names(sweep)),
                    question=4,
                    claim=CLAIM,
                    subject=subject,
                    status="supported",
                    brief=brief,
                )
            )
        elif len(set(kinds)) == 1 and kinds[0] in DECIDED:
            staying.setdefault(kinds[0], []).append(sweep)
        else:
            open_.append(sweep)
    for kind, members in staying.items():
        shown = (
            f"{configuration(measured, one[0])} ({axis} {one[0].axis(axis)} to {one[-1].axis(axis)})" for one in members
        )
        sentence = f"{kind} at every size: {text.listed(shown)}."
        rests = names(cell for one in members for cell in one)
        subject = f"{text.listed(one[0].label for one in members)} over {axis}"
        brief = f"{text.cut((configuration(measured, one[0]) for one in members), 2)}: {kind} at every measured {axis}."
        findings.append(
            Finding(TOPIC, sentence, rests, question=4, claim=CLAIM, subject=subject, status="refuted", brief=brief)
        )
    if open_:
        sentence = "; ".join(_by_size(measured, one, [decides(measured, cell) for cell in one], axis) for one in open_)
        cells = [cell for one in open_ for cell in one]
        # What was captured and is mixed would be so again.
        uncaptured = [c for c in cells if decides(measured, c) not in DECIDED and not measured.budget(c)]
        missing = (traces_entry(uncaptured),) if uncaptured else ()
        subject = f"{text.listed(one[0].label for one in open_)} over {axis}"
        findings.append(
            Finding(
                TOPIC,
                f"{sentence}.",
                names(cells),
                question=4,
                claim=CLAIM,
                subject=subject,
                status="not decidable",
                missing=missing,
            )
        )
    return findings


def _by_size(measured: Measured, sweep: list[Cell], kinds: list[str], axis: str) -> str:
    sizes = group_by(list(zip(kinds, sweep, strict=True)), lambda pair: pair[0])
    places = "; ".join(
        f"{kind} at {axis} {text.listed(cell.axis(axis) for _, cell in members)}" for kind, members in sizes.items()
    )
    fixed = text.sizes(without_axis(sweep[0].shape, axis))
    return f"{configuration(measured, sweep[0])}{f' at {fixed}' if fixed else ''}: {places}"


def _no_sweep(measured: Measured, cells: list[Cell]) -> Finding:
    wanted = sweep_entry(measured, {cell.runtime for cell in cells}, {cell.precision for cell in cells}, (1, 8, 64))
    sentence = "Each configuration was measured at one size only."
    return Finding(TOPIC, sentence, names(cells), question=4, claim=CLAIM, status="not decidable", missing=(wanted,))
