"""Which rows quality is evaluated on: the report beside ``data.npz`` (``make_data.py``)."""

from ceilings.schemas.common import FAILED, NAME
from ceilings.schemas.terms import anything, by, one_of, record, whole

SCHEMA = by(
    "status",
    {
        "ok": record(
            {"status": one_of("ok"), "source": NAME, "available": whole(1), "rows": whole(1), "truncated": whole()},
            rest=anything,
        ),
        "failed": FAILED,
    },
)
