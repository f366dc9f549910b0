"""A study on a real Slurm with two GPU kinds and two processor kinds: who ran what, and one table of all."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys

import pytest
import yaml
from slurm_cluster import command, missing
from tiny import PROJECT, STUDY

PLUGIN = "snakemake_executor_plugin_slurm"
PLUGINS = PROJECT / ".venv/clusters"
"""Where ``make .venv/clusters`` puts Snakemake's plugins."""

FOUND = importlib.util.find_spec(PLUGIN) or (PLUGINS / PLUGIN).is_dir()
LACKING = missing() or (None if FOUND else "no plugin for Snakemake; make .venv/clusters installs it")

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.slow,
    pytest.mark.skipif(LACKING is not None, reason=f"no Slurm: {LACKING}"),
]

GPU_RUN = "results/benchmarks/{}/torch-cuda-eager/tiny/fp32/b1-s16/run1.json"
KINDS = {"h200": "nvidia-h200-141gb", "h100": "nvidia-h100-80gb-hbm3"}
CLUSTER = {
    **STUDY,
    "nodes": {
        **{gpu: {"gpu_model": gpu} for gpu in KINDS},
        "plain": {"constraint": "cpu-a"},
        "imaginary": {"constraint": "cpu-b"},
    },
    "cpu_threads": "physical",
    "sweeps": {
        "cpu": {
            "unless": "gpu",
            "models": ["tiny"],
            "runtimes": ["torch-eager"],
            "precisions": ["fp32"],
            "batches": [1],
            "sequences": [16],
        }
    },
    "protocol": {**STUDY["protocol"], "processes": 1},
}
SCRIPT = """
set -u
smk() {{ "{python}" -m snakemake --default-resources mem_mb=1500 runtime=60 --profile profiles/slurm \
    --slurm-init-seconds-before-status-checks 2 --slurm-keep-successful-logs "$@"; }}
smk {described} && smk results/tables/cells.csv results/plan.json && smk -k {gpu_runs}
smk results/nodes/none.json 2> refused
scontrol --oneliner show job > jobs
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which a study ran on the cluster, and its jobs: rule with wildcards to Slurm's account of it."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        (folder / name).symlink_to(PROJECT / name)
    nodes = {**CLUSTER["nodes"], "none": {"gpu_model": "b200"}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**CLUSTER, "nodes": nodes}))
    described = " ".join(f"results/nodes/{name}.json" for name in CLUSTER["nodes"])
    gpu_runs = " ".join(GPU_RUN.format(slug) for slug in KINDS.values())
    script = SCRIPT.format(python=sys.executable, described=described, gpu_runs=gpu_runs)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}
    clean["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PLUGINS), clean.get("PYTHONPATH"))))
    done = subprocess.run(
        command("bash", "-c", script), cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert (folder / "jobs").is_file(), done.stdout + done.stderr
    fields = [
        dict(word.split("=", 1) for word in line.split() if "=" in word)
        for line in (folder / "jobs").read_text().splitlines()
    ]
    jobs = {one["Comment"].removeprefix("rule_"): one for one in fields if "Comment" in one}
    assert len(jobs) > 5, done.stdout + done.stderr
    return folder, jobs


def test_each_node_says_what_it_is(ran):
    folder, jobs = ran
    known = {name: json.loads((folder / f"results/nodes/{name}.json").read_text())["host"] for name in CLUSTER["nodes"]}
    assert {name: host["gpu"] and host["gpu"]["slug"] for name, host in known.items()} == {
        **KINDS,
        "plain": None,
        "imaginary": None,
    }
    assert known["imaginary"]["cpu_slug"] == "cpu-imaginary-9000" != known["plain"]["cpu_slug"]
    where = {name: jobs[f"describe_node_wildcards_{name}"]["NodeList"] for name in CLUSTER["nodes"]}
    assert where == {"h200": "gpu-a", "h100": "gpu-b", "plain": "cpu-a", "imaginary": "cpu-b"}


def test_a_timed_job_has_the_node_of_its_device_for_itself(ran):
    folder, jobs = ran
    timed = {name: job for name, job in jobs.items() if name.startswith("measure_latency")}
    for device, node in (("cpu-imaginary-9000", "cpu-b"), (KINDS["h200"], "gpu-a"), (KINDS["h100"], "gpu-b")):
        mine = [job for name, job in timed.items() if f"_{device}_" in name]
        assert mine and {job["NodeList"] for job in mine} == {node}
    assert len(timed) == 2 * 2 + 2  # an A/A pair a processor, a cell a GPU
    assert {job["NumCPUs"] for job in timed.values()} == {str(os.cpu_count())}
    assert {job["OverSubscribe"] for job in timed.values()} == {"NO"}
    spans = sorted((job["NodeList"], job["StartTime"], job["EndTime"]) for job in timed.values())
    for (node, _, end), (next_node, start, _) in itertools.pairwise(spans):
        assert node != next_node or end <= start
    record = json.loads(
        (folder / "results/benchmarks/cpu-imaginary-9000/torch-eager/tiny/fp32/b1-s16/run1.json").read_text()
    )
    assert record["threads"]["affinity"] == os.cpu_count()


def test_results_of_all_kinds_are_in_one_table(ran):
    folder, _ = ran
    table = (folder / "results/tables/cells.csv").read_text()
    plain = json.loads((folder / "results/nodes/plain.json").read_text())["host"]["cpu_slug"]
    assert "cpu-imaginary-9000" in table and plain in table
    plan = json.loads((folder / "results/plan.json").read_text())
    assert {cell["device"] for cell in plan["cells"] if cell["available"]} == {"cpu-imaginary-9000", plain}


def test_a_gpu_without_a_cuda_build_of_pytorch_is_a_failed_cell_of_its_own_kind(ran):
    """Here no card computes: the job reaches the node and finds the device, and its record says what failed."""
    folder, _ = ran
    for slug in KINDS.values():
        record = json.loads((folder / GPU_RUN.format(slug)).read_text())
        assert (record["cell"]["device"], record["status"]) == (slug, "failed")


def test_a_kind_that_the_cluster_does_not_have_is_refused_at_once(ran):
    folder, _ = ran
    assert "Requested node configuration is not available" in (folder / "refused").read_text()
    assert not (folder / "results/nodes/none.json").exists()
