"""From a trace of any form to the content of its explanation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.files import sha256
from ceilings.provenance import provenance
from ceilings.traces.explained.explanation import explanation
from ceilings.traces.explained.iterations import choose
from ceilings.traces.readers import read
from ceilings.traces.recording import Progress, Recording


def explain(
    path: Path, name: str, choice: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """The content of a record of kind ``explanation``.

    Args:
        path: The trace.
        name: How pages call it.
        choice: What its iterations are, as :class:`ceilings.traces.explained.choice.Choice` takes it.
        progress: Called with the share of the file that was read.

    Raises:
        UserError: It is no trace, is damaged, or has nothing of what was chosen.
    """
    read_from = read(path, progress)
    said = explanation(read_from, choose(read_from, choice)) if isinstance(read_from, Recording) else read_from
    source = {**said["source"], "bytes": path.stat().st_size, "sha256": sha256(path)}
    return {**said, "name": name, "source": source, "provenance": provenance(("numpy",), {"capture": path})}
