"""What each layer of an engine takes, by TensorRT's profiler (``profile_layers.py``)."""

from ceilings.schemas.common import FAILURE, NAME, NOT_NEGATIVE, PROVENANCE
from ceilings.schemas.terms import anything, by, free, many, maybe, one_of, record, text, whole

COMMON = {"device": NAME, "runtime": NAME, "precision": NAME, "shape": NAME, "provenance": PROVENANCE}
LAYER = record(
    {
        "name": text(),
        **dict.fromkeys(("median_ns", "p10_ns", "p90_ns"), NOT_NEGATIVE),
        "kind": maybe(text()),
        "precision": maybe(text()),
        "nodes": maybe(many(text())),
    }
)

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "iterations": whole(1),
                "layers": many(LAYER),
                "layers_sum_ns": NOT_NEGATIVE,
                "inference_ns": record({"plain": NOT_NEGATIVE, "profiled": NOT_NEGATIVE}),
                "runtime": free,
            }
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}, rest=anything),
    },
)
