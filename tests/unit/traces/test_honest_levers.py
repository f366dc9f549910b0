"""Levers that do not mislead: each has the cause that is there, and no gain that cannot be."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from unit.traces.handmade import US, Built

from ceilings.taxonomy import RECORDING_SHARES
from ceilings.traces.capture import HOST_TO_DEVICE
from ceilings.traces.explained.account import Accounts
from ceilings.traces.explained.explanation import explanation
from ceilings.traces.explained.iterations import choose
from ceilings.traces.explained.remedies import Evidence, levers
from ceilings.traces.explained.soundness import health

COUNTS = {
    **{"launches": 54.0, "graphs": 0.0, "kernels": 54.0, "copies": 2.0, "fills": 0.0, "graphs as a whole": 0.0},
    **{"copy calls": 2.0, "waiting calls": 1.0, "blocking copies": 0.0, "allocating calls": 0.0, "streams": 2.0},
}


def seen(shares=None, counts=None, **more) -> Evidence:
    """An iteration of 5 ms with copies of 4.8 ms that a stream of their own makes."""
    gains = {"host": 0.0, "graph": 0.0, "copies": 0.43, "kernels": 0.0, "communication": None, "waits": 0.0}
    values = {
        **{"length": 5_000_000.0, "gains": gains, "classes": {}, "calls": ["cudaDeviceSynchronize"]},
        **{"transfers": (4_800_000.0, 500_000.0), "communication": (0.0, 0.0), "kernel_ns": 20_000.0},
        **{"loads": 0.0, "allocations": 0.0, "sometimes": []},
    }
    known = dict.fromkeys(RECORDING_SHARES, 0.0) | (shares or {"transfer": 1.0})
    return Evidence(**{**values, "shares": known, "counts": COUNTS | (counts or {}), **more})


def names(evidence: Evidence) -> list[str]:
    return [one.lever.partition(":")[0].partition(" (")[0] for one in levers(evidence)]


def test_copies_that_run_apart_already_get_shorter_by_fewer_bytes_alone():
    (one,) = levers(seen(apart=True))
    assert one.lever.startswith("copy fewer bytes") and one.gain == pytest.approx(0.43)
    assert "streams of their own already" in one.why and "96% of the iteration" in one.why


def test_overlap_gains_no_more_than_what_else_there_is():
    """Copies of 4.8 ms of 5 ms leave 4.8 ms: to overlap them would gain 4% and no more."""
    assert names(seen()) == ["copy fewer bytes"]
    (one,) = levers(seen(transfers=(1_500_000.0, 0.0), gains={**seen().gains, "copies": 0.3}))
    assert one.lever.startswith("overlap copies") and one.gain == pytest.approx(0.3)


def test_pageable_memory_is_pinned_first():
    (one,) = levers(seen(pageable=(2.0, 0.5)))
    assert one.lever.startswith("pin the host's memory") and one.gain == pytest.approx(0.43)


HOST = {"host": 0.6, "launch": 0.4}
GRAPH = {**seen().gains, "graph": 0.6, "copies": 0.0}


def test_a_graph_where_the_host_waits_in_between_is_several():
    (one,) = levers(seen(HOST, gains=GRAPH, transfers=(0.0, 0.0), graphs=6.0))
    assert one.lever.startswith("capture several CUDA graphs, one between each two waits")
    assert "6 graphs" in one.why


def test_a_graph_saves_no_set_up_of_libraries():
    """Threads that begin anew have handles to build: a graph leaves that as it is."""
    first, second = levers(seen(HOST, gains={**GRAPH, "graph": 0.99}, transfers=(0.0, 0.0), set_up=0.9))
    assert first.lever.startswith("keep threads and handles") and first.gain == pytest.approx(0.9)
    assert second.lever.startswith("capture a CUDA graph") and second.gain == pytest.approx(0.09)


def test_start_up_is_no_reason_for_a_graph():
    (one,) = levers(seen(HOST, gains=GRAPH, transfers=(0.0, 0.0), repeats=False))
    assert one.lever.startswith("record iterations that repeat") and one.gain is None


def test_the_largest_operators_of_the_host_are_named():
    (one,) = levers(seen(HOST, gains=GRAPH, transfers=(0.0, 0.0), operators=[("aten::addmm", 0.2), ("aten::t", 0.01)]))
    assert "most of it in aten::addmm 20%;" in one.why


BUSY = {**seen().gains, "kernels": 0.49}


@pytest.mark.parametrize(
    ("classes", "kernels", "lever", "why"),
    [
        ({"other": 4.9e6}, [("spin", 4.9e6)], "make spin faster", "spin is 98% of the critical path"),
        ({"unknown": 4.9e6}, [("spin", 4.9e6)], "make spin faster", "spin is 98%"),
        ({"gemm": 4.9e6}, [("hgemm", 4.0e6)], "faster matrix products", "gemm kernels are 98% .* hgemm alone 80%"),
        ({"gemm": 1.0e6, "other": 3.9e6}, [("spin", 3.9e6)], "make spin faster", "spin is 78%"),
        ({"other": 4.9e6}, [("a", 1e6), ("b", 9e5)], "make the kernels of class other faster", "98%.*; a is 20%"),
    ],
)
def test_kernels_that_decide_are_named(classes, kernels, lever, why):
    evidence = seen({"kernel": 0.98}, gains=BUSY, transfers=(0, 0), classes=classes, kernels=kernels)
    (one,) = [each for each in levers(evidence) if "faster" in each.lever]
    assert one.lever.startswith(lever) and re.search(why, one.why)
    assert one.gain == pytest.approx(min(max(ns for _, ns in kernels) if "spin" in lever else 4.9e6, 4.9e6) / 1e7)


def test_kernels_that_decide_nothing_are_no_lever():
    few = seen({"kernel": 0.9}, gains=BUSY, transfers=(0, 0), classes={"communication": 4.9e6}, kernels=[])
    assert not [one for one in levers(few) if "faster" in one.lever and "kernels" in one.lever]


def test_a_kernel_without_a_class_is_named_from_its_recording():
    built = Built()
    for k in range(4):
        built.launch(20 * k, 20 * k + 4, (100 * k + 10, 100 * k + 110, "spin_kernel"))
    built.call(90, 415, "cudaDeviceSynchronize")
    made = built.recording()
    (group,) = explanation(made, choose(made, {"whole": True}))["groups"]
    assert group["levers"][0]["lever"] == "make spin_kernel faster"


def reading(waits: int) -> Built:
    """Stretches of five launches, each waited for; a launch takes 10 us of the host, its kernel 2 us."""
    built = Built()
    for stretch in range(waits):
        at = 200 * stretch
        for k in range(5):
            built.launch(at + 20 * k, at + 20 * k + 10, (at + 20 * k + 12, at + 20 * k + 14))
        built.call(at + 110, at + 120, "cudaStreamSynchronize")
    return built


def test_one_graph_is_predicted_between_each_two_waits():
    """Four stretches: each keeps its wait and the 80 us of host code after it."""
    made = reading(4).recording()
    (group,) = explanation(made, choose(made, {"whole": True}))["groups"]
    (graph,) = [one for one in group["what_if"] if one["change"] == "graph"]
    stretch = 10 + 2 + 5 * 2 + 4 * 0.3 + 10  # launch, its way, kernels and gaps, and the wait notices
    assert graph["ns"] / US == pytest.approx(4 * stretch + 3 * 80, abs=12)


def shifted(by: float) -> Accounts:
    made = reading(25).recording()
    work = dataclasses.replace(made.work, start=made.work.start + round(by * US), end=made.work.end + round(by * US))
    return Accounts(dataclasses.replace(made, work=work))


def streams(by: float) -> Accounts:
    """Kernels on two streams, each waited for by its stream: no wait is for the whole device."""
    built = Built()
    for k in range(50):
        built.launch(100 * k, 100 * k + 5, (100 * k + 7, 100 * k + 40, "gemm", k % 2))
        built.call(100 * k + 10, 100 * k + 46, "cudaStreamSynchronize")
    made = built.recording()
    work = dataclasses.replace(made.work, start=made.work.start + round(by * US), end=made.work.end + round(by * US))
    return Accounts(dataclasses.replace(made, work=work))


def graphs(by: float) -> Accounts:
    """Launches of one graph of three kernels, each waited for."""
    built = Built()
    for k in range(30):
        at = 200 * k
        ran = [(at + 26 + 10 * node, at + 35 + 10 * node) for node in range(3)]
        built.launch(at, at + 20, *ran, name="cudaGraphLaunch")
        built.wait(at + 22, at + 60)
    made = built.recording()
    work = dataclasses.replace(made.work, start=made.work.start + round(by * US), end=made.work.end + round(by * US))
    return Accounts(dataclasses.replace(made, work=work))


@pytest.mark.parametrize(
    ("made", "by", "words"),
    [
        *((made, 0, ()) for made in (shifted, streams, graphs)),
        (shifted, 15, ("17 us at the soonest",)),
        (shifted, 50, ("52 us at the soonest", "return before its work ends")),
        (shifted, -15, ("not aligned",)),
        (streams, 15, ("17 us at the soonest",)),
        (streams, -15, ("not aligned",)),
        (graphs, 15, ("21 us at the soonest", "return before its work ends")),
        (graphs, -15, ("returns 20 us after the work at the soonest",)),
    ],
)
def test_a_device_whose_clock_differs_by_15_us_is_named(made, by, words):
    found = " ".join(one["text"] for one in health(made(by)) if one["level"] == "warning")
    assert all(word in found for word in words) and (bool(words) or not found)


def test_events_that_may_be_missing_are_a_note_where_every_launch_has_its_work():
    problem = "Nsight Systems says that CUDA events may be missing."
    made = reading(10).recording()
    made = dataclasses.replace(made, source=dataclasses.replace(made.source, problems=(problem,)))
    texts = {one["text"]: one["level"] for one in health(Accounts(made))}
    assert texts[f"{problem[:-1]}; every launch has its work."] == "note"
    kept = np.arange(len(made.work.start)) % 10 > 0
    fields = [field.name for field in dataclasses.fields(made.work) if getattr(made.work, field.name) is not None]
    fewer = type(made.work)(**{name: getattr(made.work, name)[kept] for name in fields})
    texts = {one["text"]: one["level"] for one in health(Accounts(dataclasses.replace(made, work=fewer)))}
    assert texts[problem] == "warning"
    assert any("5 of 50 launches have nothing on the device" in text for text in texts)


def test_launch_calls_that_a_recorder_made_long_are_said():
    texts = [one["text"] for one in health(Accounts(reading(10).recording()))]
    assert any(text.startswith("A launch call takes 10 us (median)") for text in texts)


def test_copies_apart_and_their_time_come_from_the_recording():
    """Two copies at once on a stream without kernels: their time counts once, as a median."""
    built = Built()
    built.copy(0, 4, (10, 4_010), HOST_TO_DEVICE, stream=1)
    built.launch(20, 24, (26, 60))
    built.call(70, 4_015, "cudaDeviceSynchronize")
    made = built.recording()
    (group,) = explanation(made, choose(made, {"whole": True}))["groups"]
    assert "copies between host and device take 4,000 us" in group["levers"][0]["why"]


def layers(times: int, count: int, ends: bool) -> Built:
    """Iterations of equal layers that are each waited for; at the end the host waits once more, or does not."""
    built, at = Built(), 0
    for _ in range(times):
        for _ in range(count):
            for name in ("gemm", "softmax", "layer_norm"):
                built.launch(at, at + 5, (at + 7, at + 12, name))
                at += 20
            built.call(at, at + 5, "cudaStreamSynchronize")
            at += 20
        if ends:
            built.call(at, at + 5, "cudaDeviceSynchronize")
            at += 20
    return built


def test_layers_that_wait_are_parts_where_a_further_wait_ends_each_iteration():
    doubted = choose(layers(12, 6, ends=True).recording(), {"period": True})
    assert len(doubted) == 12 and doubted.certainty == pytest.approx(0.7)
    assert "the host waits 6 times in each" in doubted.why
    assert 72 in [one.count for one in doubted.others]
