"""Traces of PyTorch's profiler whose content is known, to the nanosecond."""

import json
import re
import time

import numpy as np
import pytest
from unit.traces.readers.kineto_events import BASE_US, PID, SECRETS, TID, Exact, Trace, inference, us

from ceilings.errors import UserError
from ceilings.traces.capture import KERNEL, MEMCPY, MEMSET
from ceilings.traces.readers import json_stream, kineto
from ceilings.traces.recording import FUNCTION, LOADING, OPERATOR, RANGE, Stream


@pytest.fixture
def read(tmp_path):
    return lambda trace, **options: kineto.read(trace.write(tmp_path / "trace.json", **options))


def rows(recording, part, *columns):
    return list(zip(*(getattr(part, column).tolist() for column in columns), strict=True))


def named(recording, part, *columns):
    names = [recording.names[name] if name >= 0 else None for name in part.name]
    return list(zip(names, *(getattr(part, column).tolist() for column in columns), strict=True))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("behind", [False, True])
def test_an_inference_to_the_nanosecond(read, indent, behind):
    recording = read(inference(), indent=indent, behind=behind)
    calls, work = recording.calls, recording.work
    assert named(recording, calls, "start", "end")[:3] == [
        ("cudaLaunchKernel", 30_001, 35_002),
        ("cudaLaunchKernel", 50_000, 52_000),
        ("cudaLaunchKernel", 53_000, 54_000),
    ]
    assert named(recording, work, "start", "end", "kind", "call", "bytes", "copy_kind")[:5] == [
        ("gemm", 40_003, 60_007, KERNEL, 0, 0, 0),
        ("gelu", 61_000, 63_000, KERNEL, 1, 0, 0),
        ("beside", 62_000, 65_000, KERNEL, 2, 0, 0),
        (None, 114_000, 115_000, MEMSET, 3, 8, 0),
        (None, 130_000, 150_000, MEMCPY, 4, 4096, 2),
    ]
    assert work.call.tolist() == list(range(10))
    assert recording.streams == (Stream(0, 0, 1, 7), Stream(0, 0, 1, 20))
    assert work.stream.tolist() == [0, 0, 1, 0, 0] * 2
    assert set(work.device.tolist()) == {0}
    assert not work.node.any()
    assert named(recording, recording.spans, "start", "end", "kind")[:4] == [
        ("ProfilerStep#0", 0, 900_000, RANGE),
        ("model.py(12): forward", 1, 800_000, FUNCTION),
        ("aten::linear", 10_000, 100_000, OPERATOR),
        ("aten::addmm", 20_001, 90_003, OPERATOR),
    ]
    assert [thread.label for thread in recording.threads] == ["thread 0"]
    assert recording.device_names == {0: "NVIDIA H100 80GB HBM3"}
    source = recording.source
    assert (source.format, source.tool, source.problems) == ("pytorch-profiler", "PyTorch profiler, rank 3 of 8", ())
    assert source.counts["kernels"] == 6
    assert source.counts["events"] == 28


def test_nothing_of_the_machine_gets_into_a_recording(read):
    trace = inference()
    trace.span("python_function", 3, 4, r"C:\Users\bob\secret\x.py(3): f")
    trace.span("python_function", 5, 6, "<built-in method load of module at 0x7f001234abcd>")
    trace.span("python_function", 7, 8, "/home/bob/my secret/x.py(4): <lambda>")
    trace.events.append(
        {"ph": "M", "name": "process_name", "pid": PID, "tid": 0, "args": {"name": "python /home/bob/x"}}
    )
    trace.events.append({"ph": "M", "name": "thread_name", "pid": PID, "tid": TID, "args": {"name": "bob"}})
    recording = read(trace)
    text = repr(recording)
    assert not any(secret in text for secret in SECRETS)
    assert not {str(PID), str(TID)} & set(re.findall(r"\d+", text))
    assert "0x7f" not in text
    assert {"x.py(3): f", "x.py(4): <lambda>", "<built-in method load of module>"} <= set(recording.names)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000000000.001", 1_700_000_000_000_000_001),
        ("1700000000000000.25", 1_700_000_000_000_000_250),
        ("1700000000000000", 1_700_000_000_000_000_000),
        ('"12.5"', 12_500),
        ("1.7e3", 1_700_000),
        ("-0.25", -250),
        ("12.9999999", 13_000),
        ("0.0004", 0),
    ],
)
def test_times_are_decimals(text, ns):
    assert kineto._nanoseconds(text.encode()) == ns


