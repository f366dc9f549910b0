#!/usr/bin/env python3
"""Run kernels that show one cause and its effect each on this GPU: check, time and count them."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ceilings import gpu, records, turns
from ceilings import host as hosts
from ceilings.errors import CellFailure
from ceilings.limits import lesson_record
from ceilings.limits.roofline import read_limits
from ceilings.program import main
from ceilings.provenance import provenance


def work(arguments: argparse.Namespace) -> None:
    hosts.having(arguments.device, arguments.output, "cuda")
    card = gpu.visible()
    gpu.refuse_other(card, arguments.device)
    limits = read_limits(records.read(arguments.peaks, "peaks"))
    record: dict[str, Any] = {"device": arguments.device}
    try:
        with turns.turn(card.uuid):
            record |= {"status": "ok", "failure": None, **lesson_record.taught(limits)}
    except CellFailure as failure:
        record |= {"status": "failed", "failure": {"kind": failure.kind, "message": str(failure)}}
        print(f"the lessons failed: {failure}")
    print("\n".join(line for lesson in record.get("lessons", []) for line in shown(lesson)))
    record["provenance"] = provenance(("cuda-bindings", "numpy"), {"peaks": arguments.peaks})
    records.write(arguments.output, "lessons", record, indent=None)


def shown(lesson: dict[str, Any]) -> Iterator[str]:
    """A lesson in lines: of each variant its time, its cause, what limits it, and what was counted against expected."""
    yield lesson["title"]
    for one in lesson["variants"]:
        limits = ", ".join(kernel["verdict"] for kernel in one["kernels"])
        yield f"  {one['name']}: {one['us']['median']:.1f} us, {lesson['meaning']} {one['cause']}, {limits}"
        for check in one["checks"]:
            yield f"    {check['kernel']} {check['what']}: {check['counted']:g} counted, {check['expected']:g} expected"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the GPU that must run them")
    parser.add_argument("--peaks", type=Path, required=True, help="peaks.json of the device")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
