"""What a finding is, and the words that all of them share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from ceilings.report import text
from ceilings.report.analysis.measured import Cell, Judged, Measured, phase_of
from ceilings.report.analysis.measured_cell import GENERATED
from ceilings.report.analysis.stack_levers import takes
from ceilings.report.tables.keys import ONNX_FILE, axes_of
from ceilings.runtimes.catalogue import PYTORCH, RUNTIMES
from ceilings.statistics.intervals import Verdict
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

Status = Literal["supported", "refuted", "not decidable"]

QUESTIONS = {
    1: "Does ONNX Runtime's CUDA provider keep the GPU busy?",
    2: "Is TensorRT faster than the CUDA provider, and native TensorRT than ONNX Runtime's provider?",
    3: "From which size on does launch overhead stop mattering?",
    4: "Where does the latency turn from host-bound to device-bound?",
    5: "Which levers shorten the latency?",
    6: "Does lower precision pay, from which size on, and what does it cost?",
    7: "Do CUDA graphs shorten the tail?",
    8: "What is best for a latency limit, for throughput and for cost?",
    9: "What separates the best cell from the hardware floor?",
    10: "What bounds generation: batch, context, launches, the scheduler, the phase?",
    11: "What does serving cost: the server, its queue, its batches, the transport, the network?",
}
"""The questions of the study, by number, in the order of the summary."""

FEW = 32
"""Generated tokens that a sweep asks for where the study has prefills alone."""

MARGIN = 0.05
"""Two latencies that provably differ by less are called equivalent."""


@dataclass(frozen=True)
class Finding:
    """One thing that the data say.

    Attributes:
        topic: The group it is shown under; for a question, its short name.
        text: Markdown, one line: the finding with its intervals.
        cells: Names of the measured cells that it rests on.
        effect: The number that it states, None for a warning.
        verdict: What it claims of a latency; None where it compares none.
        question: The question that it answers, a key of ``QUESTIONS``.
        claim: The proposition that was put to the data, if one was.
        subject: What the claim is about here, in a few words.
        status: What the data say of the claim.
        missing: What would decide it, as entries of a study: a sweep in braces, or a section.
        measure: What the effect is a ratio of; of an amount, its unit.
        absolute: Whether the effect is an amount instead of a ratio.
        records: Other records that it rests on, as paths below the results folder.
        brief: The finding in one plain sentence with its number, Markdown; empty where only the text says it.
    """

    topic: str
    text: str
    cells: tuple[str, ...]
    effect: Interval | None = None
    verdict: Verdict | None = None
    question: int | None = None
    claim: str | None = None
    subject: str = ""
    status: Status | None = None
    missing: tuple[str, ...] = ()
    measure: str = "latency"
    records: tuple[str, ...] = ()
    brief: str = ""
    absolute: bool = False

    @property
    def undecided_by_noise(self) -> bool:
        """Whether cells were compared and the intervals do not decide."""
        wants_processes = any(entry.startswith("protocol: {processes") for entry in self.missing)
        open_ = self.status == "not decidable" and wants_processes
        return self.has_evidence and (self.verdict == "undecided" or open_)

    @property
    def effect_in_words(self) -> str:
        """The effect with its interval and what it is of; empty where there is none or nothing bounds it."""
        if self.effect is None or not self.effect.bounded:
            return ""
        if self.absolute:
            return f"{text.interval(self.effect)} ({self.measure})"
        return f"{text.interval(self.effect, '×')} (ratio of {self.measure})"

    @property
    def has_evidence(self) -> bool:
        """Whether it rests on anything measured."""
        return bool(self.cells or self.records)

    @property
    def claims_difference(self) -> bool:
        return self.verdict in {"faster", "slower"}


def status_of(verdict: Verdict, equivalent: bool = False, hoped: Verdict = "faster") -> Status:
    """Of the claim that something is ``hoped``: equality refutes it as well as its opposite."""
    if verdict == hoped:
        return "supported"
    if verdict in {"faster", "slower", "same within noise"} or equivalent:
        return "refuted"
    return "not decidable"


def combined(statuses: Iterable[Status]) -> Status:
    """Of a claim that holds only if all its parts do."""
    parts = set(statuses)
    if "refuted" in parts:
        return "refuted"
    return "supported" if parts == {"supported"} else "not decidable"


# --- what would decide it --------------------------------------------------------------------------------------------


def sweep_entry(
    measured: Measured,
    runtimes: Iterable[str],
    precisions: Iterable[str] | None = None,
    batches: Iterable[int] | None = None,
    shape: Shape | None = None,
    *,
    steps: bool = False,
) -> str:
    """A sweep of a study, as YAML on one line; what is not given is taken from the cells that were asked for.

    Runtimes that no model of the study can have are left out, and where all models generate precisions in which none of
    these runtimes does; what then is no comparison any more, no sweep decides.

    Args:
        batches: Sizes of the batch in place of the shape's.
        shape: The sizes otherwise; None: the common shape of each panel.
        steps: Whether its requests must have decode steps: more than one generated token.
    """
    asked = measured.tables.cells
    runtimes = named = _in_order(runtimes)
    if (asked["model_source"] == ONNX_FILE).all():
        runtimes = [name for name in runtimes if name not in RUNTIMES or RUNTIMES[name].stack != PYTORCH]
        if not runtimes or _one_side(runtimes, named):
            return NO_ENTRY
    phases = {phase_of(Shape.parse(name)) is not None for name in asked["shape"].unique()}
    taking = [[name for name in runtimes if name not in RUNTIMES or _taken(name, kind)] for kind in sorted(phases)]
    beside = {name for names in taking if not _one_side(names, named) for name in names}
    if not (runtimes := [name for name in runtimes if name in beside]):
        return NO_GENERATION
    wanted = _in_order(precisions or ("fp32", "fp16"))
    kept = [name for name in wanted if _generated(runtimes, name)] if phases == {True} else wanted
    if not kept or (precisions and _one_side(kept, wanted)):
        return NO_GENERATION
    sizes: dict[str, set[int]] = {}
    for one in [shape] if shape else measured.common_shapes.values() or [_smallest(asked["shape"])]:
        for axis, size in one.sizes:
            sizes.setdefault(axis, set()).add(size)
    if batches:
        sizes["batch"] = set(batches)
    if steps and sizes.get(GENERATED) == {1}:
        asked_for = [dict(Shape.parse(name).sizes).get(GENERATED, 1) for name in asked["shape"].unique()]
        sizes[GENERATED] = {most if (most := max(asked_for)) > 1 else FEW}
    listed = {axis: sorted(sizes[axis]) for axis in Shape.of(dict.fromkeys(sizes, 1)).axes}
    others = {axis: members for axis, members in listed.items() if axis not in SHORTHANDS}
    parts = {
        "models": sorted(asked["model"].unique()),
        "runtimes": runtimes,
        "precisions": kept,
        **{SHORTHANDS[axis]: members for axis, members in listed.items() if axis in SHORTHANDS},
        **({"axes": others} if others else {}),
    }
    return json.dumps(parts).replace('"', "")


def _one_side(kept: Sequence[str], named: Sequence[str]) -> bool:
    """Whether of a comparison one side is left, which alone decides nothing."""
    return len(kept) == 1 < len(named)


NO_ENTRY = "no sweep decides it: an ONNX file has no PyTorch runtime"
"""In place of a sweep whose runtimes the models of the study cannot have."""

NO_GENERATION = "no sweep decides it: such runtimes, or such precisions, do not run the models of this study"
"""In place of a sweep of runtimes that only generate, or never do, or of precisions in which nothing generates."""


def _taken(runtime: str, generating: bool) -> bool:
    """Whether a runtime takes models that generate, or those that do not."""
    return takes(RUNTIMES[runtime], generating=generating)


def _generated(runtimes: Sequence[str], precision: str) -> bool:
    """Whether one of the runtimes generates in a precision; plug-ins do, as far as is known here."""
    known = [RUNTIMES[name] for name in runtimes if name in RUNTIMES]
    return len(known) < len(runtimes) or any(precision in {*one.precisions} & {*one.generates} for one in known)


SHORTHANDS = {"batch": "batches", "sequence": "sequences"}
"""Keys of a sweep that stand for an axis; others are named below ``axes``."""


def _smallest(names: Iterable[str]) -> Shape:
    """The smallest size along each axis."""
    shapes = [Shape.parse(name) for name in set(names)]
    sizes = {axis: min(size for shape in shapes if (size := shape.get(axis))) for axis in axes_of(shapes)}
    return Shape.of(sizes)


def _in_order(values: Iterable[str]) -> list[str]:
    """As given, each once; a set is sorted, since the page must not depend on chance."""
    return sorted(values) if isinstance(values, Set) else list(dict.fromkeys(values))


def traces_entry(cells: Iterable[Cell]) -> str:
    """The section of a study that asks for captures."""
    names = (f"{cell.runtime}/{cell.model}/{cell.precision}/{cell.shape}" for cell in cells)
    return f"traces: {{cells: [{', '.join(dict.fromkeys(names))}]}}"


def processes_entry(cells: Sequence[Cell]) -> str:
    """The section of a study that narrows intervals."""
    return f"protocol: {{processes: {more_processes(max((len(cell.groups) for cell in cells), default=3))}}}"


def more_processes(processes: int) -> int:
    """So many processes a cell as narrow its interval: twice as many, and three at least.

    Over the medians of two processes Student's t is 12.7 times the standard error: such an interval decides next to
    nothing.
    """
    return max(3, 2 * processes)


# --- words -----------------------------------------------------------------------------------------------------------


def change(judged: Judged, base: str = "") -> str:
    """A ratio of latencies in words: ``2.1× [1.9, 2.3] faster than base``, or why it is no difference."""
    if judged.decided:
        factor = judged.ratio.inverted() if judged.verdict == "faster" else judged.ratio
        return f"**{text.interval(factor, '×')} {judged.verdict}**{f' than {base}' if base else ''}"
    whose = f" of {base}" if base else ""
    return f"{no_claim(judged)} ({text.interval(judged.ratio, '×')} the latency{whose})"


def times(judged: Judged) -> str:
    """The same in short, of a difference: ``2.1× faster``."""
    factor = judged.ratio.inverted() if judged.verdict == "faster" else judged.ratio
    return f"{text.number(factor.estimate)}× {judged.verdict}"


def no_claim(judged: Judged) -> str:
    """Why a ratio is not called a difference."""
    if judged.verdict == "same within noise":
        return "the same within noise"
    if judged.floor is not None and not math.isfinite(judged.floor):
        return "undecided, the noise floor is unknown"
    if not judged.ratio.bounded:
        return "undecided, one process"
    return "undecided, below the noise floor" if judged.below_floor else "undecided"


def signed_percent(factor: float) -> str:
    if not math.isfinite(factor):
        return "∞"
    percent = (factor - 1) * 100
    return f"{percent:+.1f}%" if abs(percent) < 10 else f"{percent:+.0f}%"


def names(cells: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.name for cell in cells))


def short(cell: Cell) -> str:
    """A cell's runtime, precision and shape: for a sentence that names its model and device."""
    return f"{cell.label} {cell.shape}"


def named(measured: Measured, cell: Cell) -> str:
    """A cell's name in a list of cells of any model and device."""
    return f"{panel(measured, cell)}{short(cell)}"


def panel(measured: Measured, cell: Cell) -> str:
    """Names the model and the device of a cell only where there are several to confuse."""
    return panel_of(measured, cell.model, cell.device)


def panel_of(measured: Measured, model: str, device: str) -> str:
    """As :func:`panel`."""
    words = [model] if measured.several_models else []
    words += [device] if len({one.device for one in measured.cells}) > 1 else []
    return f"{', '.join(words)}: " if words else ""


def where(measured: Measured, cell: Cell) -> str:
    return f"{panel(measured, cell)}{text.sizes(cell.shape)}"


def configuration(measured: Measured, cell: Cell) -> str:
    return f"{panel(measured, cell)}{cell.label}"
