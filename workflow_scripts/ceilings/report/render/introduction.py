"""What was measured on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.measured import Measured
from ceilings.report.render.conditions import is_onnx_file, named
from ceilings.report.render.generation_section import ITERATION
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables

Plan = Mapping[str, Any]


def counted(plan: Plan, tables: Tables, measured: Measured) -> str:
    """How many cells were measured on which devices, in one paragraph."""
    counts = Counter(tables.planned["status"])
    devices = sorted({cell.device for cell in measured.cells})
    on = f" on {text.listed(named(plan, tables, slug) for slug in devices)}" if devices else ""
    pairs = f", with {text.plural(len(measured.aa_pairs), 'A/A pair')}" if measured.aa_pairs else ""
    return (
        f"{counts['ok']} of {text.plural(len(tables.planned), 'planned cell')} measured{on}{pairs}"
        f" ({counts['unavailable']} not available here, {counts['failed']} failed). "
        f"Models: {text.listed(plan['models'])}. {len(tables.runs)} processes, {tables.iterations:,} timed iterations "
        "of the closed loop."
        f"{f' {ITERATION}' if any(cell.phase for cell in measured.cells) else ''}{_served(tables)}"
    )


def _served(tables: Tables) -> str:
    """How many deployments were measured with how many requests; empty where none was asked for."""
    if tables.serving.empty:
        return ""
    deployments = tables.serving.groupby(["device", "deployment"], dropna=False)
    whole = sum(all(same["status"] == "ok") for _, same in deployments)
    runs, requests = deployments["runs"].max().sum(), tables.serving["n"].sum()
    return (
        f" Behind servers: {whole} of {text.plural(len(deployments), 'deployment')} measured in whole, with "
        f"{text.plural(int(runs), 'run')} and {int(requests):,} requests."
    )


def introduction(plan: Plan, tables: Tables, measured: Measured, evidence: Evidence) -> str:
    """The same with where each model's weights came from."""
    weights = [_weights(model, plan["models"][model], evidence.weights.get(model)) for model in plan["models"]]
    return "\n\n".join([counted(plan, tables, measured), *weights])


def _weights(model: str, planned: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    digest = f", sha256 {record['sha256'][:12]}" if record and record.get("sha256") else ""
    if is_onnx_file(planned):
        return f"Weights of {model}: those of the ONNX file {planned['weights']['onnx']}{digest}."
    if record is None:
        return f"Weights of {model}: no record of where they came from."
    if record.get("status") == "failed":
        return f"> **Weights of {model} cannot be used**: {record['failure']['message']}."
    why = f" ({record['why']})" if record.get("why") else ""
    ids = f" Texts are random token ids: {record['random_ids']}." if record.get("random_ids") else ""
    if record["source"] == "random":
        return (
            f"> **Weights of {model} are random**{why}. Latencies are valid: the work does not depend on the values "
            f"(at the power cap the clock may, a little); accuracy, and agreement of the top class, mean nothing.{ids}"
        )
    where = f", {record['hub']}" if isinstance(record.get("hub"), str) else ""
    return f"Weights of {model}: {record['source']}{where}{why}{digest}.{ids}"
