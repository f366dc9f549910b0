"""Calibration methods side by side (``compare_calibrations.py``)."""

from ceilings.schemas.calibration import METHOD
from ceilings.schemas.common import FAILED, LAYERS, NAME, PARITY, PROVENANCE
from ceilings.schemas.terms import by, many, maybe, one_of, record, table, text

EACH = record(
    {
        "status": one_of("ok", "failed", "unavailable"),
        "reason": maybe(text()),
        **{name: maybe(check) for name, check in PARITY.items()},
        "layers": LAYERS,
    }
)

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                "status": one_of("ok"),
                "precision": NAME,
                "keep": many(text()),
                "methods": table(EACH),
                "best": maybe(METHOD),
                "provenance": PROVENANCE,
            }
        ),
        "failed": FAILED,
    },
)
