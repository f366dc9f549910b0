"""The layers of an engine, as TensorRT tells of them (beside ``x.engine``)."""

from ceilings.schemas.common import NAME, SHA256
from ceilings.schemas.terms import free, many, record

SCHEMA = record({"source": NAME, "Layers": many(free), "I/O Tensors": many(free), "engine_sha256": SHA256})
