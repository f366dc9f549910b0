"""However the captured process ends, the capture says so."""

from __future__ import annotations

import sys

import pytest

from ceilings.traces import recorder


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("kill -SEGV $$", "crashed", "ended by SIGSEGV"),
        ("echo 'ImportError: no such library' >&2; exit 1", "runtime-error", "ImportError: no such library"),
        ("exit 0", "runtime-error", "left no result: exit status 0"),
        ("printf '\\377'; sleep 60", "timed-out", "no capture after 0.4 s"),
    ],
)
def test_a_process_that_leaves_no_result_is_a_failure(tmp_path, monkeypatch, program, kind, message):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/bash\n{program}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    task = {"artifact": str(tmp_path), "inputs": str(tmp_path / "inputs.npz")}
    task["spec"] = {"threads": 1, "protocol": {"time_limit_seconds": 0.1}}
    result, _ = recorder.run_target(task, tmp_path, "cupti")
    assert result["failure"]["kind"] == kind and message in result["failure"]["message"]
