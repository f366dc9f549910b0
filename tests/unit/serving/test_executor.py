"""What executes in a server: a real runner, on batches as a server joins them."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from unit.serving.served_model import WIDTH, element, expected, task, workload

from ceilings.errors import CellFailure
from ceilings.serving.batching import Batching, batches
from ceilings.serving.executor import Executor, Times, serves
from ceilings.workload.task import TASKS


def loaded(folder, shape="b1", batching=None, rowed=True):
    executor = Executor(task(folder, shape, rowed), batching)
    executor.load()
    return executor


def test_each_request_of_a_batch_gets_its_own_answer(tmp_path):
    executor = loaded(tmp_path, batching=Batching(4))
    requests = [element(seed) for seed in range(3)]
    times: list[Times] = []
    answers = executor.execute(requests, times)
    for inputs, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer["y"], expected(**inputs), rtol=1e-5)
    assert (times[0].size, times[0].rows) == (3, 3)


def test_files_are_named_from_where_the_pipeline_works(tmp_path, monkeypatch):
    """A server works elsewhere; the record of an engine that was kept names graph and folder as the rule did."""
    (tmp_path / "server").mkdir()
    monkeypatch.chdir(tmp_path / "server")
    executor = Executor({**task(tmp_path), "artifact": "tiny.onnx", "folder": str(tmp_path)}, None)
    executor.load()
    np.testing.assert_allclose(executor.execute([element(1)])[0]["y"], expected(**element(1)), rtol=1e-5)


def test_a_padded_batch_answers_its_requests_and_nobody_else(tmp_path):
    executor = loaded(tmp_path, batching=Batching(8, preferred=(4,), pad=True))
    assert executor.sizes == (4, 8)
    for count, size in ((1, 4), (3, 4), (4, 4), (5, 8)):
        requests, times = [element(seed) for seed in range(count)], []
        answers = executor.execute(requests, times)
        assert (times[0].size, times[0].rows, len(answers)) == (size, count, count)
        for inputs, answer in zip(requests, answers, strict=True):
            np.testing.assert_allclose(answer["y"], expected(**inputs), rtol=1e-5)


def test_requests_carry_rows_of_their_own(tmp_path):
    executor = loaded(tmp_path, "b2", Batching(6))
    assert executor.sizes == (2, 4, 6)
    answers = executor.execute([element(1, 2), element(2, 2)])
    assert [answer["y"].shape for answer in answers] == [(2, 3), (2, 3)]
    np.testing.assert_allclose(answers[1]["y"], expected(**element(2, 2)), rtol=1e-5)


def test_one_runner_serves_all_batches_where_its_axes_stay_open(tmp_path):
    executor = loaded(tmp_path, batching=Batching(4))
    facts = executor.facts()
    assert facts["runners"] == 1
    assert list(facts["costs"]) == ["1", "2", "3", "4"]
    assert all(costs["run_ns"] > 0 for costs in facts["costs"].values())


def test_a_batch_that_the_graph_does_not_run_is_named_with_what_the_library_said_last(tmp_path):
    """The batch axis has a name, and a node within takes one row: the graph of many exports."""
    made = task(tmp_path)
    graph = onnx.load(made["artifact"])
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, WIDTH], np.int64), "one"))
    graph.graph.node.insert(0, helper.make_node("Reshape", ["x", "one"], ["row"]))
    graph.graph.node[1].input[0] = "row"
    onnx.save(graph, made["artifact"])
    Executor(made, None).load()
    with pytest.raises(CellFailure, match=r"runs no batch of 2, which batching .* Reshape .*requested shape:\{1,4\}"):
        Executor(made, Batching(4)).load()


def test_joining_copies_and_a_request_alone_does_not(tmp_path):
    costs = loaded(tmp_path, batching=Batching(2)).costs
    nbytes = sum(values.nbytes for values in element(0).values())
    assert costs[1]["copied_bytes"] == 0
    assert costs[2]["copied_bytes"] == 2 * nbytes


def test_a_model_without_a_batch_axis_is_served_a_request_at_a_time(tmp_path):
    executor = loaded(tmp_path, rowed=False)
    (answer,) = executor.execute([element(3)])
    np.testing.assert_allclose(answer["y"], expected(**element(3)), rtol=1e-5)
    with pytest.raises(CellFailure, match="x does not begin with a batch axis"):
        Executor(task(tmp_path, rowed=False), Batching(2))


def test_a_batch_that_nothing_is_prepared_for_is_refused(tmp_path):
    executor = loaded(tmp_path, "b2", Batching(4))
    with pytest.raises(CellFailure, match="a batch of 3 came; prepared: 2, 4"):
        executor.execute([element(1, 1), element(2, 2)])
    with pytest.raises(CellFailure, match="a batch of 6 came; prepared: 2, 4"):
        executor.execute([element(1, 2)] * 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.zeros((1, 5), np.float32)}, r"the input x is float32 \[1, 5\], not float32 \[1, 4\]"),
        ({"x": np.zeros((1, 4), np.float64)}, "the input x is float64"),
        ({"shift": None}, "the input shift is not there"),
        ({"other": np.zeros(1)}, "the model reads no other"),
    ],
)
def test_a_request_that_is_not_the_models_is_refused_by_itself(tmp_path, change, words):
    inputs = {name: values for name, values in (element(0) | change).items() if values is not None}
    with pytest.raises(CellFailure, match=words):
        Executor(task(tmp_path), Batching(2)).refuse_other(inputs)


def test_a_batch_smaller_than_a_request_and_a_model_that_generates_are_refused(tmp_path):
    of = task(tmp_path, "b4")
    with pytest.raises(CellFailure, match="a batch of at most 2 takes no request of 4 rows"):
        serves(of, Batching(2))
    generating = dataclasses.replace(workload(), task=TASKS["text-generation"])
    generating.write(tmp_path)
    with pytest.raises(CellFailure, match="this model generates"):
        serves(of, None)


def test_every_batch_that_can_form_is_prepared():
    assert batches(3, Batching(8)) == (3, 6)
    assert batches(4, Batching(8, preferred=(2,), pad=True)) == (8,)
    assert batches(2, None) == (2,)


def test_batching_survives_json():
    of = Batching(8, 2.5, (2, 4), True)
    assert Batching.from_json(of.to_json()) == of
