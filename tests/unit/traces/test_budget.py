"""The account against iterations that were computed by hand (all in us)."""

from __future__ import annotations

import numpy as np
import pytest
from unit.traces.events import Events

from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, PATH_SHARES
from ceilings.traces import calls
from ceilings.traces.budget import Account


def account(events: Events):
    """Parts in us that are not zero, of the only iteration; both sides must close exactly."""
    (one,) = Account(events.capture()).iterations()
    assert one.host.sum() == pytest.approx(one.length)
    assert one.classes.sum() + one.idle.sum() + one.unexplained == pytest.approx(one.length)
    assert one.shares.sum() == pytest.approx(one.length)
    parts = {}
    for names, values in (
        (HOST_PARTS, one.host),
        (KERNEL_CLASSES, one.classes),
        (IDLE_CAUSES, one.idle),
        (PATH_SHARES, one.shares),
    ):
        parts[tuple(names)] = {
            name: us for name, value in zip(names, values, strict=True) if (us := round(value) / 1000)
        }
    return one, *(parts[tuple(names)] for names in (HOST_PARTS, KERNEL_CLASSES, IDLE_CAUSES, PATH_SHARES))


def test_parts_of_the_host_are_the_kinds_of_calls():
    assert ("framework", *calls.KINDS[:-1]) == HOST_PARTS


def test_launches_that_the_device_waits_for():
    events = Events()
    events.mark(0, 100)
    events.launch(10, 14, (16, 20))  # waits 10 for the host, 4 in the launch, 2 queued
    events.launch(30, 34, (36, 40, "layer_norm"))  # waits 10, 4, 2
    events.call(50, 53, "cudaEventRecord_v3020")
    events.call(60, 90, "cudaStreamSynchronize_v3020")
    one, host, classes, idle, shares = account(events)
    assert host == {"framework": 62, "launch": 8, "sync": 30}
    assert one.other_calls == 3000
    assert classes == {"gemm": 4, "normalization": 4}
    # after the last kernel: 20 until the host waits, 30 in which it notices, 10 until the iteration ends
    assert idle == {"host": 10 + 10 + 20 + 10, "launching": 8, "queued": 4, "sync": 30}
    # the host never waited for work: both kernels ran beside it
    assert shares == {"launch": 4 + 16 + 4, "host": 10 + 26 + 10, "sync": 30}
    assert (one.launches, one.graphs, one.kernels, one.kernel_ns, one.submit) == (2, 0, 2, 8000, 24_000)
    assert one.launch_to_start.tolist() == [6000, 6000]


def test_a_stretch_longer_than_any_launch_is_the_hosts():
    events = Events()
    events.mark(0, 200)
    events.launch(10, 14, (16, 20))
    events.launch(120, 124, (126, 130))
    events.call(131, 200, "cudaStreamSynchronize")
    *_, shares = account(events)
    assert shares == {"host": 10 + 106 + 7, "launch": 4 + 4, "sync": 69}


def test_kernels_behind_one_another():
    """Launched ahead: the gaps between them are the device's own."""
    events = Events()
    events.mark(0, 100)
    for number in range(4):
        events.launch(10 + number, 11 + number, (20 + 12 * number, 30 + 12 * number))
    events.call(14, 70, "cudaStreamSynchronize")
    _, host, classes, idle, shares = account(events)
    assert classes == {"gemm": 40}
    assert idle == {"host": 10 + 30, "launching": 1, "queued": 9 + 3 * 2, "sync": 4}
    assert shares == {"kernel": 40 + 6, "launch": 1 + 9, "host": 40, "sync": 4}
    assert host == {"framework": 40, "launch": 4, "sync": 56}


def test_a_kernel_that_begins_before_its_launch_returns():
    events = Events()
    events.mark(0, 40)
    events.launch(10, 20, (15, 25))
    events.call(21, 40, "cudaStreamSynchronize")
    _, host, classes, idle, _ = account(events)
    assert host == {"framework": 11, "launch": 10, "sync": 19}
    assert classes == {"gemm": 10} and idle == {"host": 10, "launching": 5, "sync": 15}


