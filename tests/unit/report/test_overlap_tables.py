"""Copies beside compute in tables, findings, the section and the pictures, from records whose truth is planted."""

import json
from pathlib import Path

import pytest
from unit import planted_overlap
from unit.record_samples import edited
from unit.report.test_changing_shapes import planted_frame

from ceilings.errors import UserError
from ceilings.measure.schedules import ONE, PAGEABLE, THREE
from ceilings.report.analysis.findings.copies_beside import copies_beside
from ceilings.report.analysis.measured import Measured
from ceilings.report.render import overlap_section
from ceilings.report.render.plots import overlap_gain, overlap_timeline
from ceilings.report.tables.frames import Tables, read_tables
from ceilings.report.tables.overlap_rows import overlap_table

PLAN = {"tolerances": {"fp16": 0.02}}
GAINS = {THREE: 1.3, PAGEABLE: 0.8, "sequential": 0.7, "streams-2": 1.25}


def tables_of(*planned):
    frames = {name: planted_frame() for name in ("cells", "runs", "samples")}
    return Tables(**frames, overlap=overlap_table({**PLAN, "overlap": list(planned)}))


@pytest.fixture
def planted(tmp_path):
    def make(name="cell", **options):
        return planted_overlap.write(tmp_path / "results" / name, **options)

    return make


def row_of(tables, schedule=THREE):
    return tables.overlap.set_index("schedule").loc[schedule]


def found(*planned):
    return copies_beside(Measured(tables_of(*planned)))


def test_gains_are_the_planted_ones_whatever_the_drift(planted):
    tables = tables_of(planted(gains=GAINS, drift=1.2))
    for schedule, gain in GAINS.items():
        row = row_of(tables, schedule)
        assert row["gain"] == pytest.approx(gain, rel=0.01)
        assert row["gain_low"] <= gain <= row["gain_high"]
        assert row["noise"] < 0.02
    one = row_of(tables, ONE)
    assert one["per_s"] == pytest.approx(8 / (140e-6 * 1.2**2), rel=0.01)  # eight images a request
    assert one["gain"] != one["gain"]


def test_parts_predict_and_the_capture_says_what_is_hidden(planted):
    row = row_of(tables_of(planted(gains=GAINS)))
    assert row["predicted"] == pytest.approx(140 / 100) and row["bound"] == "compute"
    assert (row["copy_in_ms"], row["compute_ms"], row["copy_out_ms"]) == (0.03, 0.1, 0.01)
    assert row["hidden_share"] == pytest.approx(1) and row["source"] == "cupti"
    assert row["captured_period_ms"] == pytest.approx(0.1)


def test_busy_multiprocessors_are_those_of_the_schedule(planted):
    busy = {ONE: 0.4, THREE: 0.6, PAGEABLE: 0.3, "sequential": 0.2, "streams-2": 0.7}
    tables = tables_of(planted(busy=busy))
    assert dict(zip(tables.overlap["schedule"], tables.overlap["sm_busy"], strict=True)) == pytest.approx(busy)
    assert "60%" in overlap_section.section(tables)
    assert row_of(tables_of(planted("other")))["sm_busy"] is None


def test_a_host_that_is_slower_than_the_parts_leaves_nothing_to_gain(planted):
    row = row_of(tables_of(planted(host_us=200.0)))
    assert row["predicted"] == 1 and row["bound"] == "the host"
    (finding,) = found(planted("other", host_us=200.0))
    assert "since the host takes 0.200 ms to submit a request" in finding.text


def test_a_gain_is_a_finding_with_its_prediction_and_its_hidden_share(planted):
    (finding,) = found(planted(gains=GAINS))
    assert finding.status == "supported" and finding.effect.estimate == pytest.approx(1.3, rel=0.01)
    assert "predict at most 1.40×; compute takes longest" in finding.text
    assert "100% of the time of copies lies under kernels" in finding.text
    assert "From pageable memory the same schedule does 0.800×" in finding.text
    assert finding.records == ("cell/run1.json", "cell/hidden.json")


def test_without_a_capture_the_finding_says_so(planted):
    (finding,) = found(planted(gains=GAINS, captured=False))
    assert "No capture says how much of the copies is hidden" in finding.text
    assert overlap_timeline.draw(tables_of(planted("other", captured=False))) is not None


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"gains": {THREE: 0.8}}, "refuted"),
        ({"gains": {THREE: 1.0}}, "refuted"),
        ({"gains": {THREE: 1.3}, "processes": 1}, "not decidable"),
        ({"gains": {THREE: 1.1}, "jitter": 0.2}, "not decidable"),
    ],
    ids=["loses", "the same", "one process", "noise"],
)
def test_what_is_no_gain_is_none(planted, options, status):
    (finding,) = found(planted(**options))
    assert finding.status == status, finding.text
    assert finding.missing or status == "refuted"


