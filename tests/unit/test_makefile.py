"""What make does with its options."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def make(*words, **environment):
    """The commands that make would run."""
    clean = {"PATH": os.environ["PATH"], **environment}
    command = ["make", "--no-print-directory", "-n", "KIND=cpu", *words]
    done = subprocess.run(command, cwd=PROJECT, env=clean, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.replace("\\\n", " ").split())


KIT = "python3 workflow_scripts/pack_kit.py --kind cpu"


def test_variables_that_shells_export_are_no_options():
    assert make("kit", HOST="mine", MACHINE="here", TO="x", STUDY="y") == KIT
    assert make("bring", TO="x", STUDY="y") == "python3 workflow_scripts/pack_results.py"


@pytest.mark.parametrize(
    ("given", "option"),
    [("FOR=3.12", "--python 3.12"), ("HOST=freeze.txt", "--host freeze.txt"), ("PART_MB=20", "--part-mb 20")],
)
def test_an_option_reaches_the_program(given, option):
    assert make("kit", given) == f"{KIT} {option}"


def test_parts_are_a_folder_or_one_of_them(tmp_path):
    (tmp_path / "kit-1-01-of-01.pyz").touch()
    for named in (tmp_path, tmp_path / "kit-1-01-of-01.pyz"):
        assert make("unpack", f"PARTS={named}", "TO=x").endswith(f"python3 {tmp_path}/kit-1-01-of-01.pyz --to x")
