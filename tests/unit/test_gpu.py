"""What CUDA says of the GPU, from a driver library that is made here and answers what a test wants."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ceilings import gpu, slugs
from ceilings import host as hosts
from ceilings.errors import UserError

GIB = 1 << 30
DRIVER = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static long number(const char *name) { char *text = getenv(name); return text ? atol(text) : 0; }
int cuInit(unsigned flags) { if (number("HANG")) sleep(60); if (number("CRASH")) abort(); return number("INIT"); }
static char *name_of(int device) { char *second = getenv("SECOND"); return device && second ? second : getenv("NAME"); }
int cuGetErrorString(int error, const char **words) {
    *words = error == 100 ? "no CUDA-capable device is detected" : error == 803 ? "unsupported driver combination" : 0;
    return *words ? 0 : 1;
}
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, name_of(device), size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = number("MEMORY"); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 16 ? number("SMS") : which == 75 ? 9 : which == 76 ? 0 : -1; return 0;
}
int cuDeviceGetUuid(unsigned char *uuid, int device) { memset(uuid, 0x89, 16); return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { memset(uuid, number("SLICE") ? 0x12 : 0x89, 16); return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
"""
CARD = {"NAME": "NVIDIA H100 80GB HBM3", "MEMORY": str(79 * GIB), "SMS": "132"}
WHOLE = "89898989-8989-8989-8989-898989898989"


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cuda.c").write_text(DRIVER)
    command = [compiler, "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", folder / "cuda.c"]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def detected(library):
    """What a process with such a driver detects, with these variables set; ``counted``: how many cards of a kind."""
    counted = []

    def detected(**variables):
        code = "import dataclasses, json; from ceilings import host, gpu; gpu.ANSWER_SECONDS = 2; h = host.detect({}); "
        code += "print(json.dumps([h.gpu and dataclasses.asdict(h.gpu), h.gpu_problem, h.cards]))"
        environment = {**os.environ, "PYTHONPATH": str(Path(gpu.__file__).parents[1])}
        environment |= {"LD_LIBRARY_PATH": str(library), **CARD, **variables}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        card, problem, cards = json.loads(done.stdout)
        counted.append(cards)
        return gpu.from_json(card) if card else problem

    detected.counted = counted
    return detected


def test_cards_of_the_first_s_kind_are_counted(detected):
    detected()
    detected(SECOND="NVIDIA H200")
    detected(INIT="100")
    assert detected.counted == [2, 1, 0]


def test_a_card_is_what_cuda_says(detected):
    found = detected()
    assert found == gpu.Gpu(
        slug="nvidia-h100-80gb-hbm3",
        name="NVIDIA H100 80GB HBM3",
        uuid=f"GPU-{WHOLE}",
        driver=found.driver,
        capability=(9, 0),
        memory_bytes=79 * GIB,
        multiprocessors=132,
    )


def test_a_slice_is_not_its_card(detected):
    slice_ = {"SLICE": "1", "MEMORY": str(10 * GIB - 5), "SMS": "16"}
    found = detected(NAME="NVIDIA H100 80GB HBM3 MIG 1g.10gb", **slice_)
    assert (found.slug, found.mig) == ("nvidia-h100-80gb-hbm3-mig-1g.10gb", "1g.10gb")
    assert found.uuid.startswith("MIG-12121212-") and (found.multiprocessors, found.memory_bytes) == (16, 10 * GIB - 5)
    unnamed = detected(**slice_)
    assert (unnamed.slug, unnamed.mig) == ("nvidia-h100-80gb-hbm3-mig-16sm", "16sm")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"INIT": "100"}, "cuInit: no CUDA-capable device is detected (error 100)"),
        (
            {"INIT": "100", "CUDA_VISIBLE_DEVICES": "GPU-0"},
            "cuInit: no CUDA-capable device is detected (error 100); CUDA_VISIBLE_DEVICES='GPU-0'",
        ),
        ({"INIT": "803"}, "cuInit: unsupported driver combination (error 803)"),
        ({"INIT": "9999"}, "cuInit: error 9999"),
        ({"CRASH": "1"}, "CUDA could not be asked (ended with status -6)"),
        ({"HANG": "1"}, "CUDA did not start within 2 s"),
        ({"CUDA_VISIBLE_DEVICES": " "}, "CUDA_VISIBLE_DEVICES=' ' hides every CUDA device"),
    ],
)
def test_what_is_wrong_is_said_in_cuda_s_words_and_ends_nothing(detected, variables, words):
    assert detected(**variables) == words


def test_tools_are_not_asked(detected, tmp_path):
    """Whatever nvidia-smi prints or does, with whatever status: no device and no memory comes from it."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'No devices were found'; echo 'NVIDIA GB10, [N/A], [Unknown Error]'; exit 9\n")
    tool.chmod(0o755)
    place = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    assert detected(**place).slug == "nvidia-h100-80gb-hbm3"
    assert detected(NAME="NVIDIA GB10", MEMORY=str(119 * GIB), **place).slug == "nvidia-gb10-128gb"


def test_a_cell_of_another_card_is_refused():
    card = gpu.Gpu("nvidia-x-24gb", "NVIDIA X", "GPU-1", "580.1", (9, 0), 24 * GIB)
    gpu.refuse_other(card, "nvidia-x-24gb")
    with pytest.raises(UserError, match=r"belongs to nvidia-x-12gb, .* nvidia-x-24gb \(NVIDIA X, GPU-1\); run it"):
        gpu.refuse_other(card, "nvidia-x-12gb")


@pytest.mark.parametrize(
    ("name", "gib", "slug"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, "nvidia-a100-sxm4-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "nvidia-a100-sxm4-80gb"),
        ("NVIDIA H200", 139.8, "nvidia-h200-141gb"),
        ("NVIDIA RTX 6000 Ada Generation", 47.5, "nvidia-rtx-6000-ada-generation-48gb"),
        ("NVIDIA RTX 6000 Ada Generation", 44.5, "nvidia-rtx-6000-ada-generation-48gb"),  # with ECC
        ("NVIDIA GH200 480GB", 95.6, "nvidia-gh200-480gb-96gb"),  # which is the host's memory
        ("NVIDIA GeForce RTX 3080", 9.8, "nvidia-geforce-rtx-3080-10gb"),
        ("NVIDIA GeForce RTX 3080", 11.8, "nvidia-geforce-rtx-3080-12gb"),
        ("NVIDIA Future", 400, "nvidia-future-400gb"),
    ],
)
def test_a_slug_has_the_memory(name, gib, slug):
    assert slugs.gpu_slug(name, int(gib * GIB)) == slug


def test_characters_that_cannot_stand_in_a_path_still_tell_names_apart():
    names = ["NVIDIA X 1/2", "NVIDIA X 1-2", "NVIDIA X 1+2", "NVIDIA X®", "NVIDIA X", "显卡", "顯卡", "../x"]
    found = {slugs.slug(name) for name in names}
    assert len(found) == len(names)
    assert all(one[0].isalnum() and set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for one in found)


def test_an_older_pin_is_read():
    fields = dataclasses.asdict(gpu.Gpu("s", "n", "u", "d", (9, 0), 1))
    del fields["multiprocessors"], fields["mig"]
    assert gpu.from_json({**fields, "capability": [9, 0]}).capability == (9, 0)


def test_the_pinned_host_keeps_its_gpu():
    host = hosts.Host("cpu-x", "X", 2, gpu.Gpu("s", "n", "u", "d", (9, 0), 1, 132, "1g.10gb"), None, 1.5)
    assert hosts.detect({hosts.PIN: json.dumps(dataclasses.asdict(host))}) == host
