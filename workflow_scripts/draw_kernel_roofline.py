#!/usr/bin/env python3
"""Draw the hierarchical roofline of a cell's counted kernels, as SVG and as PNG."""

import argparse
from pathlib import Path

from ceilings import records
from ceilings.program import main
from ceilings.report.render import kernel_roofline
from ceilings.report.render.plots import style


def work(arguments: argparse.Namespace) -> None:
    record = records.read(arguments.limits, "kernel-limits")
    style.save(kernel_roofline.draw(record), arguments.output_svg, arguments.output_png)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=Path, required=True, help="of judge_kernels.py")
    parser.add_argument("--output-svg", type=Path, required=True)
    parser.add_argument("--output-png", type=Path, required=True)
    main(work, parser)
