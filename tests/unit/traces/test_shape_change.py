"""What a change of the shape costs, by parts: planted costs, and any capture against an account of single instants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from unit.traces import planted_changes
from unit.traces.events import MAIN, Events
from unit.traces.planted_changes import (
    ALLOCATE_US,
    CHANGES,
    COST_US,
    FREE_US,
    INTO_B1,
    INTO_B2,
    LOAD_US,
    SEARCH_US,
    facts,
)

from ceilings.errors import UserError
from ceilings.traces.capture import KERNEL
from ceilings.traces.shape_change import DEVICE_SIDE, HOST_SIDE, Labels, change_record

US = 1e3


@pytest.fixture(scope="module")
def record():
    return change_record(planted_changes.capture())


@pytest.fixture(scope="module")
def changes(record):
    return record["changes"]


def costs(comparison, side):
    return {row["part"]: row["cost_ns"] / US for row in comparison[side]}


def test_a_change_costs_what_was_planted(record, changes):
    assert changes["requests"] == CHANGES and changes["left_out"] == []
    assert changes["cost_ns"]["mean"] == pytest.approx(COST_US * US)
    assert changes["taken_ns"] - changes["again_ns"] == pytest.approx(COST_US * US)
    assert record["flags"] == [] and record["first"] is None
    assert record["settling_ns"] == pytest.approx(0, abs=1e-6)


def test_the_host_s_parts_are_the_planted_ones_and_sum_to_the_cost(changes):
    host = costs(changes, "host")
    assert host["loading modules"] == LOAD_US
    assert host["allocating and freeing"] == ALLOCATE_US + FREE_US
    assert host["launching"] == 3
    assert host["other code"] == planted_changes.CODE_US
    # of the search's 100 µs the 4 of the next launch are no waiting
    assert host["waiting for kernels of changes only"] == SEARCH_US - 4
    assert host["waiting while the device idles"] == 4  # from the end of the search to the request's kernel
    assert sum(host.values()) == pytest.approx(COST_US)


def test_the_device_s_parts_sum_to_the_cost_too(changes):
    device = costs(changes, "device")
    assert device["kernels of changes only"] == SEARCH_US and device.get("other kernels", 0) == 0
    assert sum(device.values()) == pytest.approx(COST_US)


def test_kernels_of_changes_only_are_named_also_where_another_shape_has_them_again(changes):
    only = {one["name"]: one for one in changes["only"]}
    assert {name for name, one in only.items() if one["what"] == "kernel"} == {"search_a"}
    assert only["search_a"]["requests"] == CHANGES and only["search_a"]["ns"] == 60_000
    assert {name for name, one in only.items() if one["what"] == "call"} == {
        "cuModuleLoadData",
        "cudaMalloc",
        "cudaFree",
    }
    tried = next(one for one in changes["more"] if one["name"] == "conv_b1")
    assert tried["ns"] - tried["again_ns"] == pytest.approx(40_000 * INTO_B2 / CHANGES)


def test_counts_are_a_request_s(changes):
    assert changes["counts"]["loading modules"] == {"taken": 1, "again": 0}
    assert changes["counts"]["allocating and freeing"] == {"taken": 2, "again": 0}
    assert changes["counts"]["kernels"] == {"taken": 3, "again": 1}
    assert changes["counts"]["waiting"] == {"taken": 1, "again": 1}


def test_transitions_are_listed_the_dearest_first(record):
    pairs = {(one["previous"], one["shape"]): one for one in record["transitions"]}
    assert set(pairs) == {("b1", "b2"), ("b2", "b1")}
    for one in pairs.values():
        assert one["taken_ns"] - one["again_ns"] == pytest.approx(COST_US * US)
    assert [pairs[pair]["count"] for pair in (("b2", "b1"), ("b1", "b2"))] == [INTO_B1, INTO_B2]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "loading modules") for name in ("cuModuleLoadDataEx", "cuLibraryLoadData", "cuModuleUnload")),
        *(
            (name, "allocating and freeing")
            for name in ("cudaMallocAsync_v11020", "cuMemFree_v2", "cudaHostAlloc_v3020")
        ),
        *((name, "allocating and freeing") for name in ("cuMemAddressReserve", "cuMemSetAccess", "cudaHostRegister")),
        *((name, "building graphs") for name in ("cudaStreamBeginCapture_v10000", "cudaGraphInstantiate_v12000")),
        *((name, "launching") for name in ("cudaLaunchKernelExC_v11060", "cudaGraphLaunch_v10000", "cuLaunchKernel")),
        *((name, "copying") for name in ("cudaMemcpyAsync_v3020", "cuMemsetD32Async", "cudaMemsetAsync_v3020")),
        *((name, "waiting while the device idles") for name in ("cudaEventSynchronize", "cudaStreamQuery_v3020")),
        *((name, "other calls") for name in ("cudaEventCreate_v3020", "cudaStreamIsCapturing_v10000", "cudaSetDevice")),
    ],
)
def test_a_call_belongs_to_the_part_of_its_name(name, part):
    events, now, order = Events(), 10.0, [0] * 6 + [1] * 6 + [0]
    for previous, shape in itertools.pairwise([0, *order]):
        events.mark(now, now + 50)
        if shape != previous:
            events.call(now + 1, now + 31, name)
        now += 60
    changes = change_record(events.capture(requests=facts(order, before=0)))["changes"]
    assert costs(changes, "host") == {part: 30, "other code": -30}


def test_first_appearances_are_compared_apart():
    """The first two requests take 500 µs more than the other changes."""
    events, now = Events(), 10.0
    order = [0, 1, *planted_changes.ORDER]
    for number, (previous, shape) in enumerate(itertools.pairwise([1, *order])):
        begin = now
        if number < 2:
            events.call(now + 1, now + 501, "cuLibraryLoadData")
            now += 501
        now = planted_changes.request(events, now, shape, change=previous != shape, begin=begin) + 10
    record = change_record(events.capture(requests=facts(order, first=2)))
    first = record["first"]
    assert first["requests"] == 2 and first["cost_ns"]["low"] == pytest.approx(first["cost_ns"]["mean"])
    assert first["cost_ns"]["mean"] == pytest.approx((COST_US + 501) * US)
    assert costs(first, "host")["loading modules"] == LOAD_US + 500
    assert record["changes"]["requests"] == CHANGES
    assert record["changes"]["cost_ns"]["mean"] == pytest.approx(COST_US * US)


def test_a_single_first_appearance_within_the_spread_of_its_shape_costs_nothing_for_sure():
    events, now = Events(), 10.0
    order = [1, *[0] * 20, *[1] * 20]
    for number in range(len(order)):
        busy = 30 + 10 * (number % 2) + (5 if not number else 0)
        events.launch(now + 1, now + 3, (now + 5, now + 5 + busy, "gemm"))
        events.call(now + 3, now + 6 + busy, "cudaStreamSynchronize")
        events.mark(now, now + 7 + busy)
        now += 100
    cost = change_record(events.capture(requests=facts(order, before=0, first=1)))["first"]["cost_ns"]
    assert cost["low"] < 0 < cost["high"]


def test_requests_that_settle_are_in_neither_group():
    labels = Labels.of(facts([0, 0, 0, 0, 1, 1, 1, 1], before=0))
    assert labels.change.tolist() == [False] * 4 + [True] + [False] * 3
    assert labels.again.tolist() == [False] * 3 + [True] + [False] * 3 + [True]


def test_a_shape_that_never_comes_again_is_left_out_and_named():
    order = [*planted_changes.ORDER, 2]
    events = planted_changes.events_of()
    planted_changes.request(events, 1e6, 1, change=True)
    record = change_record(events.capture(requests=facts(order, shapes=["b1", "b2", "b3"])))
    assert record["changes"]["left_out"] == ["b3"] and "b3" in record["flags"][0]
    assert record["changes"]["cost_ns"]["mean"] == pytest.approx(COST_US * US)


def test_a_cost_within_the_spread_is_flagged():
    """All requests alike but for noise that has nothing to do with the shapes."""
    chance, events, now = np.random.default_rng(0), Events(), 10.0
    order = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1] * 5
    for _ in order:
        busy = float(chance.uniform(20, 40))
        events.launch(now + 1, now + 3, (now + 5, now + 5 + busy, "gemm"))
        events.call(now + 3, now + 6 + busy, "cudaStreamSynchronize")
        events.mark(now, now + 7 + busy)
        now += 100
    record = change_record(events.capture(requests=facts(order, before=0, settling=0)))
    assert record["changes"]["cost_ns"]["low"] < 0 < record["changes"]["cost_ns"]["high"]
    assert record["flags"] == ["what a change costs is not larger than requests of one shape differ"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (facts([0, 1]), "holds 17 iterations and the shapes of 2"),
        (facts([0] * 17, before=0), "capture a sequence with several shapes"),
        (None, "says no shapes of its iterations"),
    ],
)
def test_a_capture_that_does_not_fit_is_refused(said, message):
    with pytest.raises(UserError, match=message):
        change_record(planted_changes.events_of().capture(requests=said))


# --- against single instants ------------------------------------------------------------------------------------------

PARTS_OF_CALLS = {
    **{"cuModuleLoadData": "loading modules", "cudaMalloc": "allocating and freeing"},
    **{"cudaGraphInstantiate": "building graphs", "cudaLaunchKernel": "launching", "cudaMemcpyAsync": "copying"},
    "cudaEventRecord": "other calls",
}
NAMES = (*PARTS_OF_CALLS, "cudaStreamSynchronize")
WAITS_BY_WORK = {
    "kernels of changes only": "waiting for kernels of changes only",
    "idle": "waiting while the device idles",
}
PARTS_OF_SPANS = (
    ("compiling", "entire_frame_compile"),
    ("checking guards", "TorchDynamo Cache Lookup"),
    ("operators", "aten::mm"),
    ("compiled code", "Torch-Compiled Region: 0/1"),
)
SPANS = [text for _, text in PARTS_OF_SPANS]
ITERATION_US = 60


def random_events(seed: int):
    """Calls one after another, kernels and copies anywhere on two streams, ranges anywhere."""
    chance, events, truth = np.random.default_rng(seed), Events(), []
    order = [*chance.integers(0, 2, 24).tolist(), 0, 0, 0, 1, 1, 1]
    for number in range(len(order)):
        begin = 10 + number * (ITERATION_US + 5)
        events.mark(begin, begin + ITERATION_US)
        now, calls = begin, []
        while (now := now + int(chance.integers(0, 8))) < begin + ITERATION_US - 12:
            name, length = NAMES[chance.integers(len(NAMES))], int(chance.integers(1, 12))
            calls.append((now, now + length, name))
            correlation = events.call(now, now + length, name)
            if name == "cudaLaunchKernel" and chance.random() < 0.9:
                start = now + int(chance.integers(0, 10))
                events.kernel(
                    correlation,
                    start,
                    start + int(chance.integers(1, 15)),
                    f"k{chance.integers(6)}",
                    chance.integers(2),
                )
            if name == "cudaMemcpyAsync":
                events.copy(correlation, now, now + int(chance.integers(1, 9)))
            now += length
        for _ in range(chance.integers(0, 4)):
            start, name = begin + int(chance.integers(0, 50)), SPANS[chance.integers(len(SPANS))]
            events.mark(start, start + int(chance.integers(1, 10)), MAIN, name)
        truth.append((begin, calls))
    return events, order, truth


@pytest.mark.parametrize("seed", range(12))
def test_parts_are_those_of_an_account_of_single_instants(seed):
    events, order, truth = random_events(seed)
    capture = events.capture(requests=facts(order, before=0, settling=1))
    record = change_record(capture)
    labels = Labels.of(capture.meta["requests"])
    rows = capture.operations
    zero = capture.marks.start[0] - truth[0][0] * 1000  # of the capture's clock
    spans = list(zip(capture.ranges.start, capture.ranges.end, capture.ranges.text, strict=True))

    def request_of(start):
        return next(
            (k for k, (begin, _) in enumerate(truth) if 0 <= start - zero - begin * 1000 < ITERATION_US * 1000), -1
        )

    kernels = [
        (request_of(start), name)
        for start, name, kind in zip(rows.start, rows.name, rows.kind, strict=True)
        if kind == KERNEL
    ]
    steady = {(labels.shape[at], name) for at, name in kernels if at >= 0 and labels.again[at]}

    def work_at(instant):
        """Of the device's work at an instant what comes first."""
        found = set()
        for start, end, kind, name in zip(rows.start, rows.end, rows.kind, rows.name, strict=True):
            if start <= instant < end:
                at = request_of(start)
                novel = kind == KERNEL and at >= 0 and (labels.shape[at], name) not in steady
                found.add(0 if novel else 1 if kind == KERNEL else 2)
        return DEVICE_SIDE[min(found, default=3)]

    def code_at(instant):
        """Of the ranges at an instant what comes first."""
        inside = {text for start, end, text in spans if start <= instant < end}
        return next((part for part, text in PARTS_OF_SPANS if text in inside), "other code")

    def account(number):
        begin, calls = truth[number]
        host, device = dict.fromkeys(HOST_SIDE, 0), dict.fromkeys(DEVICE_SIDE, 0)
        for tick in range(begin, begin + ITERATION_US):
            instant = tick * 1000 + 500 + zero
            work = work_at(instant)
            device[work] += 1
            name = next((name for start, end, name in calls if start <= tick < end), None)
            if name is None:
                part = code_at(instant)
            elif name == "cudaStreamSynchronize":
                part = WAITS_BY_WORK.get(work, "waiting for other work")
            else:
                part = PARTS_OF_CALLS[name]
            host[part] += 1
        return host, device

    every = [account(number) for number in range(len(order))]
    for place, side in enumerate(("host", "device")):
        shown = {row["part"]: row for row in record["changes"][side]}
        for part in every[0][place]:
            values = np.array([one[place][part] for one in every], float)
            changes = [values[labels.change & (labels.shape == s)] for s in (0, 1)]
            again = [values[labels.again & (labels.shape == s)].mean() for s in (0, 1)]
            change = np.concatenate(changes).mean()
            weighted = sum(len(c) * a for c, a in zip(changes, again, strict=True)) / sum(map(len, changes))
            got = shown.get(part, {"taken_ns": 0, "again_ns": 0})
            assert got["taken_ns"] / US == pytest.approx(change, abs=1e-6), part
            assert got["again_ns"] / US == pytest.approx(weighted, abs=1e-6), part
