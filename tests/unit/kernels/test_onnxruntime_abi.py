"""What the operator declares of two interfaces, against the vendors' headers.

``CEILINGS_ONNXRUNTIME_HEADERS`` names a folder with ONNX Runtime's ``onnxruntime_c_api.h`` (its archives and NuGet
packages have one). Triton brings ``cuda.h``, as does CUDA's toolkit.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ceilings.kernels import onnxruntime_attention

HERE = onnxruntime_attention.SOURCE.parent
ABI, ON_CUDA = (HERE / "onnxruntime_abi.h").read_text(), (HERE / "attention_on_cuda.h").read_text()
VENDOR = os.environ.get("CEILINGS_ONNXRUNTIME_HEADERS", "")


def joined(text):
    return re.sub(r"\s*\\\n\s*", " ", text)


ENTRIES = re.findall(r"ENTRY\((\w+), (\d+), ([^,]+?), (\(.*?\))\)(?= ENTRY|\n)", joined(ABI))
MEMBERS = re.findall(r"\(\*(\w+)\)\(", ABI[ABI.index("struct OrtCustomOp {") :])
CONSTANTS = {
    **{"STATUS_FAIL": "ORT_FAIL", "STATUS_INVALID_ARGUMENT": "ORT_INVALID_ARGUMENT"},
    **{"TYPE_FLOAT": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT", "TYPE_INT64": "ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64"},
    **{"TYPE_FLOAT16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16", "MEMORY_DEFAULT": "OrtMemTypeDefault"},
    **{"INPUT_REQUIRED": "INPUT_OUTPUT_REQUIRED", "INPUT_OPTIONAL": "INPUT_OUTPUT_OPTIONAL"},
}


def ran(folder, source, include):
    (folder / "facts.c").write_text(source)
    subprocess.run(["cc", "-I", include, folder / "facts.c", "-o", folder / "facts"], check=True, cwd=folder)
    return subprocess.run([folder / "facts"], capture_output=True, text=True, check=True).stdout.splitlines()


def facts(header, constants, places):
    """A program that prints where members of the operator lie, constants, and where entries of the table lie."""
    said = [
        *(f'printf("{name} %zu\\n", offsetof(OrtCustomOp, {name}));' for name in ("version", *MEMBERS)),
        *(f'printf("{ours} %d\\n", (int){theirs});' for ours, theirs in constants.items()),
        *(f'printf("{name} %zu\\n", (size_t)({place}));' for name, place in places.items()),
    ]
    return "\n".join(
        ["#include <stddef.h>", "#include <stdio.h>", f'#include "{header}"', "int main(void) {", *said, "}"]
    )


@pytest.fixture
def vendor():
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    if not Path(VENDOR, "onnxruntime_c_api.h").is_file():
        pytest.skip("CEILINGS_ONNXRUNTIME_HEADERS names no folder with onnxruntime_c_api.h")
    return VENDOR


def test_entries_members_and_constants_are_the_vendor_s(vendor, tmp_path):
    assert len(ENTRIES) == ABI.count(" ENTRY(") and len(MEMBERS) == 21
    ours = facts("onnxruntime_abi.h", {name: name for name in CONSTANTS}, {name: place for name, place, *_ in ENTRIES})
    places = {name: f"offsetof(OrtApi, {name}) / sizeof(void *)" for name, *_ in ENTRIES}
    theirs = facts("onnxruntime_c_api.h", CONSTANTS, places)
    assert ran(tmp_path, ours, HERE) == ran(tmp_path, theirs, vendor)


def test_entries_take_and_return_what_the_vendor_s_do(vendor, tmp_path):
    checks = [
        f"_Static_assert(__builtin_types_compatible_p(__typeof__(((OrtApi *)0)->{name}), {result} (*){parameters}), "
        f'"{name}");'
        for name, _, result, parameters in ENTRIES
        if name != "CreateStatus"  # an enumeration there, an int here
    ]
    ran(tmp_path, "\n".join(['#include "onnxruntime_c_api.h"', *checks, "int main(void) {}"]), vendor)


# ---- CUDA's driver -------------------------------------------------------------------------------------------------


def cuda_header():
    spec = importlib.util.find_spec("triton")
    beside = [Path(folder, "backends/nvidia/include") for folder in (spec.submodule_search_locations if spec else [])]
    places = [*beside, Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "include")]
    return next((place / "cuda.h" for place in places if (place / "cuda.h").is_file()), None)


def kinds(parameters):
    """Of each parameter whether an address or a number is passed."""
    handles = r"\*|\b(CUcontext|CUmodule|CUfunction|CUstream)\b"
    return ["address" if re.search(handles, one) else "number" for one in parameters.strip("()").split(",")]


def test_the_driver_s_functions_take_what_cuda_h_says():
    if (header := cuda_header()) is None:
        pytest.skip("there is no cuda.h: make kernels brings one")
    text = header.read_text(encoding="utf-8", errors="replace")
    declared = re.findall(r"ENTRY\((\w+), (\(.*?\))\)(?= ENTRY|\n)", joined(ON_CUDA))
    assert {"cuLaunchKernel", "cuModuleLoadData"} <= {name for name, _ in declared}
    for name, parameters in declared:
        theirs = re.search(rf"^CUresult CUDAAPI {name}(\([^)]*\));", text, re.MULTILINE)
        assert theirs and kinds(parameters) == kinds(theirs[1]), name
        assert not re.search(rf"#define\s+{name}\s+{name}_v\d", text), f"{name} stands for a later version"
    assert re.search(r"CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,", text)
