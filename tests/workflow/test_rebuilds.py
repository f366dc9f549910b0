"""A change rebuilds what depends on it, and nothing else: the exact jobs that Snakemake would run."""

import copy
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from tiny import CELLS, PROJECT, STUDY, SUMMARY
from unit.planted_packages import install, leave_metadata

from ceilings import host as hosts
from ceilings import records
from ceilings.host import Gpu
from ceilings.report.catalogue import plots_of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

REPORT = {"collect_cells": 1, "draw_plot": len(plots_of(())), "write_summary": 1}
PLANNED = {"plan_study": 1, **REPORT}
PROCESSES = STUDY["protocol"]["processes"]


def changed(**sections):
    study = copy.deepcopy(STUDY)
    for name, values in sections.items():
        study[name] = {**study.get(name, {}), **values} if isinstance(values, dict) else values
    return study


def swept(**lists):
    return changed(sweeps={"one": {**STUDY["sweeps"]["one"], **lists}})


def test_nothing_changed_nothing_runs(project):
    assert project.planned() == {}


def test_a_precision_added(project):
    study = changed(sweeps={"two": {**STUDY["sweeps"]["one"], "runtimes": ["torch-eager"], "precisions": ["bf16"]}})
    project.configure(study)
    assert project.planned() == {"measure_latency": 2 * PROCESSES, **PLANNED}


def test_a_graph_precision_added(project):
    project.configure(swept(precisions=["fp32"]))
    project.snakemake(SUMMARY)
    for path in (project.folder / "results/onnx/tiny").glob("int8*"):
        path.unlink()
    project.configure(STUDY)
    assert project.planned() == {
        "quantize_graph": 1,
        "offset_activations": 1,
        "check_parity": 1,
        "measure_latency": 2 * PROCESSES,
        **PLANNED,
    }


def test_a_shape_changed(project):
    project.configure(swept(batches=[1, 4]))
    assert project.planned() == {
        "make_inputs": 1,
        "compute_reference": 1,
        "measure_latency": 3 * PROCESSES,
        **PLANNED,
    }


def test_calibration_count_changed_touches_only_int8(project):
    project.configure(changed(calibration={"count": 9, "sequence": 16}))
    assert project.planned() == {
        "calibrate_ranges": 1,
        "quantize_graph": 1,
        "offset_activations": 1,
        "check_parity": 1,
        "measure_latency": 2 * PROCESSES,
        **REPORT,
    }


def test_protocol_changed_touches_only_benchmarks(project):
    project.configure(changed(protocol={"min_iterations": 6}))
    assert project.planned() == {"measure_latency": CELLS * PROCESSES, **PLANNED}


def test_what_changed_is_said_in_short(project):
    project.configure(changed(protocol={"min_iterations": 6}))
    done = project.snakemake("results/plan.json", "--dry-run")
    reason = next(line for line in (done.stdout + done.stderr).splitlines() if "Params have changed" in line)
    assert "sweeps." not in reason
    assert '"min_iterations": 5' in reason and '"min_iterations": 6' in reason
    assert "cells of" not in reason and "models.tiny" not in reason and len(reason) < 1000


def test_a_process_more_keeps_those_that_have_run(project):
    project.configure(changed(protocol={"processes": PROCESSES + 1}))
    assert project.planned() == {"measure_latency": CELLS, **PLANNED}