def test_it_pays_from_the_smallest_shape_that_gains(planted):
    shapes = {"b1-i224": 1.0, "b8-i224": 1.2, "b64-i224": 1.3}
    *_, series = found(*(planted(shape, shape=shape, gains={THREE: gain}) for shape, gain in shapes.items()))
    assert series.status == "supported"
    assert "pay from b8-i224 on, the smallest measured shape that gains: 4.60 MiB a request" in series.text
    assert "b8-i224 1.20×, b64-i224 1.30×" in series.text
    assert len(series.records) == 6


def test_a_larger_shape_that_does_not_gain_is_named(planted):
    shapes = {"b1-i224": 1.2, "b8-i224": 1.0}
    *_, series = found(*(planted(shape, shape=shape, gains={THREE: gain}) for shape, gain in shapes.items()))
    assert "pay from b1-i224 on, but not at b8-i224, the smallest measured shape:" in series.text


def test_no_shape_that_gains_refutes(planted):
    *_, series = found(*(planted(shape, shape=shape) for shape in ("b1-i224", "b8-i224")))
    assert series.status == "refuted"


def test_the_section_shows_prediction_beside_measurement(planted):
    tables = tables_of(planted(gains=GAINS), {**unavailable(), "shape": "b1-i224"})
    made = overlap_section.section(tables)
    assert "1.40×" in made and "1.30× [" in made and "| streams-2 " in made
    assert "b1-i224: not measured: no GPU (use one)." in made
    assert overlap_section.section(tables, 8).count("|") < made.count("|")
    assert overlap_section.section(tables_of()) == ""


def unavailable():
    return {
        **{**planted_overlap.CELL, "shape": "b8-i224", "runs": [], "hidden": None},
        **{"available": False, "reason": "no GPU", "remedy": "use one", "recorded": False},
    }


def test_a_failed_run_is_a_row_with_its_reason(planted):
    planned = planted(processes=1)
    path = Path(planned["runs"][0])
    record = json.loads(path.read_text())
    failed = {key: record[key] for key in ("cell", "run", "log", "streams", "flags", "protocol")}
    planted_overlap.records.write(
        path, "overlap", {**failed, "status": "failed", "failure": {"kind": "parity", "message": "it differs"}}
    )
    (row,) = tables_of(planned).overlap.to_dict("records")
    assert row["status"] == "failed" and row["reason"] == "parity: it differs"


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("windows", 0, "latency_ns"), [10] * 40, "shorter than any call"),
        (("windows", 0, "completions"), 40, "40 completions of 40 requests"),
        (("windows", 0, "elapsed_ns"), 5000, "more latency than 8 requests at once"),
        (("checked",), 3, "checked fewer answers"),
        (("parity", "relative_l2"), 0.5, "relative L2|cannot be believed"),
        (("run",), 2, "it is run 2"),
    ],
)
def test_records_that_cannot_be_are_refused(planted, place, value, problem):
    planned = planted(processes=1)
    edited(Path(planned["runs"][0]), *place, value=value)
    with pytest.raises(UserError, match=problem):
        tables_of(planned)


def test_tables_are_written_and_read_again(planted, tmp_path):
    tables = tables_of(planted(gains=GAINS))
    (tmp_path / "tables").mkdir()
    tables.write(tmp_path / "tables")
    assert (tmp_path / "tables" / "overlap.csv").read_text().count("\n") == len(tables.overlap) + 1
    assert len(read_tables(tmp_path / "tables").overlap) == len(tables.overlap)


def test_pictures_show_schedules_and_streams(planted, tmp_path):
    shapes = {"b1-i224": 1.0, "b8-i224": 1.2}
    tables = tables_of(*(planted(shape, shape=shape, gains={THREE: gain}) for shape, gain in shapes.items()))
    gain, timeline = overlap_gain.draw(tables), overlap_timeline.draw(tables)
    legend = {entry.get_text() for figure in (gain, timeline) for one in figure.legends for entry in one.get_texts()}
    assert {THREE, "streams-2", "copies in", "kernels", "copies out"} <= legend
    titles = [axis.get_title("left") for axis in timeline.axes]
    assert any("b8-i224, three-streams: 100% of copy time hidden" in title for title in titles)
    assert any("one-stream: 0% of copy time hidden" in title or "one-stream: 0.0%" in title for title in titles)
