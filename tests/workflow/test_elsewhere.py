"""The pipeline from other places: another folder, and another workflow that uses it as a module."""

from __future__ import annotations

import json

import pytest
import yaml
from tiny import STUDY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

WEIGHTS = "results/models/tiny/weights/config.json"
OUTER = """
configfile: "outer.yaml"

module ceilings:
    snakefile: "{project}/Snakefile"
    config: config["latency"]

use rule * from ceilings as latency_*

rule mine:
    default_target: True
    input: "results/plan.json", "{weights}"
    output: "mine.json"
    shell: "cp {{input[0]}} {{output}}"
"""


def name_of_study(folder):
    return json.loads((folder / "results/plan.json").read_text())["study"]


def test_snakefile_elsewhere_with_the_study_at_hand(finished, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**STUDY, "study": "at-hand"}))
    Project(tmp_path).snakemake("-s", f"{finished.folder}/Snakefile", "results/plan.json", WEIGHTS)
    assert name_of_study(tmp_path) == "at-hand" and (tmp_path / WEIGHTS).stat().st_size


def test_snakefile_elsewhere_without_a_study_takes_its_own(finished, tmp_path):
    Project(tmp_path).snakemake("-s", f"{finished.folder}/Snakefile", "results/plan.json")
    assert name_of_study(tmp_path) == STUDY["study"]


def test_another_directory_for_the_results(finished, tmp_path):
    finished.snakemake("--directory", str(tmp_path), "results/plan.json")
    assert name_of_study(tmp_path) == STUDY["study"]


def test_module_of_another_workflow(finished, tmp_path):
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump({"latency": {**STUDY, "study": "inner"}, "else": 1}))
    (tmp_path / "Snakefile").write_text(OUTER.format(project=finished.folder, weights=WEIGHTS))
    outer = Project(tmp_path)
    planned = outer.planned("results/summary.md")
    assert {"latency_measure_latency", "latency_write_summary", "latency_fetch_weights"} <= set(planned)
    outer.snakemake()
    assert json.loads((tmp_path / "mine.json").read_text())["study"] == "inner"
    assert (tmp_path / WEIGHTS).stat().st_size and not (finished.folder / "mine.json").exists()
