#!/usr/bin/env python3
"""What planning costs: ``snakemake -n`` on large studies against a bare Snakefile with as many trivial jobs.

    python benchmarks/dag.py [--jobs 100 1000 10000] [--repeats 3]

The study plans N run records, their inputs and references, and the report; the bare file as many jobs as that in all,
of one rule without inputs or params. So the ratio is what the graph, the slices and the digests add for each job.
Times are CPU seconds, user and system, the least of the repeats, which
alternate. The first dry run of a folder, which also parses the code, is not
counted.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]

BARE = """
rule all:
    input: expand("out/{{n}}.json", n=range({jobs}))

rule one:
    output: "out/{{n}}.json"
    shell: "touch {{output}}"
"""


def study(jobs: int) -> dict:
    """A study with about ``jobs`` run records: one model, 20 batches a sequence, 5 processes a cell."""
    cells = max(jobs // 5, 1)
    batches = min(cells, 20)
    sequences = max(cells // batches, 1)
    return {
        "study": "planning",
        "models": {
            "m": {
                "architecture": "distilbert",
                "weights": "random",
                "config": {"max_position_embeddings": sequences + 8},
            }
        },
        "calibration": {"sequence": 8},
        "sweeps": {
            "all": {
                "models": ["m"],
                "runtimes": ["onnxruntime-cpu"],
                "precisions": ["fp32"],
                "batches": list(range(1, batches + 1)),
                "sequences": list(range(8, 8 + sequences)),
            }
        },
        "protocol": {"processes": 5},
    }


def cpu_seconds() -> float:
    """User and system time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def dry_run(folder: Path, *arguments: str) -> tuple[float, int]:
    """CPU seconds of one dry run, which a loaded machine changes little, and how many jobs it planned."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--quiet", "all", "--", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}
    start = cpu_seconds()
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return cpu_seconds() - start, int(re.findall(r"^total +(\d+)", done.stdout + done.stderr, re.MULTILINE)[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print("| run records | jobs in all | bare (s) | this project (s) | ratio |\n|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        ours, bare = Path(temporary, "ours"), Path(temporary, "bare")
        bare.mkdir()
        ours.mkdir()
        for name in ("Snakefile", "rules", "workflow_scripts", "envs", "docs"):
            source = PROJECT / name
            shutil.copytree(source, ours / name) if source.is_dir() else shutil.copy(source, ours)
        for jobs in arguments.jobs:
            (ours / "config.yaml").write_text(yaml.safe_dump(study(jobs)))
            total = dry_run(ours, "results/summary.md")[1]
            (bare / "Snakefile").write_text(BARE.format(jobs=total - 1))  # and its rule all
            pairs = [(dry_run(bare)[0], dry_run(ours, "results/summary.md")[0]) for _ in range(arguments.repeats)]
            b, o = (min(column) for column in zip(*pairs, strict=True))
            print(f"| {jobs} | {total} | {b:.2f} | {o:.2f} | {o / b:.2f} |", flush=True)


if __name__ == "__main__":
    main()
