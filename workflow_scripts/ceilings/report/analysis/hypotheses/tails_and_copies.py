"""Claims about steadiness and copies: tails, CUDA graphs, pinned memory."""

from __future__ import annotations

import math

import numpy as np

from ceilings.report import text
from ceilings.report.analysis.findings.factors import steps
from ceilings.report.analysis.findings.finding import MARGIN, Status, combined, processes_entry
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.findings.tail import tail
from ceilings.report.analysis.hypotheses.judgement import Judgement, by_stack, in_range, unknown
from ceilings.report.analysis.measured import Groups, Measured, carries
from ceilings.report.analysis.stack_levers import runtime_of, runtimes_of
from ceilings.report.tables.evidence import Evidence
from ceilings.runtimes.catalogue import FUSION, GRAPH, ORT_CUDA, PYTORCH
from ceilings.statistics.estimands import MEAN, P99, Estimand
from ceilings.statistics.intervals import bootstrap_logs, process_logs
from ceilings.statistics.quantiles import Interval

KINDS = ("pinned", "pageable")

MORE = "more cells at batch 1, or more processes of these"
"""What would decide how steady small work is."""


def mean_stable_tail_not(measured: Measured, _: Evidence) -> Judgement:
    """Spread over processes of the p99 against that of the mean, over the small GPU cells that know both.

    A p99 rests on few iterations, so part of its spread is sampling alone: that part is taken out of both.
    """
    small = [
        cell
        for cell in measured.cells
        if on_gpu(cell) and cell.batch == 1 and len(cell.groups) > 1 and carries(cell.groups, P99)
    ]
    if len(small) < 3:
        return unknown(measured, (runtime_of(ORT_CUDA), *runtimes_of(PYTORCH, (), (GRAPH,))), ("fp32", "fp16"))
    variances = np.array([[_between(cell.groups, estimand) for estimand in (MEAN, P99)] for cell in small])
    draws = np.random.default_rng(0).integers(len(small), size=(1000, len(small)))
    spreads = np.sqrt(variances[draws].mean(axis=1))
    mean, p99 = np.sqrt(variances.mean(axis=0))
    if mean == 0:
        return Judgement("not decidable", "the processes' means do not differ beyond sampling", (MORE,))
    low, high = np.quantile(spreads[:, 1] / np.maximum(spreads[:, 0], 1e-12), [0.025, 0.975])
    factor = Interval(float(low), float(p99 / mean), float(high))
    steady = [float(math.expm1(end)) for end in np.quantile(spreads[:, 0], [0.025, 0.975])]
    halves: list[Status] = [
        "supported" if steady[1] <= MARGIN else "refuted" if steady[0] > MARGIN else "not decidable",
        "supported" if factor.low > 1 else "refuted" if factor.high < 1 else "not decidable",
    ]
    verdict = combined(halves)
    sentence = (
        f"between processes, sampling taken out, the mean varies by {text.percent(math.expm1(mean))} "
        f"[{text.percent(steady[0])}, "
        f"{text.percent(steady[1])}], where up to {MARGIN:.0%} counts as stable, and the p99 by "
        f"{text.percent(math.expm1(p99))}, {text.interval(factor, '×')} as much ({len(small)} cells at batch 1); what "
        "causes it needs captures"
    )
    return Judgement(verdict, sentence, (MORE,) if verdict == "not decidable" else ())


def _between(groups: Groups, estimand: Estimand) -> float:
    """Variance of the processes' logs beyond what their iterations' sampling explains; 0 at least."""
    random = np.random.default_rng(0)
    logs = process_logs(groups, estimand)
    sampling = [float(bootstrap_logs([group], random, estimand).var()) for group in groups]
    return max(0.0, float(logs.var(ddof=1)) - float(np.mean(sampling)))


def graphs_tighten(measured: Measured, _: Evidence) -> Judgement:
    """Both halves at batch 1, which is the small work that the claim is about."""
    gains = [
        step
        for members in by_stack(measured)
        for step in steps(measured, members).get(GRAPH, [])
        if step.with_.batch == 1
    ]
    if not gains:
        # The plain graph of a model that generates has a cache that grows, which no CUDA graph captures.
        beside = {FUSION} if measured.cells and all(cell.phase for cell in measured.cells) else set[str]()
        return unknown(measured, runtimes_of(ORT_CUDA, beside, {GRAPH, *beside}), ("fp16",))
    names = {step.with_.name for step in gains}
    tails = [finding for finding in tail(measured) if finding.effect and finding.cells[0] in names]
    faster = [step for step in gains if step.verdict == "faster"]
    lost = any(step.verdict in {"slower", "same within noise"} for step in gains)
    latency: Status = "supported" if len(faster) == len(gains) else "refuted" if lost else "not decidable"
    statuses = [finding.status for finding in tails if finding.status]
    reach = combined(statuses) if statuses else "not decidable"
    sentence = f"latency ({latency}): falls in {len(faster)} of {len(gains)} pairs at batch 1"
    if faster:
        cuts = sorted(1 - step.ratio.estimate for step in faster)
        sentence += f", by {text.percent(cuts[0])} to {text.percent(cuts[-1])}"
    sentence += f"; tail ({reach}): p99 over p50 falls in {statuses.count('supported')} of {len(statuses)}"
    p99 = [pair for step in gains if (pair := measured.compare_by(P99, step.with_, step.without))]
    sentence += f", the p99 itself falls in {sum(pair.verdict == 'faster' for pair in p99)} of {len(p99)}"
    verdict = combined([latency, reach])
    missing = tuple(dict.fromkeys(entry for finding in tails for entry in finding.missing))
    missing = missing or (processes_entry([step.with_ for step in gains]),)
    return Judgement(verdict, sentence, missing if verdict == "not decidable" else ())


def pinned(measured: Measured, evidence: Evidence) -> Judgement:
    statuses: list[Status] = []
    lines = []
    for device, record in sorted(evidence.peaks.items()):
        for way, words in (("h2d", "to the device"), ("d2h", "back")):
            pinned, pageable = (record["peaks"].get(f"{way}_bandwidth.{kind}", {}) for kind in KINDS)
            if pinned.get("median") and pageable.get("median"):
                low = pinned["low"] / pageable["high"]
                factor = Interval(low, pinned["median"] / pageable["median"], pinned["high"] / pageable["low"])
                statuses.append(in_range(factor, 2, 3))
                lines.append(f"{device} {words} {text.interval(factor, '×')} (range over repeats)")
                small = [record["peaks"].get(f"{way}_latency.{kind}", {}).get("median") for kind in KINDS]
                if all(small):
                    lines[-1] += f", but 4 KiB take {text.number(small[0])} and {text.number(small[1])} µs"
    if not lines:
        missing = ("results/hosts/{device}/peaks.json of a GPU",)
        return Judgement("not decidable", "", missing)
    verdict = combined(statuses)
    missing = ("more repeats in results/hosts/{device}/peaks.json",)
    return Judgement(verdict, "; ".join(lines), missing if verdict == "not decidable" else ())