@pytest.mark.parametrize(
    ("file", "jobs"),
    [
        ("workflow_scripts/ceilings/report/render/plots/configurations.py", {"draw_plot": 1, "write_summary": 1}),
        ("workflow_scripts/draw_plot.py", {"draw_plot": len(plots_of(())), "write_summary": 1}),
        ("workflow_scripts/write_summary.py", {"write_summary": 1}),
        ("workflow_scripts/ceilings/measure/loop.py", {"measure_latency": CELLS * PROCESSES, **REPORT}),
        ("workflow_scripts/measure_latency.py", {"measure_latency": CELLS * PROCESSES, **REPORT}),
        ("workflow_scripts/ceilings/failure_kinds.py", REPORT),
        ("workflow_scripts/ceilings/runtimes/torch_cpu.py", {"measure_latency": 2 * PROCESSES, **REPORT}),
        ("workflow_scripts/ceilings/runtimes/onnxruntime_cpu.py", {"measure_latency": 5 * PROCESSES, **REPORT}),
    ],
)
def test_edited_code_reruns_what_it_shaped(project, file, jobs):
    project.edit(file, "EDITED = True")
    assert project.planned() == jobs


def test_a_comment_or_a_touch_reruns_nothing(project):
    project.edit("workflow_scripts/ceilings/measure/loop.py", "# a remark")
    (project.folder / "workflow_scripts/measure_latency.py").touch()
    assert project.planned() == {}


def test_the_layout_of_a_shell_command_reruns_nothing_and_an_option_does(project):
    rules = project.folder / "rules/benchmarks.smk"
    plain = '" --workload {input.workload} --log {log} --output {output} > {log} 2>&1"'
    assert rules.read_text().count(plain) == 2
    rules.write_text(rules.read_text().replace(plain, plain.replace(" --log", '"\n        "  --log')))
    assert project.planned() == {}
    rules.write_text(rules.read_text().replace(" --run {wildcards.run}", " --run 0{wildcards.run}"))
    assert project.planned() == {"measure_latency": CELLS * PROCESSES, **REPORT}


INT8 = {"quantize_graph": 1, "offset_activations": 1, "check_parity": 1, "measure_latency": 2 * PROCESSES, **REPORT}
MISSING = {
    SUMMARY: {"write_summary": 1},
    "results/plots/batch_sweep.png": {"draw_plot": 1, "write_summary": 1},
    "results/tables/cells.csv": REPORT,
    "results/tables/samples.parquet": REPORT,
    "results/plan.json": PLANNED,
    "results/parity/tiny/int8.cpu.json": {"check_parity": 1, "write_summary": 1},
    "results/onnx/tiny/int8.json": INT8,
    "results/calibration/tiny/minmax.cache": {"calibrate_ranges": 1, **INT8},
    "results/models/tiny/reference/b8-s16.npz": {
        "compute_reference": 1,
        "check_parity": 2,
        "measure_latency": 3 * PROCESSES,
        **REPORT,
    },
    "results/models/tiny/weights/model.safetensors": None,
}


@pytest.mark.parametrize("file", MISSING)
def test_whatever_is_missing_is_made_again_and_what_rests_on_it(project, file):
    (project.folder / file).unlink()
    planned = project.planned()
    assert planned == MISSING[file] if MISSING[file] else planned["measure_latency"] == CELLS * PROCESSES
    assert "Missing output files: " in project.snakemake(SUMMARY, "--dry-run").stdout


def test_what_the_report_of_a_graph_says_counts_for_its_cells(project):
    """A graph that could not be made is an empty file whatever the reason, which only the report holds."""
    report = project.folder / "results/onnx/tiny/int8.cpu.json"
    report.write_text(report.read_text() + "\n")
    assert project.planned() == {"check_parity": 1, "measure_latency": 2 * PROCESSES, **REPORT}


def test_a_deleted_run_is_made_again_whatever_asks_for_it(project):
    run = next((project.folder / "results/benchmarks").rglob("run1.json"))
    run.unlink()
    assert project.planned(str(run.relative_to(project.folder))) == {"measure_latency": 1}
    for targets in (("write_summary",), ("results/tables/cells.csv",), ("all",), (SUMMARY, "-R", "write_summary")):
        assert project.planned(*targets)["measure_latency"] == 1
    project.snakemake(SUMMARY)
    assert run.is_file() and project.planned() == {}


