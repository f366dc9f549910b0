"""When requests are executed together, and what is counted of them."""

import asyncio
import time

import numpy as np
import pytest
from unit.serving.served_model import element, expected, task

from ceilings.errors import CellFailure
from ceilings.serving.batching import Batching
from ceilings.serving.executor import Executor
from ceilings.serving.servers.batcher import Batcher, due

MS = 10**6


@pytest.mark.parametrize(
    ("waiting", "waited_ms", "batching", "count"),
    [
        ([], 5, Batching(4), 0),
        ([1, 1, 1], 0, None, 1),
        ([1], 0, Batching(4), 1),  # no delay: nobody waits
        ([1], 0, Batching(4, 2), 0),
        ([1], 2, Batching(4, 2), 1),
        ([1] * 6, 0, Batching(4, 2), 4),
        ([1] * 3, 0, Batching(8, 2, (2,)), 2),
        ([1] * 5, 0, Batching(8, 2, (2, 4)), 4),  # the largest preferred one
        ([2, 2, 2], 0, Batching(5, 2), 2),  # the third no longer fits: waiting brings nothing
        ([1, 1, 1], 2, Batching(8, 2, (4,)), 3),
    ],
)
def test_a_batch_is_due_as_in_triton(waiting, waited_ms, batching, count):
    assert due(waiting, waited_ms * MS, batching) == count


def run(folder, work, batching=None, instances=1):
    """What ``work(batcher)`` gives on a loaded batcher."""

    async def whole():
        batcher = Batcher(lambda: Executor(task(folder), batching), instances, batching)
        await batcher.load()
        return await work(batcher), batcher.tally

    return asyncio.run(whole())


async def asked(batcher, seed):
    arrived = time.perf_counter_ns()
    with batcher.counting():
        answer = await batcher.answer(element(seed), arrived)
    batcher.answered(arrived)
    return answer


def test_requests_that_wait_together_are_executed_together_and_answered_apart(tmp_path):
    answers, tally = run(
        tmp_path, lambda batcher: asyncio.gather(*(asked(batcher, seed) for seed in range(8))), Batching(4, 50)
    )
    for seed, answer in enumerate(answers):
        np.testing.assert_allclose(answer["y"], expected(**element(seed)), rtol=1e-5)  # float32, in another order
    assert (tally.requests, tally.executions, tally.inferences, dict(tally.sizes)) == (8, 2, 8, {4: 2})
    assert tally.request_ns >= tally.queue_ns + tally.compute_infer_ns > 0


def test_a_lone_request_waits_no_longer_than_the_delay_and_that_is_its_queue_time(tmp_path):
    _, tally = run(tmp_path, lambda batcher: asked(batcher, 1), Batching(4, 30))
    assert dict(tally.sizes) == {1: 1}
    assert 29 * MS < tally.queue_ns <= tally.request_ns


def test_without_batching_each_request_is_a_batch(tmp_path):
    _, tally = run(tmp_path, lambda batcher: asyncio.gather(*(asked(batcher, seed) for seed in range(5))), instances=2)
    assert (tally.executions, dict(tally.sizes)) == (5, {1: 5})


def test_a_bad_request_fails_alone(tmp_path):
    async def work(batcher):
        async def bad():
            with batcher.counting():
                await batcher.answer({"x": np.zeros((1, 9), np.float32)}, time.perf_counter_ns())

        return await asyncio.gather(asked(batcher, 1), bad(), asked(batcher, 2), return_exceptions=True)

    (first, failure, second), tally = run(tmp_path, work, Batching(4, 20))
    assert isinstance(failure, CellFailure)
    np.testing.assert_allclose(first["y"], expected(**element(1)), rtol=1e-5)
    np.testing.assert_allclose(second["y"], expected(**element(2)), rtol=1e-5)
    assert (tally.requests, tally.failures, tally.executions) == (2, 1, 1)


def test_a_batch_whose_execution_fails_fails_every_request_in_it_and_the_next_runs(tmp_path):
    async def work(batcher):
        executor = batcher.executors[0]
        whole = executor.execute
        executor.execute = lambda *_: 1 / 0
        failed = await asyncio.gather(asked(batcher, 1), asked(batcher, 2), return_exceptions=True)
        executor.execute = whole
        return failed, await asked(batcher, 3)

    (failed, answer), tally = run(tmp_path, work, Batching(2, 20))
    assert [type(one) for one in failed] == [ZeroDivisionError] * 2
    np.testing.assert_allclose(answer["y"], expected(**element(3)), rtol=1e-5)
    assert (tally.requests, tally.failures, tally.executions, tally.inferences) == (1, 2, 1, 1)
