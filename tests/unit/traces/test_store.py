"""What is read, refused and kept of a capture."""

from __future__ import annotations

import dataclasses
import sqlite3

import numpy as np
import pytest
from unit.traces.events import SECRETS, Events

from ceilings.errors import UserError
from ceilings.traces import health, store
from ceilings.traces.budget import Account
from ceilings.traces.budget_record import budget_record
from ceilings.traces.capture import NVTX, OPERATIONS, RUNTIME, trimmed, without_ranges


def two_iterations() -> Events:
    events = Events()
    for start in (0, 100):
        events.copy(events.call(start - 9, start - 8, "cudaMemcpyAsync_v3020"), start - 6, start - 5, kind=8)
        events.mark(start, start + 60)
        events.mark(start + 9, start + 15, text="a layer")
        events.launch(start + 10, start + 14, (start + 16, start + 30, "gemm"))
        nodes = [(start + 32, start + 34, "softmax", 7, 1), (start + 35, start + 36, "gemm", 8, 2)]
        events.launch(start + 18, start + 22, *nodes, name="cudaGraphLaunch_v10000")
        events.fill(events.call(start + 23, start + 25, "cudaMemsetAsync_v3020"), start + 40, start + 41)
        events.call(start + 26, start + 58, "cudaStreamSynchronize_v3020")
    return events


def same(a, b) -> bool:
    """Whether two captures hold the same."""
    for part in ("calls", "operations", "marks", "ranges"):
        pairs = zip(dataclasses.astuple(getattr(a, part)), dataclasses.astuple(getattr(b, part)), strict=True)
        if not all(np.array_equal(one, other) for one, other in pairs):
            return False
    return a.names == b.names and a.meta == b.meta


def test_what_is_kept_is_what_was_recorded(tmp_path):
    before = two_iterations().capture(iterations=2, cell={"model": "m"})
    store.write(tmp_path / "kept.sqlite", before)
    after = store.read(tmp_path / "kept.sqlite")
    assert same(before, after)
    assert after.ranges.text.tolist() == ["a layer"] * 2 and len(without_ranges(after).ranges.text) == 0
    assert len(after.operations.start) == 10 and after.operations.node.sum() == 4 and len(after.marks.start) == 2
    assert health.refuse_unsound(after, "kept") == []


def test_what_lies_outside_of_the_iterations_is_cut_off():
    events = two_iterations()
    before = events.launch(-40, -38, (-30, 5, "reaches_in"))
    assert before
    events.mark(-70, -65, text="a layer")
    events.launch(-60, -58, (-55, -50, "over"))
    events.launch(170, 172, (175, 180, "later"))
    cut = trimmed(events.capture())
    assert same(trimmed(cut), cut)
    (flag,) = health.refuse_unsound(cut, "it")
    assert flag.startswith("1 operations reach over an iteration's begin or end")
    assert "reaches_in" in cut.names and not {"over", "later"} & set(cut.names)
    assert (cut.operations.call >= 0).all()
    launched = [cut.names[cut.calls.name[call]] for call in cut.operations.call]
    expected = two_iterations().capture()
    assert launched[1:] == [expected.names[expected.calls.name[call]] for call in expected.operations.call[1:]]
    assert len(Account(cut).iterations()) == 2 and len(cut.ranges.text) == 2


def test_an_export_of_nsys_is_the_same_and_its_secrets_stay_behind(tmp_path):
    export = two_iterations().export(tmp_path / "raw.sqlite")
    with sqlite3.connect(export) as database:  # a library may have registered its texts
        database.execute("INSERT INTO StringIds (id, value) VALUES (800, 'a layer')")
        database.execute("UPDATE NVTX_EVENTS SET text = NULL, textId = 800 WHERE text = 'a layer'")
    assert SECRETS[0].encode() in export.read_bytes()
    raw = store.read(export)
    expected = two_iterations().capture(source="nsys")
    assert same(raw, dataclasses.replace(expected, meta={"source": "nsys"}))
    store.write(tmp_path / "kept.sqlite", raw)
    kept = (tmp_path / "kept.sqlite").read_bytes()
    assert not [secret for secret in SECRETS if secret.encode() in kept]
    assert same(store.read(tmp_path / "kept.sqlite"), raw)


