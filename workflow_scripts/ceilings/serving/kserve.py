"""The names and bytes of tensors in version 2 of KServe's protocol, which Triton, MLServer and others speak."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

NUMBERS = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
"""The protocol's names of numbers by NumPy's."""

_WIDTHS = {theirs: np.dtype("uint16" if ours == "bfloat16" else ours) for ours, theirs in NUMBERS.items()}


class TransportError(Exception):
    """A request that was not answered as the protocol says; the message holds the server's words."""


def datatype(array: np.ndarray) -> str:
    """The protocol's name of an array's type.

    >>> datatype(np.zeros(1, np.float16)), datatype(np.array([b"a"]))
    ('FP16', 'BYTES')
    """
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype.name not in NUMBERS:
        raise TransportError(f"the protocol has no type for arrays of {array.dtype.name}")
    return NUMBERS[array.dtype.name]


def pack(array: np.ndarray) -> bytes:
    """The bytes of an array as they are sent: row by row, little endian; texts with their lengths."""
    if datatype(array) != "BYTES":
        return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes()
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def unpack(name: str, raw: bytes | bytearray | memoryview, kind: str, shape: Sequence[int]) -> np.ndarray:
    """An array from the bytes that came; BF16, which NumPy lacks, becomes FP32 and loses nothing.

    Args:
        name: Of the tensor, for messages.
        raw: Its bytes and no others.
        kind: The protocol's name of its type.
        shape: Its axes.

    Raises:
        TransportError: The bytes are not those of such a tensor.
    """
    if any(size < 0 for size in shape):
        raise TransportError(f"the tensor {name!r} has the shape {list(shape)}")
    count = math.prod(shape)
    if kind == "BYTES":
        return _texts(name, bytes(raw), count).reshape(shape)
    if kind not in _WIDTHS:
        raise TransportError(f"the tensor {name!r} has the unknown type {kind!r}")
    width = _WIDTHS[kind]
    if len(raw) != count * width.itemsize:
        needed = count * width.itemsize
        raise TransportError(f"the tensor {name!r} came with {len(raw)} bytes; {kind} {list(shape)} has {needed}")
    values = np.frombuffer(raw, width.newbyteorder("<"), count).astype(width)
    if kind == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape)


def _texts(name: str, raw: bytes, count: int) -> np.ndarray:
    texts, at = np.empty(count, object), 0
    for index in range(count):
        end = at + 4 + (struct.unpack_from("<I", raw, at)[0] if at + 4 <= len(raw) else len(raw))
        if end > len(raw):
            raise TransportError(f"the tensor {name!r} ends within text {index + 1} of {count}")
        texts[index] = raw[at + 4 : end]
        at = end
    if at != len(raw):
        raise TransportError(f"the tensor {name!r} has {len(raw) - at} bytes after its {count} texts")
    return texts


def numbered(kind: str, values: Sequence[object], shape: Sequence[int]) -> np.ndarray:
    """An array from numbers or texts that came one by one, as JSON or as fields of a message."""
    if kind == "BYTES":
        array = np.empty(len(values), object)
        array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    else:
        array = np.asarray(values, np.float32 if kind == "BF16" else _WIDTHS.get(kind))
    try:
        return array.reshape(shape)
    except ValueError:
        raise TransportError(f"{array.size} values came for a tensor of shape {list(shape)}") from None


def named(model: str) -> tuple[str, str]:
    """A model's name and version from ``NAME`` or ``NAME/VERSION``; the version may be empty.

    >>> named("clip/3"), named("clip")
    (('clip', '3'), ('clip', ''))
    """
    name, _, version = model.partition("/")
    return name, version
