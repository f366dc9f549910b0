"""Question 11, deployments against each other: two that differ in one setting only, and two cells behind one server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ceilings.report import text
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Finding,
    Status,
    change,
    status_of,
    times,
)
from ceilings.report.analysis.measured import Judged, group_by
from ceilings.report.analysis.served import Line, Served, ServedLoads, differences, panel, records_of
from ceilings.statistics.decisions import within
from ceilings.statistics.intervals import ratio

BATCHING, ONE_SETTING, NETWORK, BESIDE = (
    *("Serving: dynamic batching", "Serving: one setting", "Serving: network", "Serving: A against B"),
)

MORE = "Dynamic batching answers more requests a second at the heaviest load"
UNDISTURBED = "loads that both sustain, with a client that keeps up"
NO_CLOSED = "each closed loop of one of them was disturbed"
NO_CLOSED_ASKED = "no closed loop was asked of both"
HIDDEN = f"Across the network two cells that differ at the server are the same within {MARGIN:.0%} at the client"
KEPT = "Behind a server the faster cell stays the faster one for the client"


def compared(loads: ServedLoads) -> list[Finding]:
    """Pairs of deployments that differ in one setting, and pairs of cells behind one deployment."""
    return [*_batching(loads), *_settings(loads), *_beside(loads), *networks(loads)]


# --- dynamic batching ------------------------------------------------------------------------------------------------


def _batching(loads: ServedLoads) -> list[Finding]:
    pairs = [sorted(pair, key=_largest) for pair in loads.pairs({"batching"})]
    return [finding for a, b in pairs if (finding := _bought(loads, a, b))]


def _largest(line: Line) -> tuple[int, float]:
    """Largest batch and delay: what batches least comes first."""
    setting = _setting(line.head)
    return int(setting.get("largest", 0)), float(setting.get("delay_ms", 0))


def _setting(one: Served) -> dict[str, Any]:
    given = one.row.get("batching")
    return json.loads(given) if isinstance(given, str) and given else {}


def in_words(one: Served) -> str:
    """The dynamic batching of a deployment."""
    setting = _setting(one)
    if not setting:
        return "off"
    words = [f"up to {setting['largest']}"] if "largest" in setting else []
    words += [f"delay {setting['delay_ms']:g} ms"] if "delay_ms" in setting else []
    words += [f"preferred {text.listed(setting['preferred'])}"] if setting.get("preferred") else []
    words += ["padded"] if setting.get("pad") else []
    return ", ".join(words)


def _bought(loads: ServedLoads, off: Line, on: Line) -> Finding | None:
    shared = [(one, other) for one in on.loads if (other := off.at(one)) and not one.row["flagged"]]
    shared = [(one, other) for one, other in shared if not other.row["flagged"]]
    subject = f"{panel(loads, on.head)}{on.head.label} behind {on.head.deployment} (batching {in_words(on.head)})"
    base = f"{off.head.deployment} ({in_words(off.head)})"
    closed = [(one, other) for one, other in shared if one.closed]
    if not closed:
        both = any(one.closed and off.at(one) for one in on.loads)
        sentence = f"{subject} against {base}: {NO_CLOSED if both else NO_CLOSED_ASKED}."
        wanted = UNDISTURBED if both else "concurrency: [1, 8] of both"
        return _undecided(BATCHING, sentence, MORE, wanted, [*on.loads, *off.loads], _against(on.head, off.head))
    shown = []
    for one, other in shared:
        if not (one.steady and other.steady):
            continue
        words = f"{one.load} {change(loads.compare(one, other))}"
        words += f", {text.interval(loads.more(one, other).ratio.inverted(), '×')} the throughput" if one.closed else ""
        mean = one.known("batch_mean")
        shown.append(f"{words}, batches of {text.number(mean)}" if mean else words)
    heavy, light = closed[-1], closed[0]
    more, cost = loads.more(*heavy), loads.compare(*light)
    status = status_of(more.verdict, loads.equal(*heavy, MARGIN))
    gained = more.ratio.inverted()
    brief = f"{subject} answers {text.number(gained.estimate)}× the requests of {base} at {heavy[0].load}"
    brief += f", and a request at {light[0].load} is {times(cost)}." if cost.decided else "."
    return Finding(
        *(BATCHING, f"{subject} against {base}: {'; '.join(shown)}.", (), gained),
        verdict=None if more.decided else more.verdict,
        question=11,
        claim=MORE,
        subject=_against(on.head, off.head),
        status=status,
        missing=_more(heavy[0]) if status == "not decidable" else (),
        measure="throughput",
        records=records_of([on.head, off.head]),
        brief=brief if more.decided else "",
    )


# --- one setting -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A setting whose pairs of deployments are compared at the lightest load.

    Attributes:
        columns: In which the deployments differ.
        claim: That the second is faster than the first.
        order: Values of the first column, what comes first being compared with.
    """

    columns: frozenset[str]
    claim: str
    order: tuple[Any, ...]


