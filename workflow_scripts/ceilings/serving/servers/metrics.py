"""What a server counts of itself, cumulative, and the difference between two looks at it. No sockets here."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

_LINE = re.compile(r'([A-Za-z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? +(\S+)(?: +-?\d+)?')
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPED = re.compile(r"\\(.)")


class MetricsError(Exception):
    """What a server answered is no text of Prometheus, or counts no such model."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One line: a name, labels and a value."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples(text: str) -> Iterator[Sample]:
    """The samples of Prometheus' text format.

    >>> [(one.labels["model"], one.value) for one in samples('# HELP n x\\nn{model="a b",version="1"} 3\\n')]
    [('a b', 3.0)]

    Raises:
        MetricsError: A line is none.
    """
    for line in text.splitlines():
        if not (line := line.strip()) or line.startswith("#"):
            continue
        parsed = _LINE.fullmatch(line)
        try:
            if parsed is None:
                raise ValueError
            yield Sample(parsed[1], dict(_labels(parsed[2] or "")), float(parsed[3]))
        except ValueError:
            raise MetricsError(f"no line of Prometheus' text: {line[:120]!r}") from None


def _labels(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        label = _LABEL.match(text, at)
        if label is None:
            raise ValueError
        yield label[1], _ESCAPED.sub(lambda escaped: "\n" if escaped[1] == "n" else escaped[1], label[2])
        at = label.end()


@dataclasses.dataclass(frozen=True)
class Counters:
    """Sums since the server began, of one model; None of what it does not count.

    Attributes:
        requests: Requests that were answered, errors apart.
        failures: Requests that were refused or failed.
        executions: Batches that were executed.
        inferences: Rows in them.
        queue_ns, compute_input_ns, compute_infer_ns, compute_output_ns: Over requests, as Triton counts: a batch of
            four requests adds its time four times.
        request_ns: From a request's arrival to its answer.
    """

    requests: int | None = None
    failures: int | None = None
    executions: int | None = None
    inferences: int | None = None
    queue_ns: int | None = None
    compute_input_ns: int | None = None
    compute_infer_ns: int | None = None
    compute_output_ns: int | None = None
    request_ns: int | None = None

    def __sub__(self, before: Counters) -> Counters:
        """What was counted since an earlier look.

        Raises:
            MetricsError: A counter ran backwards: the server was started anew between the two.
        """
        values = {}
        for field in dataclasses.fields(self):
            now, then = getattr(self, field.name), getattr(before, field.name)
            values[field.name] = None if now is None or then is None else now - then
            if None not in (now, then) and now < then:
                raise MetricsError(f"the server's {field.name} fell from {then} to {now}: it was started anew")
        return Counters(**values)

    def to_json(self) -> dict[str, int | None]:
        """By name."""
        return dataclasses.asdict(self)


_TRITON = {
    "requests": ("nv_inference_request_success", 1),
    "failures": ("nv_inference_request_failure", 1),
    "executions": ("nv_inference_exec_count", 1),
    "inferences": ("nv_inference_count", 1),
    "queue_ns": ("nv_inference_queue_duration_us", 1000),
    "compute_input_ns": ("nv_inference_compute_input_duration_us", 1000),
    "compute_infer_ns": ("nv_inference_compute_infer_duration_us", 1000),
    "compute_output_ns": ("nv_inference_compute_output_duration_us", 1000),
    "request_ns": ("nv_inference_request_duration_us", 1000),
}
"""Triton's names, and what makes counts or ns of their values. Sums are whole microseconds."""

_OURS = {field.name: (f"ceilings_{field.name}", 1) for field in dataclasses.fields(Counters)}

_MLSERVER = {"requests": ("model_infer_request_success", 1), "failures": ("model_infer_request_failure", 1)}
"""MLServer's: its duration leaves out what lies around the model, and is no time of a request."""

FAMILIES = {"nv_inference_": _TRITON, "ceilings_": _OURS, "model_infer_request_": _MLSERVER}
"""Names of counters by what they begin with; the embedded server is an MLServer that counts more."""

SIZES = "ceilings_batches"
"""The embedded server's executions by size."""


def counts_inferences(text: str) -> bool:
    """Whether a text of metrics counts requests by a name that is known here, be it that none came yet."""
    return any(f"# TYPE {prefix}" in text or f"\n{prefix}" in f"\n{text}" for prefix in FAMILIES)


def counters(text: str, model: str, version: str | None = None) -> Counters:
    """Counters of a model from the metrics of Triton, the embedded server or an MLServer; of other servers all None.

    Args:
        text: Prometheus' text.
        model: Its name.
        version: None: all versions together.

    Raises:
        MetricsError: A server of a known kind does not count this model.
    """
    prefix, of = _family(text)
    mine = [one for one in of if one.labels.get("model") == model and version in (None, one.labels.get("version"))]
    if of and not mine:
        if FAMILIES[prefix] is _MLSERVER:  # it counts a model from its first request on
            return Counters(requests=0, failures=0)
        known = sorted({one.labels.get("model", "") for one in of})
        raise MetricsError(f"the server counts nothing of {model}{f'/{version}' if version else ''}; it has {known}")
    values: dict[str, int | None] = {}
    for field, (name, scale) in FAMILIES[prefix].items() if mine else ():
        found = [one.value for one in mine if one.name in (name, f"{name}_total")]
        values[field] = round(sum(found) * scale) if found else None
    return Counters(**values)


def requests_by_model(text: str) -> dict[str, int] | None:
    """Requests that were answered or failed, by ``MODEL/VERSION``; None of a server whose names are unknown here."""
    if not counts_inferences(text):
        return None
    prefix, of = _family(text)
    asked: collections.Counter[str] = collections.Counter()
    names = [name for field in ("requests", "failures") for name in _of_field(prefix, field)]
    for one in of:
        if one.name in names:
            asked[f"{one.labels.get('model', '')}/{one.labels.get('version', '')}"] += round(one.value)
    return dict(asked)


def _of_field(prefix: str, field: str) -> tuple[str, str]:
    """The names that a counter may have."""
    name, _ = FAMILIES[prefix][field]
    return name, f"{name}_total"


def _family(text: str) -> tuple[str, list[Sample]]:
    """What the names of a server's counters begin with, and these; none of a server that is unknown here."""
    every = list(samples(text))
    for prefix in FAMILIES:
        if of := [one for one in every if one.name.startswith(prefix)]:
            return prefix, of
    return next(iter(FAMILIES)), []


def sizes(text: str, model: str) -> dict[int, int]:
    """Executions by batch size, of the embedded server's metrics."""
    return {
        int(one.labels["size"]): round(one.value)
        for one in samples(text)
        if one.name == f"{SIZES}_total" and one.labels.get("model") == model
    }


def statistics_entry(answer: Mapping[str, Any], model: str, version: str | None = None) -> Mapping[str, Any]:
    """The entry of a model in an answer of the statistics extension; of several versions the last.

    Raises:
        MetricsError: There is none.
    """
    entries = [
        entry
        for entry in answer.get("model_stats") or ()
        if entry.get("name") == model and version in (None, entry.get("version"))
    ]
    if not entries:
        raise MetricsError(f"the statistics hold nothing of {model}")
    entry: Mapping[str, Any] = entries[-1]
    return entry


def statistics_requests(answer: Mapping[str, Any]) -> dict[str, int]:
    """Requests that were answered or failed, by ``MODEL/VERSION``, of an answer of the statistics extension."""
    asked: dict[str, int] = {}
    for entry in answer.get("model_stats") or ():
        counted = statistics_counters(entry)
        asked[f"{entry.get('name', '')}/{entry.get('version', '')}"] = (counted.requests or 0) + (counted.failures or 0)
    return asked


def statistics_sizes(entry: Mapping[str, Any]) -> dict[int, int]:
    """Executions by batch size, of an entry of the statistics extension."""
    return {
        int(one["batch_size"]): int(one.get("compute_infer", {}).get("count", 0))
        for one in entry.get("batch_stats") or ()
    }


def statistics_counters(entry: Mapping[str, Any]) -> Counters:
    """Counters of an entry of the statistics extension, which counts in ns."""
    of = entry.get("inference_stats") or {}

    def get(part: str, what: str) -> int:
        return int(of.get(part, {}).get(what, 0))

    return Counters(
        requests=get("success", "count"),
        failures=get("fail", "count"),
        executions=int(entry.get("execution_count", 0)),
        inferences=int(entry.get("inference_count", 0)),
        queue_ns=get("queue", "ns"),
        compute_input_ns=get("compute_input", "ns"),
        compute_infer_ns=get("compute_infer", "ns"),
        compute_output_ns=get("compute_output", "ns"),
        request_ns=get("success", "ns"),
    )


def disagreement(metrics: Counters, statistics: Counters) -> str | None:
    """A sentence where two accounts of one server differ by more than their rounding; None where they agree.

    A sum in whole microseconds has lost less than one for each request.
    """
    for field in dataclasses.fields(Counters):
        ours, theirs = getattr(metrics, field.name), getattr(statistics, field.name)
        if ours is None or theirs is None:
            continue
        slack = 1000 * ((metrics.requests or 0) + (metrics.failures or 0) + 1) if field.name.endswith("_ns") else 0
        if abs(ours - theirs) > slack:
            return f"the server's metrics and its statistics differ in {field.name}: {ours} and {theirs}"
    return None
