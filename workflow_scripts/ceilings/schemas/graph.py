"""The report beside an ONNX graph: what was done to make it, and what it is."""

from ceilings.schemas.common import COUNTS, FAILED, PROVENANCE, SHA256, TENSORS
from ceilings.schemas.terms import anything, by, one_of, record, whole

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                "status": one_of("ok"),
                "opset": whole(),
                "nodes": whole(1),
                "op_types": COUNTS,
                "inputs": TENSORS,
                "outputs": TENSORS,
                "bytes": whole(1),
                "graph_sha256": SHA256,
                "provenance": PROVENANCE,
            },
            rest=anything,
        ),
        "failed": FAILED,
    },
)
