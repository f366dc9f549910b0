"""Question 1: when ONNX Runtime's CUDA provider keeps the GPU busy.

A capture says how long the GPU works in an iteration; recording hardly touches that, and it is held against the
untraced latency. Without one there is an upper bound: the same session replayed as a CUDA graph runs the same kernels
without the host between them, so the GPU works at most as long as that takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ceilings.report import text
from ceilings.report.analysis.findings.finding import (
    Finding,
    Status,
    configuration,
    named,
    names,
    processes_entry,
    sweep_entry,
    traces_entry,
)
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.analysis.stack_levers import runtimes_of
from ceilings.runtimes.catalogue import GRAPH, ORT_CUDA
from ceilings.statistics.quantiles import Interval

TOPIC = "Busy GPU"

BUSY = 0.9
"""From this share of an iteration on, the GPU counts as busy."""


@dataclass(frozen=True)
class Share:
    """How long the GPU works in an iteration, as a share of it; ``most`` where only a bound is known."""

    cell: Cell
    value: Interval
    most: bool
    rests_on: tuple[Cell, ...]

    @property
    def busy(self) -> bool | None:
        if self.value.high < BUSY:
            return False
        return True if self.value.low >= BUSY and not self.most else None

    @property
    def would_decide(self) -> str:
        return traces_entry([self.cell]) if self.most else processes_entry([self.cell])


def saturation(measured: Measured) -> list[Finding]:
    """The busy share at each size, and the first size at which the GPU is busy."""
    cells = plain_cells(measured)
    claim = f"The GPU works at least {BUSY:.0%} of an iteration of {ORT_CUDA}, from the smallest size on"
    if not cells:
        wanted = (sweep_entry(measured, runtimes_of(ORT_CUDA, (), (GRAPH,)), ("fp16",), (1, 4, 8, 16, 32, 64)),)
        sentence = f"No cell of {ORT_CUDA} was measured."
        return [Finding(TOPIC, sentence, (), question=1, claim=claim, status="not decidable", missing=wanted)]
    findings, blank = [], list[Cell]()
    groups = group_by(cells, lambda cell: (cell.device, cell.model, cell.precision, cell.phase)).values()
    for members in (sorted(group, key=lambda cell: (cell.volume, cell.batch)) for group in groups):
        shares = [share for cell in members if (share := busy_share(measured, cell))]
        if not shares:
            blank += members
            continue
        unknown = [cell for cell in members if cell not in {share.cell for share in shares if share.busy is not None}]
        sentence = f"{configuration(measured, members[0])}: "
        sentence += "; ".join(map(_shown, shares))
        first = next((share for share in shares if share.busy), None)
        status: Status = "not decidable"
        smallest = next((share for share in shares if share.cell == members[0]), None)
        idle = next((share for share in shares if share.busy is False), None)
        if idle:  # at whichever size: "from the smallest on" holds for all or not at all
            status = "refuted"
        elif smallest and smallest.busy:
            status = "supported"
        if first and first is not smallest:
            throughout = all(share.busy for share in shares[shares.index(first) :])
            busy = text.cut(str(share.cell.shape) for share in shares if share.busy)
            sentence += f". Busy from {text.sizes(first.cell.shape)} on" if throughout else f". Busy at {busy}"
        elif status == "refuted" and unknown:
            sentence += f". Not known at {text.cut(str(cell.shape) for cell in unknown)}"
        captured = [cell for cell in unknown if measured.budget(cell)]
        uncaptured = [cell for cell in unknown if cell not in captured]
        missing = [traces_entry(uncaptured)] if uncaptured else []
        missing += [processes_entry(captured)] if captured else []
        rests = [cell for share in shares for cell in share.rests_on]
        shown = smallest or idle
        effect = shown.value if shown else None
        subject = members[0].label
        findings.append(
            Finding(
                TOPIC,
                f"{sentence}.",
                names(rests),
                effect,
                question=1,
                claim=claim,
                subject=subject,
                status=status,
                missing=tuple(missing),
                measure="busy share of the latency",
                brief=_brief(configuration(measured, members[0]), shown) if shown and status != "not decidable" else "",
            )
        )
    if blank:
        listed = text.cut(named(measured, cell) for cell in blank)
        sentence = f"{listed}: neither a capture nor the CUDA graph was measured."
        subject = text.listed(dict.fromkeys(cell.label for cell in blank))
        findings.append(
            Finding(
                TOPIC,
                sentence,
                names(blank),
                question=1,
                claim=claim,
                subject=subject,
                status="not decidable",
                missing=(traces_entry(blank),),
            )
        )
    return findings


def plain_cells(measured: Measured) -> list[Cell]:
    """The CUDA provider's cells with no lever pulled."""
    return [cell for cell in measured.cells if cell.stack == ORT_CUDA and cell.as_it_is]


def busy_share(measured: Measured, cell: Cell) -> Share | None:
    """From the capture, else bounded by the CUDA graph of the same session; None with neither."""
    budget = measured.budget(cell)
    if budget:
        return Share(cell, cell.p50.inverted(budget["gpu_busy_ms"]), False, (cell,))
    graph = measured.find_stack(cell, cell.stack, cell.levers | {GRAPH})
    if graph is None:
        return None
    return Share(cell, measured.compare(graph, cell).ratio, True, (cell, graph))


def _brief(which: str, share: Share) -> str:
    most = "at most " if share.most else ""
    works = f"{most}{text.percent(min(share.value.estimate, 1))}"
    return f"{which}: the GPU works {works} of the latency at {share.cell.shape}."


def _shown(share: Share) -> str:
    at = f"{'at most ' if share.most else ''}{text.percent(min(share.value.estimate, 1))}"
    ends = f" [{text.percent(share.value.low)}, {text.percent(min(share.value.high, 1))}]"
    how = "bound from its CUDA graph" if share.most else "captured"
    return f"{share.cell.shape} {at}{ends if share.value.bounded else ''} ({how})"
