"""Makes the files of one engine: builds it in a separate process, or takes over one that the study names.

A build that fails leaves an empty engine and a record that says why: cells on it fail with that reason, the rest of the
study goes on.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from ceilings import environment, files, records
from ceilings.engines import inspect, libraries, profiles, trtexec
from ceilings.engines.catalogue import BUILDERS
from ceilings.engines.engine_record import sidecar
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import graph as graphs
from ceilings.isolation import ended_by, last_error, signal_name
from ceilings.lifetime import temporary_folder, tied
from ceilings.provenance import provenance

SETTINGS = {
    "tf32": None,
    "optimization_level": None,
    "workspace_mb": None,
    "version_compatible": False,
    "hardware_compatibility": "none",
}
"""Keys of the slice that become the builder's settings, and what is recorded of an engine from elsewhere."""

NO_LAYERS = {"source": "none", "Layers": [], "I/O Tensors": []}

Record = dict[str, Any]


def produce(spec: Mapping[str, Any], graph: Path, engine: Path, *, precision: str, device: str) -> Record:
    """Write ``x.engine`` and beside it ``x.json`` (the record), ``x.layers.json`` and ``x.timing.cache``.

    Args:
        spec: The engine's slice of the study.
        graph: The typed ONNX file.
        engine: Path of the engine.
        precision: Of the engine.
        device: Slug of the GPU or of the compute capability that it is for.

    Returns:
        The record.

    Raises:
        UserError: The builder is not here, or an external engine is another than the study names.
    """
    external = spec.get("external")
    model = onnx.ModelProto()
    with temporary_folder() as name:
        folder = Path(name)
        try:
            model = graphs.load(graph, values=False)
            built = _adopt(spec, external, folder) if external else _build(spec, precision, graph, folder)
        except CellFailure as failure:
            built = _failed(failure.kind, str(failure), spec)
        content, timed = (_bytes(folder / part) for part in ("engine", "timing.cache"))
        listing = files.read_json(folder / "layers.json") if (folder / "layers.json").exists() else NO_LAYERS
    operators = {node.name: node.op_type for node in model.graph.node}
    record = {
        **built,
        "builder": spec["builder"],
        "precision": precision,
        "device": device,
        "gpu": spec["gpu"],
        "capabilities": [spec["capability"]],
        "name": spec["name"],
        "profiles": (external or spec)["profiles"],
        **{key: spec.get(key, default) for key, default in SETTINGS.items()},
        "trtexec": None if external or not model.graph.node else _trtexec(spec, graph, engine, model),
        "layers_from": listing["source"],
        "summary": inspect.summary(inspect.layers(listing), operators, graphs.quantized_products(model)),
        "engine_bytes": len(content),
        "engine_sha256": hashlib.sha256(content).hexdigest(),
        "provenance": provenance(BUILDERS[spec["builder"]].distributions, {"graph": graph}),
    }
    # The engine before the record that vouches for it.
    files.write_bytes(engine, content)
    if BUILDERS[spec["builder"]].timing_cache:
        files.write_bytes(engine.with_suffix(".timing.cache"), timed)
    described = {**listing, "engine_sha256": record["engine_sha256"]}
    records.write(engine.with_suffix(".layers.json"), "layers", described)
    return records.write(sidecar(engine), "engine", record)


def _build(spec: Mapping[str, Any], precision: str, graph: Path, folder: Path) -> Record:
    """What the building process leaves in ``folder``, and the part of the record that comes from it."""
    settings = {"builder": spec["builder"], "precision": precision, "profiles": spec["profiles"]}
    settings |= {key: spec[key] for key in SETTINGS}
    # By name wherever the builder can: then the engine is for exactly what the record says.
    settings["capability"] = spec["capability"] if BUILDERS[spec["builder"]].capabilities else None
    task = {"graph": str(graph), "settings": settings, "timing_cache": spec["timing_cache"]}
    files.write_task(folder / "task.json", task)
    command = [sys.executable, "-m", "ceilings.engines.build_worker", str(folder / "task.json"), str(folder)]
    done = subprocess.run(
        command,
        env=environment.known() | libraries.linked(BUILDERS[spec["builder"]], folder),
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=tied(),
    )
    sys.stderr.write(done.stderr)
    if done.returncode < 0:
        return _failed("crashed", f"the builder was {ended_by(signal_name(-done.returncode))}", spec)
    if done.returncode:
        error = last_error(done.stderr) or f"exit status {done.returncode}"
        if error.startswith("error: "):
            raise UserError(error.removeprefix("error: "))
        return _failed("build-failed", f"the building process ended with an error: {error[:300]}", spec)
    built = files.read_json(folder / "built.json")
    return _record_of(built, built.get("version") or spec["version"], "pipeline")


def _adopt(spec: Mapping[str, Any], external: Mapping[str, Any], folder: Path) -> Record:
    """An engine that trtexec built, taken over if it is the one that the study names."""
    path = Path(external["path"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"engines.external.{spec['name']}.path: {path} cannot be read ({error.strerror})") from None
    given = hashlib.sha256(content).hexdigest()
    if given != external["sha256"]:
        raise UserError(
            f"engines.external.{spec['name']}: {path} has sha256 {given}, not {external['sha256']}; it is another file "
            "than the study names, and is not loaded"
        )
    files.write_bytes(folder / "engine", content)
    return _record_of({"status": "ok", "failure": None}, external["version"], "trtexec")


def _failed(kind: str, message: str, spec: Mapping[str, Any]) -> Record:
    failure = {"kind": kind, "message": message}
    return _record_of({"status": "failed", "failure": failure}, spec.get("version"), "pipeline")


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _record_of(built: Mapping[str, Any], version: str | None, by: str) -> Record:
    return {
        "status": built["status"],
        "failure": built["failure"],
        "built_by": by,
        "builder_version": version,
        "seconds": built.get("seconds"),
        "network_layers": built.get("network_layers"),
        "warnings": built.get("warnings", []),
    }


def _trtexec(spec: Mapping[str, Any], graph: Path, engine: Path, model: Any) -> str:
    builder = BUILDERS[spec["builder"]]
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in constants
    }
    return trtexec.command(
        builder.name,
        str(graph),
        str(engine),
        inputs,
        profiles.read(spec["profiles"]),
        **{key: spec[key] for key in SETTINGS},
        timing_cache=(spec["timing_cache"] or "timing.cache") if builder.timing_cache else None,
        capability=tuple(spec["capability"]) if builder.capabilities else None,
    )
