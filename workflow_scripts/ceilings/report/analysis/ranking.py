"""Which findings matter most: the size of an effect, as far as its interval makes it certain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ceilings.report.analysis.findings.finding import Finding

IN_THE_DECISION = {"Fastest", "Latency or throughput"}
"""Topics that the decision table answers."""

QUALITATIVE = math.log(1.25)
"""What a finding without a ratio counts for: as much as an effect of a quarter that is certain."""


def consequence(finding: Finding) -> float:
    """The part of the effect that is certain, as a distance of logarithms; 0 where nothing is decided.

    Of an interval the end that is nearer to 1 counts, so noise lowers the rank of a large estimate.
    """
    if finding.status == "not decidable" or finding.absolute or not finding.brief:
        return 0.0
    effect = finding.effect
    if effect is None or not (effect.bounded and effect.low > 0):
        return QUALITATIVE if finding.question and finding.cells else 0.0
    if effect.low <= 1 <= effect.high:
        return 0.0
    return min(abs(math.log(effect.low)), abs(math.log(effect.high)))


def most_consequential(findings: Sequence[Finding], most: int) -> list[Finding]:
    """The first ones by consequence: the first of each topic before the second of any.

    Eight levers in a row would hide what bounds the latency.
    """
    known = [one for one in findings if one.topic not in IN_THE_DECISION and consequence(one) > 0]
    known.sort(key=consequence, reverse=True)  # stable: of equals, the order of the questions
    places: Counter[str] = Counter()
    placed = []
    for finding in known:
        placed.append((places[finding.topic], finding))
        places[finding.topic] += 1
    chosen = [finding for _, finding in sorted(placed, key=lambda pair: pair[0])[:most]]
    return sorted(chosen, key=consequence, reverse=True)
