#!/usr/bin/env python3
"""Turn a capture into a trace that ui.perfetto.dev opens."""

import argparse
from pathlib import Path

from ceilings.program import main
from ceilings.traces import perfetto
from ceilings.traces.readers import nsight


def work(arguments: argparse.Namespace) -> None:
    perfetto.write(arguments.output, nsight.read(arguments.capture))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", type=Path, required=True, help="of capture_trace.py, or of `nsys export`")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
