"""Every Snakemake command that we tell a reader to type means what it says to Snakemake's own parser."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from snakemake.cli import parse_args

PROJECT = Path(__file__).parents[2]
TOLD_IN = ("*.md", "docs/**/*.md", "results/*.md", "studies/*.yaml", "Makefile", "workflow_scripts/**/*.py")
COMMAND = re.compile(
    r"^[\s#]*snakemake (?=-|results/)([^|#\n]+)|`snakemake ([^`\n]+)`|\"snakemake ([^\"\n]+)\"", re.MULTILINE
)
"""On a line of its own, in Markdown's code, as a Python text."""

STANDS_FOR = (("$(CORES)", "1"), ("STUDY", "x.yaml"), ("--profile profiles/slurm", "--jobs 1"))
"""The profile of a cluster needs a plugin; like the number of jobs it is one value."""


def commands() -> list[str]:
    paths = sorted({path for pattern in TOLD_IN for path in PROJECT.glob(pattern)})
    # A command that goes on behind a backslash is one line to a shell, also within comments.
    texts = (re.sub(r"\\\n[# ]*", "", path.read_text("utf-8")) for path in paths)
    found = (match for text in texts for match in COMMAND.findall(text))
    return sorted({" ".join("".join(match).split()) for match in found})


def swallowed(command: str) -> set[str]:
    """Files that the command names as targets and Snakemake takes for values of an option before them."""
    for name, value in STANDS_FOR:
        command = command.replace(name, value)
    words = shlex.split(re.sub(r"\{.*?\}", "results/x", command))
    return {word for word in words if word.startswith("results/")} - set(parse_args(words)[1].targets)


def test_commands_are_found():
    assert len(commands()) > 15
    assert "results/summary.md --cores 1 --configfile studies/h200.yaml" in commands()


@pytest.mark.parametrize("command", commands())
def test_no_option_swallows_a_target(command):
    assert not swallowed(command)


def test_an_option_that_takes_a_list_swallows_the_target_after_it():
    assert swallowed("--cores 1 --configfile studies/h200.yaml results/summary.md") == {"results/summary.md"}
    assert not swallowed("--cores 1 --configfile studies/h200.yaml -- results/summary.md")
