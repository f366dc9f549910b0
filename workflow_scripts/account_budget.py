#!/usr/bin/env python3
"""Account for the iterations of a capture: where the time of host and device went, and what bounds the cell."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import SCHEMA_VERSION
from ceilings.files import write_json
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.traces.health import refuse_unsound
from ceilings.traces.record import budget_record
from ceilings.traces.store import read


def work(arguments: argparse.Namespace) -> None:
    capture = read(arguments.capture)
    facts = {name: capture.meta.get(name) for name in ("source", "tool", "cell", "failure", "warmup_p50_ns")}
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **facts,
        "status": "failed" if facts["failure"] else "ok",
    }
    if not facts["failure"]:
        record |= budget_record(capture, refuse_unsound(capture, arguments.capture))
        iteration = record["iteration_ns"]["median"] / 1e6
        print(f"{record['iterations']} iterations of {iteration:.3f} ms: {record['verdict']['name']}")
        print("\n".join(record["flags"]))
    record["provenance"] = provenance(("numpy",), {"capture": arguments.capture})
    write_json(arguments.output, record, indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--capture", type=Path, required=True, help="of capture_trace.py, or `nsys export` with ranges named iteration"
    )
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
