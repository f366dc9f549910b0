"""Exports of Nsight Systems as its versions of 2022 to 2026 write them, built by their documented schemas.

The schemas are those of the user guides of 2022.4, 2023.4, 2024.2 (held against what that version exports), 2025.1 and
2026.1, cut to tables that are read here or that hold what must stay behind. Real exports of 2024.2.3 lie in ``data``.
"""

# An event is all of its fields, and a line of them reads best.
# ruff: noqa: PLR0917

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

OPERATION = 'start, "end", deviceId, contextId, {green}streamId, correlationId, globalPid'
FUNCTION = 'start, "end", eventClass, globalTid, nameId'
SHAPE = "registersPerThread, gridX, gridY, gridZ, blockX, blockY, blockZ, staticSharedMemory, dynamicSharedMemory"
VALUES = "uint64Value, int64Value, doubleValue, uint32Value, int32Value, floatValue, jsonTextId, jsonText"

ENUMS = {
    "ENUM_NSYS_EVENT_TYPE": [(59, "NvtxPushPopRange"), (60, "NvtxStartEndRange"), (75, "NvtxDomainCreate")],
    "ENUM_CUDA_MEMCPY_OPER": [(1, "CUDA_MEMCPY_KIND_HTOD"), (2, "CUDA_MEMCPY_KIND_DTOH")],
    "ENUM_CUPTI_SYNC_TYPE": [
        (1, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_EVENT_SYNCHRONIZE"),
        (2, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT"),
        (3, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE"),
        (4, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_CONTEXT_SYNCHRONIZE"),
    ],
}
KERNEL, MEMCPY, MEMSET = (f"CUPTI_ACTIVITY_KIND_{kind}" for kind in ("KERNEL", "MEMCPY", "MEMSET"))
RUNTIME, GRAPH = "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_GRAPH_TRACE"
SYNCHRONIZATION, EVENT = "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", "CUPTI_ACTIVITY_KIND_CUDA_EVENT"

SECRETS = ("HOME=/root/secret", "host-of-mine", "python3 /home/bob/program.py", "worker-thread-name")
YEARS = (2022, 2023, 2024, 2025, 2026)


def schema(year: int) -> dict[str, str]:
    """Columns of each table that a version of this year has."""
    green = "greenContextId, " if year >= 2024 else ""
    operation = OPERATION.format(green=green)
    synced = ", eventSyncId" if year >= 2025 else ""
    tables = {
        "StringIds": "id INTEGER PRIMARY KEY, value",
        "PROCESSES": "globalPid, pid, name",
        "ThreadNames": "nameId, priority, globalTid",
        "TARGET_INFO_SYSTEM_ENV": "globalVid, devStateName, name, nameEnum, value",
        "TARGET_INFO_GPU": "vmId, id, name, busLocation, totalMemory, uuid, cuDevice, smCount",
        "ANALYSIS_DETAILS": "globalVid, duration, startTime, stopTime",
        RUNTIME: f"{FUNCTION.replace('nameId', 'correlationId, nameId')}, returnValue, callchainId",
        KERNEL: f"{operation}, demangledName, shortName, mangledName, launchType, {SHAPE}, gridId, graphNodeId",
        MEMCPY: f"{operation}, bytes, copyKind, deprecatedSrcId, srcKind, dstKind, migrationCause, graphNodeId",
        MEMSET: f"{operation}, value, bytes, graphNodeId, memKind",
        SYNCHRONIZATION: f"{operation}, {'deprecatedSyncType, ' if year >= 2026 else ''}syncType, eventId{synced}",
        EVENT: f"deviceId, contextId, {green}streamId, correlationId, globalPid, eventId{synced}",
        "NVTX_EVENTS": 'start, "end", eventType, rangeId, category, color, text, globalTid, endGlobalTid, textId, '
        f"domainId, {VALUES}",
        "OSRT_API": f"{FUNCTION}, returnValue, nestingLevel, callchainId",
        "CUDNN_EVENTS": FUNCTION,
        "CUBLAS_EVENTS": FUNCTION,
        "PROFILER_OVERHEAD": 'start, "end", globalTid, nameId, returnValue',
        "EXPORT_META_DATA" if year < 2024 else "META_DATA_EXPORT": "name, value",
    }
    if year >= 2023:
        tables |= dict.fromkeys(ENUMS, "id INTEGER PRIMARY KEY, name, label")
    if year >= 2024:
        tables[GRAPH] = f"{operation}, graphId, graphExecId"
        tables["DIAGNOSTIC_EVENT"] = "timestamp, timestampType, source, severity, text, globalPid"
        tables["META_DATA_CAPTURE"] = "name, value"
    if year >= 2025:
        tables[KERNEL] += ", sharedMemoryLimitConfig, graphId, clusterX, clusterY, clusterZ"
        tables[MEMCPY] += ", virtualAddress, copyCount"
        tables["TARGET_INFO_CUDA_DEVICE"] = "gpuId, cudaId, pid, uuid, numMultiprocessors"
        tables["CUDA_HOST_CALLBACK"] = FUNCTION.replace("nameId", "correlationId, nameId")
        tables["CUPTI_ACTIVITY_KIND_OVERHEAD"] = f"{FUNCTION.replace('nameId', 'correlationId, nameId')}, overheadType"
    if year >= 2026:
        tables["NVTX_EVENTS"] += ", binaryData, eventId INTEGER PRIMARY KEY"
        tables[EVENT] = f"timestamp, {tables[EVENT]}"
    return tables


class Export:
    """Events in us from 1,000,000 us on, as they are added; see :meth:`write`."""

    zero = 1_000_000

    def __init__(self, year: int = 2024) -> None:
        self.year = year
        self.schema = schema(year)
        self.rows: dict[str, list[dict]] = {table: [] for table in self.schema}
        self.strings: dict[str, int] = {}
        self.calls = 0

    @staticmethod
    def thread(process: int = 4711, thread: int = 4711) -> int:
        """The ``globalTid`` of a thread."""
        return 1 << 48 | process << 24 | thread

    def add(self, table: str, **values) -> None:
        if table in self.schema:
            known = {column.strip().strip('"').split()[0] for column in self.schema[table].split(",")}
            self.rows[table].append({name: value for name, value in values.items() if name in known})

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, 20 + len(self.strings))

    def span(self, start: float, end: float | None) -> dict:
        ends = None if end is None else round((self.zero + end) * 1000)
        return {"start": round((self.zero + start) * 1000), "end": ends}

    def call(self, start: float, end: float, name: str, tid: int | None = None, correlation: int = 0, failed: int = 0):
        self.calls += 1
        number = correlation or 100 + self.calls
        where = {"globalTid": self.thread() if tid is None else tid, "correlationId": number, "eventClass": 0}
        self.add(RUNTIME, **self.span(start, end), **where, nameId=self.string(name), returnValue=failed)
        return number

    def operation(self, table: str, correlation: int | None, start: float, end: float, where: dict, **values) -> None:
        place = {"deviceId": 0, "contextId": 1, "streamId": 7, "globalPid": self.thread() >> 24 << 24} | where
        self.add(table, **self.span(start, end), **place, correlationId=correlation, **values)

    def kernel(self, correlation, start, end, name="gemm", node=None, **where) -> None:
        full, brief = self.string(f"void {name}<float>(int)"), self.string(name)
        shape = {column.strip(): 1 for column in SHAPE.split(",")}
        named = {"demangledName": full, "shortName": brief, "graphNodeId": node}
        self.operation(KERNEL, correlation, start, end, where, **named, **shape)

    def copy(self, correlation, start, end, kind=1, **where) -> None:
        self.operation(MEMCPY, correlation, start, end, where, bytes=64, copyKind=kind)

    def fill(self, correlation, start, end, **where) -> None:
        self.operation(MEMSET, correlation, start, end, where, bytes=32, value=0)

    def graph(self, correlation, start, end, **where) -> None:
        self.operation(GRAPH, correlation, start, end, where, graphId=3, graphExecId=4)

    def record(self, correlation: int, event: int, sync: int | None = None, **where) -> None:
        self.operation(EVENT, correlation, 0, 0, where, eventId=event, eventSyncId=sync)

    def wait(self, correlation: int, event: int, sync: int | None = None, kind: int = 2, **where) -> None:
        values = {"syncType": kind, "eventId": event, "eventSyncId": sync}
        self.operation(SYNCHRONIZATION, correlation, 1, 1, where, **values)

    def range(self, start, end, text, tid=None, kind=59, registered=False, domain=0) -> None:
        where = {"globalTid": self.thread() if tid is None else tid, "domainId": domain, "eventType": kind}
        named = {"textId": self.string(text)} if registered else {"text": text}
        self.add("NVTX_EVENTS", **self.span(start, end), **where, **named)

    def function(self, table, start, end, name, tid=None) -> None:
        where = {"globalTid": self.thread() if tid is None else tid}
        self.add(table, **self.span(start, end), **where, nameId=self.string(name), returnValue=0)

    def gpu(self, number: int, name: str, devices: tuple[tuple[int, int], ...] = ()) -> None:
        """A GPU, and the processes that see it under a number of their own."""
        self.add("TARGET_INFO_GPU", vmId=1, id=number, name=name, cuDevice=number)
        for process, device in devices:
            self.add("TARGET_INFO_CUDA_DEVICE", gpuId=number, cudaId=device, pid=process)

    def write(self, path: Path, seed: int | None = None, lazy: bool = False, without: tuple[str, ...] = ()) -> Path:
        """As ``nsys export`` writes it.

        Args:
            seed: For an order of rows; None is the order in which they were added.
            lazy: Whether tables without rows are left out.
            without: Tables that are left out in any case.
        """
        product = f"{self.year}.{2 if self.year == 2024 else 1}.3.38"
        for table in ("EXPORT_META_DATA", "META_DATA_EXPORT"):
            self.add(table, name="EXPORT_PRODUCT_VERSION", value=product)
            self.add(table, name="EXPORT_HOST", value=SECRETS[1])
        self.add("META_DATA_CAPTURE", name="PROCESS_0:COMMAND", value=SECRETS[2])
        self.add("TARGET_INFO_SYSTEM_ENV", name="Environment", value=SECRETS[0])
        self.add("PROCESSES", globalPid=self.thread() >> 24 << 24, pid=4711, name=SECRETS[2])
        texts = [*self.strings, *SECRETS]
        self.rows["StringIds"] = [
            {"id": self.strings.get(text, 900 + k), "value": text} for k, text in enumerate(texts)
        ]
        for table, names in ENUMS.items():
            for number, name in names:
                self.add(table, id=number, name=name, label=name)
        with sqlite3.connect(path) as database:
            for table, columns in self.schema.items():
                rows = self.rows[table]
                if table in without or (lazy and not rows):
                    continue
                if seed is not None:
                    rows = random.Random(seed).sample(rows, len(rows))
                database.execute(f"CREATE TABLE {table} ({columns})")
                for row in rows:
                    names = ", ".join(f'"{name}"' for name in row)
                    places = ", ".join("?" * len(row))
                    database.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(row.values()))
        database.close()
        return path
