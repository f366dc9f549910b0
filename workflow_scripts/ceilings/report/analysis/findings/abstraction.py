"""Question 3: when abstraction layers stop mattering."""

from __future__ import annotations

from ceilings.report import text
from ceilings.report.analysis.findings.factors import steps
from ceilings.report.analysis.findings.finding import (
    Finding,
    Status,
    change,
    names,
    panel,
    processes_entry,
    sweep_entry,
    times,
)
from ceilings.report.analysis.findings.selection import baseline, on_gpu, panels_at_common_shape
from ceilings.report.analysis.measured import Cell, Measured, equivalence, group_by
from ceilings.report.analysis.stack_levers import runtimes_of
from ceilings.runtimes.catalogue import GRAPH, ORT_CUDA

TOPIC = "Launch overhead"
RUNTIMES_TOPIC = "Runtimes at one precision"

LAYER_MARGIN = 0.10
"""A layer that costs less than this has stopped mattering."""

MASKED = "its graph keeps the attention mask, and eager drops a mask of ones: one attention kernel differs"

CLAIM = f"Launch overhead falls below {LAYER_MARGIN:.0%} within the measured sizes"


def layers(measured: Measured) -> list[Finding]:
    """What launching through a runtime costs: its latency over that of the same kernels replayed as a CUDA graph."""
    findings = []
    pairs: dict[tuple[object, ...], list[tuple[Cell, Cell]]] = {}
    for members in group_by(measured.cells, lambda cell: (cell.device, cell.model, cell.shape, cell.stack)).values():
        for step in steps(measured, members).get(GRAPH, []):
            key = (*step.without.configuration, step.without.device, step.without.model, step.without.phase)
            pairs.setdefault(key, []).append((step.without, step.with_))
    for same in pairs.values():
        findings.append(_by_size(measured, sorted(same, key=lambda pair: pair[0].volume)))
    if any(finding.status != "not decidable" for finding in findings):
        # One size shows no turn; beside configurations with several it is only in the way.
        findings = [finding for finding in findings if len(finding.cells) > 2]
    if not findings:
        sentence = "No runtime was measured with and without a CUDA graph."
        base = sorted({cell.runtime for cell in measured.cells if on_gpu(cell) and GRAPH not in cell.levers})
        wanted = sweep_entry(measured, [*base, *runtimes_of(ORT_CUDA, (), (GRAPH,))], ("fp16",), batches=(1, 8, 32, 64))
        findings = [Finding(TOPIC, sentence, (), question=3, claim=CLAIM, status="not decidable", missing=(wanted,))]
    return findings


def _by_size(measured: Measured, pairs: list[tuple[Cell, Cell]]) -> Finding:
    costs = [equivalence(plain, graph) for plain, graph in pairs]
    floor = measured.noise_floor(pairs[0][0].device) or 0.0
    # A layer that costs less than nothing, where the graph is the slower one, has stopped mattering too.
    free = [floor <= LAYER_MARGIN and cost.high < 1 + LAYER_MARGIN for cost in costs]
    first, last = pairs[0][0], pairs[-1][0]
    shown = "; ".join(
        f"{plain.shape} {text.interval(cost, '×')}" for (plain, _), cost in zip(pairs, costs, strict=True)
    )
    at = panel(measured, first)
    sentence = f"{at}{first.label} against the replay of its CUDA graph (90% intervals): {shown}"
    brief = ""
    masked = first.is_eager and first.phase is None
    if masked:
        sentence += f" ({MASKED})"
    status: Status = "not decidable"
    wanted = ""
    if free[-1]:
        since = len(free) - next((i for i, one in enumerate(reversed(free)) if not one), len(free))
        sentence += f". Launching costs less than {LAYER_MARGIN:.0%} from {pairs[since][0].shape} on"
        status = "supported"
        brief = f"{at}launch overhead of {first.label} falls below {LAYER_MARGIN:.0%} from {pairs[since][0].shape} on."
    elif len(pairs) == 1:
        wanted = sweep_entry(
            measured, (first.runtime, pairs[0][1].runtime), (first.precision,), (8, 32, 64), first.shape
        )
    elif costs[-1].low > 1 + max(LAYER_MARGIN, floor):
        sentence += f". Launching still costs more than {LAYER_MARGIN:.0%} at the largest measured size"
        status = "refuted"
        why = " (one attention kernel differs)" if masked else ": launch overhead still counts there"
        factor = text.number(costs[-1].estimate)
        brief = f"{at}{first.label} takes {factor}× the time of its CUDA graph even at {last.shape}{why}."
    missing = (wanted or processes_entry([last]),) if status == "not decidable" else ()
    cells = names(cell for pair in pairs for cell in pair)
    return Finding(TOPIC, f"{sentence}.", cells, costs[-1], None, 3, CLAIM, first.label, status, missing, brief=brief)


def runtimes(measured: Measured) -> list[Finding]:
    """Runtimes against the eager one at the same precision: one thing changed at a time."""
    findings = []
    for cells in panels_at_common_shape(measured):
        for precision, same in group_by(cells, lambda cell: cell.precision).items():
            base = baseline(same)
            pairs = [measured.compare(cell, base) for cell in same if cell is not base]
            if not pairs:
                continue
            pairs.sort(key=lambda pair: pair.ratio.estimate)
            sentence = (
                f"{panel(measured, base)}{base.shape} {precision}, against {base.label} "
                f"({text.number(base.p50.estimate)} ms{base.per}): "
                + "; ".join(f"{pair.a.label} {change(pair)}" for pair in pairs)
            )
            strongest = max(pairs, key=lambda pair: (pair.decided, pair.ratio.inverted().estimate))
            findings.append(
                Finding(
                    RUNTIMES_TOPIC,
                    f"{sentence}.",
                    names([base, *(p.a for p in pairs)]),
                    strongest.ratio,
                    strongest.verdict,
                    question=3,
                    brief=f"{panel(measured, base)}{strongest.a.label} is {times(strongest)} than {base.label} at "
                    f"{base.shape}."
                    if strongest.decided
                    else "",
                )
            )
    return findings