@pytest.mark.parametrize("text", ["", "null", "true", '"soon"', "[1]", "1e999", "9" * 40])
def test_what_is_no_time_is_said(text):
    with pytest.raises((ValueError, OverflowError)):
        kineto._nanoseconds(text.encode())


def test_driver_calls_within_runtime_calls_count_as_these(read):
    trace = Trace()
    trace.call(0, 10_000, "cudaLaunchKernel", 1)
    trace._add("cuda_driver", 2000, 9000, "cuLaunchKernel", {"correlation": 2}, {})
    trace.kernel(20_000, 30_000, "inner", 2)
    trace._add("cuda_driver", 11_000, 12_000, "cuLaunchKernelEx", {"correlation": 3}, {})
    trace.kernel(30_000, 31_000, "alone", 3)
    trace.call(2000, 9000, "cudaMalloc", 4, tid=9)
    recording = read(trace)
    assert [one[0] for one in named(recording, recording.calls)] == [
        "cudaLaunchKernel",
        "cudaMalloc",
        "cuLaunchKernelEx",
    ]
    assert recording.work.call.tolist() == [0, 2]
    assert recording.calls.thread.tolist() == [0, 1, 0]
    assert recording.source.counts["calls within calls"] == 1


def test_calls_without_a_length_are_calls(read):
    trace = Trace()
    for number, (start, end) in enumerate([(5000, 5000), (5000, 5000), (5000, 8000), (8000, 8000)]):
        trace.call(start, end, f"call {number}", number + 1)
    assert len(read(trace).calls.start) == 4


def test_kernels_of_a_graph_have_its_launch(read):
    trace = Trace()
    trace.call(0, 5000, "cudaGraphLaunch", 7)
    for number in range(3):
        trace.kernel(10_000 + 1000 * number, 10_500 + 1000 * number, "node", 7, args={"graph node id": number + 1})
    trace.kernel(20_000, 21_000, "no number", 7)
    trace.launch(30_000, 31_000, 8, (32_000, 33_000, "alone"))
    recording = read(trace)
    assert recording.work.call.tolist() == [0, 0, 0, 0, 1]
    assert recording.work.node.tolist() == [True] * 4 + [False]


def test_waits_of_streams_and_of_the_host(read):
    trace = Trace()
    trace.launch(0, 1000, 1, (2000, 9000, "first"))
    trace.call(2000, 2500, "cudaEventRecord", 2)
    trace.call(3000, 3500, "cudaStreamWaitEvent", 3)
    trace.sync(
        "Stream Wait Event", 3100, 3100, stream=20, wait_on_stream=7, correlation=3, wait_on_cuda_event_record_corr_id=2
    )
    trace.launch(4000, 5000, 4, (9500, 9900, "second"), stream=20)
    trace.call(6000, 9950, "cudaStreamSynchronize", 5)
    trace.sync("Stream Sync", 6100, 9900, stream=20, correlation=5)
    trace.call(10_000, 11_000, "cudaDeviceSynchronize", 6)
    trace.sync("Context Sync", 10_100, 10_900, stream=4294967295, correlation=6)
    trace.call(12_000, 13_000, "cudaEventSynchronize", 8)
    trace.sync(
        "Event Sync", 12_100, 12_900, stream=-1, wait_on_stream=7, correlation=8, wait_on_cuda_event_record_corr_id=2
    )
    trace.sync("Stream Wait Event", 14_000, 14_000, stream=20, wait_on_stream=-1, correlation=9)
    recording = read(trace)
    assert rows(recording, recording.waits, "stream", "call", "after_stream", "after_call") == [
        (1, 2, 0, 1),
        (-1, 4, 1, -1),
        (-1, 5, -1, -1),
        (-1, 6, 0, 1),
    ]
    assert "Waits for an event of a stream that the file does not name: 1," in " ".join(recording.source.problems)
    assert not any("dependencies" in sentence for sentence in recording.source.lacks)