SERVERS_CLAIM = "Triton is faster than the embedded server"
SERVERS = ({"server", "server_version", "backend"}, {"server", "server_version"})
"""A server brings its version, and mostly a backend, with it."""

PAIRED = (
    Setting(frozenset({"transport"}), "gRPC is faster than HTTP", ("http", "grpc")),
    Setting(
        frozenset({"shared_memory"}), "Shared memory is faster than sending the tensors", ("none", "system", "cuda")
    ),
    *(Setting(frozenset(columns), SERVERS_CLAIM, ("embedded", "triton", "endpoint")) for columns in SERVERS),
    Setting(frozenset({"backend"}), "Another backend of the server is faster than the Python one", ("python",)),
    Setting(frozenset({"instances"}), "More instances are faster than fewer", (1, 2, 4, 8)),
)


def _settings(loads: ServedLoads) -> list[Finding]:
    findings = []
    for setting in PAIRED:
        for pair in loads.pairs(set(setting.columns)):
            first, second = sorted(pair, key=lambda line: _place(setting, line.head))
            findings.append(_one_setting(loads, setting, first, second))
    return findings


def _place(setting: Setting, one: Served) -> int:
    value = one.row[_leading(setting)]
    return setting.order.index(value) if value in setting.order else len(setting.order)


def _leading(setting: Setting) -> str:
    """The column that names the difference: of a server and what follows from it, the server."""
    return "server" if "server" in setting.columns else min(setting.columns)


def _one_setting(loads: ServedLoads, setting: Setting, base: Line, other: Line) -> Finding:
    both = [(one, like) for one in other.loads if one.steady and (like := base.at(one)) and like.steady]
    names = [f"{line.head.deployment} ({line.head.row[_leading(setting)]})" for line in (other, base)]
    subject = f"{panel(loads, other.head)}{other.head.label} behind {names[0]} against {names[1]}"
    if not both:
        sentence = f"{subject}: each load of one of them was disturbed or grew, or was not asked of both."
        heads = [base.head, other.head]
        return _undecided(ONE_SETTING, sentence, setting.claim, UNDISTURBED, heads, _against(other.head, base.head))
    pairs = [loads.compare(one, like) for one, like in both]
    shown = "; ".join(f"{one.load} {change(pair)}" for (one, _), pair in zip(both, pairs, strict=True))
    one, like = both[0]
    sentence = f"{subject}: {shown}"
    beyond = [each.known("beyond_ms") for each in (one, like)]
    if None not in beyond:
        sentence += (
            f". Beyond the server a request spends {text.number(beyond[0])} against {text.number(beyond[1])} ms at "
        )
        sentence += one.load
    status = status_of(pairs[0].verdict, loads.equal(one, like, MARGIN))
    return Finding(
        *(ONE_SETTING, f"{sentence}.", (), pairs[0].ratio, pairs[0].verdict, 11, setting.claim),
        subject=f"{one.label}, {one.load}, {other.head.deployment} against {base.head.deployment}",
        status=status,
        missing=_more(one) if status == "not decidable" else (),
        records=records_of([one, like]),
        brief=f"{subject}, {one.load}: {times(pairs[0])}." if pairs[0].decided else "",
    )


