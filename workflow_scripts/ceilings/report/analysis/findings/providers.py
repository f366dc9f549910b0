"""Question 2: what TensorRT adds over the CUDA provider, and native TensorRT over ONNX Runtime's provider."""

from __future__ import annotations

import json

from ceilings.report import text
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Finding,
    Status,
    change,
    named,
    names,
    processes_entry,
    short,
    status_of,
    sweep_entry,
    times,
)
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.measured import Cell, Measured, carries, equivalence
from ceilings.report.analysis.stack_levers import base_levers, runtimes_of
from ceilings.runtimes.catalogue import (
    GRAPH,
    ORT_CUDA,
    ORT_TENSORRT,
    ORT_TENSORRT_RTX,
    TENSORRT,
    TENSORRT_PACKAGES,
    TENSORRT_RTX,
)
from ceilings.statistics.decisions import beyond
from ceilings.statistics.estimands import MEAN, P50, P99, Estimand

TOPIC = "TensorRT"

PROVIDERS = {TENSORRT: ORT_TENSORRT, TENSORRT_RTX: ORT_TENSORRT_RTX}
"""Native TensorRT, and the provider of ONNX Runtime that it is held against."""

FASTER = "TensorRT is faster than the CUDA provider at the same precision"
EQUIVALENT = "Native TensorRT and ONNX Runtime's TensorRT provider are equal in {} within {:.0%}"


def providers(measured: Measured) -> list[Finding]:
    """Each TensorRT cell against the CUDA provider's, and native against the provider by mean, p50 and p99."""
    findings = []
    for cell in measured.cells:
        if cell.stack in {ORT_TENSORRT, TENSORRT}:
            findings += _against_cuda(measured, cell)
    compared = False
    for cell in measured.cells:
        if cell.stack not in PROVIDERS:
            continue
        other = measured.find_stack(cell, PROVIDERS[cell.stack], like_native(cell))
        if other is not None:
            findings += [_equivalence(measured, estimand, cell, other) for estimand in (MEAN, P50, P99)]
            compared = True
    precisions = sorted({cell.precision for cell in measured.cells if on_gpu(cell)} & {"fp32"} | {"fp16"})
    both = [*runtimes_of(ORT_CUDA, ()), *runtimes_of(ORT_TENSORRT, ()), *runtimes_of(TENSORRT, ())]
    if not any(finding.claim == FASTER for finding in findings):
        sentence = "No TensorRT cell was measured beside one of the CUDA provider."
        wanted = sweep_entry(measured, both, precisions)
        findings.append(
            Finding(TOPIC, sentence, (), question=2, claim=FASTER, status="not decidable", missing=(wanted,))
        )
    if not compared:
        sentence = "Native TensorRT and the provider were not both measured."
        claim = EQUIVALENT.format("mean, p50 and p99", MARGIN)
        wanted = sweep_entry(measured, both[1:], precisions)
        findings.append(
            Finding(TOPIC, sentence, (), question=2, claim=claim, status="not decidable", missing=(wanted,))
        )
    return findings


def _against_cuda(measured: Measured, cell: Cell) -> list[Finding]:
    """Against the provider's fastest cell that is replayed as a CUDA graph too, or is not either; and its fastest."""
    members = [
        one
        for one in measured.cells
        if one.stack == ORT_CUDA
        and (one.device, one.model, one.precision, one.shape) == (cell.device, cell.model, cell.precision, cell.shape)
    ]
    graph = GRAPH in cell.levers
    like = [one for one in members if (GRAPH in one.levers) == graph]
    if not like:
        return []
    fastest = [min(cells, key=lambda one: one.p50.estimate) for cells in (like, members)]
    pairs = [measured.compare(cell, one) for one in dict.fromkeys(fastest)]
    sentence = f"{named(measured, cell)}: "
    sentence += "; ".join(change(pair, pair.b.label) for pair in pairs)
    decisive = pairs[0]
    status = status_of(decisive.verdict, measured.equivalent(decisive.a, decisive.b, MARGIN))
    missing = (processes_entry([cell]),) if status == "not decidable" else ()
    cells = names([cell, *(pair.b for pair in pairs)])
    return [
        Finding(
            *(TOPIC, f"{sentence}.", cells, decisive.ratio, decisive.verdict, 2, FASTER, short(cell), status, missing),
            brief=f"{named(measured, cell)} is {times(decisive)} than {decisive.b.label}." if decisive.decided else "",
        )
    ]


def _equivalence(measured: Measured, estimand: Estimand, native: Cell, provider: Cell) -> Finding:
    claim = EQUIVALENT.format(estimand.name, MARGIN)
    at = f"{named(measured, native)} over {provider.label}, {estimand.name}: "
    cells = names([native, provider])
    versions = [tensorrt_versions(measured, cell) for cell in (native, provider)]
    if all(versions) and versions[0].isdisjoint(versions[1]):
        sentence = (
            f"{at}not compared, TensorRT {text.listed(sorted(versions[0]))} against {text.listed(sorted(versions[1]))}."
        )
        return Finding(TOPIC, sentence, cells, question=2, claim=claim, status="not decidable")
    if not all(carries(cell.groups, estimand) for cell in (native, provider)):
        wanted = f"protocol: {{min_iterations: {estimand.samples}}}"
        sentence = f"{at}needs {estimand.samples} iterations of each."
        return Finding(TOPIC, sentence, cells, question=2, claim=claim, status="not decidable", missing=(wanted,))
    ratio = equivalence(native, provider, estimand)
    status: Status = "not decidable"
    if measured.equivalent(native, provider, MARGIN, estimand):
        status = "supported"
    elif beyond(ratio, max(MARGIN, measured.noise_floor(native.device, estimand) or 0.0)):
        status = "refuted"
    words = {
        "supported": f"equal within {MARGIN:.0%}",
        "refuted": f"they differ by more than {MARGIN:.0%}",
        "not decidable": f"undecided: it may be within {MARGIN:.0%} or beyond",
    }[status]
    missing = (processes_entry([native, provider]),) if status == "not decidable" else ()
    sentence = f"{at}{text.interval(ratio, '×')} (90%), {words}."
    brief = "" if status == "not decidable" else f"{at}{text.number(ratio.estimate)}×, {words}."
    return Finding(TOPIC, sentence, cells, ratio, None, 2, claim, short(native), status, missing, brief=brief)


def like_native(cell: Cell) -> frozenset[str]:
    """Levers of the provider's cell that a native one is held against: a CUDA graph where that has one."""
    return base_levers(PROVIDERS[cell.stack]) | (cell.levers & {GRAPH})


def tensorrt_versions(measured: Measured, cell: Cell) -> set[str]:
    """Major and minor versions of TensorRT that a cell's processes recorded."""
    versions = set()
    for recorded in measured.runs(cell)["environment"].dropna():
        packages = json.loads(recorded).get("packages") or {}
        versions |= {
            ".".join(str(version).split(".")[:2])
            for name, version in packages.items()
            if name.startswith(TENSORRT_PACKAGES) and version
        }
    return versions