def test_ranges_on_the_device_are_no_work(read):
    trace = inference()
    trace.span("gpu_user_annotation", 0, 900_000, "ProfilerStep#0", pid=0, tid=7)
    recording = read(trace)
    assert len(recording.work.start) == 10
    assert recording.source.counts["left out: ranges on the device"] == 1


def test_a_range_begins_in_the_function_that_makes_it(read):
    trace = Trace()
    trace.span("python_function", 0, 100_000, "run.py(1): main")
    trace.span("python_function", 1000, 9000, "profiler.py(1): __enter__")
    trace.span("user_annotation", 5000, 60_000, "ProfilerStep#1")
    trace.span("python_function", 55_000, 70_000, "profiler.py(2): __exit__")
    trace.span("python_function", 56_000, 69_000, "ops.py(2): __call__")
    recording = read(trace)
    assert named(recording, recording.spans, "start", "end") == [
        ("run.py(1): main", 0, 100_000),
        ("profiler.py(1): __enter__", 1000, 5000),
        ("ProfilerStep#1", 5000, 60_000),
        ("profiler.py(2): __exit__", 55_000, 60_000),
        ("ops.py(2): __call__", 56_000, 60_000),
    ]
    assert set(recording.spans.thread.tolist()) == {0}


def test_ranges_of_several_tasks_of_a_thread_stand_beside_each_other(read):
    trace = Trace()
    trace.span("user_annotation", 0, 50_000, "request 1")
    trace.span("user_annotation", 30_000, 90_000, "request 2")
    trace.span("cpu_op", 95_000, 100_000, "rounded")
    trace.span("cpu_op", 96_000, 100_900, "by a microsecond")
    recording = read(trace)
    assert [thread.label for thread in recording.threads] == ["thread 0", "thread 0, ranges across others 1"]
    assert named(recording, recording.spans, "end", "thread") == [
        ("request 1", 50_000, 0),
        ("request 2", 90_000, 1),
        ("rounded", 100_000, 0),
        ("by a microsecond", 100_000, 0),
    ]


def test_spans_of_random_programs_are_nested():
    rng = np.random.default_rng(3)
    for _ in range(50):
        count = int(rng.integers(1, 60))
        start = rng.integers(0, 200, count)
        end = start + rng.integers(0, 80, count)
        thread, function = rng.integers(0, 3, count), rng.random(count) < 0.5
        ends, lane = kineto.nested(start, end, thread, function, 0)
        assert (ends <= end).all()
        assert (ends[~function] == end[~function]).all()
        for a in range(count):
            for b in range(count):
                if (thread[a], lane[a]) == (thread[b], lane[b]):
                    assert not start[a] < start[b] < ends[a] < ends[b]


def test_the_profiler_has_parts_with_names(read):
    trace = inference()
    for number, name in enumerate(("Buffer Flush", "Command Buffer Full", "Lazy Function Loading")):
        trace.span("overhead", 1000 * number, 1000 * number + 500, name, pid=-1, tid=0)
    recording = read(trace)
    loading = recording.spans.kind == LOADING
    assert loading.sum() == 3
    assert {recording.names[name] for name in recording.spans.name[loading]} >= {"Command Buffer Full"}
    assert {thread.process for thread in recording.threads} == {0}


def test_old_categories_and_texts_for_numbers(read):
    trace = Trace()
    trace._add("Runtime", 0, 1000, "cudaLaunchKernel", {"correlation": "5", "external id": 0}, {"tid": "-12"})
    trace._add(
        "Kernel",
        2000,
        3000,
        "gemm",
        {"device": "0", "stream": "7", "correlation": 5.0},
        {"pid": "0", "tid": "stream 7"},
    )
    trace._add("Operator", 0, 1000, "ProfilerStep#4", {}, {"tid": "-12"})
    recording = read(trace)
    assert recording.work.call.tolist() == [0]
    assert recording.streams == (Stream(0, 0, -1, 7),)
    assert recording.spans.kind.tolist() == [RANGE]


