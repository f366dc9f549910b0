#!/usr/bin/env python3
"""Compare two explained traces: what grew, which kernels and calls are new, gone or changed.

Each is a record of explain_capture.py, or a trace, which is explained first.
"""

import argparse
import sys
from pathlib import Path

from ceilings import records
from ceilings.files import not_a_file, write_text
from ceilings.program import main
from ceilings.report.render.explained.growth_html import html
from ceilings.report.render.explained.growth_page import headline, page

RECORD = b'{"kind":"explanation"'
"""How a record begins, without blanks."""


def work(arguments: argparse.Namespace) -> None:
    before, after = read(arguments.before), read(arguments.after)
    shown = page(before, after)
    if arguments.html:
        write_text(arguments.html, html(before, after))
    if arguments.output:
        write_text(arguments.output, shown)
    if arguments.output or arguments.html:
        print(headline(before, after))
    else:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        print(shown)


def read(path: Path) -> records.Record:
    """A record as it is, a trace explained."""
    if not not_a_file(path):
        with path.open("rb") as file:
            if b"".join(file.read(80).split()).startswith(RECORD):
                return records.read(path, "explanation")
    from ceilings.traces.explained.explain import explain

    return explain(path, path.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a record of explain_capture.py, or a trace")
    parser.add_argument("after", type=Path, help="the same of the other side")
    parser.add_argument("--output", type=Path, help="Markdown file; without a file the page is printed")
    parser.add_argument("--html", type=Path, help="the page as one HTML file")
    main(work, parser)
