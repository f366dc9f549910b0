"""Traces that others published: counts and times that a program counted which knows neither them nor us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ceilings.taxonomy import RECORDING_SHARES

TRACES = Path(os.environ.get("CEILINGS_PUBLIC_TRACES", "/nowhere"))
MS = 1e6

kineto = pytest.importorskip("ceilings.traces.readers.kineto", reason="the reader of PyTorch's traces is not there")
iterations = pytest.importorskip("ceilings.traces.explained.iterations", reason="nothing makes out iterations")

COUNTED = {
    "alexnet": (79, 16, 3, 0, 2, 66.141000, 12920.244000),
    "event_sync_multi_stream": (3, 0, 3, 0, 3, 0.372000, 19.506000),
    "nccl_data": (2700, 960, 114, 0, 2, 157.500014, 660.551005),
    "h100_bert_small": (60, 1, 0, 0, 1, 0.309437, 3.907825),
    "h100_vit": (154, 0, 2, 0, 1, 1.225310, 7.559844),
    "vllm_decode_graph": (425, 9, 0, 1, 1, 10.717708, 10.743181),
}
"""Kernels, copies, fills, graphs, streams, busy and span in ms."""


def explained(name: str):
    from ceilings.traces.explained.explanation import explanation

    path = TRACES / f"{name}.json.gz"
    if not path.exists():
        pytest.skip("CEILINGS_PUBLIC_TRACES names no folder with the public traces")
    recording = kineto.read(path, None)
    return explanation(recording, iterations.choose(recording, {"whole": True}))


@pytest.mark.parametrize("name", COUNTED)
def test_a_device_is_counted_to_the_nanosecond_and_its_iteration_closes(name):
    content = explained(name)
    (device,) = content["devices"]
    counts = tuple(device[key] for key in ("kernels", "copies", "fills", "graphs", "streams"))
    assert (*counts, round(device["busy_ns"] / MS, 6), round(device["span_ns"] / MS, 6)) == COUNTED[name]
    (group,) = content["groups"]
    (side,) = group["devices"]
    assert side["busy_ns"]["median"] == device["busy_ns"]
    idle = sum(part["median"] for part in side["idle"].values()) + side["idle_unexplained_ns"]["median"]
    assert side["busy_ns"]["median"] + idle == group["length_ns"]["median"]
    assert group["residual_ns"] == {"host": 0, "device": 0}
    assert sum(group["shares"][share] for share in RECORDING_SHARES) == pytest.approx(1)


def test_every_kernel_of_a_graph_is_on_the_path():
    """425 kernels of one launch take 10.7 ms; one kernel for each launch would be a fraction of that."""
    content = explained("vllm_decode_graph")
    (group,) = content["groups"]
    on_path = sum(kernel["path_ns"] for kernel in group["kernels"])
    assert on_path == pytest.approx(sum(kernel["ns"] for kernel in group["kernels"]))
    assert group["shares"]["kernel"] * group["length_ns"]["median"] / MS == pytest.approx(10.7, abs=0.05)
