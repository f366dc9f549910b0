"""What the FP32 reference finds in the texts that a cell's processes generated (``read_texts.py``)."""

from ceilings.schemas.common import CELL, FAILURE, NOT_NEGATIVE, POSITIVE, PROVENANCE, SHA256, SHARE
from ceilings.schemas.terms import by, maybe, one_of, record, table, text, whole

READING = record({"digest": SHA256, "texts": whole(), "chosen": SHARE, "largest_gap": maybe(NOT_NEGATIVE)})

COMMON = {
    "cell": CELL,
    "log": maybe(text()),
    "read": whole(),
    "device": maybe(text()),
    "seconds": maybe(POSITIVE),
    "provenance": maybe(PROVENANCE),
}

SCHEMA = by(
    "status",
    {
        "ok": record({**COMMON, "status": one_of("ok"), "failure": one_of(None), "runs": table(READING)}),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE, "runs": record({})}),
    },
)
