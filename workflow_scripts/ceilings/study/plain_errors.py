"""Says in one line what is wrong with a target. Standard library only.

Snakemake shows where in the rules an input function refused, and of a path that no rule makes only that. This
listens to its log events, as :mod:`ceilings.study.progress` does, and leaves what the user can mend.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable

from ceilings.program import REMEDIES
from ceilings.study.config import nearest


class PlainErrors(logging.Filter):
    """Shortens Snakemake's account of a refused target; passes everything else on.

    Args:
        targets: Gives the paths that the study asks for, for the nearest of them.
    """

    def __init__(self, targets: Callable[[], Iterable[str]]) -> None:
        super().__init__()
        self.targets = targets

    def filter(self, record: logging.LogRecord) -> bool:
        """Follow one log event of Snakemake."""
        text = record.getMessage()
        match record.__dict__.get("exception"):
            case "InputFunctionException" if refused := re.search(r"^ *UserError: (.*)$", text, re.M):
                record.msg, record.args = f"error: {refused[1]}", ()
            case "OSError" if failed := re.search(r"^OSError: \[Errno (\d+)\] ([^\n:]*)(: .*)?$", text, re.M):
                record.msg, record.args = _of_disk(int(failed[1]), failed[2], failed[3] or "", text), ()
            case "MissingRuleException" if unknown := re.search(r"No rule to produce (\S+)", text):
                record.msg, record.args = f"error: nothing makes {unknown[1]}, {self._hint(unknown[1])}", ()
        return True

    def _hint(self, target: str) -> str:
        return nearest(target, self.targets()) if target.startswith("results/") else "correct its name (snakemake -l)"


def _of_disk(number: int, why: str, file: str, text: str) -> str:
    """What is wrong where Snakemake itself could not write; its own words where nobody knows a remedy."""
    if number not in REMEDIES:
        return text
    return f"error: Snakemake cannot write{file or ' below .snakemake or TMPDIR'}: {why}; {REMEDIES[number]}"


def show(targets: Callable[[], Iterable[str]]) -> None:
    """Shorten the errors of the Snakemake process that calls this, once however often it parses the workflow."""
    logger = logging.getLogger("snakemake.logging")
    if not any(isinstance(known, PlainErrors) for known in logger.filters):
        logger.addFilter(PlainErrors(targets))
        logging.raiseExceptions = False  # a log on a full disk would print a traceback for each of its lines
