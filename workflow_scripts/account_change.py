#!/usr/bin/env python3
"""Account for the changes of shape in a capture: what one costs beside the same shape again, by parts."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.traces import health
from ceilings.traces.shape_change import change_record
from ceilings.traces.source import SOURCES
from ceilings.traces.store import read


def work(arguments: argparse.Namespace) -> None:
    capture = read(arguments.capture)
    facts = {name: capture.meta.get(name) for name in ("source", "tool", "cell", "failure")}
    record: dict[str, Any] = {**facts, "status": "failed" if facts["failure"] else "ok"}
    if not facts["failure"]:
        flags = [*capture.meta.get("flags", ())]
        if facts["source"] in SOURCES:
            flags = health.refuse_unsound(capture, arguments.capture)
        else:
            health.refuse_cut_short(capture, arguments.capture)
        made = change_record(capture)
        record |= made | {"flags": [*flags, *made["flags"]]}
        changes = made["changes"]
        print(f"{changes['requests']} changes cost {changes['cost_ns']['mean'] / 1e6:.3f} ms each as recorded")
    record["provenance"] = provenance(("numpy",), {"capture": arguments.capture})
    records.write(arguments.output, "shape-change", record, indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", type=Path, required=True, help="of capture_changing.py")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
