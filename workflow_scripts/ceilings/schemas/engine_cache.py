"""The engine that ONNX Runtime's TensorRT provider built and kept (``build_engine_cache.py``)."""

from ceilings.schemas.common import FAILURE, NAME, PROVENANCE, SHA256
from ceilings.schemas.terms import anything, by, maybe, one_of, record, table, text, whole

PLAN = record(
    {
        "graph": NAME,
        "folder": NAME,
        "timing_cache": NAME,
        "optimization_level": whole(0, 5),
        "workspace_mb": maybe(whole(1)),
    }
)
FILE = record({"bytes": whole(), "sha256": SHA256, "modified_ns": whole()})

COMMON = {
    "device": NAME,
    "precision": NAME,
    "shape": NAME,
    "plan": PLAN,
    "graph_sha256": SHA256,
    "files": table(FILE),
    "versions": table(maybe(text())),
    "cold_start_ns": table(whole()),
    "provider": anything,
    "provenance": PROVENANCE,
}

SCHEMA = by(
    "status",
    {
        "ok": record({**COMMON, "status": one_of("ok"), "failure": one_of(None), "files": table(FILE, least=1)}),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}),
    },
)
