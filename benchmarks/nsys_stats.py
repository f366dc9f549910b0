#!/usr/bin/env python3
"""What `nsys stats` says of exports of Nsight Systems against what is read of them here, sum by sum.

python benchmarks/nsys_stats.py [x.sqlite ...]     without files: the kept captures of the tests; nsys must be on PATH
"""

import argparse
import contextlib
import csv
import io
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings.traces.calls import plain
from ceilings.traces.capture import KERNEL, MEMCPY, MEMSET, NVTX, RUNTIME
from ceilings.traces.readers import nsight
from ceilings.traces.recording import RANGE, Recording

ROOT = Path(__file__).resolve().parents[1]
COPIES = {1: "Host-to-Device", 2: "Device-to-Host", 8: "Device-to-Device", 9: "Host-to-Host", 10: "Peer-to-Peer"}
"""Labels of copies, as Nsight Systems exports them."""

NVTX_COLUMNS = ("domainId", "rangeId", "category", "color", "endGlobalTid", "jsonText", "jsonTextId")
Sums = Counter[tuple[str, str]]
"""Name, and ``count`` or ``ns``, to their sum."""


def completed(path: Path, folder: Path) -> Path:
    """A copy with what the reports of nsys need and a kept capture leaves out: names of copies, columns of ranges."""
    copy = Path(shutil.copy(path, folder / path.name))
    with contextlib.closing(sqlite3.connect(copy)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS ENUM_CUDA_MEMCPY_OPER (id INTEGER PRIMARY KEY, name, label)")
        rows = [(number, label, label) for number, label in COPIES.items()]
        database.executemany("INSERT OR IGNORE INTO ENUM_CUDA_MEMCPY_OPER VALUES (?, ?, ?)", rows)
        present = {row[1] for row in database.execute(f"PRAGMA table_info({NVTX})")}
        for column in NVTX_COLUMNS:
            if present and column not in present:
                database.execute(f"ALTER TABLE {NVTX} ADD COLUMN {column} INTEGER")
        database.commit()
    return copy


def of_nsys(report: str, path: Path, count: str, name: str) -> Sums:
    """Counts and times of a report of nsys, by name."""
    command = ["nsys", "stats", "--report", report, "--format", "csv", "--quiet", "--force-export=false", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    header = next((place for place, line in enumerate(lines) if line.startswith("Time (%)")), None)
    if header is None:
        return Counter()
    sums: Sums = Counter()
    for row in csv.DictReader(io.StringIO("\n".join(line for line in lines[header:] if line))):
        sums[row[name], "count"] += int(row[count])
        sums[row[name], "ns"] += int(row["Total Time (ns)"])
    return sums


def summed(names: Iterable[str], lengths: np.ndarray) -> Sums:
    """Counts and times by name."""
    sums: Sums = Counter()
    for name, length in zip(names, lengths.tolist(), strict=True):
        sums[name, "count"] += 1
        sums[name, "ns"] += length
    return sums


def labels_of_copies(path: Path) -> dict[int, str]:
    """Labels by kind, as the file says them."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT id, coalesce(label, name) FROM ENUM_CUDA_MEMCPY_OPER"))


def ours(recording: Recording, copies: dict[int, str]) -> dict[str, Sums]:
    """The same by report, from a recording."""
    calls, work, spans = recording.calls, recording.work, recording.spans
    length, kernel = work.end - work.start, work.kind == KERNEL
    ranges = spans.kind == RANGE
    copied = [
        f"[CUDA memcpy {copies.get(kind, kind)}]" if what == MEMCPY else "[CUDA memset]"
        for what, kind in zip(work.kind.tolist(), work.copy_kind.tolist(), strict=True)
        if what in {MEMCPY, MEMSET}
    ]
    return {
        "cuda_gpu_kern_sum": summed([recording.names[name] for name in work.name[kernel]], length[kernel]),
        "cuda_api_sum": summed([plain(recording.names[name]) for name in calls.name], calls.end - calls.start),
        "cuda_gpu_mem_time_sum": summed(copied, length[(work.kind == MEMCPY) | (work.kind == MEMSET)]),
        "nvtx_sum": summed(
            [recording.names[name].removeprefix(":") for name in spans.name[ranges]], (spans.end - spans.start)[ranges]
        ),
    }


REPORTS = {
    "cuda_gpu_kern_sum": ("Instances", "Name"),
    "cuda_api_sum": ("Num Calls", "Name"),
    "cuda_gpu_mem_time_sum": ("Count", "Operation"),
    "nvtx_sum": ("Instances", "Range"),
}


def inner_calls(path: Path) -> Sums:
    """CUDA calls inside other calls of their thread, by an SQL query: nsys counts them too, their time twice."""
    query = f"""
        SELECT s.value, c.start, c.end FROM (
            SELECT nameId, start, end, max(end) OVER (
                PARTITION BY globalTid ORDER BY start, end DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS latest FROM {RUNTIME}
        ) c JOIN StringIds s ON s.id = c.nameId WHERE c.latest >= c.end
    """
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute(query).fetchall()
    return summed([plain(name) for name, _, _ in rows], np.array([end - start for _, start, end in rows]))


def compared(path: Path) -> bool:
    """Print a line for each report, and its differences; whether there are none."""
    recording, same = nsight.read(path), True
    with tempfile.TemporaryDirectory() as folder:
        copy = completed(path, Path(folder))
        here = ours(recording, labels_of_copies(copy))
        if len(recording.calls.start):
            here["cuda_api_sum"] += inner_calls(path)
        for report, sums in here.items():
            theirs = Counter()
            for (name, what), value in of_nsys(report, copy, *REPORTS[report]).items():
                theirs[plain(name) if report == "cuda_api_sum" else name.removeprefix(":"), what] += value
            names = {name for name, _ in sums | theirs}
            differing = sorted(name for name in names if any(sums[name, w] != theirs[name, w] for w in ("count", "ns")))
            total = [sum(value for (_, kind), value in theirs.items() if kind == what) for what in ("count", "ns")]
            same &= not differing
            print(f"  {report}: {len(names)} names, {total[0]:,} events, {total[1]:,} ns: {len(differing)} differ")
            for name in differing[:5]:
                print(f"    {name[:70]}: {[(sums[name, w], theirs[name, w]) for w in ('count', 'ns')]}")
    return same


def seconds(command: list[str | Path]) -> tuple[float, float]:
    """Wall time and CPU time of a command, the least of three runs."""
    runs = []
    for _ in range(3):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        runs.append((time.perf_counter() - start, cpu))
    return min(wall for wall, _ in runs), min(cpu for _, cpu in runs)


def main() -> None:
    """Compare each file, and end with 1 if a sum differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--time", action="store_true", help="say how long nsys stats and the account take")
    arguments = parser.parse_args()
    files = arguments.files or sorted((ROOT / "tests/unit/traces/data").glob("*.sqlite"))
    same = True
    for path in files:
        print(path.name)
        same &= compared(path)
        if arguments.time:
            with tempfile.TemporaryDirectory() as folder:
                copy = completed(path, Path(folder))
                reports = ["nsys", "stats", "--quiet", "--force-export=false", copy]
                account = [sys.executable, ROOT / "workflow_scripts/account_budget.py", "--capture", path, "--output"]
                for what, command in (("nsys stats", reports), ("account", [*account, Path(folder, "x.json")])):
                    wall, cpu = seconds(command)
                    print(f"  {what}: {wall:.1f} s, {cpu:.1f} s of CPU")
    sys.exit(not same)


if __name__ == "__main__":
    main()
