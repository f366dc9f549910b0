#!/usr/bin/env python3
"""Merge the timing caches of a device's builds into one, which later builds can start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from ceilings import files
from ceilings.engines import builder
from ceilings.engines.catalogue import BUILDERS
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    contents = [path.read_bytes() for path in arguments.caches]
    merged = builder.merge_timing_caches(arguments.builder, [content for content in contents if content])
    files.write_bytes(arguments.output, merged)
    print(f"{arguments.output}: {len(merged)} bytes from {len(contents)} builds")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--builder", choices=[name for name, kind in BUILDERS.items() if kind.timing_cache], required=True)
parser.add_argument("--caches", type=Path, nargs="+", required=True)
parser.add_argument("--output", type=Path, required=True)

if __name__ == "__main__":
    main(work, parser)
