"""A comparison as Markdown and as a page."""

from __future__ import annotations

import html

from tabulate import tabulate

from ceilings import foreign
from ceilings.report import text
from ceilings.report.analysis.comparison import ALPHA, Change, Comparison

Table = tuple[str, tuple[str, ...], list[list[str]]]
"""Title, headers and rows."""

HEADERS = ("cell", "before, ms", "after, ms", "after / before [95%]", "adjusted p", "verdict")

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #8886; text-align: left; font-variant-numeric: tabular-nums; }
"""


def as_markdown(comparison: Comparison) -> str:
    """The page for a terminal, a pull request or a summary."""
    parts = ["# Comparison", *_sentences(comparison)]
    for title, headers, rows in _tables(comparison):
        parts += [f"## {title}", text.table(foreign.marked(rows), headers)]
    return foreign.markdown("\n\n".join(parts) + "\n")


def as_html(comparison: Comparison) -> str:
    """The same, as one file that needs nothing else."""
    parts = ["<h1>Comparison</h1>", *(f"<p>{html.escape(sentence)}</p>" for sentence in _sentences(comparison))]
    for title, headers, rows in _tables(comparison):
        # tabulate escapes what stands in a cell
        parts += [f"<h2>{html.escape(title)}</h2>", tabulate(rows, headers, tablefmt="html", disable_numparse=True)]
    body = "\n".join(parts)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>Comparison</title><style>{STYLE}</style></head>'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _sentences(comparison: Comparison) -> list[str]:
    counts = (
        f"{text.plural(len(comparison.changes), 'cell')} on both sides, by {comparison.estimand.name}: "
        f"{comparison.count('slower')} slower, {comparison.count('faster')} faster, "
        f"{comparison.count('same')} the same within {comparison.margin:.0%}, "
        f"{comparison.count('undecided')} undecided."
    )
    noise = (
        "Neither side has an A/A pair, so the noise floor is unknown and taken for 0."
        if comparison.floor is None
        else f"Noise floor {text.noise(comparison.floor)}: no smaller difference is called one."
    )
    if comparison.floor is not None and comparison.floor > comparison.margin:
        noise += " It is wider than the margin, so nothing can be called the same."
    method = (
        f"Faster and slower: p at most {ALPHA} after Holm's adjustment for {len(comparison.changes)} comparisons, 95% "
        f"interval without 1, ratio beyond the noise floor. The same: two one-sided tests at 5%."
    )
    return [counts, noise, method]


def _tables(comparison: Comparison) -> list[Table]:
    tables: list[Table] = [("Cells", HEADERS, [_row(change, comparison) for change in comparison.changes])]
    if comparison.broken:
        tables.append(("Measured before, failed after", ("cell", "why"), [list(row) for row in comparison.broken]))
    if comparison.environment:
        tables.append(
            ("Different environments", ("what", "before", "after"), [list(r) for r in comparison.environment])
        )
    for title, names in (
        ("Measured before only", comparison.only_before),
        ("Measured after only", comparison.only_after),
        (f"Too few iterations for {comparison.estimand.name}", comparison.too_few),
    ):
        if names:
            tables.append((title, ("cell",), [[name] for name in names]))
    return tables


def _row(change: Change, comparison: Comparison) -> list[str]:
    name = change.after.name
    if change.before.device != change.after.device:
        name = f"{name.split('/', 1)[1]}: {change.before.device} to {change.after.device}"
    column = "mean_ms" if comparison.estimand.name == "mean" else f"{comparison.estimand.name}_ms"
    shown = [text.number(cell.row.get(column)) for cell in (change.before, change.after)]
    p = "< 0.0001" if change.p < 0.0001 else f"{change.p:.4f}"
    return [name, *shown, text.interval(change.ratio), p, change.verdict]
