"""What every program of ``workflow_scripts`` does around its work."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ceilings.errors import UserError


def main(work: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the arguments, do the work, and end with one readable message if the user can mend what went wrong.

    Exit status: 0 done, 1 something the user can mend (no traceback), 2 wrong arguments.
    """
    arguments = parser.parse_args()
    try:
        work(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        sys.exit(f"error: cannot write {error.filename or 'a result'}: {error.strerror}; {REMEDIES[error.errno]}")
    leave()


def leave() -> NoReturn:
    """End this process now, with status 0: with torch loaded, Python's own teardown takes a second for nothing."""
    gc.collect()  # temporary folders go with their owners
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


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
