"""Accounts of hand-made recordings: several threads, streams, devices and processes; every number by hand."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from unit.planted_records import PROVENANCE
from unit.traces.handmade import US, Built, Plain
from unit.traces.recordings import Maker

from ceilings import records
from ceilings.schemas.explanation import CHANGES
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, RECORDING_SHARES
from ceilings.traces import store
from ceilings.traces.budget import Account
from ceilings.traces.capture import DEVICE_TO_HOST, HOST_TO_DEVICE, Capture
from ceilings.traces.explained import account as parts
from ceilings.traces.explained.account import Accounts
from ceilings.traces.explained.drawn import labelled
from ceilings.traces.explained.explanation import explanation
from ceilings.traces.explained.iterations import choose
from ceilings.traces.explained.soundness import health
from ceilings.traces.recording import LOADING, OPERATOR, RANGE, Recording, Source, Spans, Stream, Thread, Waits, Work

DATA = sorted((Path(__file__).parent / "data").glob("*.sqlite"))
DEVICE_TO_DEVICE = 8
REDUCE = "ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"


_INDEX = [RECORDING_SHARES.index(share) for share in ("launch", "transfer")]


def shares(one):
    """Critical path in us."""
    named = dict(zip(RECORDING_SHARES, (one.path.shares() / US).tolist(), strict=True))
    assert sum(named.values()) == one.length / US
    return {name: value for name, value in named.items() if value}


def closes(one) -> None:
    """Every side sums to the iteration, to the ns; the path is in order and without a gap."""
    for side in one.hosts.values():
        assert side.parts.sum() == one.length and side.parts.min() >= 0
    for side in one.devices.values():
        assert side.classes.sum() + side.idle.sum() + side.unexplained == one.length
        assert min(side.classes.min(), side.idle.min()) >= 0
    path = one.path
    assert path.begin[0] == one.begin and path.end[-1] == one.end
    assert (path.begin[1:] == path.end[:-1]).all() and (path.end > path.begin).all()


def backward() -> Built:
    """The main thread launches, another thread (autograd) launches, the main thread waits."""
    built = Built()
    built.launch(10, 14, (16, 26, "gemm"))
    built.launch(60, 64, (68, 98, "gemm"), thread=1)
    built.launch(70, 74, (99, 109, "layer_norm_kernel"), thread=1)
    built.wait(80, 112)
    built.span(5, 15, "aten::linear")
    built.span(40, 78, "MmBackward0", thread=1)
    return built


def test_the_path_goes_through_the_thread_that_launched_and_back():
    one = backward().account(0, 120)
    closes(one)
    # 120-112 host; 112-109 sync; both kernels 109-68 (a gap of 1 among it); 68-64 on its way; 64-60 the call; before it
    # the thread had 46 us of code, no longer than STRETCH allows: a launch's own; then the first launch.
    assert shares(one) == {"host": 10 + 8, "sync": 3, "kernel": 41, "launch": 4 + 4 + 46 + 4}
    labels = [(begin // US, end // US, label) for begin, end, label in labelled(Accounts(backward().recording()), one)]
    assert (60, 64, "launch: calls of thread 2") in labels and (10, 14, "launch: calls of thread 1") in labels
    assert (14, 60, "launch: host code between launches of thread 2") in labels
    assert (68, 98, "kernel: gemm") in labels and (98, 99, "kernel: gaps between work") in labels
    assert (5, 10, "host: aten::linear") in labels and (112, 120, "host: code of thread 1") in labels
    assert sum(end - begin for begin, end, _ in labels) == 120


def test_launches_are_told_from_the_code_that_prepares_them():
    """Three launches of 4 us, 30 us of code before each: by far the most of it is code."""
    built = Built()
    for k in range(3):
        built.launch(34 * k, 34 * k + 4, (34 * k + 6, 34 * k + 9))
    built.wait(73, 79)
    (group,) = explanation(built.recording(), Plain([(0, 80)]))["groups"]
    assert group["verdict"]["name"] == "launch-bound"
    assert group["verdict"]["meaning"].endswith(
        f"launch calls are {12 / 80:.0%} of the critical path, host code between launches {60 / 80:.0%}"
    )
    path = {one["part"]: one["ns"] / US for one in group["path"]}
    assert path["launch: calls of thread 1"] == 12 and path["launch: host code between launches of thread 1"] == 60


@pytest.mark.parametrize(("late", "named"), [(400, "stalled"), (90, "launch")])
def test_launched_work_that_does_not_start_is_no_launch_of_the_host(late, named):
    """A graph is launched, and its kernels begin long after; a wait that a launch can take stays one."""
    built = Built()
    built.launch(0, 10, (10 + late, 310 + late), name="cudaGraphLaunch")
    built.wait(20, 315 + late)
    content = explanation(built.recording(), Plain([(0, 315 + late)]))
    (group,) = content["groups"]
    assert group["shares"][named] == pytest.approx((late + 10 * (named == "launch")) / (315 + late))
    label = "stalled: launched, and does not start" if late > 100 else "launch: until the work starts"
    assert {one["part"]: one["ns"] / US for one in group["path"]}[label] == pytest.approx(late)
    warned = [one for one in content["health"] if "does not start" in one["text"]]
    assert [one["level"] for one in warned] == ["warning"] * (late > 100)
    assert group["verdict"]["name"] == ("stall-bound" if late > 100 else "kernel-bound")


@pytest.mark.parametrize(("kind", "share"), [(DEVICE_TO_DEVICE, "launch"), (HOST_TO_DEVICE, "transfer")])
def test_calls_that_copy_on_the_device_are_launches(kind, share):
    """What is copied on a device is no copy of host and device, neither on the device nor on the host."""
    built = Built()
    for k in range(4):
        built.copy(10 * k, 10 * k + 8, (10 * k + 9, 10 * k + 10), kind)
    built.launch(40, 44, (46, 60))
    built.wait(50, 62)
    content = explanation(built.recording(), Plain([(0, 62)]))
    (group,) = content["groups"]
    assert (group["shares"]["transfer"] > 0) == (share == "transfer")
    nothing = [one["why_not"] for one in group["what_if"] if one["change"] == "copies"]
    assert (nothing == ["nothing is copied between host and device"]) == (share == "launch")


def test_a_long_path_is_drawn_to_its_end():
    built = Built()
    for k in range(200):
        built.launch(10 * k, 10 * k + 4, (10 * k + 5, 10 * k + 7))
    built.launch(2_000, 2_004, (2_006, 2_900))
    built.wait(2_010, 2_905)
    accounts, one = Accounts(built.recording()), built.account(0, 2_905)
    whole, drawn = labelled(accounts, one), labelled(accounts, one, 40)
    assert len(whole) > 400 and 10 < len(drawn) <= 60
    assert [drawn[0][0], drawn[-1][1]] == [0, 2_905 * US]
    assert all(former[1] == later[0] for former, later in itertools.pairwise(drawn))
    assert (2_006 * US, 2_900 * US, "kernel: gemm") in drawn
    assert drawn[0][2].startswith("launch: host code between launches of thread 1 and ")


@pytest.mark.parametrize("named", [False, True])
def test_host_code_without_a_name_is_a_note_that_says_how_to_record_it(named):
    built = Built()
    built.launch(700, 704, (706, 900))
    built.wait(710, 905)
    if named:
        built.span(0, 699, "tokenize")
    texts = [one["text"] for one in explanation(built.recording(), Plain([(0, 905)]))["health"]]
    said = [text for text in texts if "does not say what thread 1 does outside of CUDA calls" in text]
    assert len(said) == (not named) and all("with_stack=True" in text and f"{700 / 905:.0%}" in text for text in said)


def test_each_thread_has_its_parts_and_the_device_idles_by_the_thread_that_launches():
    one = backward().account(0, 120)
    parts_of = {
        thread: dict(zip(HOST_PARTS, (side.parts / US).tolist(), strict=True)) for thread, side in one.hosts.items()
    }
    assert parts_of[0] == {"framework": 120 - 4 - 32, "launch": 4, "copy": 0, "sync": 32}
    assert parts_of[1] == {"framework": 120 - 8, "launch": 8, "copy": 0, "sync": 0}
    assert {thread: side.launches for thread, side in one.hosts.items()} == {0: 1, 1: 2}
    idle = dict(zip(IDLE_CAUSES, (one.devices[0].idle / US).tolist(), strict=True))
    # 0-10 and 26-60 no launch yet, 120-112 after the wait; 10-14 and 60-64 in the call; 14-16, 64-68 and 98-99 queued.
    assert idle == {"host": 10 + 34 + 8, "launching": 8, "queued": 2 + 4 + 1, "sync": 3}
    assert one.parts[f"{parts.FRAMEWORK}aten::linear"] == 6 * US  # 10 of which 4 in the call
    assert one.parts[f"{parts.FRAMEWORK}MmBackward0"] == 30 * US


def test_numbered_ranges_are_one_part_and_operators_keep_their_numbers():
    maker = Maker()
    for k in range(6):
        at = 100 * k
        maker.range(at, at + 90, f"turn {k}")
        maker.range(at + 2, at + 80, f"request {k}")
        maker.range(at + 10, at + 30, "aten::conv2d", kind=OPERATOR)
        call = maker.call(at + 40, at + 44, "cudaLaunchKernel")
        maker.operation(at + 46, at + 60, call, name="gemm")
        maker.call(at + 62, at + 64, "cudaDeviceSynchronize")
    recording = maker.recording()
    (group,) = explanation(recording, choose(recording, {"range": "turn*"}))["groups"]
    for kind, listed in (("host: ", group["path"]), ("framework: ", group["parts"])):
        named = {one["part"].removeprefix(kind) for one in listed if one["part"].startswith(kind)}
        assert {"request N", "aten::conv2d"} <= named and not any("request" in n for n in named - {"request N"})


def test_a_file_that_was_cut_before_its_device_says_so():
    maker = Maker()
    maker.call(0, 4, "cudaLaunchKernel")
    maker.range(0, 10, "aten::mm", kind=OPERATOR)
    whole = dataclasses.replace(maker.recording(), work=_no_work())
    problem = "The file ends before its events do, after 17 bytes of text: what came before was read."
    cut = dataclasses.replace(whole, source=dataclasses.replace(whole.source, problems=(problem,)))
    for recording, words in ((whole, "Nothing ran on a device"), (cut, "The file was cut off before the first work")):
        (error,) = [one["text"] for one in health(Accounts(recording)) if one["level"] == "error"]
        assert error.startswith(words)


def _no_work() -> Work:
    none = np.zeros(0, np.int64)
    return Work(**{one.name: none.astype(bool) if one.name == "node" else none for one in dataclasses.fields(Work)})


def test_threads_that_launch_at_the_same_time_are_lines_of_their_own():
    built = Built()
    built.launch(0, 20, (30, 40))
    built.launch(5, 25, (41, 90), stream_of(1), thread=1)
    built.wait(30, 95)
    one = built.account(0, 100)
    closes(one)
    assert len(one.lines.calls) == 2
    assert one.recorded is None and one.why_not == "threads launch work at the same time"


def stream_of(number: int) -> tuple:
    """A place holder of work on another stream."""
    return (91, 92, "gemm", number)


def overlapped() -> Built:
    """Compute on one stream, a copy and communication beside it on another; an event joins them."""
    built = Built()
    built.copy(0, 3, (10, 30), HOST_TO_DEVICE, stream=1)
    built.launch(4, 8, (12, 52, "gemm"))
    reduce = built.launch(10, 14, (40, 80, REDUCE, 1))
    record = built.call(15, 16, "cudaEventRecord")
    joined = built.call(17, 18, "cudaStreamWaitEvent")
    built.launch(20, 24, (82, 92, "gemm"))
    built.wait(30, 95)
    built.waits.append([0, joined, 1, record])
    assert reduce == 2
    return built


def test_overlap_and_what_is_hidden():
    one = overlapped().account(0, 100)
    closes(one)
    side = one.devices[0]
    classes = {name: value / US for name, value in zip(KERNEL_CLASSES, side.classes.tolist(), strict=True) if value}
    assert classes == {"copy": 20, "gemm": 22 + 10, "communication": 28}  # of two the one that began first
    assert side.overlap == (18 + 12) * US
    assert side.hidden_transfer == 18 * US
    assert side.hidden_communication == 12 * US


@pytest.mark.parametrize("known", [True, False])
def test_the_path_follows_events_or_what_ended_last(known):
    built = overlapped()
    if not known:
        built.waits.clear()
    one = built.account(0, 100)
    closes(one)
    # 92 back to 80: the kernel and its gap; the collective back to what it waited for.
    last = {"host": 5, "sync": 3, "kernel": 12}
    if known:  # in its stream the copy ended at 30, and it had been launched at 14
        assert shares(one) == last | {"communication": 50, "transfer": 30}
    else:  # the copy again: the gemm ended while the collective ran
        assert shares(one) == last | {"communication": 50, "transfer": 30}


def test_threads_that_live_for_one_iteration_are_one_row():
    built = Built(threads=[Thread(0, f"thread {number}") for number in range(9)])
    for number in range(8):
        begin = 100 * number
        built.launch(begin + 5, begin + 15, (begin + 20, begin + 60, "gemm"), thread=number + 1)
        built.wait(begin + 30, begin + 62)
    (group,) = explanation(built.recording(), Plain([(100 * number, 100 * number + 70) for number in range(8)]))[
        "groups"
    ]
    first, others = group["host"]
    assert first["thread"] == "thread 0" and others["thread"] == "8 others, in each iteration the busiest"
    assert others["launches"] == 1 and others["parts"]["launch"]["median"] == 10 * US
    assert sum(part["median"] for part in others["parts"].values()) == pytest.approx(70 * US)


def test_an_event_hands_on_what_its_stream_waits_for():
    """Stream 20 waits for stream 7 and records an event at once; stream 21 waits for that: so for the work of 7."""
    built = Built()
    built.streams.append(Stream(0, 0, 0, 21))
    built.launch(0, 4, (10, 60, "gemm"))
    first, joined = built.call(5, 6, "cudaEventRecord"), built.call(7, 8, "cudaStreamWaitEvent")
    second, last = built.call(9, 10, "cudaEventRecord"), built.call(11, 12, "cudaStreamWaitEvent")
    built.launch(14, 18, (61, 90, "gemm", 2))
    built.wait(20, 95)
    built.waits += [[1, joined, 0, first], [2, last, 1, second]]
    accounts = Accounts(built.recording())
    assert (accounts.dependencies.waiting.tolist(), accounts.dependencies.awaited.tolist()) == ([1], [0])
    assert shares(accounts.of(0, 100 * US, 0)) == {"host": 5, "sync": 5, "kernel": 80, "launch": 6 + 4}


def test_work_of_other_processes_and_of_other_iterations_has_a_name_and_a_size():
    built = Built(threads=[Thread(0, "thread 1"), Thread(1, "process 2, thread 1")])
    built.streams = [Stream(0, 0, 0, 7), Stream(1, 0, 1, 7)]
    built.launch(-20, -15, (-10, 12, "gemm"))
    built.launch(5, 9, (40, 60, "gemm", 1), thread=1)
    built.launch(10, 14, (20, 30, "gemm"))
    built.launch(50, 54, (90, 130, "gemm"))
    built.ran(-1, 62, 66)
    built.span(70, 80, "CUPTI buffer flush", kind=LOADING)
    one = built.account(0, 100)
    closes(one)
    assert {name: one.parts[name] / US for name in (parts.OTHER_PROCESSES, parts.BEFORE, parts.AFTER)} == {
        parts.OTHER_PROCESSES: 20,
        parts.BEFORE: 12,
        parts.AFTER: 30,
    }
    assert one.parts[parts.UNLAUNCHED] == 4 * US and one.parts[parts.PROFILER] == 10 * US
    assert one.devices[0].unexplained == (62 - 30) * US


def test_data_loading_and_allocation_are_named():
    built = Built()
    built.span(0, 100, "ProfilerStep#3", kind=RANGE)
    built.span(0, 40, "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", kind=RANGE)
    built.span(10, 20, "aten::stack")
    built.call(45, 60, "cudaMalloc")
    built.launch(62, 66, (70, 80))
    built.wait(70, 85)
    one = built.account(0, 100)
    closes(one)
    assert one.parts[parts.DATA] == 40 * US and f"{parts.FRAMEWORK}aten::stack" not in one.parts
    assert one.parts[parts.ALLOCATION] == 15 * US and one.counts["allocating calls"] == 1
    content = written(built, Plain([(0, 100)]))
    (group,) = content["groups"]
    assert any("load data ahead" in lever["lever"] for lever in group["levers"])
    assert any("allocate once" in lever["lever"] for lever in group["levers"])


def test_two_devices_are_accounted_apart():
    built = Built()
    built.streams = [Stream(0, 0, 0, 7), Stream(0, 1, 0, 7)]
    built.launch(0, 4, (10, 40, "gemm"))
    built.launch(5, 9, (15, 85, "gemm", 1))
    built.wait(10, 90)
    one = built.account(0, 100)
    closes(one)
    assert {device: side.classes.sum() / US for device, side in one.devices.items()} == {0: 30, 1: 70}
    assert shares(one) == {"host": 15 - 5 + 0, "sync": 5, "kernel": 70, "launch": 6 + 4 + 1 + 4}


def test_all_kernels_of_a_graph_and_the_gaps_between_them_are_on_the_path():
    built = Built()
    nodes = [(20 + 10 * k, 28 + 10 * k, "gemm") for k in range(50)]
    built.launch(0, 10, *nodes, name="cudaGraphLaunch")
    built.wait(12, 521)
    one = built.account(0, 525)
    closes(one)
    assert shares(one)["kernel"] == 50 * 8 + 49 * 2
    content = written(built, Plain([(0, 525)]))
    (kernel,) = content["groups"][0]["kernels"]
    assert (kernel["count"], kernel["ns"], kernel["path_ns"]) == (50, 400 * US, 400 * US)
    graph = next(one for one in content["groups"][0]["what_if"] if one["change"] == "graph")
    assert graph["gain"] is None and "already" in graph["why_not"]


def test_an_iteration_that_ends_with_its_work_is_the_devices():
    built = Built()
    built.launch(0, 4, (10, 50), (52, 90))
    one = built.account(0, 90)
    closes(one)
    assert shares(one) == {"launch": 4 + 6, "kernel": 80}
    halved = next(one for one in written(built, Plain([(0, 90)]))["groups"][0]["what_if"] if one["change"] == "kernels")
    assert halved["ns"] == pytest.approx(90 * US - (40 + 38) / 2 * US, abs=US)


def test_without_calls_the_device_alone_is_accounted():
    built = Built()
    built.ran(-1, 0, 40)
    built.ran(-1, 50, 90)
    one = built.account(0, 100, thread=-1)
    closes(one)
    assert one.hosts == {} and one.devices[0].unexplained == 10 * US
    assert shares(one) == {"kernel": 90, "sync": 10}
    content = written(built, Plain([(0, 100)], waiting=-1))
    assert any("no CUDA or HIP calls" in one["text"] for one in content["health"])
    assert all(row["gain"] is None and row["why_not"] for row in content["groups"][0]["what_if"])


def test_health_says_what_is_missing():
    built = Built(source={"dropped": 7})
    built.launch(10, 14, (9, 20))
    built.launch(30, 34)
    built.ran(-1, 40, 50)
    texts = {one["text"].split(":")[0]: one["level"] for one in health(Accounts(built.recording()))}
    assert texts["The recorder lost 7 records"] == "error"
    assert any(text.startswith("1 of 1 operations begin before their launch, by 1 us") for text in texts)
    assert "1 of 2 operations have no launch in the recording" in texts
    assert any(text.startswith("1 of 2 launches have nothing on the device") for text in texts)
    late = Built()
    late.launch(0, 4, (2_500, 2_510))
    assert any("up to 2.5 ms before an idle device" in one["text"] for one in health(Accounts(late.recording())))
    nothing = Built()
    nothing.call(0, 4)
    assert health(Accounts(nothing.recording()))[0]["level"] == "error"


def test_a_lever_that_gains_nothing_is_none():
    """The host needs all of the time: a faster kernel or a hidden copy would shorten nothing."""
    built = Built()
    for k in range(60):
        built.launch(40 * k, 40 * k + 5, (40 * k + 9, 40 * k + 12, "gemm"))
    built.copy(2_400, 2_404, (2_410, 2_412), DEVICE_TO_HOST)
    built.wait(2_405, 2_414)
    content = written(built, Plain([(0, 2_420)]))
    (group,) = content["groups"]
    gains = {row["change"]: row["gain"] for row in group["what_if"]}
    assert gains["host"] > 0.9 and gains["graph"] > 0.9 and gains["kernels"] < 0.01 and gains["copies"] < 0.01
    assert group["levers"][0]["lever"].startswith("capture a CUDA graph")
    assert not any("copies" in lever["lever"] or "products" in lever["lever"] for lever in group["levers"])
    assert group["verdict"]["name"] == "launch-bound"


def written(built: Built, iterations: Plain) -> dict:
    """The explanation, as a record that its schema takes."""
    content = explanation(built.recording(), iterations)
    source = {**content["source"], "bytes": 1, "sha256": "ab" * 32}
    sealed = records.sealed("explanation", {**content, "name": "x", "source": source, "provenance": PROVENANCE})
    assert {row["change"] for row in sealed["groups"][0]["what_if"]} == set(CHANGES)
    return sealed


def recording_of(capture: Capture) -> Recording:
    """A capture of this project as a recording: the same events."""
    ops = capture.operations
    numbers, stream = np.unique(ops.stream, return_inverse=True)
    columns = {field.name: getattr(ops, field.name) for field in dataclasses.fields(ops)}
    none = np.zeros(0, np.int64)
    threads = int(max(capture.calls.thread.max(), capture.marks.thread.max())) + 1
    return Recording(
        calls=capture.calls,
        work=Work(**(columns | {"stream": stream, "device": np.zeros(len(stream), np.int64)})),
        spans=Spans(none, none, none, none, none),
        waits=Waits(none, none, none, none),
        threads=tuple(Thread(0, f"thread {number + 1}") for number in range(threads)),
        streams=tuple(Stream(0, 0, 0, int(number)) for number in numbers),
        names=capture.names,
        device_names={},
        source=Source("ceilings", None, (), None, (), {}),
    )


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_a_capture_read_as_a_recording_has_the_budgets_numbers(path):
    """Real captures: eager PyTorch, a replayed graph, a program of known truth, by both recorders."""
    capture = store.read(path)
    accounts, marks = Accounts(recording_of(capture)), capture.marks
    for number, expected in enumerate(Account(capture).iterations()):
        one = accounts.of(*(int(part[number]) for part in (marks.start, marks.end, marks.thread)))
        closes(one)
        assert (one.hosts[one.thread].parts == expected.host).all()
        (side,) = one.devices.values()
        assert (side.classes == expected.classes).all() and (side.idle == expected.idle).all()
        if len(np.unique(capture.operations.stream)) == 1:
            path, launch, transfer = one.path.shares()[: len(expected.shares)], *_INDEX
            assert (np.delete(path, _INDEX) == np.delete(expected.shares, _INDEX)).all()
            # Calls that copy on the device, or fill, are launches here.
            assert path[launch] + path[transfer] == expected.shares[launch] + expected.shares[transfer]
        assert (one.counts["launches"], one.counts["kernels"]) == (expected.launches, expected.kernels)


def test_requests_that_overlap_have_their_own_work_on_the_path():
    """Two threads of a server, a stream each, at the same time: neither waits for the other's kernels."""
    built = Built()
    for thread, shift in ((0, 0), (1, 3)):
        built.launch(shift, shift + 4, (10 + shift, 40 + 20 * thread, "gemm", thread), thread=thread)
        built.wait(6 + shift, 45 + 20 * thread, thread=thread, name="cudaStreamSynchronize")
    one = Accounts(built.recording(), alone=True).of(0, 50 * US, 0)
    closes(one)
    assert shares(one) == {"host": 5, "sync": 5, "kernel": 30, "launch": 4 + 6}
    assert one.parts[parts.OTHER_LINES] == (50 - 13) * US
    assert one.recorded is not None and one.why_not is None
