"""What is asked of a model: ``workload.json`` beside its weights."""

from ceilings.schemas.common import NAME, dim
from ceilings.schemas.terms import many, number, record, text, whole

TENSOR = record({"name": NAME, "dtype": NAME, "dims": many(dim), "content": text(), "low": number(), "high": number()})

DECODER = record(
    {**dict.fromkeys(("layers", "heads", "kv_heads", "head_size", "vocabulary"), whole(1)), "positions": whole()}
)

SCHEMA = record(
    {
        "task": NAME,
        "inputs": many(TENSOR, least=1),
        "outputs": many(TENSOR),
        "family": text(),
        "architecture": text(),
    },
    {"decoder": DECODER},
)
