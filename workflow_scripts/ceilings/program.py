"""What every program of ``workflow_scripts`` does around its work."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import select
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from ceilings import absent, isolation
from ceilings.errors import UserError
from ceilings.files import read_json, write_json


def main(
    work: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    failed: int = 1,
    isolated: bool = False,
) -> None:
    """Parse the arguments, do the work, and end with one readable message if the user can mend what went wrong.

    The work runs in a child process, which ends with this one and with the pipeline. ``isolated`` work may crash: its
    outputs are then those of an artifact that cannot be made.

    Exit status: what ``work`` returns (0 for None), ``failed`` for something the user can mend (no traceback), 2 for
    wrong arguments, 141 where nobody reads what it prints any more (``| head``). A program whose own answer is 1 sets
    ``failed`` to 2, and a bug then ends in that too.
    """
    try:
        arguments = parser.parse_args()
    except SystemExit as end:  # of --help too
        leave(end.code if isinstance(end.code, int) else 2)
    isolation.isolate(survive=isolated)
    try:
        status = work(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(failed)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _unread():
            os._exit(UNREAD)
        if error.errno not in REMEDIES:
            traceback.print_exc()
            sys.exit(failed)
        why = f"{error.strerror}; {REMEDIES[error.errno]}"
        print(f"error: cannot write {error.filename or 'a result'}: {why}", file=sys.stderr)
        sys.exit(failed)
    except Exception as error:
        line = absent.message(error) if isinstance(error, ModuleNotFoundError) else None
        print(f"error: {line}", file=sys.stderr) if line else traceback.print_exc()
        sys.exit(failed)
    leave(status or 0)


def answer_task(work: Callable[[dict[str, Any]], dict[str, Any]], indent: int | None = None) -> NoReturn:
    """Be a worker: read the task that the first argument names, and write what ``work`` makes of it to the second.

    Ends with status 0, or with 1 and one line where the user must act.
    """
    task, record = sys.argv[1:]
    try:
        write_json(record, work(read_json(task)), indent=indent)
    except UserError as error:
        sys.exit(f"error: {error}")
    leave()


def leave(status: int = 0) -> NoReturn:
    """End this process now: with torch loaded, Python's own teardown takes a second for nothing."""
    gc.collect()  # temporary folders go with their owners
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        os._exit(UNREAD)
    os._exit(status)


UNREAD = 141
"""Exit status of a program whose output nobody reads any more: that of one which SIGPIPE ended."""


def _unread() -> bool:
    """Whether the reader of what is printed has ended."""
    streams = select.poll()
    for number in (1, 2):
        streams.register(number, 0)
    return any(event & select.POLLERR for _, event in streams.poll(0))


REMEDIES = {
    errno.ENOSPC: "free some space and run again: what is finished stays",
    errno.EDQUOT: "free some space and run again: what is finished stays",
    errno.EFBIG: "raise the file size limit (ulimit -f) and run again: what is finished stays",
    errno.EACCES: "make the folder writable and run again",
    errno.EROFS: "move the checkout to a writable file system and run again",
}


def json_argument(text: str) -> dict[str, Any]:
    """An argparse type: a JSON object, as the rules pass a slice of the study."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"not a JSON object: {text}")
    return value


def fraction(text: str) -> float:
    """An argparse type: a share above 0 and up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a fraction between 0 and 1, such as 0.05")
    return value
