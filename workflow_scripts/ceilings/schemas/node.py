"""What a node of a cluster is (``describe_node.py``)."""

from ceilings.schemas.common import NAME
from ceilings.schemas.terms import flag, maybe, number, record, row, text, whole

GPU = record(
    {
        **dict.fromkeys(("slug", "name", "uuid", "driver"), NAME),
        "capability": row(whole(1), whole()),
        "memory_bytes": whole(1),
        "multiprocessors": whole(),
        "mig": maybe(text()),
    },
)

HOST = record(
    {
        **dict.fromkeys(("cpu_slug", "cpu_name"), NAME),
        "cores": whole(1),
        "gpu": maybe(GPU),
        "gpu_problem": maybe(text()),
        "cpu_quota": maybe(number()),
        **dict.fromkeys(("int8_saturates", "multiplies_bf16"), flag),
    },
    {"cards": maybe(whole())},
)

SCHEMA = record({"node": NAME, "host": HOST})
