"""Parts that records of several kinds have."""

from __future__ import annotations

from typing import Any

from ceilings.errors import FAILURE_KINDS
from ceilings.schemas.terms import anything, flag, free, many, maybe, number, one_of, record, table, text, whole

SHA256 = text("[0-9a-f]{64}")
NAME = text(empty=False)
POSITIVE = number(above=0)
NOT_NEGATIVE = number(low=0)
ROUNDING = 1e-6
"""By so much a share or a cosine that was computed from floats may leave its range."""

SHARE = number(-ROUNDING, 1 + ROUNDING)
COSINE = number(-1 - ROUNDING, 1 + ROUNDING)
COUNTS = table(whole())

PROTOCOL = record(
    {
        "min_iterations": whole(1),
        "concurrency": whole(1),
        **dict.fromkeys(("time_limit_seconds", "precision"), POSITIVE),
        **dict.fromkeys(
            ("warmup_seconds", "warmup_max_seconds", "min_seconds", "max_seconds", "saturated_seconds"), NOT_NEGATIVE
        ),
    },
    rest=anything,
)
"""How a process measures a cell: what ``ceilings.measure.stopping.Protocol`` needs, and what a study adds."""

FAILURE = record({"kind": one_of(*FAILURE_KINDS), "message": text()})

CELL = record({"device": NAME, "runtime": NAME, "model": NAME, "precision": NAME, "shape": NAME})

PROVENANCE = record(
    {
        "python": NAME,
        "packages": table(maybe(text())),
        "modules": free,
        "project_revision": maybe(text()),
        "sources": table(SHA256),
    },
    {"variables": table(maybe(text()))},
)

FAILED = record({"status": one_of("failed"), "failure": FAILURE}, rest=anything)
"""The report of an artifact that could not be made."""

PARITY = {
    "finite": flag,
    "max_abs": maybe(NOT_NEGATIVE),
    "max_rel": maybe(NOT_NEGATIVE),
    "relative_l2": maybe(NOT_NEGATIVE),
    "cosine": maybe(COSINE),
    "top1_agreement": maybe(SHARE),
}
"""How far outputs are from the FP32 reference, as every record of a comparison has it."""

FULL_PARITY = {
    **PARITY,
    "rows": whole(1),
    "spread_l2": maybe(NOT_NEGATIVE),
    "row_l2": maybe(NOT_NEGATIVE),
    "problem": maybe(text()),
}

TOKEN_PARITY = {
    "prefill_l2": maybe(NOT_NEGATIVE),
    "decode_l2": maybe(NOT_NEGATIVE),
    "token_agreement": maybe(SHARE),
    "rows_equal": maybe(SHARE),
    "first_difference": maybe(whole()),
    "generated": maybe(whole(1)),
    "logit_error": maybe(POSITIVE),
    "texts": maybe(whole()),
    "largest_margin": maybe(number()),
    "sensitivity": maybe(table(NOT_NEGATIVE)),
    "rounding_l2": maybe(NOT_NEGATIVE),
}
"""What a comparison of generated tokens has besides."""

NOISE = number(-200, 200)
LAYERS = many(record({"node": NAME, "sqnr_db": NOISE, "accumulated_sqnr_db": NOISE}))
"""Signal to noise of quantised products."""


def dim(value: Any) -> str | None:
    """A dimension of a tensor: the name of its axis, or its size."""
    return NAME(value) if isinstance(value, str) else whole()(value)


TENSORS = many(record({"name": NAME, "type": NAME, "shape": many(dim)}))
"""Inputs or outputs of a graph."""
