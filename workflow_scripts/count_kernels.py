#!/usr/bin/env python3
"""Count the kernels of one iteration of a cell on a GPU with Nsight Compute, by hardware counters. Feeds no latency."""

import argparse

from ceilings import records
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.traces import arguments as trace_arguments
from ceilings.traces import counting


def work(arguments: argparse.Namespace) -> None:
    record = counting.count(trace_arguments.task(arguments), arguments.output.with_suffix("").with_suffix(".ncu-rep"))
    sources = {"inputs": arguments.inputs, "workload": arguments.workload}
    records.write(arguments.output, "counters", {**record, "provenance": provenance((), sources)}, indent=None)
    if record["failure"]:
        print(f"the counters failed: {record['failure']['kind']}: {record['failure']['message']}")
    else:
        print(f"{len(record['kernels'])} kernels, {record['caches']} caches, by {record['tool']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    trace_arguments.add_arguments(parser)
    main(work, parser)
