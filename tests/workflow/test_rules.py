"""Every rule: what its program needs is in its command, and what its program is counts among its params."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import re

import pytest
import yaml
from tiny import PROJECT, STUDY, Project
from unit.planted_packages import install

from ceilings import host as hosts
from ceilings.host import Gpu
from ceilings.study import code

pytestmark = pytest.mark.workflow

LIST = """
include: "{project}/Snakefile"

import json

with open("rules.json", "w") as file:
    listed = {{}}
    for one in workflow.rules:
        if one.shellcmd:
            texts = {{name: value for name, value in one.params.items() if isinstance(value, str)}}
            inputs = [str(file) for file in one.input if isinstance(file, str)]
            listed[one.name] = {{"shell": one.shellcmd, "params": texts, "input": inputs}}
    json.dump(listed, file)
"""


def listed(folder, study, **environment):
    (folder / "config.yaml").write_text(yaml.safe_dump(study))
    (folder / "Snakefile").write_text(LIST.format(project=PROJECT))
    Project(folder).snakemake("--list-rules", **environment)
    return json.loads((folder / "rules.json").read_text())


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """What Snakemake knows of each rule with a shell command."""
    found = listed(tmp_path_factory.mktemp("rules"), STUDY)
    assert {"measure_latency", "build_engine", "build_rtx_engine", "capture_trace", "write_summary"} <= set(found)
    return found


def test_the_program_of_each_rule_and_its_packages_are_params(rules):
    for name, rule in rules.items():
        program = rule["shell"].split(".py")[0]
        assert (PROJECT / "workflow_scripts" / f"{program}.py") in code.reached(program)
        assert rule["params"]["program"] == code.digest(program), name
        assert rule["params"]["packages"] == code.libraries(program), name


def test_each_command_gives_its_program_what_it_needs(rules):
    for name, rule in rules.items():
        needed, known = options(rule["shell"].split()[0])
        given = set(re.findall(r"(?<= )--[a-z-]+", rule["shell"]))
        assert given <= known, name
        assert needed <= given or "{params.options:q}" in rule["shell"], name  # compare_results gets them as words


def options(program):
    """The options that a program needs, and all that it knows."""
    needed, known = set(), set()
    files = [path for path in code.reached(program.removesuffix(".py")) if path.suffix == ".py"]
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            known.add(node.args[0].value)
            if "required" in given and given["required"].value:
                needed.add(node.args[0].value)
    return needed, known


def test_the_layout_of_a_command_does_not_count_and_its_options_do(rules):
    from ceilings.study.rule_params import complete

    class Rule:
        def __init__(self, command):
            self.shellcmd = command

        def set_params(self, **params):
            self.params = params

    def command(text):
        rule = Rule(text)
        complete(rule)
        return rule.shellcmd

    plain = "draw_plot.py --plot {wildcards.plot} > {log} 2>&1"
    assert command(plain.replace(" --plot", "\n    --plot  ")) == command(plain) == plain
    assert command(plain.replace("--plot", "--plots")) != plain
    assert all(rule["shell"] == " ".join(rule["shell"].split()) for rule in rules.values())


def test_what_reads_budgets_has_them_as_inputs(tmp_path):
    """On a machine with a GPU, as far as planning sees: its packages are there in name."""
    for package in ("onnxruntime-gpu", "cuda-bindings", "cupti-python"):
        install(tmp_path / "site", package, "1.0")
    gpu = Gpu("nvidia-test", "NVIDIA Test", "GPU-1", "580.1", (9, 0), 80 << 30)
    host = dataclasses.replace(hosts.detect({}), gpu=gpu, gpu_problem=None)
    study = copy.deepcopy(STUDY) | {"traces": {"cells": ["onnxruntime-cuda/tiny/fp32/b1-s16"], "source": "cupti"}}
    study["sweeps"]["one"]["runtimes"] = ["onnxruntime-cuda"]
    pinned = {hosts.PIN: json.dumps(dataclasses.asdict(host)), "PYTHONPATH": str(tmp_path / "site")}
    budget = "results/traces/nvidia-test/onnxruntime-cuda/tiny/fp32/b1-s16.budget.json"
    found = listed(tmp_path, study, **pinned)
    for name in ("collect_cells", "draw_plot", "write_summary", "write_report"):
        assert budget in found[name]["input"], name