def test_begins_and_ends(read):
    trace = Trace()
    place = {"pid": PID, "tid": TID, "cat": "cpu_op"}
    for phase, name, at in (
        ("B", "outer", 0),
        ("B", "inner", 1000),
        ("E", "", 2000),
        ("E", "", 9000),
        ("E", "", 9500),
        ("B", "late", 9900),
    ):
        trace.events.append({"ph": phase, "name": name, "ts": us(at), **place})
    recording = read(trace)
    assert named(recording, recording.spans, "start", "end") == [("outer", 0, 9000), ("inner", 1000, 2000)]
    problems = " ".join(recording.source.problems)
    assert "begin and do not end: 1," in problems
    assert "end and did not begin: 1," in problems


def test_oddities_are_counted(read):
    trace = Trace()
    trace.launch(5000, 6000, 1, (4000, 4500, "before its launch"))
    trace.kernel(7000, 8000, "of nobody", 99)
    trace.kernel(9000, 8000, "backwards", 98)
    trace.span("cpu_op", 0, 1, "endless")
    del trace.events[-1]["dur"]
    trace.span("cpu_op", 0, 1, "timeless")
    trace.events[-1]["ts"] = "soon"
    trace.span("cpu_op", 0, 1, "no thread")
    trace.events[-1]["tid"] = {"a": 1}
    trace.span("mtia_ccp_events", 0, 1, "of another accelerator")
    recording = read(trace)
    problems = "\n".join(recording.source.problems)
    for sentence in (
        "as a text for a time: 2,",
        "without a duration: 1,",
        "end before they begin: 1,",
        "without the call that launched them: 2 of 3",
        "before the call that launched them: 1 of 3, by up to 1.000 us",
    ):
        assert sentence in problems
    assert (recording.work.end >= recording.work.start).all()
    assert "kinds that are not read: mtia_ccp_events (1)" in " ".join(recording.source.lacks)


def test_arrows_link_what_has_no_correlation(read):
    trace = Trace()
    trace.launch(0, 5000, 1, (10_000, 11_000, "known"))
    trace.call(6000, 8000, "cudaLaunchKernel", 2)
    trace.kernel(12_000, 13_000, "linked", 0)
    trace.arrow(7000, 12_000, 4242)
    trace.kernel(14_000, 15_000, "not linked", 0)
    recording = read(trace)
    assert recording.work.call.tolist() == [0, 1, -1]
    assert recording.source.counts["linked by arrows"] == 1


def test_a_file_of_the_host_alone_says_so(read):
    trace = Trace()
    trace.span("cpu_op", 0, 1000, "aten::mm")
    recording = read(trace)
    assert len(recording.work.start) == len(recording.calls.start) == 0
    assert recording.source.lacks[0] == "It holds no work of a device: it says what the host did only."
    assert not any("CUDA calls" in sentence for sentence in recording.source.lacks)


def test_a_file_of_the_device_alone_says_so(read):
    trace = Trace()
    trace.kernel(0, 1000, "gemm", 3)
    recording = read(trace)
    assert recording.streams == (Stream(-1, 0, 1, 7),)
    assert recording.threads == ()
    assert any("CUDA calls" in sentence for sentence in recording.source.lacks)


def test_ranks_merged_into_one_file_keep_their_own(tmp_path):
    """Numbers of devices, streams and correlations are those of each rank; its processes tell it from others."""
    events = []
    for rank in range(3):
        trace = Trace(device=0, pid=f"rank {rank}")
        for number in range(40):
            at = 10_000 * number + 100 * rank
            trace.launch(
                at, at + 1000, number + 1, (at + 2000, at + 5000, f"kernel of rank {rank}"), pid=f"GPU of {rank}"
            )
        events += trace.events
    trace.events = events
    recording = kineto.read(trace.write(tmp_path / "merged.json"))
    work = recording.work
    for rank in range(3):
        own = work.name == recording.names.index(f"kernel of rank {rank}")
        assert own.sum() == 40
        assert {recording.threads[thread].process for thread in recording.calls.thread[work.call[own]]} == {rank}
        assert {recording.streams[stream].process for stream in work.stream[own]} == {rank}
    assert len(set(work.device.tolist())) == 3
    assert "One number stands for several devices" in recording.source.problems[0]
    assert recording.threads[1].label == "process 1, thread 0"


