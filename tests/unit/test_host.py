"""Which machine this is."""

import dataclasses
import doctest

import pytest

from ceilings import host as hosts
from ceilings import slugs
from ceilings.errors import UserError
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study import progress
from ceilings.study.availability import availability, installed


def test_pinned_host_is_the_detected_one(monkeypatch):
    gpu = hosts.Gpu("nvidia-test", "NVIDIA Test", "GPU-0", "580.1", (9, 0), 80 << 30)
    host = dataclasses.replace(hosts.detect({}), gpu=gpu, gpu_problem=None)
    monkeypatch.delenv(hosts.PIN, raising=False)
    hosts.pin(host)
    try:
        assert hosts.detect() == host
    finally:
        monkeypatch.delenv(hosts.PIN)


def test_what_belongs_to_another_device_is_refused_with_both_names(monkeypatch):
    here = hosts.Host("cpu-here", "Here", 4, None, "no driver")
    monkeypatch.setattr(hosts, "detect", lambda environment: here)
    assert hosts.having("cpu-here", "run1.json") == here
    with pytest.raises(UserError, match=r"run1\.json belongs to cpu-there, but this machine's processor is cpu-here;"):
        hosts.having("cpu-there", "run1.json")
    with pytest.raises(UserError, match=r"belongs to nvidia-there, but this machine's GPU is none; run it there$"):
        hosts.having("nvidia-there", "run1.json")
    with pytest.raises(UserError, match=r"belongs to cpu-here, but this machine's GPU is none;"):
        hosts.having("cpu-here", "trace.sqlite", "cuda")


AMD = "model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\n"
ARM = "CPU implementer\t: 0x41\nCPU part\t: 0xd40\n\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("processor : 0\nmodel name : AMD EPYC 9454 48-Core Processor\ncpu family : 25\nmodel : 17\n", ""),
        (AMD, "-25-17"),
        (AMD * 2, "-25-17"),
        (ARM, "-0x41-0xd0c-0xd40"),
        ("", ""),
    ],
)
def test_processors_whose_name_says_nothing_are_told_apart_by_their_numbers(text, more):
    assert hosts._cpu(text)[1] == more


def test_hidden_gpu_is_named_as_the_reason(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' hides" in hosts.detect({}).gpu_problem


@pytest.mark.parametrize(("capability", "can"), [((7, 5), False), ((8, 0), True)])
def test_precision_needs_hardware(capability, can):
    gpu = hosts.Gpu("nvidia-test", "NVIDIA Test", "GPU-0", "580.1", capability, 8 << 30)
    host = hosts.Host("cpu-test", "Test", 4, gpu, None)
    runtime = dataclasses.replace(RUNTIMES["onnxruntime-cpu"], device="cuda", packages=())
    found = availability(runtime, "bf16", host)
    assert bool(found) == can
    assert can or found.reason == "NVIDIA Test has compute capability 7.5; bf16 needs 8.0"


def test_either_of_two_packages_will_do():
    assert list(installed(("no-such-thing|pytest",))) == ["pytest"]
    assert installed(("no-such-thing|nor-this",)) == {"no-such-thing": None}


def test_documented_examples_hold():
    for module in (slugs, progress):
        assert doctest.testmod(module).attempted and not doctest.testmod(module).failed


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ({"sse2", "avx2"}, True),  # Haswell to Broadwell, Zen to Zen 3
        ({"sse2", "avx2", "avx512f", "avx512bw"}, True),  # Skylake-SP
        ({"sse2", "avx2", "avx512f", "avx512_vnni"}, False),
        ({"sse2", "avx2", "avx_vnni"}, False),
        (set(), False),  # Arm
    ],
)
def test_which_processors_saturate_int8_products(flags, saturates):
    assert hosts.int8_saturates(flags) is saturates
