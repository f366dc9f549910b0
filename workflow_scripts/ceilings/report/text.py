"""Numbers as a reader wants them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from ceilings.statistics.quantiles import Interval, minimum_samples
from ceilings.workload.shape import Shape

TOO_NOISY = 10.0
"""An interval whose upper end is this many times the lower one says nothing."""


LIMITED_BY = {
    "compute": "the matrix rate",
    "dram": "device memory",
    "l2": "the L2 cache's bandwidth",
    "launch": "one graph launch",
}
"""What sets a floor, as the sentences call it."""

SHARED_AS = {
    "threads": "as threads of one process",
    "processes": "as processes",
    "mps": "under MPS",
    "cards": "as processes on separate cards",
}
"""How instances share a device, as the sentences call it."""


def absent(value: Any) -> bool:
    """Whether a cell of a table holds nothing: None, NaN, or what pandas has for these, which need not be imported."""
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, Real) and math.isnan(value))
    )


def number(value: float | None) -> str:
    """Three significant digits, never in powers of ten."""
    if value is None or absent(value):
        return "n/a"
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def ratio(value: float | None) -> str:
    """A number without a unit; with six decimals if it is close to 1, where three digits would hide what is missing."""
    return f"{value:.6f}" if value is not None and 0.9 < value <= 1 else number(value)


def powers(value: float | None) -> str:
    """A small number in powers of ten."""
    return "n/a" if value is None or absent(value) else f"{value:.1e}"


def sizes(shape: Shape) -> str:
    """A shape in words: ``batch 1, sequence 128``."""
    words = [f"{axis} {size}" for axis, size in shape.sizes]
    return ", ".join([*words, *([f"lengths {shape.lengths}"] if shape.lengths else [])])


def interval(value: Interval, unit: str = "", signed: bool = False) -> str:
    """``12.3 ms [12.1, 12.6]``; one that bounds nothing says why."""
    show = (lambda x: ("+" if x > 0 else "") + number(x)) if signed else number
    unit = f" {unit}" if unit and unit not in "×%" else unit
    if not value.bounded and not signed:
        return f"{show(value.estimate)}{unit} [one process]"
    if not signed and value.low >= 0 and value.high > TOO_NOISY * value.low:
        return f"{show(value.estimate)}{unit} [too noisy]"
    return f"{show(value.estimate)}{unit} [{show(value.low)}, {show(value.high)}]"


def percent(fraction: float | None) -> str:
    if fraction is None or not math.isfinite(fraction):
        return "unknown"
    digits = 1 if abs(fraction) < 0.1 else 0
    return f"{fraction * 100:.{digits}f}%"


def noise(floor: float) -> str:
    """A noise floor as a percentage; beyond a factor of ten that it is more, since such an interval says nothing else.

    >>> noise(0.031), noise(0.87), noise(2e11)
    ('3.1%', '87%', 'more than a factor of 10')
    """
    return percent(floor) if floor <= 9 or not math.isfinite(floor) else "more than a factor of 10"


def percentile(value: float | None, n: float, q: float) -> str:
    """The value, or ``n/a (n=57)`` where n iterations do not carry the quantile."""
    if absent(n):
        return "n/a"
    return number(value) if n >= minimum_samples(q) else f"n/a (n={int(n)})"


def listed(items: Iterable[object]) -> str:
    """``a, b and c``."""
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def cut(items: Iterable[str], most: int = 4) -> str:
    """The first few, and how many more there are."""
    words = list(items)
    return listed(words) if len(words) <= most else f"{', '.join(words[:most])} and {len(words) - most} more"


def code(entry: str) -> str:
    """An entry of a study as code; a sentence as it is."""
    return f"`{entry}`" if "{" in entry or "[" in entry else entry


def kind(flag: str) -> str:
    """A flag without its numbers: two that differ by a number only are of one kind.

    >>> kind("other processes used 2.5 of 4 cores")
    'other processes used … of … cores'
    """
    return re.sub(r"\d+(\.\d+)?", "…", flag)


EXAMPLE = ", for example"


def example(flags: Sequence[str]) -> str:
    """Flags of one kind as one: the first, and that it is an example where they differ."""
    first = flags[0].removesuffix(EXAMPLE)
    return first if set(flags) == {first} else first + EXAMPLE


def plural(count: int, word: str) -> str:
    if count == 1:
        return f"{count} {word}"
    return f"{count} {word}es" if word.endswith("s") else f"{count} {word}s"


def table(rows: Iterable[Iterable[object]], headers: Iterable[str], align: str = "") -> str:
    """A Markdown table. ``align``: one of l, r a column; cells are shown as they are.

    Pipes and line breaks in a cell (messages of runtimes) cannot end a row.
    """
    from tabulate import tabulate

    safe = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    columns = {"l": "left", "r": "right"}
    return tabulate(
        safe,
        headers=list(headers),
        tablefmt="pipe",
        disable_numparse=True,
        colalign=[columns[letter] for letter in align] if align and safe else None,
    )
