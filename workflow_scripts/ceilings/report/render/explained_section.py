"""The section on traces that others made: one line each, with a link to its page."""

from __future__ import annotations

from ceilings.report.render.explained import answer
from ceilings.report.tables.evidence import Evidence


def explained(evidence: Evidence) -> str:
    """The section; empty where the study names no such trace."""
    if not evidence.explained:
        return ""
    lines = [
        f"- [{name}](explained/{name}.md): "
        + (f"cannot be explained: {record['failure']}" if "failure" in record else answer.headline(record))
        for name, record in sorted(evidence.explained.items())
    ]
    return "\n".join(["## Captures of others", "", *lines])
