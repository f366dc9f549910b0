"""What A/A pairs of servers say of the noise between deployments, and where none was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding
from ceilings.report.analysis.measured import group_by
from ceilings.report.analysis.served import ServedLoads, ServerPair, named, records_of
from ceilings.statistics.intervals import widest_difference
from ceilings.statistics.quantiles import Interval


def noise_between(loads: ServedLoads) -> list[Finding]:
    """A finding a cell of each A/A pair of servers, and one a device that lacks such a pair."""
    findings = [_measured(loads, pair) for pair in loads.aa_pairs]
    for device, entry in unmeasured(loads):
        sentence = (
            f"No A/A pair of servers was measured on {device}, so the noise between deployments is unknown: their "
            f"differences rest on their intervals and on the noise of bare cells. Add `{entry}`."
        )
        findings.append(Finding("Noise", sentence, ()))
    return findings


def unmeasured(loads: ServedLoads) -> Iterator[tuple[str, str]]:
    """Devices with several deployments and no A/A pair of servers, each with the entry of a study that asks for one."""
    paired = {pair.line.head.device for pair in loads.aa_pairs}
    for device, lines in group_by(loads.lines, lambda line: line.head.device).items():
        if device not in paired and len({line.head.deployment for line in lines}) > 1:
            yield device, f"noise_deployments: [{lines[0].head.deployment}]"


def _measured(loads: ServedLoads, pair: ServerPair) -> Finding:
    one, other = pair.line.head, pair.second.head
    sentence = (
        f"{named(loads, one)} and behind {other.deployment} on {one.device}, an A/A pair of servers: "
        f"latency {_ratios(pair.latency)}; throughput {_ratios(pair.throughput)}. {_floors(*pair.floors)}"
    )
    widest = max(pair.latency.values(), key=widest_difference, default=None)
    return Finding("Noise", sentence, (), widest, records=records_of([one, other]))


def _ratios(ratios: Mapping[str, Interval]) -> str:
    shown = [f"{text.interval(ratio, '×')} at {load}" for load, ratio in ratios.items()]
    return text.listed(shown) if shown else "of no load that was undisturbed behind both"


def _floors(latency: float | None, throughput: float | None) -> str:
    known = [(floor, what) for floor, what in ((latency, "latencies"), (throughput, "throughputs")) if floor]
    if not known:
        return "So it says nothing of the noise."
    if not all(math.isfinite(floor) for floor, _ in known):
        return (
            "With one server each the noise floor is unknown, so no difference is shown. "
            "Set `protocol: {processes: 3}`."
        )
    floors = text.listed([f"**{text.noise(floor)}** for {what}" for floor, what in known])
    return (
        f"The noise floor of deployments is up to {floors}: a difference between two of them that is smaller than the "
        "noise at its load counts as none."
    )
