"""TensorRT's runner of changing shapes against a double made from the real bindings' surface, for every generation."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

import tensorrt_double as double
from unit.runtimes.test_tensorrt_native import BUILDERS, engine, runner  # noqa: F401 - fixtures
from unit.runtimes.workloads import CLASSIFIER

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure
from ceilings.workload.shape import Shape

WIDE = (("b1-s8", "b2-s8", "b8-s32"),)
NARROW = (("b1-s8", "b2-s8", "b4-s8"), ("b1-s16", "b2-s32", "b8-s32"))
ORDER = ["b1-s8", "b2-s8", "b2-s32", "b2-s32", "b8-s16", "b1-s8", "b2-s32"]
SWITCHES = 3
"""Of one context between the narrow profiles: to the second, back, and to the second again."""


def element(shape, seed):
    random = np.random.default_rng(seed)
    size = (shape.batch, shape["sequence"])
    return {"input_ids": random.integers(1, 9, size), "attention_mask": random.integers(0, 2, size)}


@pytest.fixture
def started(runner, monkeypatch):  # noqa: F811
    def make(generation, profiles, **options):
        behaviour = double.Behaviour(CLASSIFIER, profiles)
        plain = runner(generation, behaviour, shape=ORDER[0])
        module = importlib.import_module("ceilings.runtimes.tensorrt_changing_cuda")
        monkeypatch.setattr(cuda, "memory_used", lambda: 5)
        options = {"builder": BUILDERS[generation], **options}
        made = module.RUNNER(plain.artifact, "fp16", CLASSIFIER, Shape.parse(ORDER[0]), 1, options)
        made.load()
        return made, behaviour

    yield make
    sys.modules.pop("ceilings.runtimes.tensorrt_changing_cuda", None)


@pytest.mark.parametrize(
    ("profiles", "options", "counts"),
    [
        (WIDE, {}, (1, 0)),
        (NARROW, {}, (1, SWITCHES)),
        (NARROW, {"contexts": "per-profile"}, (2, 1)),
        (WIDE, {"contexts": "per-profile"}, (1, 0)),
    ],
    ids=["wide", "narrow", "narrow-contexts", "wide-contexts"],
)
@pytest.mark.parametrize("generation", list(BUILDERS))
def test_outputs_are_those_of_each_shape_whatever_came_before(started, generation, profiles, options, counts):
    """``counts`` are contexts, and switches of a profile; those of a context for each profile come while it loads."""
    made, behaviour = started(generation, profiles, **options)
    assert len(behaviour.contexts) == counts[0]
    slots = {}
    for name in dict.fromkeys(ORDER):
        made.at(Shape.parse(name))
        slots[name] = [(inputs, made.place(inputs)) for inputs in (element(made.shape, 1), element(made.shape, 2))]
    for turn, name in enumerate(ORDER):
        inputs, slot = slots[name][turn % 2]
        made.at(Shape.parse(name))
        found = made.outputs(made.answer(slot))["logits"]
        np.testing.assert_array_equal(found, double.sums(inputs)["logits"])
    facts = made.describe()
    assert (facts["contexts"], facts["profile_switches"]) == counts
    assert set(behaviour.streams) == {made.stream.handle} and made.device_bytes() == 5
    set_shapes = behaviour.said.count("set_input_shape")
    assert set_shapes < len(ORDER) * len(CLASSIFIER.inputs)  # the same shape again is not set again


def test_a_shape_outside_every_profile_fails_the_cell_and_names_them(started):
    made, _ = started("11", NARROW)
    made.at(Shape.parse("b3-s12"))
    with pytest.raises(CellFailure, match="b3-s12 lies in no profile of the engine") as caught:
        made.place(element(made.shape, 1))
    assert caught.value.kind == "outside-profiles"


@pytest.mark.parametrize("call", ["set_optimization_profile_async", "set_input_shape", "execute_async_v3"])
def test_a_call_that_fails_at_a_request_says_what_tensorrt_said(started, call):
    made, behaviour = started("11", NARROW)
    made.at(Shape.parse("b2-s32"))
    slot = made.place(element(made.shape, 1))
    behaviour.refuses[call] = "out of memory"
    with pytest.raises(CellFailure, match="out of memory") as caught:
        made.answer(slot)
    assert caught.value.kind == "out-of-memory"
