"""The records beside the latencies: where weights came from, what became of the graphs, how exact the outputs are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ceilings import records
from ceilings.errors import UserError


class EngineKey(NamedTuple):
    """What names an engine, as its path does."""

    device: str
    builder: str
    model: str
    precision: str
    name: str


@dataclass(frozen=True)
class Evidence:
    """Records by model, by graph where a model has several, by device where they are a machine's, by capture."""

    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    graphs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    parity: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    peaks: dict[str, dict[str, Any]] = field(default_factory=dict)
    engines: dict[EngineKey, dict[str, Any]] = field(default_factory=dict)
    explained: dict[str, dict[str, Any]] = field(default_factory=dict)


KINDS = {"parity": "parity", "onnx": "graph", "models": "weights", "hosts": "peaks"}
"""Folder of the results tree to the kind of record that lies there."""


def read_evidence(paths: Iterable[Path | str]) -> Evidence:
    """Sort JSON files by their place in the results tree.

    ``models/{model}/weights/provenance.json``, ``onnx/{model}/*.json``, ``parity/{model}/**.json``,
    ``hosts/{device}/peaks.json``, ``engines/{device}/{builder}/{model}/{precision}/{name}.json`` and
    ``explained/{capture}.json``.

    Raises:
        UserError: A file is missing, damaged or in none of these places.
    """
    evidence = Evidence()
    for path in sorted(map(Path, paths), key=lambda path: "parity" in path.parts):  # behind the graphs
        parts = path.parts
        if parts[-6:-5] == ("engines",):
            device, builder, model, precision = parts[-5:-1]
            key = EngineKey(device, builder, model, precision, path.stem)
            evidence.engines[key] = _named(path, "engine", **key._asdict())
            continue
        if parts[-2:-1] == ("explained",):
            evidence.explained[path.stem] = _named(path, "explanation", name=path.stem)
            continue
        for room in KINDS:
            if room in parts[:-2]:
                at = len(parts) - 1 - parts[::-1].index(room)
                model, graph = parts[at + 1], "/".join((*parts[at + 2 : -1], path.stem))
                break
        else:
            raise UserError(
                f"{path} is no evidence that the summary knows: give models/*/weights/provenance.json, onnx/*/*.json, "
                "parity/*/*.json, hosts/*/peaks.json, engines/*/*/*/*/*.json or explained/*.json"
            )
        if room == "models":
            evidence.weights[model] = _named(path, KINDS[room], model=model)
        elif room == "onnx":
            evidence.graphs[model, graph] = records.read(path, KINDS[room])
        elif room == "parity":
            evidence.parity[model, graph] = _of_its_graph(path, evidence.graphs.get((model, graph)))
        else:
            evidence.peaks[model] = _named(path, KINDS[room], device=model)
    return evidence


def _of_its_graph(path: Path, graph: Mapping[str, Any] | None) -> dict[str, Any]:
    """A record of parity, held against the report of the graph that its path names, where that is given.

    Raises:
        UserError: It is missing or damaged, or was made from another graph.
    """
    record = records.read(path, "parity")
    compared = ((record["provenance"] or {}).get("sources") or {}).get("graph")
    if graph and compared and graph["status"] == "ok" and compared != graph["graph_sha256"]:
        raise UserError(f"{path} is of another graph than the report beside it in onnx; {records.anew(path)}")
    return record


def _named(path: Path, kind: str, **names: str) -> dict[str, Any]:
    """A record that says of itself what its path says of it.

    Raises:
        UserError: It is missing or damaged, or of something else.
    """
    record = records.read(path, kind)
    for key, value in names.items():
        if key in record and record[key] != value:
            raise UserError(f"{path} has {key} {record[key]!r}, not {value!r} as its path; {records.anew(path)}")
    return record