# --- two cells behind one deployment ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """Two cells of one model and shape behind one deployment, at their lightest common load.

    Attributes:
        a, b: The loads; b is what a is compared with.
        client: Their medians at the client.
        server: Ratio of the server's request times, None where it counts none.
    """

    a: Served
    b: Served
    client: Judged
    server: Judged | None

    @property
    def subject(self) -> str:
        return f"{self.a.label} against {self.b.label} behind {self.a.deployment}"


def besides(loads: ServedLoads) -> list[Beside]:
    """Every pair of cells of one model and shape of a deployment that share a steady load."""
    made = []
    by_deployment = group_by(
        loads.lines, lambda line: (line.head.device, line.head.deployment, line.head.model, line.head.shape)
    )
    for lines in by_deployment.values():
        for base, other in itertools.combinations(lines, 2):
            one = next(((a, b) for a in other.loads if a.steady and (b := base.at(a)) and b.steady), None)
            if one:
                made.append(Beside(*one, loads.compare(*one), _at_server(loads, *one)))
    return made


def _at_server(loads: ServedLoads, a: Served, b: Served) -> Judged | None:
    """Time of a request as the server counts it, of a over b, with its interval over servers."""
    groups = [[same["request_ms"] for same in one.windows] for one in (a, b)]
    if any(np.isnan(values).any() for group in groups for values in group):
        return None
    return loads.within_servers(a, b, *groups) or loads.judge(a, ratio(groups[0], groups[1]))


def _beside(loads: ServedLoads) -> list[Finding]:
    """How much of the difference of two bare cells reaches a client on the same machine."""
    findings = []
    for pair in besides(loads):
        if pair.a.row["round_trip_ms"]:
            continue
        cells = [loads.bare(one) for one in (pair.a, pair.b)]
        bare = loads.measured.compare(*cells) if cells[0] and cells[1] else None  # type: ignore[arg-type]
        sentence = f"{panel(loads, pair.a)}{pair.subject}, {pair.a.load}, in interleaved windows of one server: "
        sentence += f"{change(pair.client)} at the client"
        sentence += f", {change(pair.server)} at the server" if pair.server else ""
        sentence += f", {change(bare)} bare" if bare else ""
        status: Status = "not decidable"
        if bare and bare.decided and (pair.client.decided or pair.client.verdict == "same within noise"):
            status = "supported" if pair.client.verdict == bare.verdict else "refuted"
        brief = f"{panel(loads, pair.a)}{pair.subject}, {pair.a.load}: {times(pair.client)} for the client"
        brief += f", {times(bare)} bare." if bare and bare.decided else "."
        findings.append(
            Finding(
                BESIDE,
                f"{sentence}.",
                tuple(cell.name for cell in cells if cell),
                *(pair.client.ratio, pair.client.verdict, 11, KEPT, pair.subject, status),
                missing=_more(pair.a) if status == "not decidable" else (),
                records=records_of([pair.a]),
                brief=brief if pair.client.decided else "",
            )
        )
    return findings


# --- the network -----------------------------------------------------------------------------------------------------


def networks(loads: ServedLoads) -> list[Finding]:
    """Of two cells behind one deployment across a round trip: whether the client still sees their difference."""
    every = besides(loads)
    return [_network(loads, pair, every) for pair in every if pair.a.row["round_trip_ms"]]


def _network(loads: ServedLoads, pair: Beside, every: Sequence[Beside]) -> Finding:
    trip = pair.a.row["round_trip_ms"]
    near = next((one for one in every if _near(loads, one, pair)), None)
    sentence = f"{panel(loads, pair.a)}{pair.subject}, {pair.a.load}, across a round trip of {text.number(trip)} ms: "
    sentence += f"{change(pair.client)} at the client ({text.number(pair.a.p50.estimate)} against "
    sentence += f"{text.number(pair.b.p50.estimate)} ms)"
    sentence += f", {change(pair.server)} at the server" if pair.server else ""
    sentence += f"; without the round trip, behind {near.a.deployment}, {change(near.client)}" if near else ""
    seen_near = (pair.server, near.client if near else None)
    # A decided difference within the margin is one that the client would not see without a network either.
    differ = any(one is not None and one.decided and not within(one.ratio, MARGIN) for one in seen_near)
    status = hidden(loads, pair, differ)
    brief = ""
    if status != "not decidable":
        seen = pair.server if pair.server and pair.server.decided else near.client if near else None
        brief = f"{panel(loads, pair.a)}{pair.subject}: a round trip of {text.number(trip)} ms "
        brief += "hides their difference" if status == "supported" else f"leaves {times(pair.client)} for the client"
        brief += f", {times(seen)} {'at the server' if seen is pair.server else 'without it'}." if seen else "."
    missing: tuple[str, ...] = ()
    if status == "not decidable":
        missing = _more(pair.a) if differ else ("a pair of cells that differ at the server, or a server that counts",)
    return Finding(
        *(NETWORK, f"{sentence}.", (), pair.client.ratio, pair.client.verdict, 11, HIDDEN, pair.subject, status),
        missing=missing,
        records=records_of([pair.a, *([near.a] if near else [])]),
        brief=brief,
    )


def hidden(loads: ServedLoads, pair: Beside, differ: bool) -> Status:
    """Whether a client cannot tell two cells apart that differ at the server."""
    if not differ:
        return "not decidable"
    if loads.equal(pair.a, pair.b, MARGIN):
        return "supported"
    return "refuted" if pair.client.decided else "not decidable"


def _near(loads: ServedLoads, one: Beside, far: Beside) -> bool:
    """Whether ``one`` is the same pair at the same load, behind a deployment that differs in the round trip alone."""
    return (
        not one.a.row["round_trip_ms"]
        and (one.a.cell, one.b.cell, one.a.load) == (far.a.cell, far.b.cell, far.a.load)
        and one.a.device == far.a.device
        and differences(one.a, far.a) == {"round_trip_ms"}
    )


# --- words -----------------------------------------------------------------------------------------------------------


def _more(one: Served) -> tuple[str, ...]:
    """Twice the servers."""
    return (f"protocol: {{processes: {2 * len(one.groups)}}}",)


def _against(one: Served, other: Served) -> str:
    return f"{one.label}, {one.deployment} against {other.deployment}"


def _undecided(  # noqa: PLR0917 - all of one finding
    topic: str, sentence: str, claim: str, wanted: str, loads: Sequence[Served], subject: str
) -> Finding:
    return Finding(
        *(topic, sentence, ()),
        question=11,
        claim=claim,
        status="not decidable",
        subject=subject,
        missing=(wanted,),
        records=records_of(loads),
    )
