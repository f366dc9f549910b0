"""Tensors as the protocol has them."""

import numpy as np
import pytest

from ceilings.serving.kserve import NUMBERS, TransportError, datatype, named, numbered, pack, unpack

ml_dtypes = pytest.importorskip("ml_dtypes")


def values(name, shape):
    kind = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    return np.arange(np.prod(shape)).reshape(shape).astype(kind)


@pytest.mark.parametrize("shape", [(2, 3), (1,), (), (0, 4)])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_come_back_as_they_went(name, shape):
    array = values(name, shape)
    back = unpack("y", pack(array), datatype(array), list(shape))
    assert back.shape == shape and (back == array.astype(back.dtype)).all()
    assert back.dtype.name == ("float32" if name == "bfloat16" else name)


def test_bf16_is_read_bit_by_bit():
    array = np.array([1.0, -2.5, 3.0e38, np.inf, 1e-40], ml_dtypes.bfloat16)
    assert unpack("y", pack(array), "BF16", [5]).tolist() == array.astype(np.float32).tolist()


def test_big_endian_arrays_and_parts_of_arrays_are_sent_in_order():
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    assert unpack("y", pack(array), datatype(array), [3, 2]).tolist() == array.tolist()


@pytest.mark.parametrize("texts", [["a", "bé", ""], [b"\0\1", b""], []])
def test_texts_come_back_as_bytes(texts):
    array = np.array(texts, object)
    back = unpack("y", pack(array), "BYTES", [len(texts)])
    assert back.tolist() == [text.encode() if isinstance(text, str) else text for text in texts]


@pytest.mark.parametrize(
    ("raw", "kind", "shape", "words"),
    [
        (b"1234567", "FP32", [2], "came with 7 bytes; FP32 .* has 8"),
        (b"", "FP16", [1], "came with 0 bytes"),
        (b"1234", "FP32", [-1], "has the shape"),
        (b"1", "FP8", [1], "unknown type 'FP8'"),
        (b"\5\0\0\0ab", "BYTES", [1], "ends within text 1 of 1"),
        (b"\1\0", "BYTES", [1], "ends within text 1 of 1"),
        (b"\1\0\0\0ab", "BYTES", [1], "1 bytes after its 1 texts"),
    ],
)
def test_bytes_of_another_tensor_are_refused(raw, kind, shape, words):
    with pytest.raises(TransportError, match=words):
        unpack("y", raw, kind, shape)


def test_values_one_by_one():
    assert numbered("INT64", [2**62 + 1, 2], [2, 1]).tolist() == [[2**62 + 1], [2]]
    assert numbered("BF16", [1.5], [1]).dtype == np.float32
    assert numbered("BYTES", ["a", b"b"], [2]).tolist() == [b"a", b"b"]
    assert numbered("FP32", [], [0, 3]).shape == (0, 3)
    with pytest.raises(TransportError, match="3 values came for a tensor of shape"):
        numbered("FP32", [1, 2, 3], [2])


def test_a_type_that_the_protocol_lacks():
    with pytest.raises(TransportError, match="complex64"):
        datatype(np.zeros(1, np.complex64))


def test_names_with_versions():
    assert named("clip/3") == ("clip", "3") and named("clip") == ("clip", "")
