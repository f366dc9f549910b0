"""What the operator launches on a GPU: its own code in the real ONNX Runtime, on a double of the CUDA driver.

The double computes a launch from nothing but its arguments, so a wrong order, offset, stride or grid is a wrong answer.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ceilings.kernels import onnxruntime_attention
from ceilings.kernels.onnxruntime_attention import Image
from ceilings.kernels.tiles import AttentionTile

if shutil.which("cc") is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

HERE = Path(__file__).parent
FEW, MANY = AttentionTile(16, 128, warps=4), AttentionTile(64, 64, warps=8)


def image(width, masked, tokens, tile, shared=9728):
    binary = f"{tile.queries} {width} {int(masked)}\0".encode()
    return Image(width, masked, tokens, tile, shared, "attention", binary)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Runs requests on a library with the given images; how far each is from FP64, or what was said, and the diary."""
    folder = tmp_path_factory.mktemp("launched")
    double = folder / "libcuda.so.1"
    named = ("-shared", "-fPIC", "-O2", "-Wl,-soname,libcuda.so.1")
    subprocess.run(["cc", *named, HERE / "driver_double.c", "-o", double, "-lm"], check=True)

    def run(images, *requests, fails=""):
        library, diary = folder / "attention.so", folder / "diary"
        diary.unlink(missing_ok=True)
        others = ('-DGPU_PROVIDER="CPUExecutionProvider"', '-DGPU_NAME="Launched"')
        onnxruntime_attention.compile_library(library, images, others)
        paths = os.pathsep.join([str(HERE.parents[1]), *(path for path in sys.path if path)])
        clean = {**os.environ, "PYTHONPATH": paths, "DRIVER_DIARY": str(diary), "DRIVER_FAILS": fails}
        command = [sys.executable, "-m", "unit.kernels.launching", double, library, json.dumps(requests)]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=clean, check=True)
        return json.loads(done.stdout), diary.read_text().splitlines() if diary.is_file() else []

    return run


def request(sizes, heads, *, packed, masked):
    return {"sizes": sizes, "heads": heads, "packed": packed, "masked": masked}


def test_every_form_of_a_request_is_launched_right(launched):
    images = [
        image(16, False, 64, MANY, shared=60_000),
        image(16, False, 1, FEW),
        image(16, True, 64, MANY, shared=60_000),
        image(16, True, 1, FEW),
    ]
    requests = [
        request((2, 17, 48), 3, packed=packed, masked=masked) for packed in (False, True) for masked in (False, True)
    ]
    many = request((2, 70, 32), 2, packed=True, masked=True)
    off, diary = launched(images, *requests, many)
    assert max(off) < 2e-3 and len(off) == 5
    few = "grid 2 3 2 block 128 1 1 shared 9728 stream (nil)"
    assert [line for line in diary if line.startswith("launch")] == [
        f"launch 16 16 0: {few}",
        f"launch 16 16 1: {few}",
        f"launch 16 16 0: {few}",
        f"launch 16 16 1: {few}",
        "launch 64 16 1: grid 2 2 2 block 256 1 1 shared 60000 stream (nil)",
    ]
    assert "attribute 64 16 1: 8 = 60000" in diary  # more than 48 KiB must be asked for
    assert not [line for line in diary if line.startswith("attribute 16")]
    loads = [line.partition(" ")[2] for line in diary if line.startswith("load")]
    assert sorted(loads) == sorted(line.partition(" ")[2] for line in diary if line.startswith("unload"))


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("context", "its kernel cannot be loaded: this thread has no CUDA context"),
        ("cuModuleLoadData", "its kernel cannot be loaded: no kernel image is available"),
    ],
)
def test_what_the_driver_refuses_is_said_when_the_session_opens(launched, fails, message):
    said, _ = launched([image(16, False, 1, FEW)], request((1, 4, 16), 1, packed=True, masked=False), fails=fails)
    assert message in said


def test_a_session_that_another_thread_ends_leaves_no_module(launched):
    asked = request((1, 4, 16), 1, packed=True, masked=False) | {"elsewhere": True}
    _, diary = launched([image(16, False, 1, FEW)], asked)
    assert [line.partition(" ")[0] for line in diary] == ["load", "launch", "unload"]


def test_heads_that_were_not_compiled_are_refused(launched):
    said, diary = launched([image(16, False, 1, FEW)], request((1, 4, 16), 1, packed=True, masked=True))
    assert "compiled for other heads; build it anew for the graph" in said
    assert not [line for line in diary if line.startswith("launch")]
