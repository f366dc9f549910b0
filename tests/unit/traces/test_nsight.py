"""What is read of exports of Nsight Systems, whatever version wrote them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit.traces.nsight_exports import (
    EVENT,
    KERNEL,
    RUNTIME,
    SECRETS,
    SYNCHRONIZATION,
    YEARS,
    Export,
)

from ceilings.errors import UserError
from ceilings.traces import store
from ceilings.traces.capture import GRAPH, MEMCPY
from ceilings.traces.readers import nsight, nsight_spans
from ceilings.traces.readers.event_waits import latest_records
from ceilings.traces.readers.nesting import lanes
from ceilings.traces.recording import FUNCTION, LOADING, OPERATOR, RANGE

DATA = Path(__file__).parent / "data"
HELPER = Export.thread(4711, 4712)
OTHER = Export.thread(4800, 4800)


def program(year: int) -> Export:
    """Two processes on a GPU each, two threads, two streams, events, ranges, libraries; the account is known."""
    export = Export(year)
    export.gpu(0, "NVIDIA H100 80GB HBM3", ((4711, 0),))
    export.gpu(1, "NVIDIA H200", ((4800, 1),))
    for begin in (0, 100):
        export.range(begin, begin + 90, "step", registered=True)
        export.range(begin + 1, begin + 65, "forward")
        export.copy(export.call(begin + 2, begin + 3, "cudaMemcpyAsync_v3020"), begin + 4, begin + 6)
        launch = export.call(begin + 5, begin + 8, "cudaLaunchKernel_v7000")
        export.call(begin + 6, begin + 7, "cuLaunchKernel", correlation=launch)  # the driver's call within
        export.kernel(launch, begin + 9, begin + 20)
        export.record(export.call(begin + 10, begin + 11, "cudaEventRecord_v3020"), event=5, sync=begin + 1)
        waiting = export.call(begin + 12, begin + 13, "cudaStreamWaitEvent_v3020", HELPER)
        export.wait(waiting, event=5, sync=begin + 1, streamId=8)
        helper = export.call(begin + 14, begin + 15, "cudaLaunchKernel_v7000", HELPER)
        export.kernel(helper, begin + 21, begin + 30, "softmax", streamId=8)
        graph = export.call(begin + 16, begin + 18, "cudaGraphLaunch_v10000")
        for node in range(3):
            export.kernel(graph, begin + 32 + 3 * node, begin + 34 + 3 * node, "node", node=node + 1)
        synchronised = export.call(begin + 19, begin + 60, "cudaStreamSynchronize_v3020")
        export.wait(synchronised, event=2**32 - 1, kind=3)
        there = {"globalPid": OTHER >> 24 << 24, "deviceId": 1}
        export.fill(
            export.call(begin + 30, begin + 31, "cudaMemsetAsync_v3020", OTHER), begin + 33, begin + 36, **there
        )
        export.function("CUBLAS_EVENTS", begin + 4.5, begin + 8.5, "cublasGemmEx")
        export.function("OSRT_API", begin + 70, begin + 80, "pthread_cond_wait")
        export.function("OSRT_API", begin + 70, begin + 80, "poll", Export.thread(4711, 4999))
        export.function("PROFILER_OVERHEAD", begin + 85, begin + 86, "CUPTI buffer flush")
    return export


def names_of(recording, numbers) -> list[str]:
    return [recording.names[number] for number in numbers.tolist()]


def who_waits(recording) -> list[tuple]:
    """Number of the stream that waits or ``host``, its call, the stream that is waited for, and the recording call."""
    waits, found = recording.waits, []
    for row in zip(waits.stream, waits.call, waits.after_stream, waits.after_call, strict=True):
        stream, call, after_stream, after_call = map(int, row)
        called = [recording.names[recording.calls.name[one]] if one >= 0 else None for one in (call, after_call)]
        waiting = recording.streams[stream].number if stream >= 0 else "host"
        awaited = recording.streams[after_stream].number if after_stream >= 0 else "all"
        found.append((call, (waiting, called[0], awaited, called[1])))
    return [wait for _, wait in sorted(found)]


@pytest.mark.parametrize("year", YEARS)
def test_each_version_gives_the_same_recording(tmp_path, year):
    recording = nsight.read(program(year).write(tmp_path / "x.sqlite", seed=year))
    calls, work, spans, waits = recording.calls, recording.work, recording.spans, recording.waits
    assert recording.source.format == "nsight-systems"
    assert recording.source.tool == f"Nsight Systems {year}.{2 if year == 2024 else 1}.3.38"
    assert not recording.source.problems and recording.source.dropped is None
    counts = recording.source.counts
    assert (counts["CUDA calls"], counts["CUDA calls inside others"]) == (18, 2)
    assert (counts["kernels"], counts["copies"], counts["fills"], counts["NVTX ranges"]) == (10, 2, 2, 4)
    assert counts["calls of the operating system on other threads: left out"] == 2

    assert calls.start.tolist() == sorted(calls.start.tolist()) and len(calls.start) == 16
    assert calls.start[0] == 2000, "times begin at the first record, the range around"
    assert [thread.label for thread in recording.threads] == [
        "process 0, thread 0",
        "process 0, thread 1",
        "process 1, thread 0",
    ]
    assert np.bincount(calls.thread).tolist() == [10, 4, 2]

    assert len(work.start) == 14 and (work.call >= 0).all()
    assert (work.start >= calls.start[work.call]).all()
    assert work.node.sum() == 6 and work.device.tolist().count(1) == 2
    nodes = work.call[work.node].reshape(2, 3)
    assert (nodes == nodes[:, :1]).all(), "the nodes of a graph share the call that launched it"
    kernels = [name for name in names_of(recording, work.name) if "softmax" in name]
    assert kernels == ["void softmax<float>(int)"] * 2
    places = [(stream.process, stream.device, stream.number) for stream in recording.streams]
    assert sorted(places) == [(0, 0, 7), (0, 0, 8), (1, 1, 7)]
    assert recording.device_names == {0: "NVIDIA H100 80GB HBM3", 1: "NVIDIA H200"}

    assert (
        who_waits(recording)
        == [
            (8, "cudaStreamWaitEvent_v3020", 7, "cudaEventRecord_v3020"),
            ("host", "cudaStreamSynchronize_v3020", 7, None),
        ]
        * 2
    )
    of_streams = waits.stream >= 0
    assert (calls.start[waits.call] - calls.start[waits.after_call])[of_streams].tolist() == [2000, 2000]

    by_kind = {kind: sorted(set(names_of(recording, spans.name[spans.kind == kind]))) for kind in range(4)}
    assert by_kind == {
        RANGE: ["forward", "step"],
        OPERATOR: ["cublasGemmEx"],
        FUNCTION: ["pthread_cond_wait"],
        LOADING: ["CUPTI buffer flush"],
    }
    assert len(spans.start) == 10 and set(spans.thread.tolist()) == {0}


def everything(recording) -> str:
    return repr((recording.names, recording.threads, recording.streams, recording.device_names, recording.source))


@pytest.mark.parametrize("year", YEARS)
def test_no_environment_host_command_or_thread_name_gets_out(tmp_path, year):
    path = program(year).write(tmp_path / "x.sqlite")
    assert all(secret.encode() in path.read_bytes() for secret in SECRETS)
    shown = everything(nsight.read(path))
    assert not [secret for secret in SECRETS if secret in shown] and "4711" not in shown


@pytest.mark.parametrize("year", YEARS)
def test_a_lazy_export_leaves_tables_out(tmp_path, year):
    export = Export(year)
    export.kernel(export.call(0, 2, "cudaLaunchKernel_v7000"), 3, 5)
    recording = nsight.read(export.write(tmp_path / "one.sqlite", lazy=True))
    assert len(recording.work.start) == len(recording.calls.start) == 1 and len(recording.spans.start) == 0
    assert recording.source.lacks[0] == "It holds no NVTX ranges."
    export = Export(year)
    export.call(6, 7, "cudaStreamWaitEvent_v3020")
    lacks = nsight.read(export.write(tmp_path / "two.sqlite", lazy=True)).source.lacks
    assert lacks[0] == "1 calls let a stream wait for an event; for which, is not there."


def test_the_host_alone_and_the_device_alone(tmp_path):
    export = Export()
    export.call(0, 2, "cudaMalloc_v3020")
    recording = nsight.read(export.write(tmp_path / "host.sqlite", lazy=True))
    assert len(recording.work.start) == 0 and "It holds no work of a device." in recording.source.lacks
    export = Export()
    export.kernel(77, 3, 5)
    recording = nsight.read(export.write(tmp_path / "device.sqlite", lazy=True))
    assert recording.work.call.tolist() == [-1] and "It holds no CUDA calls." in recording.source.lacks
    assert recording.source.problems == ("1 kernels refer to no CUDA call that is there.",)


def test_rows_that_make_no_sense_are_counted(tmp_path):
    export = program(2024)
    export.range(150, None, "open")
    export.kernel(export.call(160, 161, "cudaLaunchKernel_v7000"), 170, 165)
    export.rows[KERNEL][-2] |= {"start": 0, "end": 0}
    export.kernel(9999, 120, 121)
    export.rows[KERNEL][-1]["demangledName"] = 12345
    export.kernel(export.call(180, 181, "cudaLaunchKernel_v7000"), 179, 183)
    export.kernel(None, 190, 191)
    export.call(185, 186, "cudaLaunchKernel_v7000")
    export.rows[RUNTIME][-1]["correlationId"] = None
    source = nsight.read(export.write(tmp_path / "x.sqlite")).source
    assert source.problems == (
        "1 NVTX ranges have no end: left out.",
        "1 kernels end before they begin: left out.",
        "1 kernels have no time: left out.",
        "2 kernels refer to no CUDA call that is there.",
        "1 operations of the device begin before the call that launched them.",
    )
    assert source.counts["kernels left out"] == 2 and source.counts["kernels"] == 14


def test_a_graph_traced_as_a_whole_and_one_that_is_there_twice(tmp_path):
    export = Export()
    export.graph(export.call(0, 3, "cudaGraphLaunch_v10000"), 5, 50)
    twice = export.call(60, 63, "cudaGraphLaunch_v10000")
    export.graph(twice, 65, 90)
    export.kernel(twice, 65, 90, node=1)
    recording = nsight.read(export.write(tmp_path / "x.sqlite"))
    assert (recording.work.kind == GRAPH).sum() == 1 and len(recording.work.start) == 2
    assert "graphs as a whole left out, for their nodes are there" in recording.source.counts
    assert any("without their kernels" in sentence for sentence in recording.source.lacks)


def test_domains_marks_and_ranges_that_cross(tmp_path):
    export = Export()
    export.range(0, None, "NCCL", domain=3, kind=75)
    export.range(0, None, "NVTX", domain=4, kind=75)
    export.range(1, 5, "ncclAllReduce", domain=3)
    export.range(2, 4, "step 1", domain=4)
    export.range(6, None, "a mark", kind=34)
    export.range(10, 20, "request 1", kind=60)
    export.range(15, 30, "request 2", kind=60)
    export.range(12, 14, "inside")
    recording = nsight.read(export.write(tmp_path / "x.sqlite"))
    spans = recording.spans
    shown = {
        name: recording.threads[t].label for name, t in zip(names_of(recording, spans.name), spans.thread, strict=True)
    }
    assert shown == {
        "NCCL:ncclAllReduce": "thread 0",
        "step 1": "thread 0",
        "request 1": "thread 0",
        "inside": "thread 0",
        "request 2": "thread 0, ranges across others 1",
    }
    assert not recording.source.problems


@pytest.mark.parametrize("year", [2025, 2026])
def test_processes_that_each_see_one_device_as_number_0(tmp_path, year):
    export = Export(year)
    export.gpu(0, "NVIDIA H100", ((4711, 0),))
    export.gpu(3, "NVIDIA H200", ((4800, 0),))
    for tid in (Export.thread(), OTHER):
        where = {"globalPid": tid >> 24 << 24}
        export.kernel(export.call(0, 2, "cudaLaunchKernel_v7000", tid, correlation=1), 3, 5, **where)
    recording = nsight.read(export.write(tmp_path / "x.sqlite"))
    assert recording.work.device.tolist() == [0, 3] and len(recording.streams) == 2
    assert recording.device_names == {0: "NVIDIA H100", 3: "NVIDIA H200"}
    assert sorted(recording.work.call.tolist()) == [0, 1], "both processes give out the same correlations"


@pytest.mark.parametrize("year", YEARS)
def test_the_host_waits_for_an_event_a_stream_or_all(tmp_path, year):
    export = Export(year)
    export.record(export.call(0, 1, "cudaEventRecord_v3020"), event=9, streamId=13)
    export.wait(export.call(2, 3, "cudaEventSynchronize_v3020"), event=9, kind=1, streamId=2**32 - 1)
    export.wait(export.call(4, 5, "cudaStreamSynchronize_v3020"), event=2**32 - 1, kind=3, streamId=14)
    export.wait(export.call(6, 7, "cudaDeviceSynchronize_v3020"), event=2**32 - 1, kind=4, streamId=2**32 - 1)
    recording = nsight.read(export.write(tmp_path / "x.sqlite", seed=year))
    assert who_waits(recording) == [
        ("host", "cudaEventSynchronize_v3020", 13, "cudaEventRecord_v3020"),
        ("host", "cudaStreamSynchronize_v3020", 14, None),
        ("host", "cudaDeviceSynchronize_v3020", "all", None),
    ]
    assert sorted(stream.number for stream in recording.streams) == [13, 14], "no stream is made up"


def test_events_that_are_recorded_again_and_again(tmp_path):
    export = Export(2023)
    for begin in (0, 10, 20):
        export.record(export.call(begin, begin + 1, "cudaEventRecord_v3020"), event=5)
        export.wait(export.call(begin + 5, begin + 6, "cudaStreamWaitEvent_v3020"), event=5, streamId=8)
    export.wait(export.call(30, 31, "cudaStreamWaitEvent_v3020"), event=6, streamId=8)
    recording = nsight.read(export.write(tmp_path / "x.sqlite", seed=3))
    waits, start = recording.waits, recording.calls.start
    assert sorted((start[waits.call] - start[waits.after_call]).tolist()) == [5000, 5000, 5000]
    assert recording.source.counts["waits for events without a record: left out"] == 1


@pytest.mark.parametrize(("year", "stream"), [(2024, 13), (2025, 7)])
def test_a_wait_that_names_its_record_waits_for_that_one(tmp_path, year, stream):
    """Another thread has recorded the event anew before the stream waits; without a name the latest one is taken."""
    export = Export(year)
    export.record(export.call(0, 1, "cudaEventRecord_v3020"), event=5, sync=70, streamId=7)
    export.record(export.call(2, 3, "cudaEventRecord_v3020", HELPER), event=5, sync=71, streamId=13)
    export.wait(export.call(4, 5, "cudaStreamWaitEvent_v3020"), event=5, sync=70, streamId=8)
    recording = nsight.read(export.write(tmp_path / "x.sqlite"))
    assert who_waits(recording) == [(8, "cudaStreamWaitEvent_v3020", stream, "cudaEventRecord_v3020")]


def test_the_latest_record_is_the_one_that_a_loop_finds():
    random = np.random.default_rng(5)
    for _ in range(100):
        count, waiting = random.integers(0, 30, 2)
        recorded, maker = random.integers(0, 4, count), random.permutation(60)[:count] - 5
        event, call = random.integers(0, 5, waiting), random.integers(-1, 60, waiting)
        found = latest_records((event, call), (recorded, maker))
        for wait, place in enumerate(found):
            before = [m for m, r in zip(maker, recorded, strict=True) if r == event[wait] and 0 <= m <= call[wait]]
            assert (maker[place] if place >= 0 else None) == (max(before) if before else None)


def test_spans_of_a_lane_are_nested_and_none_is_lost():
    random = np.random.default_rng(6)
    for _ in range(100):
        start = random.integers(0, 40, 25)
        end, thread = start + random.integers(0, 15, 25), random.integers(0, 2, 25)
        order, lane = lanes(start, end, thread)
        assert sorted(order) == list(range(25))
        for one in range(25):
            for other in range(25):
                if (thread[one], lane[one]) == (thread[other], lane[other]):
                    assert not start[one] < start[other] < end[one] < end[other]


def test_what_the_recorder_warns_of(tmp_path):
    export = program(2024)
    for text in (
        "Process was launched by the profiler, see /home/bob/streams/pid_1.log",
        "Not all CUDA events might have been collected.",
        "Some events (\t17) were lost due to an overflow.",
    ):
        export.add("DIAGNOSTIC_EVENT", timestamp=1, timestampType=1, source=1, severity=2, text=text)
    recording = nsight.read(export.write(tmp_path / "x.sqlite"))
    assert recording.source.dropped == 17
    assert recording.source.problems == ("Nsight Systems says that CUDA events may be missing.",)
    assert "bob" not in everything(recording)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.sqlite")), ids=lambda path: path.stem)
def test_a_kept_capture_is_a_recording_too(path):
    kept, recording = store.read(path), nsight.read(path)
    assert recording.source.format == "ceilings"
    assert np.array_equal(recording.work.start, kept.operations.start)
    assert np.array_equal(recording.work.call, kept.operations.call)
    assert np.array_equal(recording.calls.start, kept.calls.start)
    assert names_of(recording, recording.calls.name) == [kept.names[name] for name in kept.calls.name]
    iterations = np.array(names_of(recording, recording.spans.name)) == "iteration"
    assert np.array_equal(recording.spans.start[iterations], kept.marks.start)


def test_a_kept_capture_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "x.sqlite"
    path.write_bytes((DATA / "truth.nsys.sqlite").read_bytes())
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {KERNEL} SET streamId = 1")
    database.close()
    with pytest.raises(UserError, match="was changed since it was kept"):
        nsight.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1....", "export as Parquet; export the report with `nsys export --type sqlite"),
        (b"ARROW1..", "export as Arrow"),
        (b"\x89HDF\r\n\x1a\n", "export as HDF5"),
        (b"QDSTRM..", "did not turn into a report"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>" * 100, "is no capture"),
        (b"", "holds no CUDA call, kernel or range"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.sqlite"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        nsight.read(path)
    assert "\n" not in str(caught.value)


def test_folders_missing_files_and_other_databases(tmp_path):
    (tmp_path / "x_pqtdir").mkdir()
    (tmp_path / "x_pqtdir" / "StringIds.parquet").touch()
    with pytest.raises(UserError, match=r"as a folder of \.parquet files; `nsys export"):
        nsight.read(tmp_path / "x_pqtdir")
    with pytest.raises(UserError, match="does not exist"):
        nsight.read(tmp_path / "none.sqlite")
    with pytest.raises(UserError, match="no table StringIds"):
        nsight.read(program(2024).write(tmp_path / "x.sqlite", without=("StringIds",)))


@pytest.mark.parametrize("value", ["'yesterday'", "1e300", "x'00ff'", "-1e300"])
def test_a_row_with_something_else_than_numbers_is_left_out(tmp_path, value):
    program(2024).write(tmp_path / "x.sqlite")
    with sqlite3.connect(tmp_path / "x.sqlite") as database:
        database.execute(f"UPDATE {KERNEL} SET start = {value} WHERE rowid = 1")
        database.execute(f'UPDATE {RUNTIME} SET "end" = {value} WHERE rowid < 3')
    database.close()
    source = nsight.read(tmp_path / "x.sqlite").source
    assert source.counts["kernels"] == 9
    assert source.counts["CUDA calls"] == 16
    what = "hold a text, or a number out of all bounds, for a number: left out."
    assert {f"1 kernels {what}", f"2 CUDA calls {what}"} <= set(source.problems)


def test_a_file_that_was_cut_or_damaged(tmp_path):
    whole = program(2024).write(tmp_path / "x.sqlite").read_bytes()
    (tmp_path / "cut.sqlite").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"is cut short: [\d,]+ of [\d,]+ bytes are there; copy it again"):
        nsight.read(tmp_path / "cut.sqlite")
    (tmp_path / "damaged.sqlite").write_bytes(whole[:8192] + bytes(4096) * (len(whole) // 4096 - 2))
    with pytest.raises(UserError, match="is no capture"):
        nsight.read(tmp_path / "damaged.sqlite")
    with sqlite3.connect(tmp_path / "x.sqlite") as database:
        database.execute(f"UPDATE {RUNTIME} SET start = 'yesterday'")
    database.close()
    with pytest.raises(UserError, match="is no capture"):
        nsight.read(tmp_path / "x.sqlite")


def test_a_file_that_is_being_written(tmp_path, monkeypatch):
    monkeypatch.setattr("ceilings.traces.tables.BUSY_SECONDS", 0.1)
    path = program(2024).write(tmp_path / "x.sqlite")
    with sqlite3.connect(path) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="is locked: another program writes it"):
            nsight.read(path)
    writer.close()
    with sqlite3.connect(path) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("DELETE FROM OSRT_API")
        writer.commit()
        with pytest.raises(UserError, match=r"is unfinished: x\.sqlite-wal beside it"):
            nsight.read(path)
    writer.close()


def test_a_hostile_file(tmp_path):
    """Views that never end, times that overflow, names that are no texts, are huge, or are no UTF-8."""
    export = program(2024)
    export.range(150, 160, "x" * 100_000)
    export.kernel(export.call(170, 171, "cudaLaunchKernel_v7000"), 180, 181)
    export.rows[KERNEL][-1] |= {"start": -(2**63), "end": 5}
    path = export.write(tmp_path / "x.sqlite", without=("OSRT_API",))
    with sqlite3.connect(path) as database:
        endless = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
        database.execute(f"CREATE VIEW OSRT_API AS {endless}")
        database.execute("UPDATE StringIds SET value = x'ff00' WHERE value = 'cudaGraphLaunch_v10000'")
        database.execute("UPDATE NVTX_EVENTS SET text = x'fffe41' WHERE text = 'forward'")
    database.close()
    recording = nsight.read(path)
    assert recording.source.problems == ("1 kernels have no time: left out.",)
    assert all(isinstance(name, str) and len(name) <= 20_000 for name in recording.names)
    assert "\ufffd\ufffdA" in recording.names and "x" * 20_000 in recording.names


REPORT = nsight.REPORT + b" 2024@2@3@38"


def test_a_report_where_nsys_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "x.nsys-rep").write_bytes(REPORT)
    with pytest.raises(
        UserError, match=r"nsys is not on PATH to export it; where it is, run `nsys export .* x.nsys-rep`"
    ):
        nsight.read(tmp_path / "x.nsys-rep")


def stand_in(folder: Path, script: str) -> None:
    """A program that takes the arguments of ``nsys export``; nsys itself is not here."""
    path = folder / "nsys"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def test_a_report_is_exported_to_a_folder_that_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    export = program(2024).write(tmp_path / "export.sqlite")
    told = tmp_path / "told"
    stand_in(
        tmp_path,
        "output = next(one for one in sys.argv if one.startswith('--output=')).partition('=')[2]\n"
        f"open({str(told)!r}, 'w').write(output)\nshutil.copy({str(export)!r}, output)\n",
    )
    (tmp_path / "x.nsys-rep").write_bytes(REPORT)
    assert everything(nsight.read(tmp_path / "x.nsys-rep")) == everything(nsight.read(export))
    assert not Path(told.read_text()).parent.exists()
    stand_in(tmp_path, "sys.stderr.write('Importing [10%]\\rIncompatible report version\\n'); sys.exit(1)\n")
    with pytest.raises(UserError, match=r"cannot be exported by .*Incompatible report version\); take"):
        nsight.read(tmp_path / "x.nsys-rep")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nsys") is None, reason="nsys is not on PATH")
def test_a_real_report(tmp_path):
    """Of a program without CUDA, which nsys records without a GPU."""
    report = tmp_path / "x.nsys-rep"
    program_of_it = [sys.executable, "-c", "import time; [time.sleep(0.001) for _ in range(50)]"]
    options = ["--trace=osrt", "--sample=none", "--cpuctxsw=none", f"--output={report}"]
    subprocess.run(["nsys", "profile", *options, *program_of_it], check=True, capture_output=True)
    source = nsight.read(report).source
    assert source.counts["calls of the operating system"] >= 50 and not source.problems
    assert source.tool.startswith("Nsight Systems 20") and "It holds no CUDA calls." in source.lacks


def test_progress_goes_up_to_the_end(tmp_path):
    shares = []
    nsight.read(program(2024).write(tmp_path / "x.sqlite"), shares.append)
    assert shares == sorted(shares) and 0 < shares[0] <= shares[-1] <= 1 and shares[-1] > 0.9


def test_the_names_of_tables_are_those_that_are_read():
    assert {SYNCHRONIZATION, EVENT} == {nsight.SYNCHRONIZATION, nsight.EVENT}
    assert set(nsight_spans.FUNCTIONS) <= set(Export(2026).schema) and MEMCPY == 1
