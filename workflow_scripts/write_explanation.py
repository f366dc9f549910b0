#!/usr/bin/env python3
"""Write the pages of an explained trace: Markdown with a picture, and one HTML file."""

import argparse
import os
from pathlib import Path

from ceilings import records
from ceilings.files import write_text
from ceilings.program import main
from ceilings.report.render.explained import explanation_html, explanation_page, explanation_picture


def work(arguments: argparse.Namespace) -> None:
    record = records.read(arguments.record, "explanation")
    beside = Path(os.path.relpath(arguments.picture, arguments.markdown.parent)).as_posix()
    write_text(arguments.picture, explanation_picture.picture(record))
    write_text(arguments.markdown, explanation_page.page(record, beside))
    write_text(arguments.html, explanation_html.html(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, required=True, help="of explain_capture.py")
    parser.add_argument("--markdown", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True, help="SVG that the Markdown page shows")
    parser.add_argument("--html", type=Path, required=True)
    main(work, parser)