def test_a_graph_has_one_launch_and_many_nodes():
    """Once the first node runs, the launch has delivered: later gaps are the device's, also while the call goes on."""
    events = Events()
    events.mark(0, 100)
    nodes = [(20, 30, "gemm", 7, 1), (32, 40, "softmax_warp_forward", 7, 2), (41, 50, "gemm", 7, 3)]
    events.launch(10, 36, *nodes, name="cudaGraphLaunch_v10000")
    events.call(38, 100, "cudaStreamSynchronize")
    one, _, classes, idle, shares = account(events)
    assert classes == {"gemm": 19, "normalization": 8}
    assert idle == {"host": 10, "launching": 10, "queued": 3, "sync": 50}
    assert shares == {"kernel": 27 + 3, "launch": 10, "host": 10, "sync": 50}
    assert (one.launches, one.graphs, one.kernels) == (1, 1, 3) and one.launch_to_start.tolist() == [10_000]


def test_kernels_beside_a_busy_host_are_not_on_the_path():
    """The device works for 64% of the iteration, and no faster kernel would shorten it but the last."""
    events = Events()
    events.mark(0, 100)
    for number in range(8):
        events.launch(10 + 10 * number, 14 + 10 * number, (15 + 10 * number, 23 + 10 * number))
    events.call(86, 97, "cudaStreamSynchronize")
    _, _, classes, idle, shares = account(events)
    assert classes == {"gemm": 64} and idle == {"host": 10 + 3, "launching": 4 + 7, "queued": 8, "sync": 4}
    assert shares == {"kernel": 8, "launch": 1 + 4 + 7 * (6 + 4), "host": 10 + 3, "sync": 4}


def test_asking_is_not_waiting():
    """The kernel ends while the host asks, and the host would have gone on without it."""
    events = Events()
    events.mark(0, 60)
    events.launch(5, 8, (10, 22))
    events.call(20, 25, "cudaEventQuery_v3020")
    events.launch(30, 33, (35, 40))
    events.call(50, 52, "cudaStreamSynchronize_v3020")
    *_, shares = account(events)
    assert shares == {"host": 5 + 12 + 17 + 8, "launch": 3 + 5 + 3, "sync": 5 + 2}


def test_work_that_seems_to_begin_before_its_call_was_launched_when_it_began():
    """A device's clock that is 5 us early: the launch takes nothing of the path, and not less."""
    events = Events()
    events.mark(0, 40)
    events.launch(10, 14, (8, 11))
    events.copy(events.call(15, 19, "cudaMemcpyAsync_v3020"), 12, 13)
    events.launch(20, 24, (18, 30))
    events.call(25, 36, "cudaStreamSynchronize_v3020")
    *_, shares = account(events)
    assert shares == {"kernel": 12, "launch": 4, "host": 10 + 1 + 4, "transfer": 3, "sync": 6}


def test_a_wait_in_the_middle_puts_what_it_waited_for_on_the_path():
    events = Events()
    events.mark(0, 100)
    events.launch(5, 8, (10, 40))
    events.call(10, 43, "cudaStreamSynchronize")
    events.launch(50, 53, (54, 94))
    events.call(55, 96, "cudaStreamSynchronize")
    *_, shares = account(events)
    assert shares == {"kernel": 30 + 40, "launch": 3 + 2 + 7 + 3 + 1, "host": 5 + 4, "sync": 3 + 2}


def test_streams_that_overlap_count_once():
    events = Events()
    events.mark(0, 60)
    events.launch(0, 2, (10, 30, "gemm", 7))
    events.launch(2, 4, (20, 45, "flash_fwd_kernel", 8))  # 15 of its own
    events.launch(4, 6, (25, 40, "layer_norm", 9))  # inside the two others
    events.call(6, 60, "cudaStreamSynchronize")
    one, _, classes, idle, _ = account(events)
    assert classes == {"gemm": 20, "attention": 15} and idle == {"launching": 2, "queued": 8, "sync": 15}
    assert one.kernels == 3 and one.kernel_ns == (20 + 25 + 15) * 1000


def test_a_copy_that_waits_for_the_device():
    """A blocking copy out: the kernel before it is waited for; the rest of the call is the copy's."""
    events = Events()
    events.mark(0, 100)
    events.launch(10, 14, (16, 60))
    events.copy(events.call(20, 80, "cudaMemcpy_v3020"), 62, 70)
    _, host, classes, idle, shares = account(events)
    assert host == {"framework": 10 + 6 + 20, "launch": 4, "copy": 20, "sync": 40}
    assert classes == {"gemm": 44, "copy": 8}
    assert idle == {"host": 10 + 20, "launching": 4 + 2, "queued": 2, "sync": 10}
    assert shares == {"kernel": 44, "launch": 4 + 2, "transfer": 8 + 2, "host": 30, "sync": 10}


