"""What is missing below a target is made again: on a workflow of three rules."""

import re
import subprocess
import sys

import pytest

from ceilings.study import code

SNAKEFILE = """
import sys
sys.path.insert(0, {scripts!r})
from ceilings.study import missing

rule last:
    output: "last"
    input: "middle.json"
    shell: "cat {{input}} > {{output}}"

rule middle:
    output: "middle.json", "beside"
    input: "first.onnx", "theirs"
    shell: "echo {{input}} > {{output[0]}}; cp {{output}}"

rule first:
    output: "first.onnx", "first.json"
    shell: "{first}"

for one in workflow.rules:
    missing.look_for_outputs(one)

rule theirs:
    output: "theirs", "more"
    shell: "touch {{output}}"
"""
NEW = """rule new:
    output: "new"
    input: "first.onnx"
    shell: "touch new"

missing.look_for_outputs(rules.new.rule)
"""
WORKS, FAILS = "echo > first.onnx; echo {} > first.json", "touch first.onnx; echo failed > first.json"


class Workflow:
    def __init__(self, folder, first=WORKS):
        self.folder = folder
        text = SNAKEFILE.format(scripts=str(code.SCRIPTS), first=first.replace("{}", "made"))
        (folder / "Snakefile").write_text(text)
        self.run()

    def run(self, *arguments):
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *(arguments or ["last"])]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def planned(self, *targets):
        return jobs_of(self.run("-n", *(targets or ["last"])))


def jobs_of(said):
    """The rules of which Snakemake says that it runs or would run them."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", said, re.MULTILINE | re.DOTALL)
    return {line.split()[0] for line in table[1].splitlines()} if table else set()


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    return Workflow(tmp_path_factory.mktemp("workflow"))


@pytest.mark.parametrize(
    ("deleted", "jobs"),
    [
        ([], set()),
        pytest.param(["last"], {"last"}, marks=pytest.mark.slow),
        pytest.param(["beside"], {"middle", "last"}, marks=pytest.mark.slow),
        (["first.json"], {"first", "middle", "last"}),
        (["more"], set()),  # of a rule of another workflow
    ],
)
def test_what_is_missing_is_made_again_and_what_rests_on_it(workflow, deleted, jobs):
    for name in deleted:
        (workflow.folder / name).unlink()
    said = workflow.run()
    assert jobs_of(said) == jobs
    assert ("Nothing to be done" in said) == (not jobs)
    if jobs:
        assert workflow.planned() == set()


def test_an_artifact_that_could_not_be_made_is_tried_again_below_what_was_deleted(tmp_path):
    workflow = Workflow(tmp_path, FAILS)
    assert workflow.planned() == set()
    (tmp_path / "middle.json").unlink()
    assert workflow.planned() == {"first", "middle", "last"}


def test_a_new_target_tries_no_failed_artifact_again(tmp_path):
    workflow = Workflow(tmp_path, FAILS)
    path = tmp_path / "Snakefile"
    path.write_text(path.read_text().replace("rule theirs", f"{NEW}\n\nrule theirs"))
    assert workflow.planned("new") == {"new"}
