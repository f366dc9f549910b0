"""What-ifs against programs whose length under the change is known, since a simulator runs the changed program."""

from __future__ import annotations

import numpy as np
import pytest
from unit.traces.simulated import Change, as_graphs, program, recording, run

from ceilings.traces.capture import GRAPH, KERNEL
from ceilings.traces.explained.account import COMMUNICATES, Accounts
from ceilings.traces.explained.what_if import GRAPH_LAUNCH_NS, replayed
from ceilings.traces.replay import NODE_GAP_NS, Replay

TRUTH = {
    "host": Change(host=0),
    "kernels": Change(kernels=0.5),
    "communication": Change(communication=0),
    "copies": Change(copies=0),
}


def differences(known: bool, seeds: range) -> dict[str, np.ndarray]:
    """What the replay says less what is true, as shares of the iteration, by change."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        actions = program(seed)
        ran = run(actions)
        recorded = recording(ran, known)
        accounts = Accounts(recorded)
        one = accounts.of(0, ran.length, 0)
        assert one.path.shares().sum() == one.length
        assert abs(Replay(one.recorded).run(1).length - ran.length) <= 2
        kernels = np.isin(recorded.work.kind[one.followed], (KERNEL, GRAPH))
        communicates = accounts.account.op_class[one.followed] == COMMUNICATES
        transfers = accounts.account.op_transfer[one.followed]
        changes = replayed(one, transfers, communicates, kernels & ~communicates, None)
        true = {name: run(actions, change).length for name, change in TRUTH.items()}
        true["graph"] = run(as_graphs(actions, GRAPH_LAUNCH_NS), gap=NODE_GAP_NS).length
        for name, length in true.items():
            if changes[name].length is not None:
                found.setdefault(name, []).append((changes[name].length - length) / ran.length)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("known", [True, False])
def test_a_what_if_is_what_the_changed_program_takes(known):
    """120 programs. Where the recording names what waits for what, to 2%; else it promises no more than there is."""
    for name, off in differences(known, range(120)).items():
        assert len(off) > 60
        assert np.quantile(off, 0.01) > -0.02, name  # no gain is promised that is not there
        if known:
            assert np.median(np.abs(off)) < 0.01 and np.quantile(np.abs(off), 0.95) < 0.025, name
        elif name in {"kernels", "copies", "communication"}:
            assert np.quantile(np.abs(off), 0.95) < 0.02, name


def test_a_replay_of_something_else_than_the_recording_gives_no_number():
    """A wait for the whole device that returns before the last work is done: it waited for something else."""
    ran = run(program(2))
    begin, end, *rest = ran.work[-1]
    ran.work[-1] = (begin, end + ran.length // 10, *rest)
    recorded = recording(ran)
    one = Accounts(recorded).of(0, ran.length, 0)
    kernels = recorded.work.kind[one.followed] == KERNEL
    for change in replayed(one, ~kernels, kernels & False, kernels, None).values():
        assert change.length is None and "of the iteration off" in change.why_not
