"""The real pipeline on decoders that generate: tiny GPT-2 and Llama on the CPU, from weights to the summary."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny import LAB_NOTE, PROJECT, SUMMARY, Project

from ceilings import records as written

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

STUDY = yaml.safe_load((PROJECT / "studies/generation-cpu.yaml").read_text())
RUNTIMES = ("torch-eager", "onnxruntime-cpu", "onnxruntime-cpu-fused")
SHAPES = ("b1-p16-g8", "b4-p16-g8", "b1-p16-g1")
SHORT = STUDY["protocol"] | {"min_seconds": 0.02, "max_seconds": 0.05, "min_iterations": 7, "warmup_max_seconds": 0.05}

ROUNDED = {"models": ["llama"], "runtimes": ["torch-eager"], "precisions": ["bf16"]}
ROUNDED |= {"axes": {"batch": [4], "prompt": [16], "generated": [48]}}
WHOLE = STUDY | {"protocol": SHORT, "sweeps": STUDY["sweeps"] | {"rounded": ROUNDED}}
"""With a cell whose texts rounding makes others."""


CELLS = "results/tables/cells.csv"


def checkout(folder):
    """A copy of the project."""
    folder.mkdir()
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        source = PROJECT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder)
    return Project(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The study of the repository with a shorter protocol and a cell in BF16, run to its summary."""
    project = checkout(tmp_path_factory.mktemp("generation") / "project")
    project.configure(WHOLE)
    project.snakemake(SUMMARY)
    return project


def records(project, precision="fp32"):
    paths = sorted(project.folder.glob(f"results/benchmarks/*/*/*/{precision}/*/run1.json"))
    return {(path.parts[-5], path.parts[-4], path.parts[-2]): json.loads(path.read_text()) for path in paths}


def test_every_cell_generates_and_gives_the_reference_s_tokens(project):
    """In FP32 two implementations round differently, and the gate says whether that explains another token."""
    found = records(project)
    asked = {(runtime, model, shape) for runtime in RUNTIMES for model in ("gpt2", "llama") for shape in SHAPES}
    assert {key for key in found if not key[0].endswith(".aa")} == asked
    for key, record in found.items():
        assert record["status"] == "ok", (key, record["failure"])
        assert record["parity"]["relative_l2"] < 1e-3, key
        assert record["parity"].get("token_agreement", 1) > 0.9, key


def test_the_reference_reads_texts_that_are_not_its_own(project):
    """In BF16 some row becomes another text; every token of it is judged, as the record and the lab note say."""
    (record,) = records(project, "bf16").values()
    parity, texts = record["parity"], record["texts"]
    assert record["status"] == "ok" and len(texts["tokens"]) == len(texts["places"]) >= 1
    assert parity["texts"] is None and 0.002 < parity["rounding_l2"] < 0.02
    (path,) = project.folder.glob("results/benchmarks/*/*/*/bf16/*/texts.json")
    verdict = json.loads(path.read_text())
    assert (verdict["status"], verdict["read"]) == ("ok", len(texts["tokens"]))  # both processes wrote the same
    assert [one["texts"] for one in verdict["runs"].values()] == [verdict["read"]] * SHORT["processes"]
    cells = pd.read_csv(project.folder / CELLS).set_index("precision")
    assert parity["token_agreement"] < cells.loc["bf16", "top1_agreement"] < 1
    assert 0 < cells.loc["bf16", "largest_margin_sigma"] < 8


def test_requests_are_the_sum_of_their_tokens(project):
    for (_, _, shape), record in records(project).items():
        requests, generated = record["series"]["requests"], int(shape.rsplit("g", 1)[1])
        gaps = np.reshape(requests["token_ns"], (-1, generated - 1)) if generated > 1 else np.zeros((1, 0))
        firsts = np.asarray(requests["first_token_ns"])
        assert len(firsts) >= 3
        assert (firsts + gaps.sum(1) == requests["request_ns"]).all()
        assert requests["cache_bytes"] > 0
        # A step of the closed loop takes what a reader waits between two tokens, as far as a busy machine lets it.
        if generated > 1:
            ratio = np.median(record["series"]["latency"]["latency_ns"]) / np.median(gaps)
            assert 1 / 5 < ratio < 5, shape


