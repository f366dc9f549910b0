"""A recording of a slowed host, and the latency measured without the recorder: what was untraced comes out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from unit.traces.handmade import US, Built
from unit.traces.simulated import Change, program, recording, run

from ceilings.traces.capture import HOST_TO_DEVICE
from ceilings.traces.explained.account import Accounts
from ceilings.traces.explained.explanation import explanation
from ceilings.traces.explained.iterations import choose
from ceilings.traces.explained.untraced import ANY, FITTED, NONE, fit, untraced

SEEDS = range(30)


def slowed(seed: int, factor: float):
    """A program's accounts as recorded with a host that takes so many times as long, and its true length."""
    actions = program(seed)
    ran = run(actions, Change(host=factor))
    accounts = Accounts(recording(ran))
    return accounts, accounts.of(0, ran.length, 0), run(actions).length


@pytest.mark.parametrize(("factor", "off"), [(1.3, 0.02), (2.0, 0.03)])
def test_the_length_of_the_untraced_program_gives_its_host(factor, off):
    """The speed is that of the host where the host decides; and the replay takes as long as was measured."""
    speeds = []
    for seed in SEEDS:
        _, one, true = slowed(seed, factor)
        fitted = fit([([one], 1)], true)
        assert fitted.how in {FITTED, ANY}
        if fitted.how == FITTED:
            assert fitted.replayed == pytest.approx(true, rel=0.002)
            speeds.append(fitted.host * factor)
    assert len(speeds) > len(SEEDS) / 2
    assert np.median(speeds) == pytest.approx(1, abs=off)


def test_the_path_is_that_of_the_untraced_program():
    """Shares of the critical path of the replay against those of the program that ran without a recorder."""
    off = []
    for seed in SEEDS:
        accounts, one, true = slowed(seed, 2.0)
        fitted = fit([([one], 1)], true)
        if fitted.how != FITTED:
            continue
        made, spans = untraced(accounts, [one], fitted.host)
        again = made.of(spans[0].begin, spans[0].end, spans[0].thread)
        plain = Accounts(recording(run(program(seed))))
        truth = plain.of(0, true, 0)
        assert again.path.shares().sum() == again.length
        # A copy that is over by chance before a slow call returns is not over before a fast one does.
        assert {name: n for name, n in again.counts.items() if name != "blocking copies"} == {
            name: n for name, n in one.counts.items() if name != "blocking copies"
        }
        off.append(np.abs(again.path.shares() / again.length - truth.path.shares() / true).max())
    assert np.median(off) < 0.02 and np.quantile(off, 0.8) < 0.05


def busy_device() -> Built:
    """Three long kernels that the host launches at once and waits for: 3 ms, whatever the host does."""
    built = Built()
    for k in range(3):
        built.launch(10 * k, 10 * k + 4, (5 + 1_000 * k if k else 5, 5 + 1_000 * (k + 1)))
    built.call(40, 3_010, "cudaDeviceSynchronize")
    return built


def test_where_the_device_decides_any_speed_fits():
    one = Accounts(busy_device().recording()).of(0, 3_010 * US, 0)
    fitted = fit([([one], 1)], 3_005 * US)
    assert (fitted.how, fitted.host) == (ANY, None)
    assert "the device decides" in fitted.text


@pytest.mark.parametrize("ms", [0.5, 30])
def test_a_latency_that_no_host_explains_is_refused(ms):
    one = Accounts(busy_device().recording()).of(0, 3_010 * US, 0)
    fitted = fit([([one], 1)], ms * 1e6)
    assert (fitted.how, fitted.host, fitted.replayed) == (NONE, None, None)
    assert "no speed of the host explains it" in fitted.text


def test_a_change_that_an_unknown_host_decides_has_no_number():
    """Without its copy the host would decide, and how fast it is without the recorder is not known."""
    built = Built()
    built.copy(0, 5, (8, 4_008), HOST_TO_DEVICE, stream=1)
    for k in range(10):
        built.launch(100 * k + 10, 100 * k + 60, (100 * k + 62, 100 * k + 70))
    built.call(1_100, 4_012, "cudaDeviceSynchronize")
    made = built.recording()
    record = explanation(made, choose(made, {"whole": True}), latency=4_010 * US)
    (group,) = record["groups"]
    (copies,) = [one for one in group["what_if"] if one["change"] == "copies"]
    assert record["untraced"]["how"] == ANY
    assert copies["ns"] is None and "speed without the recorder is not known" in copies["why_not"]
    assert explanation(made, choose(made, {"whole": True}))["groups"][0]["what_if"][2]["ns"] < 1_200 * US


def test_the_record_is_of_the_replay():
    """The length, the health note and what is not the recorder's to change: kernels, counts."""
    actions = program(4)
    ran, true = run(actions, Change(host=3)), run(actions).length
    made = recording(ran)
    iterations = choose(made, {"whole": True})
    plain, record = explanation(made, iterations), explanation(made, iterations, latency=float(true))
    assert record["untraced"]["how"] == FITTED
    assert record["groups"][0]["length_ns"]["median"] == pytest.approx(true, rel=0.01)
    assert any("without the recorder" in one["text"] for one in record["health"])
    assert "untraced" not in plain
    before, after = plain["groups"][0], record["groups"][0]
    assert after["counts"]["kernels"] == before["counts"]["kernels"] > 0
    assert sum(one["ns"] for one in after["kernels"]) == pytest.approx(sum(one["ns"] for one in before["kernels"]))


def test_copies_of_pageable_memory_do_not_scale_with_the_host():
    """Moving 4 ms of bytes through a buffer takes a fast host as long."""
    built = Built()
    built.copy(0, 4_000, (3_990, 4_004), HOST_TO_DEVICE)
    built.launch(4_010, 4_020, (4_022, 4_030))
    built.call(4_024, 4_050, "cudaDeviceSynchronize")
    made = built.recording()
    pageable = dataclasses.replace(made, work=dataclasses.replace(made.work, pageable=np.array([True, False])))
    for one, begins in ((made, 401 * US), (pageable, 3_992 * US)):  # when the host comes to its next call
        accounts = Accounts(one)
        again, spans = untraced(accounts, [accounts.of(0, 4_050 * US, 0)], 0.1)
        assert again.recording.calls.start[1] - spans[0].begin == begins
