#!/usr/bin/env python3
"""Time and memory of reading a large export of Nsight Systems: python benchmarks/large_export.py [--kernels N]."""

import argparse
import contextlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow_scripts"
LAUNCHES, PERIOD_NS = 100, 12_000
"""Kernels of an iteration, and the time from launch to launch."""

TABLES = {
    "CUPTI_ACTIVITY_KIND_KERNEL": """
        start, "end", deviceId, contextId, greenContextId, streamId, correlationId, globalPid,
        demangledName, shortName, mangledName, launchType, cacheConfig, registersPerThread, gridX, gridY, gridZ, blockX,
        blockY, blockZ, staticSharedMemory, dynamicSharedMemory, localMemoryPerThread, localMemoryTotal, gridId,
        sharedMemoryExecuted, graphNodeId, sharedMemoryLimitConfig, qmdBulkReleaseDone, qmdPreexitDone, qmdLastCtaDone,
        graphId, clusterX, clusterY, clusterZ, clusterSchedulingPolicy, maxPotentialClusterSize, maxActiveClusters,
        sharedMemoryRequestedPercentage, tensorSizeMinusOneElements""",
    "CUPTI_ACTIVITY_KIND_RUNTIME": """start, "end", eventClass, globalTid, correlationId, nameId, returnValue,
        callchainId""",
    "NVTX_EVENTS": """start, "end", eventType, rangeId, category, color, text, globalTid, endGlobalTid, textId,
        domainId""",
    "StringIds": "id INTEGER PRIMARY KEY, value TEXT NOT NULL",
}
"""Columns as of 2025."""

PROCESS = 4711 << 24


def make(path: Path, kernels: int) -> None:
    """Write an export as of a training loop: for each kernel a launch, another call and, for each tenth, a range."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = off")
        for table, columns in TABLES.items():
            database.execute(f"CREATE TABLE {table} ({columns})")
        names = [(1, "cudaLaunchKernel_v7000"), (2, "cudaGetDevice_v3020"), (3, "cudaStreamSynchronize_v3020")]
        names += [(10 + k, f"void at::native::vectorized_elementwise_kernel_{k}<4, float>(int)") for k in range(200)]
        database.executemany("INSERT INTO StringIds VALUES (?, ?)", names)
        number = f"WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < {kernels - 1})"
        begin = f"1000000000 + n * {PERIOD_NS}"
        thread = PROCESS + 4711
        database.execute(
            f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL {number} SELECT {begin} + 9000, "
            f"{begin} + 12000 + n % 7 * 500, 0, 1, NULL, 7 + n % 10 / 9 * 6, 2 * n + 2, {PROCESS}, 10 + n % 200, "
            "10 + n % 200, NULL, 0, 0, 40, 128, n % 64, 1, 256, 1, 1, 0, 16384, 0, 42467328, n, 102400, NULL, 0, "
            "NULL, NULL, NULL, NULL, 1, 1, 1, 0, 8, 0, 0, '[]' FROM number"
        )
        for place, name, lasts in ((1, 2, 900), (2, 1, 4500)):
            database.execute(
                f"INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME {number} SELECT {begin} + {1000 * place}, "
                f"{begin} + {1000 * place + lasts}, 0, {thread}, 2 * n + {place}, {name}, 0, n % 5000 FROM number"
            )
        database.execute(
            f"INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME {number} SELECT {begin} + 8000, {begin} + 11000, 0, {thread}, "
            f"{2 * kernels + 10} + n, 3, 0, NULL FROM number WHERE n % {LAUNCHES} = {LAUNCHES - 1}"
        )
        for every, text in ((LAUNCHES, "'iteration'"), (10, f"'layer ' || (n / 10 % {LAUNCHES // 10})")):
            database.execute(
                f"INSERT INTO NVTX_EVENTS {number} SELECT {begin}, {begin} + {every * PERIOD_NS - 500}, 59, NULL, "
                f"NULL, NULL, {text}, {thread}, NULL, NULL, 0 FROM number WHERE n % {every} = 0"
            )
        database.commit()


def main() -> None:
    """Write it, read it in a fresh process, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=5_000_000)
    parser.add_argument("--keep", type=Path, help="where the export is written to, and read from if it is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.keep or Path(folder, "large.sqlite")
        if not path.exists():
            make(path, arguments.kernels)
        program = (
            "import sys; from pathlib import Path; from ceilings.traces.readers import nsight\n"
            "recording = nsight.read(Path(sys.argv[1]))\n"
            "print(f'{len(recording.work.start):,} operations, {len(recording.calls.start):,} calls, "
            "{len(recording.spans.start):,} ranges')"
        )
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program, path], check=True, env={"PYTHONPATH": str(SCRIPTS)})
        seconds, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{path.stat().st_size / 1e9:.2f} GB: {seconds:.1f} s ({usage.ru_utime + usage.ru_stime:.1f} s of CPU), "
            f"{usage.ru_maxrss / 1024:.0f} MB"
        )


if __name__ == "__main__":
    main()
