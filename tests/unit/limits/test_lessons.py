"""Lessons: what each variant must do, its kernels on a CPU, and the record of what was timed and counted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from unit.planted_records import PROVENANCE
from unit.traces.counted import kernel

from ceilings import records
from ceilings.errors import CellFailure
from ceilings.limits import lessons as taught
from ceilings.limits.lesson_kernels import SOURCE
from ceilings.limits.lesson_record import record
from ceilings.limits.roofline import Limits
from ceilings.report.render import lessons_picture

H100 = (132, 233472)
LIMITS = Limits({}, 3e12, 7e12, 50 << 20, 1e-5)
EMULATOR = Path(__file__).with_name("emulated_kernels.cpp")


def of(name, sizes=H100):
    (lesson,) = [one for one in taught.lessons(*sizes) if one.name == name]
    return lesson


def test_every_variant_of_a_lesson_differs_and_says_what_it_must_do():
    for lesson in taught.lessons(*H100):
        assert len({variant.name for variant in lesson.variants}) == len(lesson.variants) >= 2
        assert all(any(launch.expected for launch in variant.launches) for variant in lesson.variants[:-1])


@pytest.mark.parametrize("sizes", [H100, (108, 167936), (56, 102400)])
def test_so_many_blocks_fit_as_the_lesson_says(sizes):
    (_, shared_bytes) = sizes
    for variant in of("occupancy", sizes).variants[:-1]:
        (launch,) = variant.launches
        assert shared_bytes // (launch.shared + taught.RESERVED) == int(variant.name)
    assert all(shared_bytes // (v.launches[0].shared + taught.RESERVED) == 1 for v in of("waves", sizes).variants)


def test_expected_counts_are_those_of_a_warp():
    sectors = [variant.launches[0].expected["sectors_per_load"] for variant in of("access").variants]
    assert sectors == [4, 8, 16, 32, 32, 32]
    tile = of("banks").variants[0].launches[0]
    # As Nsight Compute counted it of the same tile on another card.
    assert tile.expected == {"l2_sectors": 2 * 8192**2 * 4 / 32, "shared_conflicts": 65_011_712}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not on PATH")
def test_the_kernels_compute_what_they_say_on_a_cpu(tmp_path):
    (tmp_path / "kernels.cu").write_text(SOURCE.replace('extern "C"', ""))
    shutil.copy(EMULATOR, tmp_path / "emulated.cpp")
    build = ["g++", "-std=c++20", "-O1", "-pthread", "-w", "emulated.cpp", "-o", "emulated"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=300)
    done = subprocess.run([tmp_path / "emulated"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
def test_the_kernels_compile_for_a_card(tmp_path):
    (tmp_path / "kernels.cu").write_text(SOURCE)
    command = ["nvcc", "-cubin", "-arch=sm_90", "-o", "kernels.cubin", "kernels.cu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr


# --- the record ------------------------------------------------------------------------------------------------------


@pytest.fixture
def made():
    """A record in which every kernel counts what it must, and takes longer from variant to variant."""
    every = taught.lessons(*H100)
    times = {
        lesson.name: {
            v.name: {"median": 10.0 + i, "low": 9.0 + i, "high": 12.0 + i} for i, v in enumerate(lesson.variants)
        }
        for lesson in every
    }
    launches = [launch for lesson in every for variant in lesson.variants for launch in variant.launches]
    kernels = [kernel(f"{launch.kernel}(float *)", **launch.expected) for launch in launches]
    return {"sizes": list(H100), "times_us": times}, kernels


def test_times_causes_and_checks_stand_together(tmp_path, made):
    content = record(*made, LIMITS)
    head = {"device": "d", "status": "ok", "failure": None, "tool": "ncu", "lacking": [], "provenance": PROVENANCE}
    records.write(tmp_path / "x.json", "lessons", {**content, **head})
    read = records.read(tmp_path / "x.json", "lessons")
    by_name = {lesson["name"]: lesson["variants"] for lesson in read["lessons"]}
    assert [variant["cause"] for variant in by_name["access"]] == [4, 8, 16, 32, 32, 32]
    assert len(by_name["epilogue"][0]["kernels"]) == 3
    # What the bias and GELU read again.
    assert by_name["epilogue"][0]["cause"] - by_name["epilogue"][1]["cause"] == 2 * taught.PRODUCT**2 * 4
    checks = [check for variants in by_name.values() for variant in variants for check in variant["checks"]]
    assert checks and all(check["counted"] == check["expected"] for check in checks)
    assert "shared_conflicts" in json.dumps(checks)


def test_other_kernels_than_the_lessons_launch_are_refused(made):
    timed, kernels = made
    with pytest.raises(CellFailure, match="other kernels than the lessons launch"):
        record(timed, kernels[:-1], LIMITS)


def test_the_picture_has_a_time_and_a_cause_a_variant(made):
    content = record(*made, LIMITS)
    figure = lessons_picture.draw({"device": "d", "status": "ok", **content})
    assert len(figure.axes) == 2 * len(content["lessons"])
    left, right = figure.axes[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == ["1", "2", "4", "8", "16", "32"]
    assert [note.get_text() for note in right.texts] == ["4.00", "8.00", "16.0", "32.0", "32.0", "32.0"]
    failed = {"status": "failed", "failure": {"kind": "runtime-error", "message": "no luck"}}
    assert "no luck" in lessons_picture.draw(failed).texts[0].get_text()
