#!/usr/bin/env python3
"""Capture some iterations of one cell on a GPU with Nsight Systems or CUPTI, as one SQLite file. Feeds no latency."""

import argparse

from ceilings.program import main
from ceilings.traces import arguments as trace_arguments
from ceilings.traces.recorder import record


def work(arguments: argparse.Namespace) -> None:
    print(record(trace_arguments.task(arguments), arguments.output))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    trace_arguments.add_arguments(parser)
    main(work, parser)
