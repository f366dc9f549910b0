"""The pages of a published study are made anew from what is published of it."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import yaml

from ceilings.report.tables.collect import collect

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

PROGRAM = Path(__file__).parents[3] / "benchmarks/published.py"


def test_pages_from_tables_alone(tmp_path):
    maker = planted.StudyMaker(tmp_path / "run")
    maker.measure(planted.GPU, planted.GPU_CONFIGURATIONS, [(1, 128)])
    collect(maker.plan()).write(tmp_path / "tables")
    sweep = {"models": [planted.TEXT], "runtimes": ["tensorrt", "onnxruntime-cuda-fused"]}
    sweep |= {"precisions": ["fp16", "int8"], "batches": [1], "sequences": [128]}
    study = {"study": "x", "weights": "random", "models": {planted.TEXT: {"architecture": "distilbert"}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study | {"sweeps": {"a": sweep}}))
    (tmp_path / "peaks.json").write_text(json.dumps({"peaks": {}, "flags": []}))
    runpy.run_path(str(PROGRAM))["write"](tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert "3 of 3 planned cells measured" in page and "Weights of distilbert are random" in page
    note = (tmp_path / "engineering_observations.md").read_text()
    assert "onnxruntime-cuda-fused (int8)" in note  # a precision that it does not have
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page) if not link.startswith("plots/")}
    assert links and all((tmp_path / link).is_file() for link in links)
    for name in ("summary_table.md", "engineering_observations.md", "report.html"):
        assert "benchmarks/" not in (tmp_path / name).read_text()
