"""The engines: what was built, what was fused, and which layers really run in the precision that the study names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.tables.evidence import EngineKey, Evidence

Record = Mapping[str, Any]

QUANTIZED = ("int8", "fp8")
NODES_SHOWN = 5


def section(evidence: Evidence) -> str:
    """The section of the lab note; empty where the study builds no engine."""
    if not evidence.engines:
        return ""
    headers = ["engine", "precision", "shapes", "MB", "build s", "layers", "products", "attention fused", "quantised"]
    engines = sorted(evidence.engines.items())
    rows = [_row(key, record) for key, record in engines if record["status"] == "ok"]
    notes = [note for key, record in engines for note in _notes(key, record, evidence)]
    parts = ["## Engines"]
    if rows:
        parts.append(
            "Products: matrix products and attention, by the type that their matrix units take. Quantised: how many of "
            "the products that the graph quantises run so. Layers: of each optimisation profile."
        )
        parts.append(text.table(rows, headers, "lllrrrlrr"))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def _row(key: EngineKey, record: Record) -> list[Any]:
    summary = record["summary"]
    seconds = record["seconds"]["build"] if record["seconds"] else None
    attention, quantized = summary["attention"], summary["quantized"]
    known = bool(summary["layers"])
    by = "" if record["built_by"] == "pipeline" else f", by {record['built_by']}"
    return [
        f"{key.model} on `{key.device}`, {key.builder} {record['builder_version']}{by}",
        key.precision,
        key.name,
        f"{record['engine_bytes'] / 1e6:.1f}",
        text.number(seconds),
        " + ".join(map(str, summary["layers"])) or "unknown",
        ", ".join(f"{count} {precision}" for precision, count in summary["products"].items()) or "unknown",
        f"{attention['fused']} of {attention['softmax']}" if known else "unknown",
        f"{quantized['ran']} of {quantized['asked']}" if known and quantized["asked"] else "",
    ]


def _notes(key: EngineKey, record: Record, evidence: Evidence) -> list[str]:
    label = f"{key.model} {key.precision} {key.name} on `{key.device}` ({key.builder})"
    if record["status"] != "ok":
        return [f"{label}: no engine ({record['failure']['kind']}): {record['failure']['message']}"]
    notes = []
    summary = record["summary"]
    elsewhere = summary["quantized"]["elsewhere"]
    if summary["layers"] and elsewhere:
        shown = ", ".join(f"`{node}` ({', '.join(kinds)})" for node, kinds in list(elsewhere.items())[:NODES_SHOWN])
        more = f" and {len(elsewhere) - NODES_SHOWN} more" if len(elsewhere) > NODES_SHOWN else ""
        notes.append(f"{label}: quantised in the graph and not in the engine: {shown}{more}.")
    fp16 = evidence.engines.get(key._replace(precision="fp16"))
    if key.precision in QUANTIZED and fp16 and fp16["status"] == "ok" and summary["layers"]:
        here, there = summary["layers"][0], fp16["summary"]["layers"][0]
        if here > there:
            notes.append(
                f"{label}: {here} layers where fp16 has {there}, as Q/DQ nodes are layers too. At small batches they "
                "can take more time than the narrower products save: compare the latencies."
            )
    return notes