def test_a_runtime_that_becomes_available(project):
    """``CUDA_VISIBLE_DEVICES`` does for a GPU what an uninstalled package does for a runtime: it is not there yet.

    Here a package stands for it: a study that asks for a runtime whose package is missing, which then appears.
    """
    catalogue = "workflow_scripts/ceilings/runtimes/catalogue.py"
    project.edit(
        catalogue,
        'RUNTIMES["later"] = dataclasses.replace(RUNTIMES["onnxruntime-cpu"], name="later", packages=("appears",))',
    )
    project.configure(swept(runtimes=["onnxruntime-cpu", "torch-eager", "later"]))
    project.snakemake(SUMMARY)
    summary = (project.folder / SUMMARY).read_text()
    assert "package appears is not installed" in summary and "pip install appears" in summary

    site = project.folder / "site"
    install(site, "appears", "1.0")
    assert project.planned(PYTHONPATH=str(site)) == {"measure_latency": 4 * PROCESSES, **PLANNED}


def test_another_version_of_a_runtime_is_measured_anew(project, tmp_path):
    """First metadata of a version that is gone, which nothing imports; then a module of another version."""
    site = tmp_path / "site"
    leave_metadata(site, "onnxruntime", "0.0", {})
    assert project.planned(PYTHONPATH=str(site)) == {}
    install(site, "onnxruntime", "0.0")
    graphs = ("export_onnx", "simplify_onnx", "convert_precision", "calibrate_ranges", "quantize_graph")
    assert project.planned(PYTHONPATH=str(site)) == {
        **dict.fromkeys((*graphs, "offset_activations"), 1),
        "check_parity": 2,
        "measure_latency": 5 * PROCESSES,  # not those of PyTorch
        **REPORT,
    }


@pytest.mark.parametrize(
    ("package", "first", "runs"),
    [
        ("transformers", "fetch_weights", CELLS),
        ("onnxslim", "simplify_onnx", 5),
        ("matplotlib", "draw_plot", 0),
    ],
)
def test_another_version_of_a_package_makes_anew_what_it_shaped(project, tmp_path, package, first, runs):
    install(tmp_path, package, "0.0")
    done = project.snakemake(SUMMARY, "--dry-run", PYTHONPATH=str(tmp_path)).stdout
    assert re.search(rf"now: .*{package} 0\.0", done), "the reason names the version"
    planned = project.planned(PYTHONPATH=str(tmp_path))
    assert planned[first] >= 1 and planned["measure_latency"] == runs * PROCESSES
    before = ("fetch_weights", "export_onnx", "simplify_onnx", "draw_plot")
    assert not set(before[: before.index(first)]) & set(planned)


def test_local_weights_count_by_content(project):
    """In place, of the same size and time; a tokenizer beside them; a touch and a copy do not count."""
    mine = project.folder / "mine"
    mine.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(project.folder / "results/models/tiny/weights" / name, mine / name)
    model = {"path": "./mine", "architecture": "distilbert"}
    project.configure(changed(models={"tiny": model}))
    target = "results/models/tiny/weights/model.safetensors"
    project.snakemake(target)
    assert project.planned(target) == {}
    (mine / "model.safetensors").touch()
    shutil.copytree(mine, project.folder / "copy")
    shutil.rmtree(mine)
    (project.folder / "copy").rename(mine)
    assert project.planned(target) == {}
    weights = mine / "model.safetensors"
    state, content = weights.stat(), weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert project.planned(target) == {"fetch_weights": 1}
    weights.write_bytes(content)
    assert project.planned(target) == {}
    (mine / "tokenizer.json").write_text("{}")
    assert project.planned(target) == {"fetch_weights": 1}