def test_an_export_leaves_out_tables_without_rows(tmp_path):
    events = Events()
    events.mark(0, 60)
    events.launch(10, 14, (16, 30))
    raw = store.read(events.export(tmp_path / "raw.sqlite", without=OPERATIONS[1:]))
    assert len(raw.operations.start) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": (RUNTIME,)}, "no table CUPTI_ACTIVITY_KIND_RUNTIME: no CUDA call was recorded; .*--lazy=false"),
        ({"without": (OPERATIONS[0],)}, "no kernel was recorded"),
        ({"without": (NVTX,)}, "no NVTX range was recorded, and iterations are ranges with the text 'iteration'"),
        (
            {"older": {OPERATIONS[0]: "graphNodeId"}},
            "older schema: CUPTI_ACTIVITY_KIND_KERNEL has no graphNodeId; export",
        ),
        ({"older": {RUNTIME: "globalTid"}}, "older schema: CUPTI_ACTIVITY_KIND_RUNTIME has no globalTid"),
    ],
)
def test_an_export_that_cannot_be_read_says_why(tmp_path, changes, message):
    export = two_iterations().export(tmp_path / "raw.sqlite", **changes)
    with pytest.raises(UserError, match=message):
        store.read(export)


def test_a_file_that_is_no_capture(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        store.read(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("no database, and longer than the header of one would have to be" * 10)
    with pytest.raises(UserError, match="is no capture"):
        store.read(tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE people (name)")
    with pytest.raises(UserError, match="has no table StringIds"):
        store.read(tmp_path / "other.sqlite")
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(UserError, match="has no table StringIds"):
        store.read(tmp_path / "empty.sqlite")


def test_work_of_two_devices_is_refused(tmp_path):
    events = two_iterations()
    events.kernel(events.call(70, 71, "cudaLaunchKernel"), 72, 73, device=1)
    with pytest.raises(UserError, match="work of the devices 0, 1; capture one"):
        store.read(events.export(tmp_path / "raw.sqlite"))


OTHER = 815 << 24


def neighbour(events: Events) -> Events:
    """What another process does meanwhile: all that is recorded of the one that is measured."""
    before, events.process = events.process, OTHER
    for start in (-30, 20, 30, 40, 150):
        events.launch(start, start + 1, (start + 1, start + 5, "strange"))
    events.copy(events.call(41, 42, "cudaMemcpyAsync_v3020"), 46, 49)
    events.fill(events.call(43, 44, "cudaMemsetAsync_v3020"), 49, 50)
    events.mark(5, 58, text="their layer")
    events.process = before
    return events


def test_another_process_s_work_is_in_nothing_that_is_counted(tmp_path):
    """Also where both give out the same correlations."""
    alone, disturbed = two_iterations().capture(), neighbour(two_iterations()).capture()
    assert same(dataclasses.replace(disturbed, meta=alone.meta), alone)
    assert disturbed.meta["others"] == {"processes": 1, "operations": 6, "share": 20 / 160}
    assert budget_record(disturbed)["device_ns"] == budget_record(alone)["device_ns"]
    export = store.read(neighbour(two_iterations()).export(tmp_path / "raw.sqlite"))
    store.write(tmp_path / "kept.sqlite", trimmed(export))
    kept = store.read(tmp_path / "kept.sqlite")
    assert "strange" not in kept.names and "their layer" not in kept.ranges.text
    (flag,) = health.refuse_unsound(kept, "kept")
    assert flag.startswith(
        "6 operations of 1 other processes ran on the GPU from the first iteration to the last, 12.5%"
    )


def test_another_process_before_after_or_on_another_device_is_no_matter():
    events = two_iterations()
    events.process = OTHER
    events.launch(-40, -39, (-35, -30))
    events.launch(170, 171, (172, 175))
    events.kernel(events.call(20, 21, "cudaLaunchKernel"), 22, 40, device=1)
    assert "others" not in events.capture().meta and health.refuse_unsound(events.capture(), "it") == []


def test_iterations_of_two_processes_are_refused():
    events = two_iterations()
    events.process = OTHER
    events.mark(70, 80)
    with pytest.raises(UserError, match="iterations of 2 processes; capture one"):
        events.capture()


def test_work_of_another_thread_or_context_is_counted_and_flagged():
    events = two_iterations()
    events.launch(42, 43, (44, 46, "helper"), thread=2)
    (flag,) = health.refuse_unsound(events.capture(), "it")
    assert flag.startswith("1 of 9 operations were launched by other threads of the process")
    events = two_iterations()
    events.context = 2
    events.launch(42, 43, (44, 46, "second"))
    (flag,) = health.refuse_unsound(events.capture(), "it")
    assert flag.startswith("the process worked in 2 CUDA contexts")


def test_work_that_reaches_out_of_an_iteration_is_flagged_and_counts_within():
    events = two_iterations()
    events.launch(44, 46, (50, 70, "reaches_out"))
    cut = events.capture()
    (flag,) = health.refuse_unsound(cut, "it")
    assert flag.startswith("1 operations reach over")
    first, second = Account(cut).iterations()
    assert first.classes.sum() - second.classes.sum() == 10_000


def unmarked() -> Events:
    events = two_iterations()
    events.rows[NVTX] = [(*row[:4], "other", None) for row in events.rows[NVTX]]
    return events


def idle() -> Events:
    events = Events()
    events.mark(0, 50)
    events.call(10, 20, "cudaStreamSynchronize")
    return events


def orphaned() -> Events:
    events = two_iterations()
    events.kernel(9_999_999, 45, 46)
    return events


def lossy() -> Events:
    events = two_iterations()
    events.launch(115, 116)
    return events


def overlapping() -> Events:
    events = two_iterations()
    events.mark(30, 90)
    return events


@pytest.mark.parametrize(
    ("events", "meta", "message"),
    [
        (unmarked(), {}, "holds no iteration"),
        (idle(), {}, "is empty: no kernel ran during its 1 iterations"),
        (two_iterations(), {"iterations": 3}, "cut short: 2 of 3 iterations"),
        (two_iterations(), {"dropped": 17}, "lost 17 records; lower traces.iterations and run again"),
        (orphaned(), {}, "incomplete: 1 of 7 kernels have no launch"),
        (lossy(), {}, "incomplete: 1 of 5 launches have nothing on the device"),
        (overlapping(), {}, "iterations that overlap"),
    ],
)
def test_a_capture_that_is_not_sound_carries_no_budget(events, meta, message):
    with pytest.raises(UserError, match=message):
        health.refuse_unsound(events.capture(**meta), "it")


def test_a_failed_launch_is_no_lost_record():
    events = two_iterations()
    events.call(120, 121, "cudaLaunchKernel_v7000", status=98)
    assert health.refuse_unsound(events.capture(), "it") == []


def test_a_launch_into_a_graph_is_no_lost_record():
    events, begin, end = two_iterations(), "cudaStreamBeginCapture_v10000", "cudaStreamEndCapture_v10000"
    for at, name in ((63, end), (65, begin), (70, end)):  # the first ends what began before the capture
        events.call(at, at + 1, name)
    events.launch(67, 68)
    assert health.refuse_unsound(events.capture(), "it") == []
    events.launch(72, 73)
    with pytest.raises(UserError, match="incomplete: 1 of 5 launches have nothing on the device"):
        health.refuse_unsound(events.capture(), "it")


def test_a_graph_whose_end_is_lost_excuses_no_launch_behind_the_next_work():
    events = two_iterations()
    events.call(-5, -4, "cudaStreamBeginCapture_v10000")
    assert health.refuse_unsound(events.capture(), "it") == []  # the launches have their work
    events.launch(85, 86)
    with pytest.raises(UserError, match="incomplete: 1 of 5 launches have nothing on the device"):
        health.refuse_unsound(events.capture(), "it")


def test_a_graph_that_lasts_to_the_end_of_the_capture_excuses_its_launches():
    events = two_iterations()
    events.call(158.2, 158.4, "cudaStreamBeginCapture_v10000")
    events.launch(158.6, 159)
    assert health.refuse_unsound(events.capture(), "it") == []


def test_clocks_that_disagree_are_flagged():
    events = Events()
    events.mark(0, 50)
    events.launch(20, 22, (15, 30))
    assert "1 of 1 kernels begin before their launch" in health.refuse_unsound(events.capture(), "it")[0]
