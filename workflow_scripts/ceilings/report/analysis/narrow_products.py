"""What the counts of narrow products say about a cell's latency."""

from __future__ import annotations

from collections.abc import Sequence

from ceilings.report import text
from ceilings.report.analysis.measured_cell import Cell, Comparison, group_by
from ceilings.report.tables.product_counts import products


def float_only(cell: Cell) -> bool:
    """Whether it is known that no product of a quantised cell ran in its precision."""
    counts = products(cell.row)
    return counts is not None and counts.narrow == 0


def arithmetic(pairs: Sequence[Comparison]) -> str:
    """Of cells (each pair's ``a``) of one quantised precision: how many products ran in it, and what follows if none.

    A cause is named only where the counts leave no other: without narrow products, Q/DQ is work and nothing else.
    """
    known = group_by(pairs, lambda pair: (products(pair.a.row), pair.verdict == "faster"))
    sentences = []
    for (counts, faster), same in known.items():
        if counts is None:
            continue
        name = same[0].a.precision.upper()
        cells = text.cut(f"{pair.a.label} {pair.a.shape}" for pair in same)
        which = f"matrix products{f' of {cells}' if len(known) > 1 else ''}"
        if counts.narrow:
            sentences.append(f" {counts.narrow} of {counts.all} {which} ran in {name}.")
        elif faster:
            sentences.append(
                f" None of the {counts.all} {which} ran in {name}: the gain is not from {name} arithmetic."
            )
        elif counts.quantizers:
            sentences.append(
                f" None of the {counts.all} {which} ran in {name}: its {counts.quantizers} Q/DQ nodes are extra "
                "work without a gain."
            )
        else:
            sentences.append(f" None of the {counts.all} {which} ran in {name}, so it gains nothing.")
    return "".join(sentences)
