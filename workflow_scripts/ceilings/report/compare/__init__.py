"""Two sets of results side by side: before and after a change, or one device and another."""

from ceilings.report.compare.decide import ALPHA, Change, Comparison, compare
from ceilings.report.compare.show import as_html, as_markdown

__all__ = ["ALPHA", "Change", "Comparison", "as_html", "as_markdown", "compare"]
