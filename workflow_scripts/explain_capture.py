#!/usr/bin/env python3
"""Explain a trace that others made: where an iteration's time goes, what bounds it, what would help.

It takes exports of Nsight Systems (.sqlite, and .nsys-rep where nsys is on PATH), traces of PyTorch's profiler (also
gzipped), profiles of ONNX Runtime, what trtexec exports, and captures of this project. Without an option for a file it
prints a summary.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from ceilings import private, records
from ceilings.errors import UserError
from ceilings.files import write_text
from ceilings.program import main
from ceilings.provenance import provenance
from ceilings.schemas.explanation import RECORDINGS

SHOWN_AFTER, SHOWN_EVERY = 3.0, 2.0
"""Seconds until progress is shown, and from one line of it to the next."""

CHOICES = ("range", "step", "graph", "period", "whole", "between", "process")
"""The options that say what an iteration is, by their names in a choice."""

ENDINGS = re.compile(r"(\.(json|gz|sqlite|db|nsys-rep|nsys|cupti|pt|trace|budget|perfetto))+$", re.IGNORECASE)


def work(arguments: argparse.Namespace) -> None:
    from ceilings.traces.explained.explain import explain

    name = arguments.name or ENDINGS.sub("", arguments.trace.name) or arguments.trace.name
    try:
        content = explain(
            arguments.trace, name, _choice(arguments), _Progress(), arguments.perfetto, latency=arguments.latency
        )
    except UserError as error:
        if not arguments.record_failure:
            raise
        _record_failure(arguments, name, error)
        return
    record = records.sealed("explanation", private.anonymous(content))
    if arguments.output:
        write_text(arguments.output, records.as_text(record, indent=None))
    if arguments.markdown:
        from ceilings.report.render.explained import explanation_page, explanation_picture

        picture = arguments.markdown.with_suffix(".svg")
        write_text(picture, explanation_picture.picture(record))
        write_text(arguments.markdown, explanation_page.page(record, picture.name))
    if arguments.html:
        from ceilings.report.render.explained import explanation_html

        write_text(arguments.html, explanation_html.html(record))
    if not any((arguments.output, arguments.markdown, arguments.html, arguments.perfetto)):
        _show(record)
    if arguments.perfetto and record["source"]["format"] not in RECORDINGS:
        nothing = UserError(
            f"{arguments.trace} has no calls and no kernels with their times, so Perfetto has nothing to show of it"
        )
        if not arguments.record_failure:
            raise nothing  # after what can be written
        _write_nothing_to_show(arguments.perfetto, nothing)


def _record_failure(arguments: argparse.Namespace, name: str, error: UserError) -> None:
    """Write what says why there is nothing."""
    if arguments.output:
        print(f"error: {error}", file=sys.stderr)
        failed = {"name": name, "failure": str(error), "provenance": provenance(())}
        records.write(arguments.output, "explanation", failed, indent=None)
    if arguments.perfetto:
        _write_nothing_to_show(arguments.perfetto, error)


def _write_nothing_to_show(path: Path, error: UserError) -> None:
    """A trace for Perfetto without an event, that says why."""
    print(f"error: {error}", file=sys.stderr)
    why = private.anonymous({"failure": str(error)})
    write_text(path, json.dumps({"traceEvents": [], "otherData": why}))


def _show(record: records.Record) -> None:
    """Print the summary: in colours on a terminal, and with ``?`` for letters that it has not."""
    from ceilings.report.render.explained.screen import screen

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    sys.stdout.write(screen(record, colours=sys.stdout.isatty()))


def _choice(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the iterations are, in the words of a study."""
    return {name: getattr(arguments, name) for name in CHOICES}


def _milliseconds(text: str) -> float:
    """A latency, from its text."""
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no latency; give milliseconds, such as 1.25")
    return value


class _Progress:
    """Says on standard error how much of a file was read, where that takes more than some seconds."""

    def __init__(self) -> None:
        self.next = time.monotonic() + SHOWN_AFTER

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now >= self.next:
            print(f"reading: {share:.0%}", file=sys.stderr, flush=True)
            self.next = now + SHOWN_EVERY


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    ways = parser.add_argument_group("what an iteration is (default: what fits best)").add_mutually_exclusive_group()
    ways.add_argument(
        "--range", metavar="NAME", help="a named range (NVTX, record_function), or a glob such as 'step*'"
    )
    ways.add_argument("--step", action="store_true", help="the profiler's steps")
    ways.add_argument("--graph", action="store_true", help="each launch of the same CUDA graph")
    ways.add_argument("--period", action="store_true", help="the period of the sequence of kernels")
    ways.add_argument("--whole", action="store_true", help="the whole recording as one")
    ways.add_argument(
        "--between", type=float, nargs=2, metavar=("FROM", "TO"), help="an interval, in ms since its begin"
    )
    parser.add_argument(
        "--process", type=int, help="number of the process, where it holds several (default: the busiest)"
    )
    parser.add_argument(
        "--latency",
        type=_milliseconds,
        metavar="MS",
        help="the median iteration as measured without the recorder: all is then of the untraced program",
    )
    parser.add_argument("--name", help="what pages call it (default: the file's name)")
    parser.add_argument("--output", type=Path, help="the record, as JSON")
    parser.add_argument("--markdown", type=Path, help="the page, with an .svg of its name beside it")
    parser.add_argument("--html", type=Path, help="the page as one HTML file")
    parser.add_argument(
        "--perfetto", type=Path, help="the trace for ui.perfetto.dev, with the critical path as a track"
    )
    parser.add_argument(
        "--record-failure",
        action="store_true",
        help="where it cannot be read, or Perfetto has nothing to show of it, write files that say why, and exit 0",
    )
    main(work, parser)
