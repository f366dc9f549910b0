#!/usr/bin/env python3
"""Capture some requests of each schedule of copies and compute of one cell, as one SQLite file. Feeds no latency."""

import argparse

from ceilings.program import main
from ceilings.traces import arguments as trace_arguments
from ceilings.traces.recorder import record

TARGET = "ceilings.traces.overlap_target"


def work(arguments: argparse.Namespace) -> None:
    print(record(trace_arguments.task(arguments), arguments.output, TARGET))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    trace_arguments.add_arguments(parser)
    main(work, parser)