def test_hip_and_its_copies(read):
    trace = Trace()
    trace._add("hip_runtime", 0, 1000, "hipMemcpyWithStream", {"correlation": 1}, {})
    trace.copy(2000, 3000, "CopyHostToDevice", 1)
    trace._add("hip_runtime", 4000, 5000, "hipGraphLaunch", {"correlation": 2}, {})
    trace.kernel(6000, 7000, "Cijk_Alik_Bljk", 2)
    recording = read(trace)
    assert recording.work.copy_kind.tolist() == [1, 0]
    assert recording.work.node.tolist() == [False, True]
    assert recording.work.call.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Memcpy HtoD (Pinned -> Device)", 1),
        ("Memcpy DtoH (Device -> Pageable)", 2),
        ("Memcpy DtoD (Device -> Device)", 8),
        ("Memcpy PtoP (Device -> Device)", 10),
        ("CopyDeviceToHost", 2),
        ("CopyDeviceToDevice", 8),
        ("Copy", 0),
    ],
)
def test_kinds_of_copies(name, kind):
    assert kineto._copy_kind(name) == kind


def test_a_cut_file_says_so(tmp_path):
    path = inference().write(tmp_path / "trace.json")
    text = path.read_text()
    path.write_text(text[: text.rindex("gpu_memcpy") + 20])
    recording = kineto.read(path)
    assert len(recording.work.start) == 9
    assert "The file ends before its events do" in recording.source.problems[0]


def test_hostile_names_stay_names(read):
    trace = Trace()
    names = ["<script>alert(1)</script>", "\x1b[31mred", "=1+1", "a" * (1 << 20), "\u202ebidi", "", "line\nbreak"]
    for number, name in enumerate(names):
        trace.kernel(1000 * number, 1000 * number + 500, name, number + 1)
    trace.kernel(9000, 9500, None, 9)
    recording = read(trace)
    assert len(recording.work.start) == 8
    assert max(map(len, recording.names)) == kineto.LONGEST_NAME
    assert [recording.names[name] for name in recording.work.name[:3]] == names[:3]


def test_names_without_end_are_bounded(read, monkeypatch):
    monkeypatch.setattr(kineto, "NAMES_BYTES", 100)
    trace = Trace()
    for number in range(50):
        trace.kernel(1000 * number, 1000 * number + 500, f"kernel number {number}", number + 1)
    recording = read(trace)
    assert len(recording.names) < 10
    assert recording.names[-1].startswith("(a name beyond")


def test_more_events_than_are_read_are_refused(read, monkeypatch):
    monkeypatch.setattr(kineto, "MOST_EVENTS", 10)
    with pytest.raises(UserError, match="holds more than 10 events; record fewer steps"):
        read(inference())


def test_a_file_of_other_events_is_refused(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [{"ph": "X", "cat": "v8", "name": "x", "ts": 1, "dur": 2}]}))
    with pytest.raises(UserError, match="holds no event of PyTorch's profiler"):
        kineto.read(path)


def test_blocks_change_nothing(tmp_path, monkeypatch):
    path = inference().write(tmp_path / "trace.json.gz")
    whole = kineto.read(path)
    monkeypatch.setattr(json_stream, "BLOCK", 300)
    parts = kineto.read(path)
    assert repr(parts.source) == repr(whole.source)
    for part in ("calls", "work", "spans", "waits"):
        for name, column in vars(getattr(whole, part)).items():
            assert np.array_equal(column, getattr(getattr(parts, part), name))


