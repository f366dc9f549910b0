#!/usr/bin/env python3
"""Compare two sets of results: before and after a change of driver, package or code, or two devices.

Exit status: 0 no cell became slower or stopped working, 1 one did, 2 the comparison could not be made.
"""

import argparse
from pathlib import Path

from ceilings.files import write_text
from ceilings.program import fraction, main
from ceilings.report.analysis.comparison import compare
from ceilings.report.analysis.measured import Measured
from ceilings.report.render.comparison_page import as_html, as_markdown
from ceilings.report.tables.frames import read_tables
from ceilings.statistics.estimands import ESTIMANDS


def measured(folder: Path) -> Measured:
    """Of a results tree, or of its tables folder."""
    return Measured(read_tables(folder / "tables" if (folder / "tables").is_dir() else folder))


def work(arguments: argparse.Namespace) -> int:
    comparison = compare(
        measured(arguments.before),
        measured(arguments.after),
        margin=arguments.margin,
        estimand=ESTIMANDS[arguments.statistic],
        devices=(arguments.before_device, arguments.after_device),
    )
    page = as_markdown(comparison)
    if arguments.output:
        write_text(arguments.output, page)
    else:
        print(page)
    if arguments.html:
        write_text(arguments.html, as_html(comparison))
    return int(comparison.worse and not arguments.report_only)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="results tree, or its tables folder")
    parser.add_argument("--after", type=Path, required=True, help="results tree, or its tables folder")
    parser.add_argument("--before-device", help="slug, to compare across devices")
    parser.add_argument("--after-device", help="slug, to compare across devices")
    parser.add_argument("--margin", type=fraction, default=0.05, help="differences below are none (default 0.05)")
    parser.add_argument("--statistic", choices=ESTIMANDS, default="p50", help="what is compared (default p50)")
    parser.add_argument("--output", type=Path, help="Markdown file; without it the page is printed")
    parser.add_argument("--html", type=Path, help="HTML file beside it")
    parser.add_argument("--report-only", action="store_true", help="exit with 0 whatever became slower")
    main(work, parser, failed=2)
