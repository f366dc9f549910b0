"""What every program of ``workflow_scripts`` does around its work."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from ceilings import isolation
from ceilings.errors import UserError


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
    wrong arguments. A program whose own answer is 1 sets ``failed`` to 2, and a bug then ends in that too.
    """
    arguments = parser.parse_args()
    isolation.isolate(survive=isolated)
    try:
        status = work(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(failed)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        why = f"{error.strerror}; {REMEDIES[error.errno]}"
        print(f"error: cannot write {error.filename or 'a result'}: {why}", file=sys.stderr)
        sys.exit(failed)
    except Exception:
        traceback.print_exc()
        sys.exit(failed)
    leave(status or 0)


def leave(status: int = 0) -> NoReturn:
    """End this process now: with torch loaded, Python's own teardown takes a second for nothing."""
    gc.collect()  # temporary folders go with their owners
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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
