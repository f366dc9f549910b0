#!/usr/bin/env python3
"""Trace some iterations of one cell with PyTorch's own profiler, for ui.perfetto.dev. Feeds nothing."""

import argparse
from pathlib import Path

from ceilings import turns
from ceilings.errors import UserError
from ceilings.files import read_json, write_json
from ceilings.lifetime import temporary_folder
from ceilings.program import main
from ceilings.traces import arguments as trace_arguments
from ceilings.traces.perfetto import without_machine
from ceilings.traces.recorder import run_target


def work(arguments: argparse.Namespace) -> None:
    task = trace_arguments.task(arguments)
    with turns.turn(task["uuid"]), temporary_folder() as folder:
        raw = Path(folder, "raw.json")
        asked = {**task, "source": "torch", "raw": str(raw)}
        result, _ = run_target(asked, Path(folder), "torch")
        if failure := result.get("failure"):
            raise UserError(f"the cell failed ({failure['kind']}: {failure['message']}), so there is nothing to trace")
        trace = read_json(raw)
    write_json(arguments.output, without_machine(trace), indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    trace_arguments.add_arguments(parser)
    main(work, parser)