def test_copies_in_front_of_the_work():
    events = Events()
    events.mark(0, 100)
    events.copy(events.call(10, 14, "cudaMemcpyAsync_v3020"), 16, 56, kind=1)
    events.launch(20, 24, (58, 60))
    events.call(30, 65, "cudaStreamSynchronize")
    _, host, classes, idle, shares = account(events)
    assert host == {"framework": 57, "launch": 4, "copy": 4, "sync": 35}
    assert classes == {"gemm": 2, "copy": 40}
    assert shares == {"transfer": 40 + 4 + 2, "kernel": 2 + 2, "host": 10 + 35, "sync": 5}
    assert idle == {"host": 45, "launching": 4, "queued": 4, "sync": 5}


def test_a_driver_call_inside_a_runtime_call_counts_once():
    events = Events()
    events.mark(0, 50)
    outer = events.call(10, 20, "cudaLaunchKernel_v7000")
    events.call(12, 18, "cuLaunchKernel", correlation=outer + 1000)
    events.kernel(outer + 1000, 22, 30)
    events.call(30, 50, "cudaStreamSynchronize")
    one, host, _, idle, _ = account(events)
    assert host == {"framework": 20, "launch": 10, "sync": 20} and one.launches == 1
    assert idle == {"host": 10, "launching": 10, "queued": 2, "sync": 20}


def test_calls_of_another_thread_launch_but_are_not_the_iterations_time():
    events = Events()
    events.mark(0, 50)
    events.launch(10, 20, (22, 30), thread=2)
    events.call(5, 50, "cudaStreamSynchronize")
    one, host, _, idle, _ = account(events)
    assert host == {"framework": 5, "sync": 45} and one.launches == 0
    assert idle == {"host": 5, "launching": 10, "queued": 2, "sync": 5 + 20}


def test_idle_before_work_that_nothing_launched_is_unexplained():
    events = Events()
    events.mark(0, 50)
    events.launch(10, 12, (13, 20))
    events.kernel(99_999, 30, 40)
    one, _, _, idle, _ = account(events)
    assert one.unexplained == 10_000 and idle == {"host": 20, "launching": 2, "queued": 1}


def test_work_of_the_iteration_before_reaches_in_and_work_reaches_out():
    events = Events()
    early = events.launch(-30, -28, (-20, 10))
    assert early
    events.mark(0, 50)
    events.launch(20, 22, (25, 70))
    one, _, classes, idle, _ = account(events)
    assert classes == {"gemm": 10 + 25} and idle == {"host": 10, "launching": 2, "queued": 3}
    assert one.kernels == 1


def test_an_iteration_without_work_is_idle():
    events = Events()
    events.mark(0, 50)
    events.call(10, 20, "cudaDeviceSynchronize")
    one, host, classes, idle, _ = account(events)
    assert host == {"framework": 40, "sync": 10} and not classes and idle == {"host": 40, "sync": 10}
    assert one.kernels == 0 and len(one.launch_to_start) == 0 and one.submit == 0


def test_random_iterations_close():
    """Whatever overlaps: no instant is lost or counted twice, and nothing is negative."""
    random = np.random.default_rng(0)
    for _ in range(30):
        events, now = Events(), 0.0
        for _ in range(3):
            begin = now
            for _ in range(random.integers(1, 20)):
                now += random.exponential(5)
                end = now + random.exponential(4)
                name = random.choice(["cudaLaunchKernel", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaGetDevice"])
                correlation = events.call(now, end, name, thread=int(random.integers(1, 3)))
                if name == "cudaLaunchKernel":
                    start = now + random.exponential(20)
                    events.kernel(correlation, start, start + random.exponential(30), stream=int(random.integers(3)))
                elif name == "cudaMemcpyAsync":
                    events.copy(correlation, now + 1, now + 1 + random.exponential(5), kind=int(random.integers(1, 3)))
                now = end
            events.mark(begin, now := now + random.exponential(50))
        for one in Account(events.capture()).iterations():
            assert one.host.sum() == pytest.approx(one.length, abs=1)
            assert one.classes.sum() + one.idle.sum() == pytest.approx(one.length, abs=1)
            assert one.shares.sum() == pytest.approx(one.length, abs=1)
            assert min(one.host.min(), one.classes.min(), one.idle.min(), one.shares.min()) >= -1e-6
