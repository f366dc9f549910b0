"""The columns of the tables of serving, for what makes them and for what reads them."""

from __future__ import annotations

from ceilings.report.tables.keys import KEY
from ceilings.report.tables.served_windows import PARTS

CELL = [name for name in KEY if name != "device"]
SERVED = ["device", "deployment", *CELL]
"""The columns that name a cell behind a deployment."""

LOAD = ["load", "kind", "concurrency", "asked", "rate_per_s"]

WINDOW_COLUMNS = [
    *(*SERVED, *LOAD, "run", "round", "n", "failures", "seconds", "p50_ms", "client_ms", "late_ms", "answered_per_s"),
    *("requests", "executions", "inferences", "request_ms", *PARTS, "batch_sizes", "client_busy", "growing", "flags"),
]
"""One row a window: what the client saw and what the server counted in it."""

SAMPLE_COLUMNS = [*SERVED, "load", "run", "round", "latency_ns"]
"""One row a request, in the order they were to be sent."""
