"""Settings in the name of a runtime: what a name means, which ones are refused, and what real sessions make of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER

from ceilings.runtimes import onnxruntime_changing_cpu, settings, torch_compilation
from ceilings.runtimes.catalogue import IO_BINDING, RUNTIMES, STATIC
from ceilings.runtimes.onnxruntime_session import cuda_settings
from ceilings.workload.shape import Shape

CPU = [f"onnxruntime-cpu+{one.name}={value}" for one in settings.OF_ORT_CPU for value in one.values[1:]]


def test_a_name_with_settings_is_the_runtime_with_levers_of_that_name():
    name = "onnxruntime-cuda+convolution-search=heuristic+arena=next-power-of-two"
    base, made = RUNTIMES["onnxruntime-cuda"], RUNTIMES[name]
    assert (made.name, made.stack, made.module, made.changing) == (name, base.stack, base.module, base.changing)
    assert made.levers == {IO_BINDING, STATIC, "convolution search heuristic", "arena next power of two"}
    assert made.options == {"convolution-search": "heuristic", "arena": "next-power-of-two"}
    assert name in RUNTIMES and name not in list(RUNTIMES) and RUNTIMES.get(name) == made


def test_every_combination_of_every_runtime_is_known_by_one_name():
    for runtime in RUNTIMES.values():
        for one in runtime.settings:
            for value in one.values[1:]:
                assert RUNTIMES[f"{runtime.name}+{one.name}={value}"].options[one.name] == value
    every = "+".join(["onnxruntime-cpu", *(f"{one.name}={one.values[-1]}" for one in settings.OF_ORT_CPU)])
    assert len(RUNTIMES[every].levers) == len(settings.OF_ORT_CPU)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("onnxruntime-cuda+arena=off", "sets arena to off; write one of `same-as-requested`, `next-power-of-two`"),
        ("onnxruntime-cpu+convolution-search=heuristic", "which onnxruntime-cpu does not have; it has arena, memory-"),
        ("torch-eager+arena=off", "of which nothing can be set; write torch-eager"),
        ("onnxruntime-cpu+arena", "no name with settings; write it as onnxruntime-cpu+arena=off"),
        ("onnxruntime-cpu+", "no name with settings"),
        ("onnxruntime-cpu+arena=off+arena=off", "is called onnxruntime-cpu+arena=off:"),
        ("onnxruntime-cpu+memory-pattern=off+arena=off", "is called onnxruntime-cpu+arena=off+memory-pattern=off:"),
        ("onnxruntime-cpu+arena=next-power-of-two", "is called onnxruntime-cpu:"),
    ],
)
def test_any_other_name_is_none_and_says_why(name, why):
    assert name not in RUNTIMES and RUNTIMES.get(name) is None
    assert why in RUNTIMES.misnamed(name)
    with pytest.raises(KeyError):
        RUNTIMES[name]


def test_a_name_without_settings_has_none_to_complain_of():
    assert RUNTIMES.misnamed("onnxruntime-cpu") is None
    assert RUNTIMES.misnamed("nobody+arena=off") is None and "nobody+arena=off" not in RUNTIMES


def test_the_cuda_provider_gets_every_setting_in_its_words():
    assert cuda_settings({}) == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    }
    assert cuda_settings({"arena": "next-power-of-two", "convolution-search": "default"}) == {
        "arena_extend_strategy": "kNextPowerOfTwo",
        "cudnn_conv_algo_search": "DEFAULT",
    }


def test_runners_read_every_value_and_have_the_same_defaults():
    defaults = {one.name: one.default for one in settings.OF_ORT_CUDA}
    assert cuda_settings(defaults) == cuda_settings({})
    for one in settings.OF_ORT_CUDA[:2]:
        assert len({tuple(cuda_settings({one.name: value}).values()) for value in one.values}) == len(one.values)
    assert tuple(torch_compilation.DYNAMIC) == settings.SIZES.values
    assert torch_compilation.sizes_of({}) == settings.SIZES.default


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    module, path = tiny.module(ANSWERER), tmp_path_factory.mktemp("graph") / "fp32.onnx"
    tiny.export(ANSWERER, module, path)
    return module, path


@pytest.mark.parametrize("name", ["onnxruntime-cpu", *CPU])
def test_a_session_has_what_its_name_says_and_answers_every_shape(answerer, name):
    module, path = answerer
    options = RUNTIMES[name].options
    runner = onnxruntime_changing_cpu.RUNNER(path, "fp32", ANSWERER, Shape.parse("b1-s16"), 1, options)
    runner.load()
    for batch, size in ((1, 16), (3, 24), (1, 16), (3, 24), (2, 8)):
        runner.at(Shape.parse(f"b{batch}-s{size}"))
        inputs = tiny.element(ANSWERER, batch, size)
        outputs = runner.outputs(runner.answer(runner.place(inputs)))
        for key, value in tiny.expected(ANSWERER, module, inputs).items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-4, atol=1e-5)
    assert runner.describe()["session"] == {
        "memory_pattern": options.get("memory-pattern") != "off",
        "cpu_arena": options.get("arena") != "off",
        "shared_arena": options.get("arena") == "same-as-requested",
        "prepacking": options.get("prepacking") != "off",
    }


WIDTH, ROWS = 512, (8, 4096, 6000, 6000, 8)
"""Of the requests in the processes below, one after another: a tensor of 6000 rows has 11.7 MiB."""

GROWTH = """
import json, os
from pathlib import Path
import numpy as np
from ceilings.measure.changing_worker import resident_bytes
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.runtimes.onnxruntime_changing_cpu import RUNNER
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

x, y = (TensorSpec(name, "float32", ("batch", {width})) for name in "xy")
workload = Workload(TASKS["tensors"], (x,), (y,))

def growth(name):
    runner = RUNNER(Path({graph!r}), "fp32", workload, Shape.parse("b8"), 1, RUNTIMES[name].options)
    runner.load()
    before, used = resident_bytes(), []
    for rows in {rows}:
        slot = runner.place({{"x": np.ones((rows, {width}), np.float32)}})
        runner.answer(slot)
        del slot
        used.append((resident_bytes() - before) / 2**20)
    return used

for name in {names!r}:  # each in a separate process, since an arena lives as long as its session
    if os.fork() == 0:
        print(json.dumps([name, growth(name)]), flush=True)
        os._exit(0)
    os.wait()
"""


def test_what_each_setting_costs_in_memory_at_a_first_appearance_and_at_a_return(tmp_path):
    """Real sessions. In memory, since timings take an idle machine."""
    nodes = [helper.make_node("Neg", [f"a{i}"], [f"a{i + 1}"]) for i in range(5)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy")
    made = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    onnx.save(made, tmp_path / "g.onnx")
    names = ["onnxruntime-cpu", *(name for name in CPU if "prepacking" not in name)]  # no weights here
    script = GROWTH.format(graph=str(tmp_path / "g.onnx"), width=WIDTH, rows=ROWS, names=names)
    scripts = Path(onnxruntime_changing_cpu.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env={"PYTHONPATH": str(scripts), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    default, exact, off, without_pattern = (
        np.array(json.loads(line)[1]) for line in done.stdout.splitlines()
    )  # MiB after each request
    margin = 6
    assert (exact - default)[-1] > margin  # blocks of exactly one shape are too small for a larger one
    assert (default - without_pattern)[:3].max() < 2 and (default - without_pattern)[3] > margin  # laid out at a return
    assert without_pattern[-1] - off[-1] > margin  # what an arena took it keeps
