"""The attention kernel compiled ahead for compute capability 9.0: what a launch from C must know of it."""

import os
import re

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from unit.kernels import operator_graph

from ceilings.kernels import attention_images, onnxruntime_attention, resources
from ceilings.kernels.tiles import MANY_TOKENS


@pytest.mark.parametrize("masked", [False, True])
def test_it_takes_the_arguments_in_the_order_of_the_launch(masked):
    """attention_on_cuda.h: query, key, value, mask if there is one, result, three sizes, two buffers."""
    for _, tile in attention_images.TILES:
        ptx = attention_images.compile_ahead(64, masked, tile).asm["ptx"]
        assert (
            re.findall(r"^\s*\.param \.(\w+)", ptx, re.MULTILINE) == ["u64"] * (4 + masked) + ["u32"] * 3 + ["u64"] * 2
        )
        assert resources.target_of(ptx) == "sm_90a"
        assert f".reqntid {32 * tile.warps}" in ptx
        assert "cp.async.cg.shared.global" in ptx  # 16 bytes at a time, which follows from the sizes' alignment


@pytest.mark.parametrize("masked", [False, True])
def test_each_size_is_used_for_what_it_is(masked):
    """A row's length of the operands meets their loads, that of the result its stores, the sequence the masks."""
    tile = attention_images.TILES[-1][1]
    names = [*(["q", "k", "v", "m"] if masked else ["q", "k", "v"]), "result", "STRIDE", "RESULT_STRIDE", "SEQUENCE"]
    ptx = attention_images.compile_ahead(64, masked, tile).asm["ptx"]
    follows = {}
    stored, loaded = set(), set()
    for line in ptx.splitlines():
        words = re.findall(r"%\w+", line)
        if param := re.search(r"ld\.param\.\w+ \s*(%\w+), \[\w+_param_(\d+)\]", line):
            follows[param[1]] = {names[int(param[2])]} if int(param[2]) < len(names) else set()
        elif store := re.search(r"st\.global\S* +\[ *(%\w+)", line):
            stored |= follows.get(store[1], set())
        elif load := re.search(r"(?:ld\.global|cp\.async\.c[ag]\.shared)[^\[]*(\[.*)", line):
            loaded |= follows.get(re.findall(r"%rd\d+", load[1])[-1], set())
        elif words:
            follows[words[0]] = set().union(*(follows.get(word, set()) for word in words))
    assert {"result", "RESULT_STRIDE"} <= stored and not stored & {"q", "k", "v", "m", "STRIDE"}
    assert {"q", "k", "v", "STRIDE"} <= loaded and not loaded & {"result", "RESULT_STRIDE"}
    assert ("m" in loaded) == masked


def test_a_library_has_an_image_for_few_and_for_many_tokens(tmp_path):
    heads = [onnxruntime_attention.Heads(64, True, "float16"), onnxruntime_attention.Heads(64, True, "float16")]
    built = onnxruntime_attention.build(heads, tmp_path / "attention.so")
    assert built["kernels"] == ["cpu float32", "cpu float16", "cuda float16"]
    assert [(one["width"], one["masked"], one["tokens"]) for one in built["images"]] == [
        (64, True, MANY_TOKENS),
        (64, True, 1),
    ]
    graph = operator_graph.model("float16", 2, packed=True, masked=False)
    session = operator_graph.session(graph, tmp_path / "attention.so")  # where there is no GPU the CPU's kernel serves
    assert session.run(None, {"query": np.ones((1, 3, 24), np.float16)})[0].tolist() == [[[1.0] * 8] * 3]


def test_heads_of_another_width_are_refused():
    with pytest.raises(ValueError, match="heads have 40 numbers; the kernel for GPUs takes multiples of 16"):
        attention_images.images(40, masked=False)
