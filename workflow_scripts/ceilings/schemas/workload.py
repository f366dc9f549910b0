"""What is asked of a model: ``workload.json`` beside its weights."""

from ceilings.schemas.common import NAME, dim
from ceilings.schemas.terms import many, number, record, text

TENSOR = record({"name": NAME, "dtype": NAME, "dims": many(dim), "content": text(), "low": number(), "high": number()})

SCHEMA = record(
    {
        "task": NAME,
        "inputs": many(TENSOR, least=1),
        "outputs": many(TENSOR),
        "family": text(),
        "architecture": text(),
    }
)
