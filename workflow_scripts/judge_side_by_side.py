#!/usr/bin/env python3
"""Say whether cells of separate cards of a host may be timed side by side, from co-locations on separate cards."""

import argparse
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.errors import UserError
from ceilings.measure.colocation import CARDS
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.report.tables.gates import colocated_samples
from ceilings.report.tables.planned_record import refuse_repeated
from ceilings.schemas.side_by_side import UNDECIDED
from ceilings.statistics.quantiles import Interval
from ceilings.statistics.separate_cards import checked, overall


def work(arguments: argparse.Namespace) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    seen: dict[Hashable, str] = {}
    for path in arguments.runs:
        record = records.read(path, "colocation")
        if (record["device"], record["how"]) != (arguments.device, CARDS):
            raise UserError(
                f"{path} is of {record['device']} by {record['how']}, not of {arguments.device} by {CARDS}; name runs "
                f"below results/colocation/{arguments.device}/*/{CARDS}"
            )
        refuse_repeated(str(path), colocated_samples(record), seen)
        runs = groups.setdefault(record["group"], [])
        runs.append(record)
        refuse_unlike(path, record, runs[0])
    judged = [judge(name, runs) for name, runs in groups.items()]
    content = {
        "device": arguments.device,
        "verdict": overall(one["verdict"] for one in judged),
        "cards": cards_of_all([run for runs in groups.values() for run in runs if run["status"] == "ok"]),
        "groups": judged,
        "provenance": provenance(["numpy"], {path.as_posix(): path for path in arguments.runs}),
    }
    records.write(arguments.output, "side-by-side", content)


def refuse_unlike(path: Path, record: dict[str, Any], first: dict[str, Any]) -> None:
    """Raise UserError where a run is of other cells than the first of its group, or was measured in another way."""
    if different := [name for name in ("cells", "protocol") if record[name] != first[name]]:
        raise UserError(
            f"{path} has other {different[0]} than run {first['run']} of {first['group']}; delete both and "
            "measure them again"
        )


def cards_of_all(runs: Sequence[dict[str, Any]]) -> list[str]:
    """UUIDs of the cards that every run had, in their order; none where a run does not say its cards."""
    had = [[card.get("uuid") for card in (run["gpu"] or {}).get("cards", ())] for run in runs]
    return [uuid for uuid in (had[0] if had else ()) if uuid and all(uuid in cards for cards in had)]


def judge(name: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a group says; a run that failed leaves it undecided."""
    head = {"group": name, "cells": runs[0]["cells"]}
    if failed := [run["failure"] for run in runs if run["status"] != "ok"]:
        reason = f"{failed[0]['kind']}: {failed[0]['message']}"
        return {**head, "verdict": UNDECIDED, "slowdowns": [], "noise": None, "reason": reason}
    check = checked(runs)
    slowdowns = [_ends(one) for one in check.slowdowns]
    return {**head, "verdict": check.verdict, "slowdowns": slowdowns, "noise": check.noise, "reason": None}


def _ends(one: Interval) -> dict[str, float | None]:
    known = one.bounded
    return {"estimate": one.estimate, "low": one.low if known else None, "high": one.high if known else None}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the cards")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="records of co-locations by cards")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
