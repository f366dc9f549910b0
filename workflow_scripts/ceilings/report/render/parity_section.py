"""Parity with the FP32 reference, and what became of the graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.graphs.parity import too_far
from ceilings.graphs.token_parity import allowed
from ceilings.records import SEAL
from ceilings.report import text
from ceilings.report.render.conditions import reference
from ceilings.report.tables.evidence import Evidence

Plan = Mapping[str, Any]

LAYERS_SHOWN = 5


TOKENS = ("same tokens", "rows equal", "first difference", "largest margin", "faults seen")
"""Columns of models that generate."""

TOKENS_LEGEND = (
    "Of models that generate: tokens that are the reference's; rows of which all are; the earliest place at which one "
    "differs. There a row becomes another text, which the reference reads too: by how many standard errors of the "
    "logits it preferred another token at any place of such texts, at most. Same top class: of these texts, the share "
    "of tokens that it would choose as well. Faults seen: of those that the reference commits on purpose in its first "
    "decode step (a slot of the cache that is empty, in its middle or at its end; a position that is one too small), "
    "how many move the logits by more than this comparison lets pass."
)


def _tokens(record: Mapping[str, Any], tolerance: float | None) -> list[str]:
    """The columns ``TOKENS``; empty where a record says nothing of tokens."""
    if record.get("token_agreement") is None:
        return [""] * len(TOKENS)
    equal, first, margin = (record.get(name) for name in ("rows_equal", "first_difference", "largest_margin"))
    return [
        text.percent(record["token_agreement"]),
        "n/a" if equal is None else text.percent(equal),
        "none" if first is None else f"token {first + 1}",
        "n/a" if margin is None else f"{text.number(margin)} σ",
        _seen(record, tolerance),
    ]


def _seen(record: Mapping[str, Any], tolerance: float | None) -> str:
    """How many of the reference's faults the comparison would see; empty where nothing says what they move."""
    moved = record.get("sensitivity") or {}
    if not moved or tolerance is None:
        return ""
    return f"{sum(each > allowed(record, tolerance) for each in moved.values())} of {len(moved)}"


def parity(plan: Plan, evidence: Evidence) -> str:
    if not evidence.parity:
        return ""
    tolerances = plan.get("tolerances", {})
    rows, layers = [], []
    for (model, graph), record in sorted(evidence.parity.items()):
        top1, tolerance = record.get("top1_agreement"), tolerances.get(graph.split("/")[0].split(".")[0])
        rows.append(
            [
                model,
                graph,
                _verdict(record, tolerance),
                *(text.powers(record.get(name)) for name in ("max_abs", "max_rel", "relative_l2")),
                f"{record['cosine']:.6f}" if record.get("cosine") is not None else "n/a",
                text.percent(top1) if top1 is not None else "n/a",
                *_tokens(record, tolerance),
                record.get("reason") or "",
            ]
        )
        worst = sorted(record.get("layers") or [], key=lambda layer: layer["sqnr_db"])[:LAYERS_SHOWN]
        if worst:
            named = "; ".join(f"`{layer['node']}` {layer['sqnr_db']:.1f} dB" for layer in worst)
            layers.append(f"- {model} {graph}: layers with the lowest signal-to-quantisation-noise: {named}.")
    headers = ["model", "graph", "status", "max abs", "max rel", "rel. L2", "lowest cosine", "same top class"]
    headers += [*TOKENS, "note"]
    used = [i for i in range(len(headers)) if headers[i] not in TOKENS or any(row[i] for row in rows)]
    rows, headers = [[row[i] for i in used] for row in rows], [headers[i] for i in used]
    lines = [
        "## Parity with the FP32 reference",
        f"{reference(plan)} Of several outputs the worst counts; the lowest cosine is that of any row.",
        text.table(rows, headers, "lll" + "r" * (len(headers) - 4) + "l"),
        *([TOKENS_LEGEND] if set(TOKENS) & set(headers) else []),
    ]
    random = [model for model, record in evidence.weights.items() if record.get("source") == "random"]
    if random:
        lines.append(
            f"The weights of {text.listed(random)} are random: agreement of the top class means nothing there."
        )
    return "\n\n".join([*lines, *(["\n".join(layers)] if layers else [])])


def _verdict(record: Mapping[str, Any], tolerance: float | None) -> str:
    """``ok`` only where the outputs are near enough by the study's tolerance, whatever the record says."""
    status = str(record.get("status", "n/a"))
    return "too far" if status == "ok" and tolerance is not None and too_far(record, tolerance) else status


def graphs(evidence: Evidence) -> str:
    """The plain values of each report."""
    if not evidence.graphs:
        return ""
    rows = [
        [model, graph, "; ".join(_plain(record)) or "no details"] for (model, graph), record in evidence.graphs.items()
    ]
    return "## Graphs\n\n" + text.table(sorted(rows), ["model", "graph", "report"], "lll")


def _plain(record: Mapping[str, Any]) -> list[str]:
    hidden = {*SEAL, "provenance", "sources"}
    return [
        f"{name.replace('_', ' ')} {f'{value:.2g}' if isinstance(value, float) else value}"
        for name, value in record.items()
        if name not in hidden and not name.endswith("sha256") and isinstance(value, str | int | float)
    ]
