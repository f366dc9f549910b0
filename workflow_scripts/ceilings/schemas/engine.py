"""The record that vouches for a TensorRT engine (``build_engine.py``)."""

from ceilings.schemas.common import COUNTS, FAILURE, NAME, PROVENANCE, SHA256
from ceilings.schemas.terms import anything, by, flag, free, many, maybe, one_of, record, row, table, text, whole

SUMMARY = record(
    {
        "layers": many(whole()),
        "types": table(COUNTS),
        "products": COUNTS,
        "reformats": whole(),
        "fused": many(free),
        "attention": record({"softmax": whole(), "fused": whole()}),
        "quantized": record({"asked": whole(), "ran": whole(), "elsewhere": table(many(text()))}),
    },
    rest=anything,
)

COMMON = {
    "built_by": one_of("pipeline", "trtexec"),
    "builder": NAME,
    "precision": NAME,
    "device": NAME,
    "gpu": maybe(text()),
    "capabilities": many(row(whole(), whole()), least=1),
    "name": NAME,
    "profiles": anything,
    "version_compatible": flag,
    "hardware_compatibility": one_of("none", "ampere-plus", "same-compute-capability"),
    "layers_from": NAME,
    "summary": SUMMARY,
    "engine_sha256": SHA256,
    "provenance": PROVENANCE,
}

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "builder_version": NAME,
                "engine_bytes": whole(1),
                "seconds": maybe(free),
            },
            rest=anything,
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}, rest=anything),
    },
)