def test_damage_anywhere_never_ends_in_a_traceback(tmp_path):
    text = inference().text(indent=1).encode()
    rng = np.random.default_rng(5)
    path = tmp_path / "trace.json"
    for _ in range(150):
        damaged = bytearray(text)
        for place in rng.integers(0, len(text), int(rng.integers(1, 6))):
            damaged[place : place + int(rng.integers(1, 9))] = rng.integers(
                0, 256, int(rng.integers(0, 9)), np.uint8
            ).tobytes()
        path.write_bytes(damaged)
        try:
            recording = kineto.read(path)
        except UserError:
            continue
        assert (recording.work.call < len(recording.calls.start)).all()
        assert len(recording.work.start) <= 10


def test_the_base_is_one_that_doubles_are_too_coarse_for():
    assert float(BASE_US) + 0.001 == float(BASE_US)
    assert str(Exact("1")) == "@1@"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_trace_that_pytorch_writes_here(tmp_path, suffix):
    torch = pytest.importorskip("torch")
    path = tmp_path / f"trace{suffix}"
    settings = {"activities": [torch.profiler.ProfilerActivity.CPU], "with_stack": True, "record_shapes": True}
    with torch.profiler.profile(**settings) as profiler:
        for number in range(3):
            with torch.profiler.record_function(f"request {number}"):
                torch.mm(torch.ones(64, 64), torch.ones(64, 64)).relu().sum().item()
            profiler.step()
    profiler.export_chrome_trace(str(path))
    recording = kineto.read(path)
    spans, names = recording.spans, recording.names
    called = [names[name] for name, kind in zip(spans.name, spans.kind, strict=True) if kind == OPERATOR]
    assert called.count("aten::mm") == 3
    ranges = [names[name] for name, kind in zip(spans.name, spans.kind, strict=True) if kind == RANGE]
    assert [name for name in ranges if name.startswith("request")] == [f"request {number}" for number in range(3)]
    assert (spans.kind == FUNCTION).any()
    main = spans.thread[[names[name] == "aten::mm" for name in spans.name]][0]
    assert {spans.thread[place] for place, name in enumerate(spans.name) if names[name].startswith("request")} == {main}
    assert recording.source.problems == ()
    assert recording.source.lacks[0].startswith("It holds no work of a device")


def test_a_function_with_an_endless_name_costs_no_time(read):
    trace = Trace()
    for number in range(4):
        trace.span("python_function", 2 * number, 2 * number + 1, f"{number}" + "n" * 1_000_000)
    begun = time.process_time()
    recording = read(trace)
    assert time.process_time() - begun < 5
    assert max(map(len, recording.names)) <= kineto.LONGEST_FUNCTION


def test_categories_of_anybody_are_not_shown(read):
    trace = inference()
    trace.span("cat of /home/bob", 1, 2, "x")
    trace.span("bob", 1, 2, "x")
    trace.span("mtia_runtime", 1, 2, "x")
    trace.events.append({"ph": "bob", "cat": "bob", "name": "x"})
    source = read(trace).source
    assert not any(secret in repr(source) for secret in SECRETS)
    assert source.counts["left out: other categories"] == 2
    assert source.counts["left out: other categories (no phase)"] == 1
    assert any("mtia_runtime (1)" in lack for lack in source.lacks)


@pytest.mark.parametrize("device", ["a", 10**30, [1], {"x": 1}, 1e300])
def test_a_device_that_is_no_number_is_said(read, device):
    trace = inference()
    trace.kernel(70_000, 71_000, "odd", 2, args={"device": device})
    recording = read(trace)
    assert [problem for problem in recording.source.problems if "is no number: 1," in problem]
    assert sorted(set(recording.work.device.tolist())) == [-1, 0]


@pytest.mark.parametrize("args", [[1, 2], "text", 3, True, []])
def test_arguments_that_are_no_object_cost_one_event_its_place(read, args):
    trace = inference()
    trace.events[3]["args"] = args
    recording = read(trace)
    assert recording.source.counts["arguments of a wrong kind"] == 1
    assert "unreadable" not in recording.source.counts
    assert recording.source.counts["events"] == 28


def test_things_that_are_no_events_are_counted(read):
    trace = inference()
    trace.events[5:5] = [3, "text", [1], None, True]
    source = read(trace).source
    assert source.counts["events without sense"] == 5
    assert "unreadable" not in source.counts
