"""Question 8: the best batch under a latency limit, as a search measured it, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding
from ceilings.report.analysis.measured import Measured, configuration_label
from ceilings.report.tables.search_rows import interval_of
from ceilings.statistics.quantiles import Interval

TOPIC = "Best batch"
MEASURE = "throughput, of the best batch to the smallest"

WORTH_SAYING = 1.01
"""Times the best's throughput from which on a batch that was not measured might matter."""


def best_batches(measured: Measured) -> list[Finding]:
    """A finding a search: the batch of the highest throughput within the limit, and what bounds it."""
    return [_finding(row) for row in measured.tables.best_batches.to_dict("records") if row["status"] == "ok"]


def search_name(row: Mapping[str, Any]) -> str:
    """A search in words."""
    return f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['rest']}"


def _finding(row: Mapping[str, Any]) -> Finding:
    name = search_name(row)
    limit = f"{text.number(row['limit_ms'])} ms ({row['percentile']})"
    records = (str(row["path"]).partition("results/")[2] or str(row["path"]),)
    more = f"protocol: {{processes: {2 * int(row['processes'])}}}"
    if text.absent(row["best"]):
        taken = (
            "" if text.absent(row["p50_ms"]) else f"; batch {int(row['smallest'])} takes {_interval(row, 'p50', 'ms')}"
        )
        sure = row["bounded_by"] != "undecided"
        answered = "no batch that was measured keeps the limit" if sure else "undecided whether a batch keeps the limit"
        return Finding(
            TOPIC,
            f"{name}: {answered} of {limit}{taken}.",
            (),
            question=8,
            records=records,
            missing=() if sure else (more,),
            status=None if sure else "not decidable",
        )
    best = int(row["best"])
    rate = f"{text.interval(interval_of(row, 'inferences', 'per_s'))} inferences/s"
    sentence = (
        f"{name}: the best batch within {limit} is **{best}**: {_interval(row, 'p50', 'ms')}{_tail(row)}, {rate}. "
        f"{_above(row)}{_bound(row, best)}{_unseen(row, best)}{_again(row)}"
    ).strip()
    gain = Interval(row["gain_low"], row["gain"], row["gain_high"])
    certain = text.absent(row["again_verdict"]) or row["again_verdict"] == "keeps"
    brief = (
        f"{name}: batch {best} has the highest throughput within {limit}: {text.number(row['inferences_per_s'])} "
        f"inferences/s at {text.number(row['p50_ms'])} ms, {text.number(row['gain'])}× those of batch "
        f"{int(row['smallest'])}."
    )
    return Finding(
        *(TOPIC, sentence, (), gain if gain.bounded and best != row["smallest"] else None),
        question=8,
        measure=MEASURE,
        records=records,
        brief=brief if certain else "",
        status=None if certain else "not decidable",
        missing=() if certain else (more,),
    )


def _tail(row: Mapping[str, Any]) -> str:
    """The percentile that is held against the limit, where that is no median."""
    return "" if row["percentile"] == "p50" else f" ({row['percentile']} {_interval(row, 'judged', 'ms')})"


def _above(row: Mapping[str, Any]) -> str:
    """What is known of larger batches."""
    parts = []
    if not text.absent(row["undecided_from"]):
        first, last = int(row["undecided_from"]), int(row["undecided_to"])
        parts.append(f"{first} is undecided" if first == last else f"{first} to {last} are undecided")
    if not text.absent(row["exceeds"]):
        parts.append(f"{int(row['exceeds'])} {'exceeds it' if text.absent(row['bound_reason']) else 'does not run'}")
    return f"Of larger batches {text.listed(parts)}. " if parts else ""


def _bound(row: Mapping[str, Any], best: int) -> str:
    level = int(row["level_from"])
    reach = (
        ""
        if level == best
        else f" From batch {level} on ({text.number(row['level_ms'])} ms) intervals overlap the best's."
    )
    match row["bounded_by"]:
        case "limit":
            return f"The limit bounds it: a larger batch that was measured has more throughput.{reach}"
        case "throughput":
            return f"Throughput bounds it: no larger batch that was measured has more for certain.{reach}"
        case "most":
            return (
                f"No larger batch was asked for: raise best_batch.most above {int(row['most'])} to look further.{reach}"
            )
        case "failure":
            return f"That bounds it: {row['bound_reason']}.{reach}"
        case _:
            return f"A larger batch has more throughput, and whether it keeps the limit is undecided.{reach}"


def _unseen(row: Mapping[str, Any], best: int) -> str:
    if row["unseen"] < WORTH_SAYING:
        return ""
    return (
        f" A batch up to {int(row['largest'])} that was not measured has at most {text.number(row['unseen'])}× the "
        f"throughput of batch {best}, if no larger batch takes less time."
    )


def _again(row: Mapping[str, Any]) -> str:
    if text.absent(row["again_verdict"]):
        return ""
    if text.absent(row["again_ms"]):
        return " Measured once more at the end, it did not run: the answer is not certain."
    doubts = {"keeps": "", "exceeds": ", which exceeds the limit: the answer is not certain"}
    doubt = doubts.get(row["again_verdict"], ", which reaches the limit: the answer is not certain")
    return f" Measured once more at the end it took {_interval(row, 'again', 'ms')}{doubt}."


def _interval(row: Mapping[str, Any], column: str, unit: str) -> str:
    return text.interval(interval_of(row, column, unit), unit)
