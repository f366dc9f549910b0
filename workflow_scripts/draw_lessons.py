#!/usr/bin/env python3
"""Draw the lessons on a device: times beside the counters that explain them, as SVG and as PNG."""

import argparse
from pathlib import Path

from ceilings import records
from ceilings.program import main
from ceilings.report.render import lessons_picture
from ceilings.report.render.plots import style


def work(arguments: argparse.Namespace) -> None:
    record = records.read(arguments.lessons, "lessons")
    style.save(lessons_picture.draw(record), arguments.output_svg, arguments.output_png)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lessons", type=Path, required=True, help="of count_lessons.py")
    parser.add_argument("--output-svg", type=Path, required=True)
    parser.add_argument("--output-png", type=Path, required=True)
    main(work, parser)
