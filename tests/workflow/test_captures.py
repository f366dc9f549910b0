"""Traces that others made, as targets: made once, made anew one by one, refused or recorded where they are broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from tiny import PROJECT, STUDY, SUMMARY, Project
from unit.report.planted_explanation import EAGER, GRAPH

from ceilings import records

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

PAGES = {name: f"results/explained/{name}.md" for name in ("eager", "graph", "broken")}


class Elsewhere(Project):
    """A folder of its own, in which the workflow of this checkout runs."""

    def snakemake(self, *arguments, **options):
        # Targets first, and together: the parser takes no second group of them.
        ordered = sorted(arguments, key=lambda word: not word.startswith("results/"))
        return super().snakemake(*ordered, "--snakefile", str(PROJECT / "Snakefile"), **options)

    def planned_of(self, *names):
        return self.planned(PAGES[names[0]], *(PAGES[name] for name in names[1:]))


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Two captures explained, and one that is no trace."""
    project = Elsewhere(tmp_path_factory.mktemp("captures"))
    shutil.copy(EAGER, project.folder / "eager.sqlite")
    shutil.copy(GRAPH, project.folder / "graph.sqlite")
    (project.folder / "broken.json").write_text('{"traceEvents": [{"ph": "X", ')
    project.configure(study())
    project.said = project.snakemake(*PAGES.values(), "results/explained/graph-against-eager.md")
    return project


def study(**changed):
    named = {"eager": "./eager.sqlite", "graph": {"path": "./graph.sqlite"}, "broken": "./broken.json"}
    return {**STUDY, "captures": {**named, **changed}}


@pytest.fixture
def again(explained, tmp_path):
    """A copy of it that a test may change."""
    shutil.copytree(explained.folder, tmp_path / "copy")
    return Elsewhere(tmp_path / "copy")


def test_pages_stand_beside_records(explained):
    folder = explained.folder / "results/explained"
    for name in ("eager", "graph"):
        record = records.read(folder / f"{name}.json", "explanation")
        assert record["name"] == name and record["groups"][0]["count"] == 5
        page = (folder / f"{name}.md").read_text()
        assert f"]({name}.svg)" in page and (folder / f"{name}.svg").is_file()
        assert "Bound by" in page and "Bound by" in (folder / f"{name}.html").read_text()
    assert "# `graph` against `eager`" in (folder / "graph-against-eager.md").read_text()
    assert "graph against eager: what grew</title>" in (folder / "graph-against-eager.html").read_text()


def test_one_that_cannot_be_read_is_said_in_a_line_and_the_others_go_on(explained):
    (line,) = [line for line in explained.said.stderr.splitlines() if "cannot be explained" in line]
    assert line.startswith("the capture broken cannot be explained: ") and "broken.json" in line
    assert "It cannot be explained: " in (explained.folder / PAGES["broken"]).read_text()


def test_nothing_is_made_twice(explained):
    assert explained.planned_of("eager", "graph", "broken") == {}


def test_time_and_a_copy_do_not_count(again):
    for name in ("eager.sqlite", "broken.json"):
        os.utime(again.folder / name)
    assert again.planned_of("eager", "graph", "broken") == {}


def test_other_content_makes_one_anew(again):
    (again.folder / "broken.json").write_text("[]")
    assert again.planned_of("eager", "graph", "broken") == {"explain_capture": 1, "write_explanation": 1}


def test_another_range_makes_one_anew(again):
    again.configure(study(eager={"path": "./eager.sqlite", "by": "period"}))
    assert again.planned_of("eager", "graph", "broken") == {"explain_capture": 1, "write_explanation": 1}
    assert again.planned("results/explained/graph-against-eager.md") == {"explain_capture": 1, "compare_explained": 1}


def test_a_new_capture_makes_nothing_else(again):
    again.configure(study(other="./graph.sqlite"))
    assert again.planned_of("eager", "graph", "broken") == {}
    assert again.planned("results/explained/other.md") == {"explain_capture": 1, "write_explanation": 1}


def test_from_the_command_line_without_a_study_of_captures(again):
    again.configure(STUDY)
    shutil.rmtree(again.folder / "results")
    given = "captures={mine: {path: ./eager.sqlite, between: [0, 100.5]}}"
    again.snakemake("results/explained/mine.perfetto.json", "results/explained/mine.json", "--config", given)
    assert records.read(again.folder / "results/explained/mine.json")["iterations"]["by"] == "interval"
    assert (again.folder / "results/explained/mine.perfetto.json").stat().st_size > 1000


def test_a_study_of_captures_alone(again):
    again.configure({"captures": {"alone": "./eager.sqlite", "broken": "./broken.json"}})
    done = again.snakemake("results/explained/alone.md", "results/explained/broken.perfetto.json")
    assert "Bound by" in (again.folder / "results/explained/alone.md").read_text()
    assert "broken.json" in (again.folder / "results/explained/broken.perfetto.json").read_text()
    assert "the capture broken cannot be explained" in done.stderr


@pytest.mark.parametrize(
    ("target", "captures", "message"),
    [
        (
            "eager",
            {"eager": "./eagr.sqlite"},
            "captures.eager: ./eagr.sqlite does not exist; did you mean 'eager.sqlite'?",
        ),
        ("other", {}, "error: the study has no capture 'other'; allowed: broken, eager, graph"),
        ("eager", {"eager": {"path": "./eager.sqlite", "by": "steps"}}, "is not allowed, did you mean 'step'?"),
        ("Eager", {}, "error: nothing makes results/explained/Eager.md, did you mean 'results/explained/eager.md'?"),
    ],
)
def test_bad_input_is_one_line(again, target, captures, message):
    again.configure(study(**captures))
    done = again.snakemake(f"results/explained/{target}.md", check=False)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_program_alone_in_any_folder(tmp_path):
    """Its exit status, its one line where a trace cannot be read, and no file that nobody asked for."""
    program = PROJECT / "workflow_scripts/explain_capture.py"

    def run(*arguments):
        return subprocess.run(
            [sys.executable, program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )

    shown = run(str(EAGER))
    assert shown.returncode == 0 and "Bound by" in shown.stdout and "\x1b" not in shown.stdout, shown.stderr
    assert not shown.stderr
    (tmp_path / "page.json").write_text("<html>")
    refused = run("page.json")
    assert refused.returncode == 1 and refused.stderr.startswith("error: page.json")
    assert len(refused.stderr.splitlines()) == 1 and not refused.stdout
    assert run(str(EAGER), "--step", "--period").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["page.json"]


def test_a_study_is_yaml_as_documented():
    """The example of docs/explain.md is a section of a study that the schema takes."""
    from ceilings.study.captures import captures
    from ceilings.study.config import checked

    page = (PROJECT / "docs/explain.md").read_text(encoding="utf-8")
    section = page.partition("```yaml\n")[2].partition("```")[0]
    config = checked({**STUDY, **yaml.safe_load(section)})
    assert captures(config)["slow"].options == ("--between", "1200", "1350.5")


def test_a_study_with_a_capture_gains_its_line_and_measures_nothing(project):
    shutil.copy(EAGER, project.folder / "eager.sqlite")
    project.configure({**STUDY, "captures": {"mine": "./eager.sqlite"}})
    assert project.planned() == {"explain_capture": 1, "write_explanation": 1, "write_summary": 1}
    project.snakemake(SUMMARY)
    assert "- [mine](explained/mine.md): Bound by" in (project.folder / SUMMARY).read_text()
    assert project.planned() == {}
    project.configure(STUDY)
    assert project.planned() == {"write_summary": 1}
