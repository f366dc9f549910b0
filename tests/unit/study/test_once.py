"""What is worked out once while planning leaves the plan as it is."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow_scripts"

WORKFLOW = """
import sys
sys.path.insert(0, {scripts!r})
if {once}:
    from ceilings.study import once
    once.plan()
    once.plan()  # a workflow is parsed by each job, and as a module of another

class Namer:
    def __init__(self, ending):
        self.ending = ending
    def path(self, wildcards, attempt=1):
        return f"{{wildcards.n}}.{{self.ending}}"
    def given(self, wildcards, input, threads):
        return f"{{input}} {{threads}} {{self.ending}}"

class Unhashable:
    __hash__ = None
    def __call__(self, wildcards, input):
        return f"of {{input}}"

first, second = Namer("one"), Namer("two")

rule all:
    input: expand("{{n}}.both", n=range(3))

rule single:
    output: "{{n}}.{{kind,one|two}}"
    resources: size=lambda wildcards, attempt: 10 * attempt + int(wildcards.n)
    shell: "touch {{output}} # {{resources.size}}"

rule both:
    input: first.path, second.path
    output: "{{n}}.both"
    threads: lambda wildcards: 1 + int(wildcards.n)
    params: first=first.given, second=second.given, other=Unhashable()
    message: "Making {{wildcards.n}} of {{input}}"
    shell: "cat {{input}} > {{output}} # {{params.first}} {{params.second}} {{params.other}} {{threads}}"
"""


def planned(folder: Path, once: bool) -> list[str]:
    folder.mkdir()
    (folder / "Snakefile").write_text(WORKFLOW.format(scripts=str(SCRIPTS), once=once))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run", "--printshellcmds"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    lines = (done.stdout + done.stderr).splitlines()
    shown = ("cat ", "touch ", "resources: ", "input: ")  # numbers of jobs and reasons come in any order
    return sorted(line.strip() for line in lines if any(word in line for word in shown))


def test_a_plan_is_the_same(tmp_path):
    plain, once = planned(tmp_path / "plain", False), planned(tmp_path / "once", True)
    assert once == plain
    assert [line for line in plain if "cat 2.one 2.two > 2.both # 2.one 2.two 2 one 2.one 2.two 2 two of" in line]


TABLES = """
import sys
sys.path.insert(0, {scripts!r})
from ceilings.study import once
once.plan()
once.plan()
from snakemake.persistence.file import FilePersistence
as_text = FilePersistence.__new__(FilePersistence)._serialize_param
assert as_text([1, "a"]) == "[1, 'a']" and "pandas" not in sys.modules
import pandas
one, other = (as_text(pandas.DataFrame({{"a": [number]}})) for number in (1, 2))
assert one != other and one[0] == "[" and as_text(3) == "3"
"""


def test_a_table_counts_as_before_and_pandas_is_read_for_tables_alone():
    command = [sys.executable, "-c", TABLES.format(scripts=SCRIPTS.as_posix())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
