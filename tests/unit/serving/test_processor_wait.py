"""What a process waits for a processor, as the kernel counts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from unit.serving.scripted_server import ScriptedServer
from unit.serving.test_windows import drive

from ceilings.serving import processor_wait

pytestmark = pytest.mark.skipif(processor_wait.waited_ns() is None, reason="the kernel counts no schedstat")


@pytest.fixture
def contended():
    """This process and another that is always busy, on one processor."""
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    os.sched_setaffinity(0, {core})
    spin = f"import os; os.sched_setaffinity(0, {{{core}}}); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            yield
        finally:
            other.kill()
            os.sched_setaffinity(0, allowed)


def test_time_without_a_processor_is_counted(contended):
    before, began = processor_wait.waited_ns(), time.perf_counter_ns()
    while time.perf_counter_ns() - began < 2e8:
        pass
    took = time.perf_counter_ns() - began
    assert 0.1 * took < processor_wait.since(before) < took


def test_a_window_says_how_long_its_client_waited(contended):
    with ScriptedServer() as server:
        window = drive(server, 0.2, concurrency=1)
    assert 0 < window["client_waited_ns"] < 2 * (window["drained_ns"] - window["began_ns"])


def test_what_is_not_counted_is_not_made_up(tmp_path, monkeypatch):
    monkeypatch.setattr(processor_wait, "THREADS", tmp_path)
    assert processor_wait.waited_ns() is None
    assert processor_wait.since(None) is processor_wait.since(5) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1/schedstat").write_text("10 7 3\n", encoding="ascii")
    assert processor_wait.waited_ns() == 7 and processor_wait.since(5) == 2
