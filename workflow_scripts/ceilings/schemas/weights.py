"""Where a model's weights come from: ``provenance.json`` of their folder (fetch_weights.py, import_onnx.py)."""

from ceilings.schemas.common import FAILED, NAME, PROVENANCE, SHA256
from ceilings.schemas.terms import anything, by, flag, maybe, one_of, record, row, table, text, whole

LIMITS = table(row(whole(), whole(1)))

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                "status": one_of("ok"),
                "model": NAME,
                "architecture": text(),
                "source": one_of("pretrained", "random", "path", "onnx"),
                "why": text(),
                "hub": maybe(text()),
                "revision": maybe(text()),
                "seed": maybe(whole()),
                "parameters": whole(),
                "limits": LIMITS,
                "sha256": SHA256,
                "tokenizer": flag,
                "provenance": PROVENANCE,
            },
            rest=anything,
        ),
        "failed": FAILED,
    },
)
