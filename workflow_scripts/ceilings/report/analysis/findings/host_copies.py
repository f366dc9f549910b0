"""Transfers: what kinds of memory differ by, up to which size a call costs more than its bytes, what copies cost.

What copies cost a model may be among the findings of the summary; what is of the host alone stands in its section.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, Status, names, where
from ceilings.report.analysis.findings.selection import panels_at_common_shape
from ceilings.report.analysis.host_curves import (
    DIRECTIONS,
    Curve,
    bytes_in_words,
    curves,
    devices,
    in_words,
    microseconds,
    ratio_of,
    time_of,
)
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.tables.keys import key_of
from ceilings.statistics.quantiles import Interval

TOPIC = "Transfers"

TWICE = 2.0
"""A copy that takes no longer than so many times the smallest one pays for its call more than for its bytes."""

ALLOCATED = 1 << 20
"""Bytes of the allocation that is compared."""

ALLOCATORS = {
    "cuda": "cudaMalloc",
    "pool-default": "cudaMallocAsync as set up",
    "pool": "a pool that keeps memory",
    "torch": "PyTorch's allocator",
}
"""What gives memory of the device, in the order of a sentence."""


def transfers(measured: Measured) -> list[Finding]:
    """What the curves of each device say, what allocating in a loop costs, and what copies cost each model."""
    known = curves(measured.tables)
    findings = []
    for device in devices(measured.tables):
        mine = {curve.way: curve for curve in known.values() if curve.device == device}
        findings += [_pinned(mine, way) for way in ("h2d", "d2h") if {f"{way}.pinned", f"{way}.pageable"} <= set(mine)]
        if {"h2d.managed", "h2d.pinned"} <= set(mine):
            findings.append(_managed(mine["h2d.managed"], mine))
        if {"p2p.staged", "p2p.direct"} <= set(mine):
            findings.append(_peers(mine["p2p.staged"], mine["p2p.direct"]))
        findings += _allocations(measured, device)
    rows = {key_of(row): row for row in measured.tables.copies.to_dict("records")}
    panels = [[cell for cell in panel if cell.key in rows] for panel in panels_at_common_shape(measured)]
    return findings + [_copies(measured, panel, rows) for panel in panels if panel]


def _record(device: str) -> tuple[str, ...]:
    return (f"hosts/{device}/transfers.json",)


def _rounds(status: Status) -> tuple[str, ...]:
    """What would decide it where it is open."""
    return ("more rounds of measure_transfers",) if status == "not decidable" else ()


def _pinned(mine: dict[str, Curve], direction: str) -> Finding:
    pinned, pageable = (mine[f"{direction}.{kind}"] for kind in ("pinned", "pageable"))
    size = pinned.sizes[-1]
    gain = ratio_of(pageable.host[-1], pinned.host[-1])
    words = DIRECTIONS[direction]
    status: Status = "supported" if gain.low > 1 else "refuted" if gain.high < 1 else "not decidable"
    sentence = (
        f"{pinned.device}, {words}: a copy of {bytes_in_words(size)} reaches {text.interval(pinned.largest_rate)} GB/s "
        f"with pinned memory and {text.interval(pageable.largest_rate)} GB/s with pageable memory; one of "
        f"{bytes_in_words(pinned.sizes[0])} takes {text.interval(pinned.host[0], 'µs')} and "
        f"{text.interval(pageable.host[0], 'µs')} (ranges over rounds). Floor and rate over all sizes: pinned "
        f"{in_words(pinned.fit)}; pageable {in_words(pageable.fit)}. Up to {bytes_in_words(_call_bound(pinned))} a "
        f"pinned copy takes at most {TWICE:g}× as long as the smallest: there the number of copies costs, and their "
        "bytes hardly."
    )
    return Finding(
        TOPIC,
        sentence,
        (),
        gain,
        claim="Large copies are faster with pinned than with pageable memory.",
        subject=f"{pinned.device}, {words}",
        status=status,
        missing=_rounds(status),
        measure="time with pageable to that with pinned memory",
        records=_record(pinned.device),
    )


def _call_bound(curve: Curve) -> int:
    """The largest size up to which every transfer takes at most twice as long as the smallest."""
    least, size = curve.host[0].estimate, curve.sizes[0]
    for nbytes, time in zip(curve.sizes, curve.host, strict=True):
        if time.estimate > TWICE * least:
            break
        size = nbytes
    return size


def _managed(managed: Curve, mine: dict[str, Curve]) -> Finding:
    """On demand against a copy from pinned memory of the same size, and what a prefetch changes."""
    size = managed.sizes[-1]
    pinned = mine["h2d.pinned"].at(size)
    assert pinned is not None  # one bench measures all ways at the same sizes
    ratio = ratio_of(managed.host[-1], pinned)
    ways = [f"pages that move on demand take {text.interval(ratio, '×')} as long as a copy from pinned memory"]
    for kind, words in (
        ("managed-prefetch", "with a prefetch before the kernel"),
        ("managed-on-host", "advised to stay on the host"),
        ("mapped", "mapped memory, which the kernel reads on the host,"),
    ):
        if other := mine.get(f"h2d.{kind}"):
            ways.append(f"{words} {text.interval(ratio_of(other.host[-1], pinned), '×')}")
    status: Status = "supported" if ratio.low > 1 else "refuted" if ratio.high < 1 else "not decidable"
    return Finding(
        TOPIC,
        f"{managed.device}, {bytes_in_words(size)} to the device: {'; '.join(ways)} (ranges over rounds).",
        (),
        ratio,
        claim="Managed memory whose pages move on demand takes longer than a copy from pinned memory.",
        subject=managed.device,
        status=status,
        missing=_rounds(status),
        measure="time of managed memory to that of a pinned copy",
        records=_record(managed.device),
    )


def _peers(staged: Curve, direct: Curve) -> Finding:
    """The copy rate between two GPUs, and what access to each other changes."""
    ratio, rate = ratio_of(staged.host[-1], direct.host[-1]), direct.largest_rate
    status: Status = "supported" if ratio.low > 1 else "refuted" if ratio.high < 1 else "not decidable"
    sentence = (
        f"{direct.device}, to another GPU of the host: a copy of {bytes_in_words(direct.sizes[-1])} reaches "
        f"{text.interval(rate)} GB/s with peer access and {text.interval(staged.largest_rate)} GB/s "
        f"without; one of {bytes_in_words(direct.sizes[0])} takes {text.interval(direct.host[0], 'µs')} and "
        f"{text.interval(staged.host[0], 'µs')} (ranges over rounds)."
    )
    return Finding(
        TOPIC,
        sentence,
        (),
        ratio,
        claim="Large copies between two GPUs are faster with peer access.",
        subject=direct.device,
        status=status,
        missing=_rounds(status),
        measure="time without to that with peer access",
        records=_record(direct.device),
    )


def _allocations(measured: Measured, device: str) -> list[Finding]:
    table = measured.tables.allocations
    rows = table[(table["device"] == device) & (table["bytes"] == ALLOCATED)].set_index("allocator").to_dict("index")
    known = {name: rows[name] for name in ALLOCATORS if name in rows}
    if "cuda" not in known or len(known) < 2:
        return []
    costs = [
        f"{ALLOCATORS[name]} {microseconds(row['loop_us'])} against {microseconds(row['kept_us'])} in memory that is "
        f"kept (the first allocation: {microseconds(row['first_us'])})"
        for name, row in known.items()
    ]
    cheapest = min((name for name in known if name != "cuda"), key=lambda name: known[name]["loop_us"])
    ratio = ratio_of(time_of(known["cuda"], "loop"), time_of(known[cheapest], "loop"))
    status: Status = "supported" if ratio.low > 1 else "refuted" if ratio.high < 1 else "not decidable"
    sentence = (
        f"{device}: an iteration that allocates {bytes_in_words(ALLOCATED)}, fills and frees it takes by "
        f"{'; by '.join(costs)}."
    )
    return [
        Finding(
            TOPIC,
            sentence,
            (),
            ratio,
            claim="In a loop, cudaMalloc costs more than an allocator that keeps memory.",
            subject=device,
            status=status,
            missing=_rounds(status),
            measure=f"time by cudaMalloc to that by {ALLOCATORS[cheapest]}",
            records=_record(device),
        )
    ]


def _copies(measured: Measured, panel: list[Cell], rows: Mapping[tuple[Any, ...], dict[str, Any]]) -> Finding:
    """What the copies of a model's inputs and outputs take, beside its fastest cell."""
    cell = min(panel, key=lambda one: one.p50.estimate)
    row = rows[cell.key]
    least, most, pageable = (row[f"{name}_us"] for name in ("pinned_least", "pinned_most", "pageable_most"))
    sentence = (
        f"{where(measured, cell)}: an inference copies {_count(row, 'in')} in and {_count(row, 'out')} out. By the "
        f"curves of {cell.device}"
    )
    parts = []
    if pd.notna(least) and pd.notna(most):
        parts.append(f"that takes {microseconds(least)} to {microseconds(most)} with pinned memory")
    if pd.notna(pageable):
        parts.append(f"{microseconds(pageable)} with pageable memory")
    sentence += f" {' and '.join(parts)}" if parts else " nothing is known of that"
    added = _added(row, "pinned")
    share = added.scaled(1 / (1e3 * cell.p50.estimate)) if added else None
    if added and share:
        sentence += (
            f". Measured at the fastest of these cells, {cell.label} ({text.number(cell.p50.estimate)} ms), copies "
            f"through pinned memory add {text.interval(added, 'µs', signed=True)}, "
            f"{text.percent(share.estimate)} of its latency{_explained(added, least, most)}"
        )
    slower = _added(row, "pageable")
    if slower:
        sentence += f"; through pageable memory {text.interval(slower, 'µs', signed=True)}"
    brief = (
        f"{where(measured, cell)}: copies of inputs and outputs add {text.percent(share.estimate)} to {cell.label} "
        "with pinned memory."
        if share and share.low > 0
        else ""
    )
    return Finding(
        TOPIC,
        f"{sentence}.",
        names([cell]),
        share,
        measure="added time to latency",
        absolute=True,
        records=_record(cell.device),
        brief=brief,
    )


def _count(row: dict[str, Any], way: str) -> str:
    return f"{bytes_in_words(row[f'bytes_{way}'])} ({text.plural(int(row[f'copies_{way}']), 'tensor')})"


def _added(row: dict[str, Any], kind: str) -> Interval | None:
    """What copies add to the latency, where processes bound it."""
    ends = [row[f"{kind}_added{end}_us"] for end in ("_low", "", "_high")]
    return None if any(text.absent(end) for end in ends) else Interval(*ends)


def _explained(added: Interval, least: float, most: float) -> str:
    if text.absent(least) or text.absent(most):
        return ""
    if added.low <= most and added.high >= least:
        return ", as the curves say"
    if added.low > most:
        return f", {microseconds(added.low - most)} or more beyond what the curves say; its cause is open"
    return ", less than the curves say"
