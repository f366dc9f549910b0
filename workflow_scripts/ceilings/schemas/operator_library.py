"""The report beside a library with our operators (``build_operator.py``)."""

from ceilings.schemas.common import FAILED, NAME, PROVENANCE, SHA256
from ceilings.schemas.terms import by, flag, many, one_of, record, whole

IMAGE = record(
    {
        "width": whole(1),
        "masked": flag,
        "tokens": whole(1),
        **dict.fromkeys(("queries", "keys", "warps", "stages", "bytes"), whole(1)),
        "shared": whole(),
    }
)

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                "status": one_of("ok"),
                "compiler": NAME,
                "kernels": many(NAME, least=1),
                "images": many(IMAGE),
                "bytes": whole(1),
                "sha256": SHA256,
                "provenance": PROVENANCE,
            }
        ),
        "failed": FAILED,
    },
)
