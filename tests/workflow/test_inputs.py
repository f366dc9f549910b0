"""What a program reads of the results is an input of its rule: each file that it opens is recorded while it runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tiny import SUMMARY

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

RECORDER = """
import json, os, sys
program = os.path.basename(next((word for word in sys.orig_argv if word.endswith(".py")), ""))
if "/workflow_scripts/" in " ".join(sys.orig_argv) and "snakemake" not in sys.orig_argv[0]:
    def record(event, arguments):
        reads = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if reads and isinstance(arguments[0], (str, bytes)):
            path = os.path.relpath(os.fsdecode(arguments[0]))
            if path.startswith("results/"):
                os.write(log, (json.dumps([program, path]) + "\\n").encode())
    log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sys.addaudithook(record)
"""
TARGETS = (
    *(SUMMARY, "results/report.html", "results/summary_table.md", "results/tables/cells.csv", "results/plan.json"),
    *("results/plots/batch_sweep.svg", "results/parity/tiny/int8.cpu.json", "results/onnx/tiny/int8.cpu.onnx"),
    *("results/onnx/tiny/int8.onnx", "results/calibration/tiny/minmax.json", "results/onnx/tiny/simplified.onnx"),
    *("results/onnx/tiny/exported.onnx", "results/models/tiny/inputs/b1-s16.npz"),
    "results/models/tiny/reference/b1-s16.npz",
)
OPTIONAL = ("tokenizer.json", "preprocessor_config.json")
"""Files that a folder of weights may hold, made with the others."""


def test_what_programs_read_are_inputs_of_their_rules(project):
    log = project.folder / "read.jsonl"
    site = project.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(RECORDER.format(log=str(log)))
    project.snakemake(*TARGETS, "--force", PYTHONPATH=str(site))
    rows = csv.DictReader(project.snakemake(*TARGETS, "--detailed-summary").stdout.splitlines(), delimiter="\t")
    given: dict[str, set[str]] = {}
    for row in rows:
        files = {row["output_file"], *row["input-file(s)"].split(",")}
        given.setdefault(row["shellcmd"].split()[0], set()).update(files)
    read = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"write_summary.py", "collect_cells.py", "check_parity.py", "export_onnx.py"} <= {name for name, _ in read}
    unknown = {
        (name, path)
        for name, path in read
        if path not in given[name] and Path(path).name not in OPTIONAL and (project.folder / path).is_file()
    }
    assert not unknown
