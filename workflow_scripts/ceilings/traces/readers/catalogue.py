"""Which reader a file is for, told by its content and never by its name; and why none is for another file."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.files import POINTER, not_a_file
from ceilings.traces.readers import kineto, nsight, onnxruntime_profile, trtexec_files
from ceilings.traces.readers.json_stream import BYTE_ORDER_MARK, GZIP, Stream
from ceilings.traces.recording import Progress, Recording

Reader = Callable[[Path, Progress | None], Recording | dict[str, Any]]

HEAD = 1 << 20
"""Bytes that are looked at."""

TAKEN = (
    "a trace of PyTorch's profiler (.json, .json.gz), an export of Nsight Systems (.sqlite), a profile of ONNX Runtime "
    "(.json) or a file of trtexec --exportTimes, --exportProfile or --exportLayerInfo"
)

NSIGHT = (b"SQLite format 3\0", b"NVIDIA Tegra Profiler Report", b"PAR1", b"ARROW1", b"\x89HDF\r\n\x1a\n", b"QDSTRM")
"""How an export of Nsight Systems begins, a report of it, and its other exports, for which its reader has a remedy."""

OTHERS = (
    (re.escape(POINTER), "is a pointer of git-lfs and not the file; run git lfs pull"),
    (
        rb"PK\x03\x04.{26}[^/]*/?data\.pkl|\x80[\x02-\x05]",
        "is a pickle, such as a memory snapshot of PyTorch: it may run code and is never opened",
    ),
    (rb"PK\x03\x04", "is a zip archive; unpack it and give the trace in it"),
    (rb"\x28\xb5\x2f\xfd", "is packed with zstd; unpack it (zstd -d)"),
    (rb"\xfd7zXZ", "is packed with xz; unpack it (xz -d)"),
    (rb"BZh", "is packed with bzip2; unpack it (bzip2 -d)"),
    (rb".{257}ustar", "is a tar archive; unpack it and give the trace in it"),
    (rb"\xff\xfe|\xfe\xff", "is UTF-16 text; convert it (iconv -f UTF-16 -t UTF-8)"),
    (
        rb"(?:\xef\xbb\xbf)?\s*<",
        "is a page of HTML or XML, as a server sends in place of a file; fetch the file itself",
    ),
)
"""How other files begin, as patterns, and what to say of them."""

_SNAPSHOT = "is a memory snapshot of PyTorch: it holds allocations and no times of work"
OBJECTS = {
    "rocprofiler-sdk-tool": "is an output of rocprofv3; give a trace of PyTorch's profiler of the same program",
    "device_traces": _SNAPSHOT,
    "segments": _SNAPSHOT,
    "nodes": "is an execution trace of PyTorch, a graph of operators; give the trace of its profiler, which has times",
    "resourceSpans": "is a trace of OpenTelemetry: it holds requests and no work of a device",
    "schema_version": "is a record of this project; give the trace that it was made from",
}
"""Other files in JSON, by a key of theirs."""

_BROWSER = re.compile(r"^(disabled-by-default|devtools|blink|v8|cc|toplevel|loading|navigation|__metadata|browser|ipc)")


def read(path: Path | str, progress: Progress | None = None) -> Recording | dict[str, Any]:
    """The recording of a trace; of a program's own profile, the content of an explanation but for name and origin.

    Raises:
        UserError: No reader is for the file, or the one that is finds it damaged.
    """
    path = Path(path)
    return _reader(path)(path, progress)


def _reader(path: Path) -> Reader:
    _refuse_no_file(path)
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise _refused(path, "is empty: its recorder has written nothing yet, or was killed")
    if head.startswith(NSIGHT):
        return nsight.read
    if head.startswith(GZIP):
        head = _unpacked(head)
        if not head:
            raise _refused(path, "is a gzip file that is damaged from its begin on; copy it again")
        if head.startswith(GZIP):
            raise _refused(path, "is packed with gzip twice; unpack it once")
        if head.startswith(NSIGHT):
            raise _refused(path, "is a gzipped file of Nsight Systems; unpack it (gunzip)")
    for pattern, what in OTHERS:
        if re.match(pattern, head, re.DOTALL):
            raise _refused(path, what)
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if re.match(rb'\{\s*"(?:Layers|Bindings|I/O Tensors)"\s*:', text):
        return trtexec_files.read_layers
    if re.match(rb"\[\s*[^\s{\]]", text):
        raise _refused(path, "is a list of something else than events")
    if text[:1] not in (b"{", b"["):
        raise _refused(path, "is of no form that is read")
    return _reader_of_events(path)


def _refused(path: Path, what: str) -> UserError:
    """An error with a remedy."""
    return UserError(f"{path} {what}" if ";" in what else f"{path} {what}; give {TAKEN}")


def _refuse_no_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(
            one.name for one in path.iterdir() if re.search(r"\.(json|json\.gz|sqlite|nsys-rep)$", one.name)
        )
        if not inside:
            raise _refused(path, "is a folder without traces")
        more = f" and {len(inside) - 5} more" if len(inside) > 5 else ""
        raise UserError(
            f"{path} is a folder; give one of its files, each that of one rank: {', '.join(inside[:5])}{more}"
        )
    if problem := not_a_file(path):
        raise _refused(path, problem)


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return b""


def _reader_of_events(path: Path) -> Reader:
    """The reader of a list of events or rows, by the first of them that tells."""
    stream = Stream(path, Any)
    seen = 0
    try:
        for row in itertools.chain.from_iterable(stream.batches()):
            seen += 1
            if reader := _reader_of(row if isinstance(row, dict) else {}, path):
                return reader
    except UserError:
        if key := next((key for key in OBJECTS if key in stream.beside), None):
            raise _refused(path, OBJECTS[key]) from None
        raise
    if not seen:
        raise _refused(path, "holds no events: its recorder saw nothing, or was killed")
    raise _refused(path, f"holds no event of PyTorch's profiler or ONNX Runtime among {seen:,}")


def _reader_of(row: dict[str, Any], path: Path) -> Reader | None:
    """The reader of a file with this row; None where it could be of any."""
    category = row.get("cat")
    if "startEnqMs" in row or "startComputeMs" in row:
        return trtexec_files.read_times
    if row.keys() == {"count"} or "averageMs" in row:
        return trtexec_files.read_profile
    if category in (onnxruntime_profile.SESSION, onnxruntime_profile.NODE) and "ph" in row:
        return onnxruntime_profile.read
    if kineto.knows(category) or row.get("pid") == "CPU functions":
        return kineto.read
    if isinstance(category, str) and _BROWSER.match(category):
        raise _refused(path, "is a trace of a browser and holds no work of a GPU")
    return None
