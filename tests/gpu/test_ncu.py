"""Counters of Nsight Compute on a real card: against operations and bytes that are known, and of whole cells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu.counted_program import BYTES, EDGE
from gpu.tiny_artifacts import Artifacts

from ceilings import gpu, records
from ceilings.limits import counted as counts
from ceilings.limits import lesson_record
from ceilings.limits.roofline import Limits
from ceilings.provenance import provenance
from ceilings.report.render import kernel_roofline
from ceilings.report.render.plots import style
from ceilings.traces import counters, counting, ncu, source

UNMEASURED = Limits({}, None, None, 0, None)
"""Shares are then those of the device's design, as the hardware counts them."""

pytestmark = pytest.mark.skipif(source.missing("ncu") is not None, reason=f"{source.missing('ncu')}")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


def test_every_counter_is_there_on_compute_capability_9():
    lacking = counters.wanted(ncu.offered())[1]
    print(ncu.version(), "lacks", lacking)
    if gpu.visible().slug.startswith(("nvidia-h100", "nvidia-h200")):
        assert lacking == []


@pytest.mark.parametrize("caches", ncu.CACHES)
def test_operations_and_bytes_are_those_of_the_program(tmp_path, caches):
    metrics, _ = counters.wanted(ncu.offered())
    report = tmp_path / "raw.ncu-rep"
    program = [sys.executable, str(Path(__file__).with_name("counted_program.py"))]
    done = subprocess.run(
        ncu.wrapped(program, report, metrics, caches), capture_output=True, text=True, timeout=550, check=False
    )
    assert report.is_file(), ncu.problem(done.stdout + done.stderr)
    record = counts.judged(
        {"kernels": counters.kernels(ncu.table(report, metrics, os.environ)), "iterations": 1}, UNMEASURED, None
    )
    for kernel in record["kernels"]:
        print(kernel["short"], kernel["verdict"], kernel["why"], kernel["duration_ns"], kernel["levels"])
        print(kernel["operations"], kernel["shares"], kernel["waves"], kernel["occupancy"], kernel["stalls"])
    product, addition = record["kernels"]  # a product that is split would be more kernels
    assert product["operations"]["fp16"] == pytest.approx(2 * EDGE**3, rel=0.01)
    # Its operands come through shared memory, whose path may be as busy.
    assert product["shares"]["tensor"] > 0.6 and product["verdict"] in ("compute-limited", "undecided")
    assert product["class"] == "gemm"
    # Twice, since it reads as much as it writes; what is still in L2 at the end was not written yet.
    assert addition["levels"]["l2"]["bytes"] == pytest.approx(2 * BYTES, rel=0.02)
    assert 1.85 * BYTES < addition["levels"]["dram"]["bytes"] < 2.1 * BYTES
    assert addition["operations"]["fp32"] == pytest.approx(BYTES / 4, rel=0.02)
    assert addition["verdict"] == "memory-limited" and addition["why"].startswith("DRAM")


@pytest.mark.parametrize(
    ("runtime", "precision", "caches"),
    [
        ("torch-cuda-eager", "fp16", "cold"),
        ("onnxruntime-cuda-graph", "fp16", "cold"),
        ("onnxruntime-cuda-graph", "fp16", "steady"),
    ],
)
def test_the_kernels_of_a_cell_are_counted(tmp_path, artifacts, runtime, precision, caches):
    task = artifacts.task(runtime, precision)
    spec = {**task["spec"], "iterations": 1, "caches": caches}
    record = counting.count({**task, "uuid": gpu.visible().uuid, "spec": spec}, tmp_path / "x.ncu-rep")
    assert record["status"] == "ok", record["failure"]
    made = {**record, "provenance": provenance(())}
    records.write(tmp_path / "x.counters.json", "counters", made)
    judged = counts.judged(record, UNMEASURED, None)
    names = [kernel["short"] for kernel in judged["kernels"]]
    print(record["tool"], record["lacking"], len(names), judged["verdicts"])
    print([(kernel["short"], kernel["verdict"], kernel["why"]) for kernel in judged["kernels"]])
    # Two layers: at least six products each, all of them on the tensor cores.
    assert sum("fp16" in kernel["operations"] for kernel in judged["kernels"]) >= 12
    assert all(kernel["duration_ns"] > 0 and kernel["waves"] > 0 for kernel in judged["kernels"])
    head = {name: record[name] for name in ("cell", "tool", "caches", "status", "failure")}
    rest = {name: record[name] for name in ("iterations", "flags", "lacking")}
    whole = {**head, **rest, **judged, "provenance": provenance(())}
    records.write(tmp_path / "x.ncu.json", "kernel-limits", whole)
    style.save(kernel_roofline.draw(whole), tmp_path / "x.svg", tmp_path / "x.png")


def test_the_lessons_count_what_they_must():
    made = lesson_record.taught(UNMEASURED)
    checks = []
    for lesson in made["lessons"]:
        for variant in lesson["variants"]:
            print(lesson["name"], variant["name"], variant["us"], variant["cause"])
            checks += [(lesson["name"], variant["name"], check) for check in variant["checks"]]
    far = [one for one in checks if not _near(one[2]["counted"], one[2]["expected"])]
    print(*far, sep="\n")
    assert not far
    times = {lesson["name"]: [variant["us"]["median"] for variant in lesson["variants"]] for lesson in made["lessons"]}
    assert times["access"][-1] > 3 * times["access"][0]
    assert times["tiling"][0] > times["tiling"][1] and times["banks"][0] > times["banks"][1]
    assert times["occupancy"][0] > 2 * times["occupancy"][-1]
    assert times["waves"][2] > 1.8 * times["waves"][1]  # one block more than a wave
    assert times["epilogue"][0] > times["epilogue"][1]


def _near(counted: float, expected: float) -> bool:
    """Within 5%: what the device does beside, and two decimals of ncu."""
    return abs(counted - expected) <= 0.05 * max(expected, 1)
