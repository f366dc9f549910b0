"""The engine that ONNX Runtime's TensorRT provider builds for itself and keeps in a folder, as a file target.

Made once by a rule, whose record says what the first start cost; timed processes then start from it. What proves that
none of them built anew: a build writes the folder, and nothing in it has changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.engines.engine_record import INCOMPATIBLE, rebuild
from ceilings.errors import CellFailure
from ceilings.files import sha256

SUFFIX = ".cache.json"
"""Of the record; the folder is called the same less ``.json``."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of the provider, when it builds and when it starts from the folder alike.

    Attributes:
        graph: The typed ONNX graph.
        folder: Where the engine is kept.
        timing_cache: Folder of what all such builds on the device timed.
        optimization_level: Of the builder.
        workspace_mb: Limit of the builder's scratch memory; None: the device's.
    """

    graph: str
    folder: str
    timing_cache: str
    optimization_level: int
    workspace_mb: int | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Of a record's ``plan``."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """As it stands in a record."""
        return dataclasses.asdict(self)


def contents(folder: Path | str) -> dict[str, dict[str, Any]]:
    """The files below a folder by name: size, digest, and when it was written last, in ns."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
            "modified_ns": path.stat().st_mtime_ns,
        }
        for path in paths
    }


def load(path: Path, *, device: str, versions: Mapping[str, str | None]) -> tuple[dict[str, Any], Plan]:
    """The record of a kept engine, once it is known to be whole and to belong here.

    Args:
        path: The record.
        device: Slug of the GPU that would run it.
        versions: Of ONNX Runtime and of TensorRT's library, as they would load it.

    Raises:
        CellFailure: The build failed, with its class; or ``engine-incompatible``.
        UserError: The record is missing or damaged.
    """
    record = records.read(path, "engine-cache", f"rebuild it with `{rebuild(path)}`")
    if record["status"] != "ok":
        raise CellFailure(record["failure"]["kind"], f"no engine: {record['failure']['message']}")
    plan = Plan.from_json(record["plan"])
    if record["device"] != device:
        raise _refused(path, f"it was built on {record['device']}, and this GPU is {device}")
    for name, version in versions.items():
        if record["versions"].get(name) != version:
            raise _refused(path, f"it was built with {name} {record['versions'].get(name)}; here is {version}")
    if record["graph_sha256"] != sha256(plan.graph):
        raise _refused(path, f"it was built from another {plan.graph}")
    if differing := _differing(record["files"], contents(plan.folder)):
        raise _refused(path, f"{', '.join(differing)} in {plan.folder} is not what was built")
    return record, plan


def _differing(kept: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Names of files that are missing, added or changed; when they were written does not count: folders are copied."""

    def content(files: Mapping[str, Any], name: str) -> Any:
        return files[name]["sha256"] if name in files else None

    return [name for name in sorted({*kept, *present}) if content(kept, name) != content(present, name)]


def _refused(path: Path, why: str) -> CellFailure:
    return CellFailure(INCOMPATIBLE, f"{path} is not used: {why}; rebuild it with `{rebuild(path)}`")
