"""What make does with its options."""

from __future__ import annotations

import ast
import os
import re
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
    [("FOR=3.12", "--python 3.12"), ("HOST=my freeze.txt", "--host 'my freeze.txt'"), ("PART_MB=20", "--part-mb 20")],
)
def test_an_option_reaches_the_program(given, option):
    assert make("kit", given) == f"{KIT} {option}"


def test_a_path_is_one_word_whatever_it_holds():
    unpack = "python3 workflow_scripts/unpack_results.py"
    assert make("unpack", "PARTS=of my hosts", "TO=it's").endswith(rf"{unpack} 'of my hosts' --to 'it'\''s'")
    assert make("bring", "TO=a b", "STUDY=c d").endswith("--study 'c d' --output-dir 'a b'")


def test_unpack_asks_for_the_folder_of_the_parts():
    done = subprocess.run(["make", "unpack"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "error: name the folder of the parts: make unpack PARTS=FOLDER" in done.stderr


@pytest.mark.parametrize("mark", ["slow", "timing"])
def test_no_marked_test_lies_in_a_file_that_make_leaves_out(mark):
    """The mark is written out in each file whose tests bear it: by another name it would not be seen."""
    given = {word for word in make("test", "test-slow").split() if word.startswith("tests/")}
    naming = {path for path in (PROJECT / "tests").rglob("test_*.py") if re.search(rf"\b{mark}\b", path.read_text())}
    marked = {path for path in naming if marks(path, mark)}
    assert marked and {str(path.relative_to(PROJECT)) for path in marked} <= given


def marks(path, mark):
    """Whether the file uses the mark, however it came by it."""
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.Attribute) and node.attr == mark for node in ast.walk(tree))
