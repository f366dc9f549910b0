"""The records beside the latencies: where weights came from, what became of the graphs, how exact the outputs are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ceilings.errors import UserError
from ceilings.files import read_json


class EngineKey(NamedTuple):
    """What names an engine, as its path does."""

    device: str
    builder: str
    model: str
    precision: str
    name: str


@dataclass(frozen=True)
class Evidence:
    """Records by model, by graph where a model has several, by device where they are a machine's."""

    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    graphs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    parity: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    peaks: dict[str, dict[str, Any]] = field(default_factory=dict)
    engines: dict[EngineKey, dict[str, Any]] = field(default_factory=dict)


def read_evidence(paths: Iterable[Path | str]) -> Evidence:
    """Sort JSON files by their place in the results tree.

    ``models/{model}/weights/provenance.json``, ``onnx/{model}/*.json``, ``parity/{model}/**.json``,
    ``hosts/{device}/peaks.json`` and ``engines/{device}/{builder}/{model}/{precision}/{name}.json``.

    Raises:
        UserError: A file is missing, damaged or in none of these places.
    """
    evidence = Evidence()
    for path in map(Path, paths):
        parts = path.parts
        if parts[-6:-5] == ("engines",):
            device, builder, model, precision = parts[-5:-1]
            evidence.engines[EngineKey(device, builder, model, precision, path.stem)] = read_json(path)
            continue
        for room in ("parity", "onnx", "models", "hosts"):
            if room in parts[:-2]:
                at = len(parts) - 1 - parts[::-1].index(room)
                model, graph = parts[at + 1], "/".join((*parts[at + 2 : -1], path.stem))
                break
        else:
            raise UserError(
                f"{path} is no evidence that the summary knows: give models/*/weights/provenance.json, onnx/*/*.json, "
                "parity/*/*.json, hosts/*/peaks.json or engines/*/*/*/*/*.json"
            )
        record = read_json(path)
        if room == "models":
            evidence.weights[model] = record
        elif room == "onnx":
            evidence.graphs[model, graph] = record
        elif room == "parity":
            evidence.parity[model, graph] = record
        else:
            evidence.peaks[model] = record
    return evidence