def test_floors_need_no_gpu_where_its_limits_are_recorded(project):
    limits = project.folder / "results/hosts/nvidia-h200/peaks.json"
    limits.parent.mkdir(parents=True)
    published = json.loads((PROJECT / "docs/studies/nvidia-h100/default/peaks.json").read_text())
    records.write(limits, "peaks", published | {"device": "nvidia-h200"})
    target, of_engines = (f"results/floors/nvidia-h200/tiny/{graph}/b2-s16.json" for graph in ("int8", "int8.half"))
    assert project.planned(target) == {"bound_latency": 1}
    project.snakemake(target, of_engines)
    record, other = (json.loads((project.folder / path).read_text()) for path in (target, of_engines))
    assert (record["status"], record["precision"], record["graph"]) == ("ok", "int8", "int8")
    assert record["floor"]["limited_by"] == "launch"  # so small a model leaves nothing else
    # The same operations; engines do what is not quantised in half the bytes and on the matrix units.
    assert (other["precision"], other["graph"]) == ("int8", "int8.half")
    assert set(record["work"]["flops_by_precision"]) == {"int8", "fp32"}
    assert set(other["work"]["flops_by_precision"]) == {"int8", "fp16"}
    assert record["work"]["flops"] == other["work"]["flops"]
    for part in ("compute_floor_ms", "memory_floor_ms"):
        assert other["floor"][part] < record["floor"][part]


def test_forcing_one_target_runs_one_job(project):
    before = {path: path.stat().st_mtime_ns for path in (project.folder / "results/onnx").rglob("*.onnx")}
    project.snakemake("--force", "results/onnx/tiny/int8.onnx")
    after = {path: path.stat().st_mtime_ns for path in before}
    assert [path.name for path in before if before[path] != after[path]] == ["int8.onnx"]


def test_rerun_from_a_rule_on(project):
    planned = project.planned(SUMMARY, "-R", "simplify_onnx")
    assert planned["simplify_onnx"] == 1 and planned["measure_latency"] == 5 * PROCESSES
    assert not {"export_onnx", "fetch_weights"} & set(planned)


def test_graphs_of_the_workflow_can_be_drawn(project):
    for flag in ("--dag", "--rulegraph"):
        graph = project.snakemake(SUMMARY, flag).stdout
        assert graph.startswith("digraph") and "measure_latency" in graph


def test_report_is_written(project):
    project.snakemake(SUMMARY, "--report", "report.html")
    report = (project.folder / "report.html").read_text()
    assert "batch_sweep" in report and "Latency against throughput" in report


def test_run_records_say_where_they_come_from(finished):
    for path in (finished.folder / "results/benchmarks").rglob("*.json"):
        record = json.loads(Path(path).read_text())
        assert record["status"] == "ok", record["failure"]
        assert record["provenance"]["sources"].keys() == {"inputs", "reference", "artifact", "workload"}
        assert record["threads"]["intra_op"] == 1 and record["threads"]["OMP_NUM_THREADS"] == "1"


def test_a_capture_is_a_target_of_its_own(project):
    """On any machine: planned only. The account is made from the capture, and the report does not ask for it here."""
    target = "results/traces/nvidia-test/onnxruntime-cuda/tiny/fp32/b1-s16"
    assert project.planned(f"{target}.budget.json") == {"capture_trace": 1, "account_budget": 1}
    assert project.planned(f"{target}.perfetto.json") == {"capture_trace": 1, "export_perfetto": 1}
    assert project.planned(f"{target}.torch.json") == {"profile_torch": 1}
    counted = {"count_kernels": 1, "judge_kernels": 1, "measure_peaks": 1, "bound_latency": 1}
    assert project.planned(f"{target}.ncu.json") == counted
    assert project.planned(f"{target}.ncu.svg") == {**counted, "draw_kernel_roofline": 1}
    refused = project.snakemake(f"{target}.sqlite", check=False)
    assert "belongs to nvidia-test, but this machine's GPU is" in refused.stdout + refused.stderr


