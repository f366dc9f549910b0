#!/usr/bin/env python3
"""Say whether cells of separate cards of a host may be timed side by side, from co-locations on separate cards."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.errors import UserError
from ceilings.measure.colocation import CARDS
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.schemas.side_by_side import UNDECIDED
from ceilings.statistics.quantiles import Interval
from ceilings.statistics.separate_cards import checked, overall


def work(arguments: argparse.Namespace) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in arguments.runs:
        record = records.read(path, "colocation")
        if (record["device"], record["how"]) != (arguments.device, CARDS):
            raise UserError(
                f"{path} is of {record['device']} by {record['how']}, not of {arguments.device} by {CARDS}; name runs "
                f"below results/colocation/{arguments.device}/*/{CARDS}"
            )
        groups.setdefault(record["group"], []).append(record)
    judged = [judge(name, runs) for name, runs in groups.items()]
    content = {
        "device": arguments.device,
        "verdict": overall(one["verdict"] for one in judged),
        "groups": judged,
        "provenance": provenance(["numpy"], {path.as_posix(): path for path in arguments.runs}),
    }
    records.write(arguments.output, "side-by-side", content)


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
