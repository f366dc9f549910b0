"""The two reports: ours, made by the pipeline, and Snakemake's own, which holds it."""

import json
import re

import pytest


@pytest.mark.slow
def test_the_report_and_snakemakes_own(project):
    project.snakemake("results/report.html")
    page = (project.folder / "results/report.html").read_text()
    assert len(re.findall(r'<tr id="[a-z0-9-]+/onnxruntime-cpu(?:\.aa)?/tiny/', page)) == 5
    assert "Weights of tiny are random" in page

    project.snakemake("--report", "snakemake.html")
    own = (project.folder / "snakemake.html").read_text()
    start = re.search(r'\bvar results = (?=\{"results/)', own).end()
    results, _ = json.JSONDecoder().raw_decode(own[start:])
    assert {"results/report.html", "results/summary.md", "results/tables/cells.csv"} <= results.keys()
    for path, entry in results.items():
        assert entry["caption"] and entry["labels"], path
    assert results["results/report.html"]["data_uri"].startswith("data:text/html")

    # What the page is made of counts as its code, and as nothing else's.
    project.edit("workflow_scripts/ceilings/report/render/page/table.js", "// another line")
    assert project.planned("results/report.html") == {"write_report": 1}
