"""The tiny study, and a copy of the project to run it in."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

PROJECT = Path(__file__).parents[2]
SUMMARY = "results/summary.md"
LAB_NOTE = "results/engineering_observations.md"

STUDY = {
    "study": "tiny",
    "models": {
        "tiny": {
            "architecture": "distilbert",
            "weights": "random",
            "config": {
                "dim": 32,
                "n_layers": 2,
                "n_heads": 2,
                "hidden_dim": 64,
                "vocab_size": 500,
                "max_position_embeddings": 64,
            },
        }
    },
    "inputs": {"pool": 2},
    "calibration": {"count": 8, "sequence": 16},
    "cpu_threads": 1,
    "sweeps": {
        "one": {
            "models": ["tiny"],
            "runtimes": ["onnxruntime-cpu", "torch-eager"],
            "precisions": ["fp32", "int8"],
            "batches": [1, 8],
            "sequences": [16],
        }
    },
    "protocol": {
        "processes": 2,
        "warmup_seconds": 0.01,
        "warmup_max_seconds": 0.02,
        "min_iterations": 5,
        "min_seconds": 0.02,
        "max_seconds": 0.05,
        "saturated_seconds": 0.02,
        "time_limit_seconds": 60,
    },
}
# onnxruntime-cpu in fp32 and int8 and torch-eager in fp32, at two shapes, and the second of the first's A/A pair
CELLS = 3 * 2 + 1


class Project:
    """A checkout of the project with a study of its own.

    Attributes:
        most_threads: Of the last run of Snakemake, while it ran.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.most_threads = 0

    def configure(self, study: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(study))

    def snakemake(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}
        clean["CEILINGS_LOCKS"] = str(self.folder)  # tests beside each other do not wait for each other
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.most_threads = 0
        while True:
            with contextlib.suppress(psutil.Error):
                self.most_threads = max(self.most_threads, psutil.Process(process.pid).num_threads())
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.CompletedProcess(command, process.returncode, *process.communicate(timeout=0.3))
                done.returncode = process.returncode
                break
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def planned(self, target: str = SUMMARY, *arguments: str, **environment: str) -> collections.Counter[str]:
        """The jobs that Snakemake would run for a target, as a count for each rule; ``all`` left out."""
        done = self.snakemake("--dry-run", target, *arguments, **environment)
        table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", done.stdout + done.stderr, re.MULTILINE | re.DOTALL)
        counts = (line.split() for line in table.group(1).splitlines()) if table else ()
        return collections.Counter({rule: int(count) for rule, count in counts if rule != "all"})

    def edit(self, file: str, addition: str) -> None:
        path = self.folder / file
        path.write_text(path.read_text() + f"\n{addition}\n")
