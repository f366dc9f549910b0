"""Files of trtexec, written as TensorRT's sampleReporting.cpp formats them. No trtexec runs here."""

import json

import numpy as np
import pytest
from unit.traces.readers.test_onnxruntime_profile import flaw

from ceilings.errors import UserError
from ceilings.traces.readers import read, trtexec_files

KEYS = ("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs")


def six(value):
    """A float as C++ streams write it."""
    return f"{np.float32(value):.6g}"


def write_times(path, rows):
    """As exportJSONTrace: rows of the eight points in time."""
    lines, sep = ["["], "  "
    for row in rows:
        _, _, h0, h1, c0, c1, d0, d1 = row
        durations = {"h2dMs": h1 - h0, "computeMs": c1 - c0, "d2hMs": d1 - d0}
        durations["latencyMs"] = sum(durations.values())
        cells = [f'"{key}" : {six(value)}' for key, value in (*zip(KEYS, row, strict=True), *durations.items())]
        lines.append(f"{sep}{{ {', '.join(cells)} }}")
        sep = ", "
    path.write_text("\n".join([*lines, "]"]) + "\n", encoding="utf-8")
    return path


def inferences(count, enqueue, h2d, compute, d2h, *, begin=0.0, period=None):
    """Inferences one after the other; each is enqueued when the last is computed."""
    rows, now = [], begin
    for _ in range(count):
        h0 = now + enqueue
        c0 = h0 + h2d
        d0 = c0 + compute
        rows.append((now, now + enqueue, h0, h0 + h2d, c0, c0 + compute, d0, d0 + d2h))
        now = now + (period or enqueue + h2d + compute + d2h)
    return rows


def test_compute_bound_times(tmp_path):
    content = read(write_times(tmp_path / "t.json", inferences(700, 0.1, 0.2, 2.0, 0.1)))
    assert flaw(content) is None
    (group,) = content["groups"]
    assert group["verdict"]["name"] == "kernel-bound"
    assert group["verdict"]["majority"] == 1
    assert group["length_ns"]["median"] == pytest.approx(2.3e6)
    parts = {part["part"]: part["ns"] for part in group["parts"]}
    assert parts["compute"] == pytest.approx(2e6)
    assert parts["copy of inputs to the device"] == pytest.approx(2e5)
    changes = {one["change"]: one for one in group["what_if"]}
    assert changes["copies"]["gain"] == pytest.approx(0.3 / 2.3, rel=1e-3)
    assert changes["kernels"]["gain"] == pytest.approx(1.0 / 2.3, rel=1e-3)
    assert changes["graph"]["gain"] is None
    assert changes["graph"]["why_not"]
    text = " ".join(one["text"] for one in content["health"])
    assert "p99 2.3 ms; p99.9 needs 6,636" in text


def test_enqueue_bound_times(tmp_path):
    rows = inferences(100, 1.0, 0.0, 1.1, 0.0)
    (group,) = read(write_times(tmp_path / "t.json", rows))["groups"]
    assert group["verdict"]["name"] == "launch-bound"
    assert group["levers"][0]["lever"] == "CUDA graph"
    (group,) = read(write_times(tmp_path / "t.json", inferences(100, 0.7, 0.0, 1.1, 0.0)))["groups"]
    assert group["verdict"]["name"] == "kernel-bound"


def test_transfer_bound_times(tmp_path):
    (group,) = read(write_times(tmp_path / "t.json", inferences(100, 0.1, 3.0, 1.0, 0.1)))["groups"]
    assert group["verdict"]["name"] == "transfer-bound"
    assert group["levers"][0]["lever"].startswith("keep inputs and outputs on the device")
    assert group["levers"][0]["gain"] == pytest.approx(3.1 / 4.1, rel=1e-3)


def test_points_in_time_that_are_too_coarse_are_said(tmp_path):
    rng = np.random.default_rng(1)
    rows = [
        tuple(np.asarray(row) + shift)
        for row, shift in zip(inferences(2000, 0.2, 0, 1.0, 0), rng.random(2000), strict=True)
    ]
    late = [tuple(np.asarray(row) + 20_000) for row in rows]
    content = read(write_times(tmp_path / "t.json", late))
    (group,) = content["groups"]
    text = " ".join(one["text"] for one in content["health"])
    assert "Points in time are rounded to 0.1 ms" in text
    parts = {part["part"]: part["ns"] for part in group["parts"]}
    assert parts["enqueue, on the host"] == pytest.approx(2e5, rel=0.05)
    assert group["length_ns"]["median"] == pytest.approx(1e6, rel=0.01)


