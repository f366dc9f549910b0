#!/usr/bin/env python3
"""Pack results for the way home, in parts of a size, without what should not travel (docs/offline.md)."""

import argparse
from pathlib import Path

from ceilings import lifetime
from ceilings.files import expanded
from ceilings.offline import harvest, install, packing, parts
from ceilings.program import main


def work(arguments: argparse.Namespace) -> None:
    parts.refuse_used(arguments.output_dir, "results")
    with lifetime.temporary_folder(arguments.output_dir.absolute().parent) as scratch:
        archive = Path(scratch) / install.RESULTS
        about = harvest.pack(arguments.results, arguments.study, archive, arguments.everything)
        files = {install.RESULTS: archive}
        _, written = parts.cut(
            [files], "results", about, packing.program(), folder=arguments.output_dir, megabytes=arguments.part_mb
        )
    size = sum(path.stat().st_size for path in written) / parts.MEBIBYTE
    print(f"{arguments.output_dir}: {len(written)} parts, {size:.1f} MiB, of {', '.join(about['devices'])}")
    print("Carry them home, and there, in the project's folder: make unpack PARTS=FOLDER")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=expanded, default=Path("results"), help="folder of the results")
    parser.add_argument("--study", type=expanded, default=Path("config.yaml"), help="the study that they are of")
    parser.add_argument("--everything", action="store_true", help="weights, graphs, engines, inputs and logs too")
    parser.add_argument("--part-mb", type=int, default=50, help="size of a part at most, in MiB")
    parser.add_argument("--output-dir", type=expanded, default=Path("brought"), help="folder of the parts")
    main(work, parser)
