"""The trace for ui.perfetto.dev, read as the viewer reads it: no slice is lost, and each arrow ends on two slices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from unit.traces.nsight_exports import Export
from unit.traces.test_nsight import program

from ceilings.traces import perfetto
from ceilings.traces.calls import plain
from ceilings.traces.readers import nsight

DATA = Path(__file__).parent / "data"


def opened(path: Path) -> tuple[list[dict], dict, list[dict]]:
    """Slices, names of rows, and arrows, as Perfetto takes them in.

    Times are floats in us, taken times 1000 and cut off, by newer versions rounded. Events are ordered by time and, of
    one time, as they stand in the file. A slice that begins within another one of its row and ends after it
    is dropped there: here it is an error.
    """
    events = json.loads(path.read_text())["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = [event for event in events if event["name"] == "thread_name"]
    rows = {(e["pid"], e["tid"]): (processes[e["pid"]], e["args"]["name"]) for e in threads}
    assert len(set(rows.values())) == len(rows), "each row has a name of its own"
    assert min(row for _, row in rows) == 1, "0 is taken for the process's own thread"
    open_slices: dict[tuple, list[dict]] = {row: [] for row in rows}
    slices, arrows = [], {}
    timed = [event | {"at": int(event["ts"] * 1000)} for event in events if event["ph"] != "M"]
    assert all(round(event["ts"] * 1000) == event["at"] for event in timed)
    for event in sorted(timed, key=lambda event: event["at"]):
        stack = open_slices[event["pid"], event["tid"]]
        while stack and stack[-1]["until"] <= event["at"]:
            stack.pop()
        if event["ph"] == "X":
            event["until"] = event["at"] + int(event["dur"] * 1000)
            assert int(event["dur"] * 1000) == round(event["dur"] * 1000)
            event["row"] = rows[event["pid"], event["tid"]]
            assert not stack or event["until"] <= stack[-1]["until"], f"{event} crosses {stack[-1]}"
            stack.append(event)
            slices.append(event)
        else:
            arrows.setdefault(event["id"], {})[event["ph"]] = stack[-1]
    return slices, rows, list(arrows.items())


def whole(recording, path: Path, **chosen) -> None:
    """Everything of a recording is in the trace, at its time and on its row."""
    perfetto.write(path, recording, **chosen)
    slices, _, arrows = opened(path)
    host = [s for s in slices if not s["row"][0].startswith(("device", "summary"))]
    device = [s for s in slices if s["row"][0].startswith("device")]
    calls, work, spans = recording.calls, recording.work, recording.spans
    times = sorted((s["at"], s["until"]) for s in device)
    assert times == sorted(zip(work.start.tolist(), work.end.tolist(), strict=True))
    expected = [*zip(calls.start.tolist(), calls.end.tolist(), strict=True)]
    expected += zip(spans.start.tolist(), spans.end.tolist(), strict=True)
    assert sorted((s["at"], s["until"]) for s in host) == sorted(expected)
    assert len(arrows) == (work.call >= 0).sum()
    for number, ends in arrows:
        call = work.call[number]
        name = plain(recording.names[calls.name[call]])
        assert (ends["s"]["name"], ends["s"]["at"], ends["s"]["until"]) == (name, calls.start[call], calls.end[call])
        assert (ends["f"]["at"], ends["f"]["until"]) == (work.start[number], work.end[number])


@pytest.mark.parametrize("path", sorted(DATA.glob("*.sqlite")), ids=lambda path: path.stem)
def test_real_captures(path, tmp_path):
    recording = nsight.read(path)
    whole(recording, tmp_path / "x.json")
    _, rows, _ = opened(tmp_path / "x.json")
    (stream,) = recording.streams
    overlapping = (recording.work.start[1:] < recording.work.end[:-1]).any()
    beside = {("device 0", f"stream {stream.number}, overlapping")} if overlapping else set()
    assert set(rows.values()) == {("host", "thread 0"), ("device 0", f"stream {stream.number}")} | beside


def test_several_processes_devices_streams_and_threads(tmp_path):
    recording = nsight.read(program(2025).write(tmp_path / "x.sqlite"))
    whole(recording, tmp_path / "x.json")
    _, rows, _ = opened(tmp_path / "x.json")
    assert set(rows.values()) == {
        ("process 0", "thread 0"),
        ("process 0", "thread 1"),
        ("process 1", "thread 0"),
        ("device 0, NVIDIA H100 80GB HBM3", "stream 7"),
        ("device 0, NVIDIA H100 80GB HBM3", "stream 8"),
        ("device 1, NVIDIA H200", "stream 7"),
    }


def test_what_crosses_lies_on_a_row_beside(tmp_path):
    random = np.random.default_rng(7)
    export = Export()
    for _ in range(150):
        start, length = random.integers(0, 3000), random.integers(2, 60)
        export.range(start / 1000, (start + length) / 1000, f"range {start}", kind=60)
        export.function("OSRT_API", start / 1000 + 0.003, (start + length) / 1000 + 0.006, "poll")
        launch = export.call(start / 1000, (start + length // 2) / 1000, "cudaLaunchKernel_v7000")
        export.kernel(launch, start / 1000 + 0.01, (start + 2 * length) / 1000 + 0.011)
    perfetto.write(tmp_path / "x.json", recording := nsight.read(export.write(tmp_path / "x.sqlite")))
    slices, _, _ = opened(tmp_path / "x.json")
    assert len(slices) == len(recording.calls.start) + len(recording.work.start) + len(recording.spans.start)


def test_times_stay_exact_after_days(tmp_path):
    recording = nsight.read(DATA / "truth.nsys.sqlite")
    days = 3 * 24 * 3600 * 10**9 + 7
    for part in (recording.calls, recording.work, recording.spans):
        part.start[:] += days
        part.end[:] += days
    whole(recording, tmp_path / "x.json")


def test_chosen_iterations_and_the_critical_path(tmp_path):
    recording = nsight.read(program(2024).write(tmp_path / "x.sqlite"))
    path = [(100_000, 105_000, "host"), (105_000, 108_000, "launch"), (108_000, 190_000, "kernel: gemm <b>")]
    perfetto.write(tmp_path / "x.json", recording, between=[(100_000, 190_000)], path=path)
    slices, rows, arrows = opened(tmp_path / "x.json")
    assert list(rows.values())[:2] == [("summary", "critical path"), ("summary", "iterations")]
    marked = [(s["at"], s["until"], s["name"]) for s in slices if s["row"] == ("summary", "critical path")]
    assert marked == path
    assert [(s["at"], s["name"]) for s in slices if s["row"][1] == "iterations"] == [(100_000, "iteration 0")]
    others = [s for s in slices if s["row"][0] != "summary"]
    assert len(others) == (len(recording.calls.start) + len(recording.work.start) + len(recording.spans.start)) // 2
    assert min(s["until"] for s in others) > 100_000 and len(arrows) == 7


def test_names_of_a_hostile_trace(tmp_path):
    export = Export()
    name = '</script><img src=x onerror=alert(1)>"\\\u202e\x1b[31m\n' + "x" * 100_000
    export.range(0, 5, name)
    export.kernel(export.call(1, 2, name), 3, 4, name)
    export.gpu(0, name)
    perfetto.write(tmp_path / "x.json", nsight.read(export.write(tmp_path / "x.sqlite")))
    slices, _, _ = opened(tmp_path / "x.json")
    assert len(slices) == 3 and max(len(s["name"]) for s in slices) <= 200
    text = (tmp_path / "x.json").read_text()
    assert len(text) < 10_000 and "\x1b" not in text and "\u202e" not in text


def test_a_trace_without_anything(tmp_path):
    export = Export()
    export.range(0, None, "open")
    perfetto.write(tmp_path / "x.json", nsight.read(export.write(tmp_path / "x.sqlite")))
    assert json.loads((tmp_path / "x.json").read_text())["traceEvents"] == []