def test_the_reference_is_that_of_every_shape(project):
    for model in ("gpt2", "llama"):
        reference = np.load(project.folder / f"results/models/{model}/reference/b4-p16-g8.npz")
        assert reference["output/tokens"].shape[1:] == (4, 8)
        assert reference["output/tokens"].dtype == np.int64


def test_pages_speak_of_tokens(project):
    summary = (project.folder / SUMMARY).read_text()
    assert "## Generation" in summary and "## Results" not in summary
    assert "time per output token" in summary and "time to the first token" in summary
    assert "An iteration of a generating cell is one output token" in summary
    for heading in ("TTFT, ms [95%]", "end to end, ms [95%]", "tokens/s, all rows", "KV cache, MB"):
        assert heading in summary, heading
    assert "same tokens" in (project.folder / LAB_NOTE).read_text()


def test_another_number_of_tokens_times_the_cells_that_it_is_of_and_no_other(project):
    """And makes no weights, graphs or prompts of other shapes anew."""
    assert not sum(project.planned().values())
    study = copy.deepcopy(WHOLE)
    study["sweeps"]["decode"]["axes"]["generated"] = [9]
    study["noise_cells"] = [cell.replace("-g8", "-g9") for cell in study["noise_cells"]]
    project.configure(study)
    jobs = project.planned()
    project.configure(WHOLE)
    cells = len(RUNTIMES) * 2 * 2 + 1  # models, batches, and the second of the A/A pair
    assert jobs["measure_latency"] == cells * SHORT["processes"]
    assert not jobs.keys() & {"fetch_weights", "export_onnx", "simplify_onnx", "convert_precision", "fuse_graph"}
    assert jobs["compute_reference"] == 4  # two models at two batches


def test_what_reads_texts_times_nothing_anew(project):
    cells = len(records(project)) + len(records(project, "bf16"))
    reader = project.folder / "workflow_scripts/ceilings/measure/text_worker.py"
    before = reader.read_text()
    project.edit(str(reader.relative_to(project.folder)), "EDITED = 1")
    planned = project.planned()
    reader.write_text(before)
    assert planned["read_texts"] == cells and not planned.keys() & {"measure_latency", "compute_reference"}


def test_texts_are_read_later_and_elsewhere(project, tmp_path):
    """A rented machine times alone; at home its records are read, with weights that are made there."""
    sweeps = {"rounded": ROUNDED}
    there = WHOLE | {"sweeps": sweeps, "noise_cells": []}
    project.configure(there)
    (verdict,) = project.folder.glob("results/benchmarks/*/*/*/bf16/*/texts.json")
    read = json.loads(verdict.read_text())
    project.configure(WHOLE)
    home = checkout(tmp_path / "home")
    inside = verdict.relative_to(project.folder).parent
    shutil.copytree(project.folder / inside, home.folder / inside)
    (home.folder / inside / "texts.json").unlink()
    home.configure(there)
    assert not sum(home.planned(SUMMARY, "--omit-from", "read_texts")[name] for name in ("read_texts", "collect_cells"))
    home.configure(there | {"devices": ["recorded"]})
    planned = home.planned(CELLS)
    assert planned["read_texts"] == planned["fetch_weights"] == 1 and "measure_latency" not in planned
    home.snakemake(CELLS)
    assert json.loads((home.folder / inside / "texts.json").read_text())["runs"] == read["runs"]
    assert pd.read_csv(home.folder / CELLS).loc[0, "status"] == "ok"
    assert not sum(home.planned(CELLS).values())


def test_a_wrong_text_takes_the_number(project):
    """Planted in one process, from its tenth token on; the reference reads it with the others."""
    (path,) = project.folder.glob("results/benchmarks/*/*/*/bf16/*/run2.json")
    record = written.read(path, "run")
    text = record["texts"]["tokens"][0]
    text[10:] = [*text[11:], text[10]]
    written.write(path, "run", record, indent=None)
    project.snakemake(CELLS)
    cells = pd.read_csv(project.folder / CELLS).set_index("precision")
    assert (cells.loc["bf16", "status"], cells.loc["bf16", "failure_kind"]) == ("failed", "parity")
    assert "prefers another token" in cells.loc["bf16", "reason"] and np.isnan(cells.loc["bf16", "p50_ms"])
    assert (cells.loc["fp32", "status"] == "ok").all()
