"""Requests by ONNX Runtime's CPU runner, as timing loops and readers see them."""

from __future__ import annotations

import numpy as np
import pytest
from unit.graphs import decoder_folders as folders

from ceilings.errors import CellFailure
from ceilings.graphs import export, fuse, graph, simplify
from ceilings.graphs.decoding import largest
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.runtimes.onnxruntime_generating_cpu import RUNNER
from ceilings.workload.shape import Shape


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny Llama, its folder, and its graphs there."""
    folder = tmp_path_factory.mktemp("llama")
    model = folders.model("llama")
    weights = folders.write(model, folder / "weights")
    export.export_onnx(weights, export.Export(), folder / "exported.onnx")
    outcome = simplify.simplify(graph.load(folder / "exported.onnx"), folders.workload(model))
    graph.save(outcome.model, folder / "plain.onnx")
    graph.save(fuse.fuse(folder / "plain.onnx", weights).model, folder / "fused.onnx")
    return model, folder


@pytest.fixture(params=["plain", "fused"])
def runner(request, made):
    return load(made, request.param, "b2-p6-g5")


def load(made, name, shape):
    model, folder = made
    found = RUNNER(folder / f"{name}.onnx", "fp32", folders.workload(model), Shape.parse(shape), 1, {})
    found.load()
    return found


def test_a_context_without_positions_is_refused(made):
    positions = folders.workload(made[0]).decoder.positions
    with pytest.raises(CellFailure, match=f"the {positions} positions of the model") as caught:
        load(made, "plain", f"b1-p{positions}-g1")
    assert caught.value.kind == "unsupported"


def slots(runner, count=2):
    shape = runner.shape
    return [
        runner.place({"input_ids": folders.prompts(shape.batch, shape["prompt"], seed)}) for seed in range(1, count + 1)
    ]


def test_a_loop_through_items_gives_the_tokens_of_the_requests(runner, made):
    """As a timing loop calls it: every item activated and launched, begun anew with the next request."""
    items = runner.iterations(slots(runner))
    assert [item.position for item in items] == [1, 2, 3, 4] * 2
    found = []
    for item in items * 2:
        runner.activate(item)
        runner.launch(item)
        found.append(runner.arrived().copy())
    tokens = np.concatenate([folders.request(made[0], slot, 5)[0][:, 1:].T for slot in slots(runner)] * 2)
    assert np.array_equal(np.stack(found), tokens)


def test_a_loop_that_stopped_within_a_request_begins_anew(runner, made):
    items = runner.iterations(slots(runner))
    for item in [*items[:2], *items[4:6]]:
        runner.activate(item)
        runner.launch(item)
    assert np.array_equal(runner.arrived(), folders.request(made[0], slots(runner)[1], 3)[0][:, 2])


def test_prefills_of_a_request_of_one_token(made):
    for name in ("plain", "fused"):
        runner = load(made, name, "b3-p4-g1")
        items = runner.iterations(slots(runner))
        assert [item.position for item in items] == [0, 0]
        for item in items * 2:
            runner.activate(item)
            runner.launch(item)
            assert np.array_equal(runner.arrived(), folders.request(made[0], item.slot, 1)[0][:, 0])


def test_outputs_of_one_request_after_another(runner, made):
    for slot in slots(runner, 3):
        outputs = runner.outputs(runner.run(slot))
        tokens, logits = folders.request(made[0], slot, 5)
        assert np.array_equal(outputs["tokens"], tokens)
        assert outputs["ids"].shape == outputs["logits"].shape == (2, 4, 20)
        there = np.take_along_axis(logits[:, :4], outputs["ids"], -1)
        np.testing.assert_allclose(outputs["logits"], there, atol=2e-4)


def test_a_logit_that_is_no_number_is_among_the_largest():
    """ArgMax passes it over, so that the tokens alone do not show it."""
    logits = np.array([[1.0, np.nan, 3.0, np.inf, 2.0], [1.0, 5.0, 3.0, -np.inf, 5.0]], np.float32)
    ids, values = largest(logits, 3)
    np.testing.assert_array_equal(ids, [[1, 3, 2], [1, 4, 2]])
    np.testing.assert_array_equal(values, [[np.nan, np.inf, 3.0], [5.0, 5.0, 3.0]])


def test_a_request_has_a_time_for_each_token(runner):
    times = runner.request(slots(runner)[0])
    assert len(times) == 1 + 5 and times == sorted(times)


def test_a_slot_is_not_the_runner_s_to_write(runner):
    slot = slots(runner)[0]
    before = slot.copy()
    runner.run(slot)
    assert np.array_equal(slot, before)


def test_how_the_cache_is_kept_is_described(made):
    assert "one buffer" in load(made, "fused", "b1-p4-g2").describe()["cache"]
    assert "past of the next" in load(made, "plain", "b1-p4-g2").describe()["cache"]


def test_a_graph_of_something_else_is_a_failed_cell(made):
    _, folder = made
    wrong = folders.workload(folders.model("gpt2"))
    runner = RUNNER(folder / "plain.onnx", "fp32", wrong, Shape.parse("b1-p4-g2"), 1, {})
    runner.load()
    runner.begin(np.zeros((1, 4), np.int64))
    with pytest.raises(Exception, match=r"past\.0\.key"):  # 4 heads are asked of a graph with 2
        runner.prefill()
    other = folders.workload(folders.model("llama", num_hidden_layers=1))
    with pytest.raises(CellFailure, match=r"no forward pass of this decoder: past\.1\.key"):
        RUNNER(folder / "plain.onnx", "fp32", other, Shape.parse("b1-p4-g2"), 1, {}).load()


def test_who_generates():
    generators = {name: spec.generates for name, spec in RUNTIMES.items() if "onnxruntime_generating" in spec.generator}
    half = ("fp16",)
    assert {name for name, kinds in generators.items() if kinds == half} == {
        "onnxruntime-cuda-fused",
        "onnxruntime-cuda-fused-graph",
    }
    assert set(generators) == {
        *("onnxruntime-cpu", "onnxruntime-cpu-fused", "onnxruntime-cuda", "onnxruntime-cuda-fused"),
        "onnxruntime-cuda-fused-graph",
    }
