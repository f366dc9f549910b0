"""What every rule depends on without saying so: the program that its shell command calls, and that program's packages.

Added to each rule, so that no rule can forget it. Standard library only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ceilings.study.code import digest, libraries


def complete(rule: Any) -> None:
    """Give a rule of Snakemake its last params, and its shell command one layout.

    ``program`` is a digest of the code, ``packages`` names the versions. Snakemake compares shell commands as texts:
    spaces and line breaks between words must not make a result anew, a changed option must.
    """
    if not rule.shellcmd:
        return
    words = rule.shellcmd.split()
    rule.shellcmd = " ".join(words)
    program = Path(words[0]).stem
    rule.set_params(program=digest(program), packages=libraries(program))
