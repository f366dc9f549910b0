#!/usr/bin/env python3
"""Choose the buckets that requests of changing shapes are padded up to, from what was measured of each shape."""

import argparse
from pathlib import Path

import numpy as np

from ceilings import records
from ceilings.errors import CellFailure
from ceilings.program import json_argument, main
from ceilings.statistics.shape_costs import growth_bytes, steady_ms
from ceilings.workload.padded import choice_record


def work(arguments: argparse.Namespace) -> None:
    runs = [records.read(path, "changing") for path in arguments.runs]
    record = {"cell": runs[0]["cell"], "limits": arguments.limits}
    try:
        for path, run in zip(arguments.runs, runs, strict=True):
            if run["status"] != "ok":
                raise CellFailure(run["failure"]["kind"], f"{path.name}: {run['failure']['message']}")
        latency = np.mean([steady_ms(run) for run in runs], axis=0)
        memory = np.median([growth_bytes(run) for run in runs], axis=0)
        memory[0] = 0.0  # in its place is what the process allocates once
        chosen = choice_record(runs[0]["requests"], latency.tolist(), memory.tolist(), arguments.limits)
        record |= {"status": "ok", **chosen}
    except CellFailure as failure:
        record |= {"status": "failed", "failure": {"kind": failure.kind, "message": str(failure)}}
    records.write(arguments.output, "buckets", record)
    print(f"{arguments.output}: {', '.join(record.get('buckets', [record['status']]))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="records of the processes that measured the sequence")
    parser.add_argument("--limits", type=json_argument, required=True, help="axis, most and memory_mb")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
