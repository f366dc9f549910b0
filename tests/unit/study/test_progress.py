"""Time left, from Snakemake's own log events."""

import logging

from ceilings.study.progress import TimeLeft


def event(kind, **fields):
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
    record.__dict__.update(event=kind, **fields)
    return record


def test_the_line_of_progress_gains_the_time_that_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    time_left = TimeLeft({"slow": 40.0})
    time_left.filter(event("run_info", stats={"fast": 3, "slow": 2, "total": 5}))
    lines = []
    for done, (rule, seconds) in enumerate((("fast", 10), ("slow", 100)), start=1):
        time_left.filter(event("job_info", jobid=done, rule_name=rule))
        now[0] += seconds
        time_left.filter(event("job_finished", job_id=done))
        progress = event("progress", done=done, total=5)
        assert time_left.filter(progress) and progress.event is None
        lines.append(progress.msg)
    # Two more fast jobs at 10 s, as seen, and two slow ones at 40 s, as guessed; then at 100 s, as seen.
    assert lines == [
        "1 of 5 steps (20%) done, about 1 min 40 s left",
        "2 of 5 steps (40%) done, about 2 min left",
    ]


def test_other_messages_pass_unchanged():
    record = event(None)
    record.msg = "Building DAG of jobs..."
    assert TimeLeft({}).filter(record) and record.msg == "Building DAG of jobs..."
