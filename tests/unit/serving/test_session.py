"""What a run of a deployment does itself: share cores out, order its loads, tell answers apart, watch the machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from ceilings.host import physical_cores
from ceilings.measure import gpu_watch
from ceilings.measure.bystanders import Bystanders
from ceilings.measure.neighbours import Neighbours
from ceilings.serving.core_split import split
from ceilings.serving.deployment import Deployment
from ceilings.serving.own_answers import finer, swapped
from ceilings.serving.session import _Session

A, B = "onnxruntime-cpu/m/fp32/b1-s32", "onnxruntime-cpu/m/int8/b1-s32"
ONE = {"server": "triton", "cells": [A, B], "concurrency": [1, 4], "rates": [20, "0.8x"]}


def answer(*values):
    return {"y": np.array([values], np.float32)}


ALONE = {0: answer(1, 2, 3), 1: answer(1, 2, 4), 2: answer(9, 9, 9)}


def test_answers_of_other_requests_are_noticed():
    assert swapped(ALONE, {0: ALONE[1], 1: ALONE[0], 2: ALONE[2]}) == [0, 1]


def test_rounding_of_another_batch_is_no_other_answer():
    assert not swapped(ALONE, {0: answer(1, 2, 3.2), 1: answer(1.001, 2, 4), 2: answer(9, 9, 8.9)})


def test_requests_with_one_answer_cannot_be_told_apart():
    same = {0: answer(1, 2, 3), 1: answer(1, 2, 3.0001)}
    assert not swapped(same, {0: same[1], 1: same[0]})


def test_an_answer_of_another_length_is_not_its_own():
    assert swapped(ALONE, {0: answer(1, 2), 1: ALONE[1]}) == []  # no other has its length either: the gate refuses it
    assert swapped({0: answer(1, 2), 1: answer(1, 2, 3)}, {0: answer(1, 2, 3)}) == [0]


@pytest.mark.parametrize(
    ("cores", "relayed", "expected"),
    [
        ([(0,)], True, ((0,), (0,), (0,), True)),
        ([(0, 1)], False, ((0, 1), (0, 1), (0, 1), True)),
        ([(0, 2), (1, 3)], False, ((0, 2), (1,), (1,), False)),
        ([(0,), (1,), (2,)], True, ((0, 1), (2,), (2,), False)),
        ([(0,), (1,), (2,), (3,)], True, ((0, 1), (3,), (2,), False)),
    ],
)
def test_the_client_has_a_physical_core_to_itself(cores, relayed, expected):
    assert split(cores, relayed) == expected


def test_physical_cores_are_those_of_this_process():
    assert sorted(one for core in physical_cores() for one in core) == sorted(os.sched_getaffinity(0))


def test_every_round_has_every_load_in_an_order_of_its_own():
    one = Deployment.from_json(ONE)
    rounds = list(one.rounds(5, "seed"))
    assert all(sorted(map(str, loads)) == sorted(map(str, one.loads)) for loads in rounds)
    assert len(one.loads) == 8 and len({tuple(loads) for loads in rounds}) == 5
    assert rounds == list(one.rounds(5, "seed")) != list(one.rounds(5, "another"))


def test_shares_of_a_throughput_come_after_it():
    kinds = [load.kind for load in next(iter(Deployment.from_json(ONE).rounds(1, "0")))]
    assert kinds == ["closed"] * 4 + ["open"] * 4
    load = next(load for load in Deployment.from_json(ONE).loads if load.asked == "0.8x")
    assert load.rate({A: 100.0}) == 80.0 and load.cell == A


def test_an_endpoint_says_by_which_transport_it_is_reached():
    there = Deployment.from_json({"server": "grpc://[::1]:8001", "cells": [A], "endpoint_models": {A: "x/2"}})
    assert (there.kind, there.transport, there.model(A), there.at_home) == ("endpoint", "grpc", "x/2", True)
    assert not Deployment.from_json({"server": "http://far:1", "cells": [A]}).at_home
    assert Deployment.from_json(ONE).model(A) == "onnxruntime-cpu_m_fp32_b1-s32"
    assert Deployment.from_json(Deployment.from_json(ONE).to_json()) == Deployment.from_json(ONE)


@pytest.mark.parametrize(
    ("precision", "relative_l2", "expected"),
    [
        ("int8", 1e-7, True),
        ("fp16", 9e-6, True),
        ("fp16", 1e-4, False),
        ("bf16", None, False),
        ("fp32", 0.0, False),
    ],
)
def test_answers_nearer_to_fp32_than_their_precision_are_of_another(precision, relative_l2, expected):
    assert finer(precision, relative_l2) is expected


def test_processes_of_the_measurement_are_no_neighbours():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            with Neighbours() as others, Bystanders(lambda: [busy.pid]) as ours:
                time.sleep(0.5)
        finally:
            busy.kill()
    assert others.others_cores is not None and ours.others_cores is not None
    assert others.others_cores > ours.others_cores + 0.1


def test_an_endpoint_on_this_machine_is_among_those_that_use_it():
    fields = {"others_cores": 0.9, "stolen_cores": 0.3}
    for endpoint, others in ((False, "other processes"), (True, "other processes, the endpoint among them,")):
        noticed = Bystanders(list, endpoint)
        vars(noticed).update(fields, throttled_periods=0)
        assert noticed.flags() == [f"{others} used 90% of a core", "the hypervisor took 30% of a core"]


@pytest.mark.parametrize(("server", "gpu"), [("triton", None), ("http://localhost:1", "GPU-1"), ("triton", "GPU-1")])
def test_a_gpu_is_watched_for_others_while_a_server_of_ours_has_its_loads(tmp_path, monkeypatch, server, gpu):
    """A double: there is no NVML here. Of an endpoint nobody knows which processes are its own."""
    made = []

    class Watch(contextlib.nullcontext):
        def __init__(self, uuid, ours):
            super().__init__(self)
            made.append((uuid, ours))
            self.begun = False

        def begin(self):
            self.begun = True

    monkeypatch.setattr(gpu_watch, "GpuWatch", Watch)
    session = object.__new__(_Session)
    session._gpu, session._deployment = gpu, Deployment.from_json({"server": server, "cells": []})
    with session._watching([3, 5]) as watch:
        if gpu and server == "triton":
            assert watch.begun and made == [("GPU-1", {3, 5})]
        else:
            assert watch is None and not made


@pytest.mark.parametrize(("device", "flags"), [("cpu-test", 2), ("nvidia-test", 0)])
def test_threads_that_the_server_lacks_are_a_flag_where_they_compute(device, flags):
    session = object.__new__(_Session)
    session._cores, session.flags = 3, []
    session._deployment = Deployment.from_json({"server": "triton", "cells": [], "instances": 2})
    assert session._threads("a", 4, device.startswith("cpu")) == 3
    assert len(session.flags) == flags
