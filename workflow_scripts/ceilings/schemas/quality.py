"""What a cell's answers to rows of data are worth (``evaluate_quality.py``)."""

from ceilings.schemas.common import CELL, COSINE, FAILURE, NAME, NOT_NEGATIVE, PROVENANCE, SHARE
from ceilings.schemas.terms import anything, by, flag, free, maybe, number, one_of, record, text, whole

DATA = record(
    {"rows": whole(1), "available": whole(1), "truncated": whole(), "labelled": flag, "source": NAME},
    {"file": text(), "text": maybe(text()), "label": maybe(text()), "weights": maybe(text()), "seed": whole()},
    rest=anything,
)

PROPORTIONS = (
    *("agreement", "agreement_low", "agreement_high", "rows_equal"),
    *("neighbour_overlap", "neighbour_overlap_low", "neighbour_overlap_high", "neighbour_overlap_min"),
)
CORRELATIONS = (
    *("correlation", "rank_correlation", "spearman", "reference_spearman", "neighbour_rank_correlation"),
    *("cosine_median", "cosine_min", "cosine_p1"),
)

METRICS = record(
    {"metric": one_of("accuracy", "pearson", "agreement", "correlation", "cosine")}
    | dict.fromkeys(("value", "low", "high"), maybe(COSINE)),
    {
        **dict.fromkeys(PROPORTIONS, maybe(SHARE)),
        **dict.fromkeys(CORRELATIONS, maybe(COSINE)),
        "reference_value": maybe(COSINE),
        **dict.fromkeys(("difference", "difference_low", "difference_high"), maybe(number(-2, 2))),
        "p_value": maybe(SHARE),
        "max_abs": NOT_NEGATIVE,
        **dict.fromkeys(
            ("only_cell_right", "only_reference_right", "tokens", "neighbours", "neighbours_among"), whole()
        ),
        "predictions": anything,
        "answers": whole(),
    },
)

COMMON = {"cell": CELL, "log": maybe(text())}
FURTHER = {"runtime": maybe(free), "failure": one_of(None), "provenance": PROVENANCE}

SCHEMA = by(
    "status",
    {
        "ok": record({**COMMON, "status": one_of("ok"), "task": NAME, "data": DATA, "metrics": METRICS}, FURTHER),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}, rest=anything),
    },
)
