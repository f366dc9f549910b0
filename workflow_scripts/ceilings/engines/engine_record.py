"""The record beside an engine, and the one way to an engine's bytes. Standard library only.

Deserialising runs code of the file: nothing is handed out that was not built by the pipeline, or named by the study
with its digest, for this GPU and this version of the library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.errors import CellFailure, UserError

INCOMPATIBLE = "engine-incompatible"

NOWHERE_ELSE = "none"
AMPERE_PLUS = "ampere-plus"
SAME_CAPABILITY = "same-compute-capability"
HARDWARE_COMPATIBILITY = (NOWHERE_ELSE, AMPERE_PLUS, SAME_CAPABILITY)
"""On which GPUs other than the builder's own an engine may run."""


def sidecar(engine: Path | str) -> Path:
    """Where the record of an engine is: ``x.engine`` has ``x.json`` beside it."""
    return Path(engine).with_suffix(".json")


def load(engine: Path | str) -> dict[str, Any]:
    """The record of an engine that was built.

    Raises:
        CellFailure: The build failed, with the class of that failure.
        UserError: The record is missing, damaged, edited or of another version.
    """
    record = records.read(sidecar(engine), "engine", f"rebuild it with `{rebuild(engine)}`")
    if record["status"] != "ok":
        raise CellFailure(record["failure"]["kind"], f"no engine: {record['failure']['message']}")
    return record


def layers(engine: Path | str) -> dict[str, Any]:
    """What TensorRT tells of the layers of an engine: the file ``x.layers.json`` beside it.

    Raises:
        UserError: It is missing or damaged, or tells of another engine.
    """
    path, remedy = Path(engine).with_suffix(".layers.json"), f"rebuild it with `{rebuild(engine)}`"
    listing = records.read(path, "layers", remedy)
    if listing["engine_sha256"] != records.read(sidecar(engine), "engine", remedy)["engine_sha256"]:
        raise UserError(f"{path} tells of another engine than {sidecar(engine)}; {remedy}")
    return listing


def verified(engine: Path | str, *, builder: str, version: str, device: str, capability: tuple[int, int]) -> bytes:
    """The bytes of an engine that may be deserialised here; they are the ones whose digest was checked.

    Args:
        engine: Its path; the record lies beside it.
        builder: The generation that would load it, as in ``ceilings.engines.catalogue``.
        version: Version of the library that would, in full, such as ``10.16.1.11``.
        device: Slug of the GPU that would run it.
        capability: Compute capability of that GPU.

    Raises:
        CellFailure: ``engine-incompatible``, or the class of the failure if the engine could not be built.
        UserError: The engine or its record is missing or damaged beyond reading.
    """
    record = load(engine)
    if record["builder"] != builder:
        raise _refused(engine, f"it was built by {record['builder']}, and {builder} would load it")
    if not _version_fits(record, version):
        raise _refused(engine, f"it was built by version {record['builder_version']}, and {version} would load it")
    if reason := _gpu_differs(record, device, capability):
        raise _refused(engine, reason)
    try:
        content = Path(engine).read_bytes()
    except FileNotFoundError:
        raise _refused(engine, "the file is gone") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != record["engine_sha256"]:
        size = "" if len(content) == record["engine_bytes"] else f", {len(content)} bytes of {record['engine_bytes']}"
        raise _refused(engine, f"the file is not what was built (sha256 {digest[:12]}{size})")
    return content


def rebuild(engine: Path | str) -> str:
    """The command that makes an engine anew."""
    return f"snakemake --cores 1 --force {engine}"


def _version_fits(record: Mapping[str, Any], version: str) -> bool:
    built = record["builder_version"]
    if not record["version_compatible"]:
        return bool(built == version)
    return _numbers(built)[0] == _numbers(version)[0] and _numbers(built) <= _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _gpu_differs(record: Mapping[str, Any], device: str, capability: tuple[int, int]) -> str | None:
    """Why the GPU is another than the engine's; None if it fits."""
    built_for = [tuple(known) for known in record["capabilities"]]
    compatible = record["hardware_compatibility"]
    names = ", ".join(".".join(map(str, known)) for known in built_for)
    here = ".".join(map(str, capability))
    if compatible == AMPERE_PLUS:
        return None if capability >= (8, 0) else f"it runs on compute capability 8.0 or newer, and this GPU has {here}"
    if tuple(capability) not in built_for:
        return f"it was built for compute capability {names}, and this GPU has {here}"
    # An engine for a capability runs on every GPU that has it; one whose kernels were timed, on its own GPU only.
    if record["gpu"] is not None and compatible == NOWHERE_ELSE and record["device"] != device:
        return f"it was built on {record['device']}, and this GPU is {device}"
    return None


def _refused(engine: Path | str, why: str) -> CellFailure:
    return CellFailure(INCOMPATIBLE, f"{engine} is not loaded: {why}; rebuild it with `{rebuild(engine)}`")
