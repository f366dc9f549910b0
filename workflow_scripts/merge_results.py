#!/usr/bin/env python3
"""Merge the results trees of several machines into one, whose summary then shows all their devices.

Exit status: 0 everything is in the target, 1 some files are in conflict and those of the target stayed, 2 refused:
nothing was written.
"""

import argparse
from pathlib import Path

from ceilings.errors import UserError
from ceilings.foreign import visible
from ceilings.program import main
from ceilings.study.merging import merge

MOST_SHOWN = 20


def work(arguments: argparse.Namespace) -> int:
    if not arguments.into.parts:
        raise UserError("--into is empty; name the results folder that gets the files")  # not the current folder
    merged = merge(arguments.trees, arguments.into, say=lambda line: print(visible(line)))
    for device, count in sorted(merged.copied.items()):
        print(f"{device or 'shared by all devices'}: {count} files")
    print(f"{merged.same} files were there already, {len(merged.conflicts)} in conflict")
    shown = merged.conflicts if arguments.all_conflicts else merged.conflicts[:MOST_SHOWN]
    for conflict in shown:
        print(visible(f"conflict: {conflict.path}: kept that of {conflict.kept}, not that of {conflict.other}"))
    if len(merged.conflicts) > len(shown):
        print(f"and {len(merged.conflicts) - len(shown)} more: --all-conflicts prints them")
    devices = sorted(device for device in merged.copied if device)
    if devices:
        print(f"To show them, name them in the study: devices: [auto, {', '.join(devices)}]")
    return int(bool(merged.conflicts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="+", help="results folders, or .tar.gz of them")
    parser.add_argument("--into", type=Path, required=True, help="the results folder that gets their files")
    parser.add_argument("--all-conflicts", action="store_true", help=f"print more than {MOST_SHOWN} conflicts")
    main(work, parser, failed=2)
