"""Changing shapes: whether requests padded up to buckets take less time than at their exact shapes."""

from __future__ import annotations

from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding, Status, no_claim
from ceilings.report.analysis.findings.one_shape import TOPIC
from ceilings.report.analysis.measured import Judged, Measured
from ceilings.report.analysis.mixed_shapes import MixedCell, MixedShapes
from ceilings.statistics.decisions import within

CLAIM = "Requests padded up to buckets take less time than at their exact shapes"
MEASURE = "mean latencies in the sequence, padded to exact"


def padded_requests(measured: Measured) -> list[Finding]:
    """A finding a cell whose requests were padded: its sequence beside the one of exact shapes, paired by process."""
    mixed = MixedShapes(measured)
    pairs = ((cell, mixed.padding(cell)) for cell in mixed.cells)
    return [_finding(cell, judged) for cell, judged in pairs if judged is not None]


def _finding(cell: MixedCell, judged: Judged) -> Finding:
    row, ratio = cell.row, judged.ratio
    share = "" if text.absent(row["padding_share"]) else f" ({text.percent(row['padding_share'])} of it is padding)"
    times = (
        f"padded up to {str(row['bucket_shapes']).replace(';', ', ')}{share}, requests take "
        f"{text.interval(ratio, '×')} as long as at their exact shapes: {text.number(row['padded_ms'])} ms and "
        f"{text.number(row['sequence_ms'])} ms in the mean"
    )
    status: Status = "refuted"
    sentence, brief = f"{cell.name}: {times}.", ""
    missing: tuple[str, ...] = ()
    if judged.decided and not within(ratio, MARGIN):
        faster = ratio.high < 1
        status = "supported" if faster else "refuted"
        brief = (
            f"{cell.name}: padding up to {text.plural(int(row['buckets']), 'bucket')} "
            f"{'shortens' if faster else 'lengthens'} "
            f"requests: {text.number(ratio.estimate)}× the mean at exact shapes."
        )
    elif within(ratio, MARGIN):
        sentence = f"{cell.name}: {times}; both are equal."
    else:
        status = "not decidable"
        sentence = f"{cell.name}: {no_claim(judged)}: {times}."
        missing = (f"protocol: {{processes: {max(3, 2 * int(row['processes']))}}}",)
    return Finding(
        *(TOPIC, sentence, (), ratio),
        claim=CLAIM,
        subject=cell.name,
        status=status,
        missing=missing,
        measure=MEASURE,
        records=(cell.record,),
        brief=brief,
    )
