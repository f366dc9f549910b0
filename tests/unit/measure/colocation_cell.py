"""Co-locations that are measured in seconds: instances of the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unit.measure import tiny_cell

from ceilings import host as hosts
from ceilings.measure.colocation import company, placed

CELL = "onnxruntime-cpu/tiny/fp32/b2-s4"
PROTOCOL = {"warmup_seconds": 0.05, "warmup_max_seconds": 0.2, "min_seconds": 0.05, "time_limit_seconds": 100}


def make(
    folder: Path, how: str = "threads", cores: str = "shared", count: int = 2, error: float = 0.0
) -> dict[str, Any]:
    """The task of so many instances; the reference of the last one is off by ``error``."""
    folders = [folder / "right", folder / "last"]
    for one in folders:
        one.mkdir(parents=True)
    right, last = tiny_cell.make(folders[0], []), tiny_cell.make(folders[1], [], error)
    instances = placed([CELL] * count, cores, 1, hosts.physical_cores())
    tasks = [
        {
            **(last if at == count - 1 else right),
            "spec": {key: value for key, value in right["spec"].items() if key not in ("protocol", "measurements")}
            | {"threads": one.threads},
            "processors": list(one.processors),
            "member": one.member,
            "batch": 2,
        }
        for at, one in enumerate(instances)
    ]
    return {
        **{"device": "cpu-here", "gpu": None, "how": how, "instances": tasks, "company": company(instances)},
        "protocol": PROTOCOL,
        "physical_cores": len(hosts.physical_cores()),
        "spec": {"threads": 1, "variables": None, "protocol": {"time_limit_seconds": 100}},
    }
