#!/usr/bin/env python3
"""Account for the copies in a capture of schedules: how much of their time lies under kernels of other requests."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.traces import health
from ceilings.traces.hidden_copies import accounts
from ceilings.traces.store import read

EXPECTED = "reach over an iteration's begin or end"
"""In a flag of other captures: here a mark is round the calls alone, and the work goes on after them."""


def work(arguments: argparse.Namespace) -> None:
    capture = read(arguments.capture)
    facts = {name: capture.meta.get(name) for name in ("source", "tool", "cell", "failure")}
    record: dict[str, Any] = {**facts, "status": "failed" if facts["failure"] else "ok"}
    if not facts["failure"]:
        flags = health.refuse_unsound(capture, arguments.capture)
        record |= {"schedules": accounts(capture), "flags": [flag for flag in flags if EXPECTED not in flag]}
        for one in record["schedules"]:
            share = "no copies" if one["hidden_share"] is None else f"{one['hidden_share']:.0%} of copy time hidden"
            print(f"{one['name']}: {share}")
    record["provenance"] = provenance(("numpy",), {"capture": arguments.capture})
    records.write(arguments.output, "hidden-copies", record, indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", type=Path, required=True, help="of capture_overlap.py")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