def test_streams_that_compute_together_and_a_host_that_runs_ahead(tmp_path):
    content = read(write_times(tmp_path / "t.json", inferences(200, 0.1, 0.1, 2.0, 0.1, period=1.0)))
    text = " ".join(one["text"] for one in content["health"])
    assert "compute while another does" in text
    assert "were enqueued before the last one was computed" in text


def test_a_long_tail_and_unstable_times_are_said(tmp_path):
    rows = inferences(98, 0.1, 0.1, 1.0, 0.1) + inferences(2, 0.1, 0.1, 9.0, 0.1, begin=500)
    text = " ".join(one["text"] for one in read(write_times(tmp_path / "t.json", rows))["health"])
    assert "2 of 100 inferences took more than twice the median" in text
    assert "Compute time is unstable" in text


def test_a_cut_file_and_rows_without_times(tmp_path):
    path = write_times(tmp_path / "t.json", inferences(50, 0.1, 0.1, 1.0, 0.1))
    text = path.read_text()
    text = text.replace('"latencyMs" : 1.2', '"latencyMs" : nan', 1).replace(
        '"computeMs" : 1', '"computeMs" : 1e300', 2
    )
    path.write_text(text[:-200])
    content = read(path)
    assert content["source"]["counts"] == {"inferences": 47, "left out": 2}
    assert [one["level"] for one in content["health"]][:2] == ["warning", "warning"]


def profile_text(layers, count=20):
    lines = ["[", f'  {{ "count" : {count} }}']
    for name, times in layers.items():
        total = sum(times)
        everything = sum(map(sum, layers.values()))
        lines.append(
            f', {{ "name" : "{name}", "timeMs" : {six(total)}, "averageMs" : {six(total / len(times))}, '
            f'"medianMs" : {six(np.median(times))}, "percentage" : {six(100 * total / everything)} }}'
        )
    return "\n".join([*lines, "]"]) + "\n"


def test_a_profile(tmp_path):
    path = tmp_path / "p.json"
    layers = {
        "conv1 + relu1": [1.0, 1.2, 0.8],
        "{ForeignNode[a...b]}": [3.0, 3.0, 3.0],
        'odd "quotes"': [0.5, 0.5, 0.5],
    }
    path.write_text(profile_text(layers, 3), encoding="utf-8")
    content = read(path)
    assert flaw(content) is None
    (group,) = content["groups"]
    assert (group["count"], group["length_ns"]["median"]) == (3, pytest.approx(4.5e6))
    assert [layer["name"] for layer in group["layers"]] == ["{ForeignNode[a...b]}", "conv1 + relu1", 'odd "quotes"']
    assert group["layers"][1]["ns"] == pytest.approx(1e6)
    assert group["levers"][0]["gain"] == pytest.approx(3 / 4.5)
    assert content["iterations"]["count"] == 3


def test_an_older_profile_without_medians(tmp_path):
    path = tmp_path / "p.json"
    text = profile_text({"a": [1.0, 3.0]})
    path.write_text(text.replace('"medianMs" : 2, ', ""), encoding="utf-8")
    assert read(path)["groups"][0]["layers"][0]["ns"] == pytest.approx(2e6)


def test_layers(tmp_path):
    path = tmp_path / "l.json"
    tensor = {"Name": "x", "Dimensions": [1, 8], "Format/Datatype": "Row major linear FP16"}
    layers = [
        {"Name": "fc", "LayerType": "gemm", "Inputs": [tensor], "Outputs": [tensor], "TacticName": "sm80_xmma"},
        {"Name": "Reformatting CopyNode", "LayerType": "Reformat", "Inputs": [tensor], "Outputs": [tensor]},
    ]
    path.write_text(json.dumps({"Layers": layers, "Bindings": ["x", "y"]}), encoding="utf-8")
    content = read(path)
    assert flaw(content) is None
    assert (content["groups"], content["source"]["counts"]) == ([], {"layers": 2})
    text = " ".join(one["text"] for one in content["health"])
    assert "1 gemm, 1 Reformat" in text
    assert "1 in fp16" in text
    assert "1 of 2 layers only convert" in text


def test_layers_by_name_alone(tmp_path):
    path = tmp_path / "l.json"
    path.write_text(json.dumps({"Layers": ["fc", "relu"], "Bindings": ["x"]}), encoding="utf-8")
    content = read(path)
    assert any("--profilingVerbosity=detailed" in one["text"] for one in content["health"])


@pytest.mark.parametrize("reader", [trtexec_files.read_times, trtexec_files.read_profile, trtexec_files.read_layers])
def test_other_files_are_refused(tmp_path, reader):
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}]', encoding="utf-8")
    with pytest.raises(UserError, match="trtexec"):
        reader(path)
