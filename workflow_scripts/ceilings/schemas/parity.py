"""A graph against the FP32 reference, on ONNX Runtime's CPU provider (``check_parity.py``)."""

from ceilings.schemas.common import COSINE, FULL_PARITY, LAYERS, NAME, NOT_NEGATIVE, PROVENANCE, TOKEN_PARITY
from ceilings.schemas.terms import by, flag, maybe, one_of, record, text

COMMON = {"precision": NAME, "optimized": flag, "layers": LAYERS, "provenance": maybe(PROVENANCE)}
MEASURED = FULL_PARITY | {
    "finite": one_of(True),
    "relative_l2": NOT_NEGATIVE,
    "cosine": COSINE,
    "problem": one_of(None),
}
WITHOUT = {"reason": text(empty=False)}

SCHEMA = by(
    "status",
    {
        "ok": record({**COMMON, "status": one_of("ok"), "reason": one_of(None), **MEASURED}, TOKEN_PARITY),
        "failed": record({**COMMON, "status": one_of("failed"), **WITHOUT}, FULL_PARITY | TOKEN_PARITY),
        "unavailable": record({**COMMON, "status": one_of("unavailable"), **WITHOUT}, FULL_PARITY | TOKEN_PARITY),
    },
)
