#!/usr/bin/env python3
"""Account for the iterations of a capture: where the time of host and device went, and what bounds the cell."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.traces import engine_layers as layers
from ceilings.traces.budget_record import budget_record
from ceilings.traces.health import refuse_unsound
from ceilings.traces.store import read


def work(arguments: argparse.Namespace) -> None:
    capture = read(arguments.capture)
    facts = {name: capture.meta.get(name) for name in ("source", "tool", "cell", "failure", "warmup_p50_ns")}
    record: dict[str, Any] = {
        **facts,
        "status": "failed" if facts["failure"] else "ok",
    }
    if not facts["failure"]:
        record |= budget_record(capture, refuse_unsound(capture, arguments.capture))
        iteration = record["iteration_ns"]["median"] / 1e6
        print(f"{record['iterations']} iterations of {iteration:.3f} ms: as recorded {record['verdict']['name']}")
        print("\n".join(record["flags"]))
        if arguments.layers and (engine := layers.read(arguments.layers, facts["cell"])).layers:
            times = records.read(arguments.layer_times, "layer-times") if arguments.layer_times else None
            record["layers"] = layers.join(capture, engine, times)
            print(f"{record['layers']['matched_share']:.1%} of the time in kernels and copies has a layer")
    sources = {"capture": arguments.capture, "layers": arguments.layers, "layer_times": arguments.layer_times}
    record["provenance"] = provenance(("numpy",), {name: path for name, path in sources.items() if path})
    records.write(arguments.output, "budget", record, indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--capture", type=Path, required=True, help="of capture_trace.py, or `nsys export` with ranges named iteration"
    )
    parser.add_argument("--layers", type=Path, help="x.layers.json of the engine that was captured: which took what")
    parser.add_argument("--layer-times", type=Path, help="of profile_layers.py, to stand beside them")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
