"""Packages that stay out of a kit."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ceilings.errors import UserError
from ceilings.offline.pins import Pin, Target, pinned

PROJECT = Path(__file__).parents[3]
pack_kit = runpy.run_path(str(PROJECT / "workflow_scripts/pack_kit.py"))
PINS = [Pin("torch", "2.11.0"), Pin("nvidia-nvvm", "13.5.37"), Pin("vllm", "0.26.0")]


def test_what_is_excluded_stays_out_however_it_is_written():
    assert [pin.name for pin in pack_kit["without"](PINS, "NVIDIA_nvvm,vllm")] == ["torch"]
    assert pack_kit["without"](PINS, "") == PINS


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="nvidia-nvcc"):
        pack_kit["without"](PINS, "nvidia-nvcc")


@pytest.mark.parametrize(("kind", "pins_torch"), [("cpu", False), ("gpu", False), ("vllm", True)])
def test_only_vllm_pins_torch_itself(kind, pins_torch):
    pins = pinned(PROJECT / f"requirements/{kind}.txt", Target("3.12", "x86_64", "2.28"))
    assert pack_kit["pinned_torch"](pins) == pins_torch


def test_other_pins_take_the_place_of_those_of_the_same_package():
    """A kit is one environment."""
    others = [Pin("mlserver", "1.7.1"), Pin("vllm", "0.1.0")]
    assert pack_kit["replaced"](PINS, others) == [*PINS[:2], *others]


def test_what_servers_need_is_carried_where_nobody_knows_the_hosts_version():
    host = {"protobuf": None, "grpcio": "1.2", "torch": None}
    servers = [Pin("protobuf", "6.0"), Pin("grpcio", "1.3")]
    assert pack_kit["of_known_versions"](host, servers) == {"grpcio": "1.2", "torch": None}


def test_a_c_library_that_servers_do_not_run_on_is_refused_before_anything_is_fetched(tmp_path):
    program = [sys.executable, str(PROJECT / "workflow_scripts/pack_kit.py"), "--kind", "cpu", "--serving"]
    asked = ["--glibc", "2.28", "--output-dir", tmp_path / "kit"]
    done = subprocess.run([*program, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no wheel for glibc 2.28; it takes 2.35 or newer" in done.stderr
    assert not (tmp_path / "kit").exists()