CEILINGS = "workflow_scripts/ceilings"
FAMILY = """
FAMILIES["later"] = Family("later", {"sequence-classification": TEXT}, architectures=("later",))
FUSIONS["later"] = Fusion("bert")
"""
RUNTIME = 'RUNTIMES["later"] = dataclasses.replace(RUNTIMES["onnxruntime-cpu"], name="later", module="later")'
ENTRIES = {
    "family": ("models/families/later.py", "models/catalogue.py", FAMILY, {}),
    "runtime": ("runtimes/later.py", "runtimes/catalogue.py", RUNTIME, {}),
    "plot": (
        "report/render/plots/later.py",
        "report/catalogue.py",
        'PLOTS["later"] = "Nothing yet"',
        {"draw_plot": 1, "write_summary": 1},
    ),
}


PRETEND = """import os, pathlib, sys
if "CEILINGS_PRETEND" in os.environ:
    pathlib.Path(sys.argv[sys.argv.index("--output") + 1]).touch()
    sys.exit()
"""


@pytest.fixture
def captured(project):
    """The project with a capture, an account and limits of a GPU: as Snakemake sees it they were made, if empty."""
    gpu = Gpu("nvidia-test", "NVIDIA Test", "GPU-1", "580.1", (9, 0), 80 << 30)
    host = dataclasses.replace(hosts.detect({}), gpu=gpu, gpu_problem=None)
    environment = {hosts.PIN: json.dumps(dataclasses.asdict(host))}
    budget = "results/traces/nvidia-test/onnxruntime-cuda/tiny/fp32/b1-s16.budget.json"
    peaks = "results/hosts/nvidia-test/peaks.json"
    for program in ("capture_trace", "account_budget", "measure_peaks"):
        path = project.folder / f"workflow_scripts/{program}.py"
        shebang, _, rest = path.read_text().partition("\n")
        path.write_text(f"{shebang}\n{PRETEND}{rest.replace('from __future__ import annotations', '')}")
    project.snakemake(budget, peaks, CEILINGS_PRETEND="yes", **environment)

    def planned():
        return project.planned(budget, **environment) + project.planned(peaks, **environment)

    assert planned() == {}
    return planned


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_added_makes_nothing_anew_that_exists(project, captured, kind):
    module, catalogue, entry, jobs = ENTRIES[kind]
    (project.folder / CEILINGS / module).write_text('"""Something new."""\n')
    project.edit(f"{CEILINGS}/{catalogue}", entry)
    assert project.planned() == jobs
    assert captured() == {}


def test_captures_follow_the_code_that_they_rest_on(project, captured):
    """So that the test above cannot pass because nothing is noticed."""
    project.edit(f"{CEILINGS}/traces/budget.py", "EDITED = True")
    assert captured() == {"account_budget": 1}
    project.edit(f"{CEILINGS}/runtimes/onnxruntime_cuda.py", "EDITED = True")
    project.edit(f"{CEILINGS}/limits/peaks.py", "EDITED = True")
    assert captured() == {"capture_trace": 1, "account_budget": 1, "measure_peaks": 1}


def test_a_plug_in_makes_nothing_anew_that_exists(project):
    for file in ("models/families/later.py", "runtimes/later.py", "catalogue.py"):
        path = project.folder / "mine" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Something new."""\n')
    project.configure(changed(plugins=["mine"]))
    assert project.planned() == {}


def test_a_family_s_module_makes_its_models_anew_and_no_other(project):
    """What loads the weights shapes them, the graph and the reference: nothing behind these may be stale."""
    project.edit(f"{CEILINGS}/models/families/image_encoder.py", "EDITED = True")
    assert project.planned() == {}
    project.edit(f"{CEILINGS}/models/families/text_encoder.py", "EDITED = True")
    planned = project.planned()
    assert planned["fetch_weights"] == planned["export_onnx"] == 1 and planned["measure_latency"] == CELLS * PROCESSES


def test_measurements_can_be_left_out(project):
    project.configure(changed(protocol={"measurements": []}))
    assert project.planned() == {"measure_latency": CELLS * PROCESSES, **PLANNED}
