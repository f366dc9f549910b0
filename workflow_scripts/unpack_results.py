#!/usr/bin/env python3
"""Unpack the results that were brought from hosts, all that lie in a folder (docs/offline.md)."""

import argparse

from ceilings.files import expanded
from ceilings.offline import install
from ceilings.program import main


def work(arguments: argparse.Namespace) -> int:
    return install.unpack_all(arguments.parts, arguments.to, arguments.replace)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", type=expanded, help="folder of the parts, or one part")
    parser.add_argument("--to", type=expanded, help="folder to unpack to (default: results-DEVICE)")
    parser.add_argument("--replace", action="store_true", help="of a kit: also replace files that were changed there")
    main(work, parser)
