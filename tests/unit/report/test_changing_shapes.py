"""Changing shapes in tables, findings, the section and the pictures, from records whose truth is planted."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit import planted_shapes
from unit.planted_shapes import ORDER, STEADY_MS
from unit.record_samples import edited

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.analysis.findings.bucket_padding import padded_requests
from ceilings.report.analysis.findings.one_shape import shape_taxes
from ceilings.report.analysis.measured import Measured
from ceilings.report.render import shapes_section
from ceilings.report.render.plots import latency_over_buckets, latency_over_sequence, shape_transitions
from ceilings.report.tables.changing_rows import changing_tables
from ceilings.report.tables.frames import CHANGING, Tables, read_tables

STEADY = np.array([STEADY_MS[name] for name in ORDER])


def true_tax(change):
    changed = np.array([a != b for a, b in itertools.pairwise(ORDER)])
    return float((STEADY[1:] * np.where(changed, change, 1)).sum() / STEADY[1:].sum())


def plan(cells):
    return {"changing": cells, "tolerances": {"fp32": 0.001}}


def tables_of(cells):
    made = changing_tables(plan(cells))
    columns = {name: planted_frame() for name in ("cells", "runs", "samples")}
    return Tables(**columns, **vars(made))


def planted_frame():
    columns = ("device", "runtime", "model", "precision", "shape", "aa_of", "status", "flags", "run", "series")
    return pd.DataFrame(columns=[*columns, "latency_ns"])


@pytest.fixture
def planted(tmp_path):
    def make(**options):
        return tables_of([planted_shapes.write(tmp_path / "cell", **options)])

    return make


@pytest.mark.parametrize("change", [1.0, 3.0])
def test_a_row_holds_the_planted_tax_whatever_the_drift(planted, change):
    (row,) = planted(change=change, slower=1.1).changing.to_dict("records")
    assert row["tax"] == pytest.approx(true_tax(change), rel=0.01)
    assert row["tax_low"] <= true_tax(change) <= row["tax_high"]
    assert row["drift"] == pytest.approx(1.1, rel=0.01)
    assert (row["requests"], row["shapes"], row["processes"]) == (60, 3, 3)
    assert row["changes"] == sum(a != b for a, b in itertools.pairwise(ORDER))
    assert row["sequence_ms"] / row["steady_ms"] == pytest.approx(row["tax"], rel=0.01)
    assert row["return_ratio"] == pytest.approx(change / 1.1**1.5, rel=0.1)


def test_first_appearances_leave_the_process_s_first_request_apart(planted):
    (row,) = planted().changing.to_dict("records")
    assert row["first_ms"] == pytest.approx((20 + 40) / 2, rel=0.02)
    assert row["growth_mb"] == 20


def test_a_ratio_is_one_of_each_process_whatever_their_speed(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    # Over all processes the median latency is 2.85 times a steady one of 1.4: of two processes.
    for number, (factor, change) in enumerate(((1.0, 3.0), (1.4, 1.5), (1.9, 1.5)), 1):
        steady = {name: factor * ms for name, ms in STEADY_MS.items()}
        records.write(cell["runs"][number - 1], "changing", planted_shapes.run(number, steady=steady, change=change))
    tables = changing_tables(plan([cell]))
    pairs = tables.transitions.set_index(["previous", "shape"])
    assert pairs.loc[("b1-s64", "b1-s16"), "ratio"] == pytest.approx(1.5, rel=0.03)
    assert pairs.loc[("b1-s16", "b1-s16"), "ratio"] == pytest.approx(1, rel=0.03)
    (row,) = tables.changing.to_dict("records")
    assert row["return_ratio"] == pytest.approx(1.5, rel=0.03) and row["worst_ratio"] == pytest.approx(1.5, rel=0.03)


def test_transitions_hold_what_follows_what(planted):
    frame = planted(change=3.0).transitions.set_index(["previous", "shape"])
    assert frame.loc[("b1-s16", "b1-s16"), "ratio"] == pytest.approx(1, rel=0.02)
    assert frame.loc[("b1-s64", "b1-s16"), "ratio"] == pytest.approx(3, rel=0.02)
    assert ("b1-s32", "b1-s64") not in frame.index
    assert frame["count"].sum() == 3 * 3 * (len(ORDER) - 1)


def test_padding_is_predicted_and_measured(planted):
    (row,) = planted().changing.to_dict("records")
    best = min((30 + 30) * 4 / 60, (40 * 1 + 20 * 4) / 60, (50 * 2 + 10 * 4) / 60)
    assert row["predicted_ms"] == pytest.approx(best, rel=0.001)
    assert row["unpadded_ms"] == pytest.approx(STEADY.mean())  # of all requests, as predicted
    assert row["bucket_shapes"] == "b1-s16;b1-s64"
    assert row["padded_steady_ms"] == pytest.approx(best, rel=0.02)
    assert row["padded_steady_low_ms"] < row["padded_steady_ms"] < row["padded_steady_high_ms"]


@pytest.mark.parametrize(
    ("change", "speed", "status", "words"),
    [
        (8.0, 0.3, "supported", "shortens"),
        (1.0, 1.0, "refuted", "lengthens"),
        (1.0, np.mean(STEADY) / 2.0, "refuted", "both are equal"),
    ],
)
def test_padding_is_held_against_exact_shapes(planted, change, speed, status, words):
    """Padded, the planted requests take 2 ms in the mean, at their exact shapes 1.7 ms."""
    tables = planted(change=change, speed=speed)
    (row,) = tables.changing.to_dict("records")
    (one,) = padded_requests(Measured(tables))
    assert one.status == status and words in one.brief + one.text
    assert one.effect.low < row["padded_ms"] / row["sequence_ms"] < one.effect.high
    assert f"({row['padding_share']:.0%} of it is padding)" in one.text


def test_one_process_decides_nothing_of_padding(planted):
    (one,) = padded_requests(Measured(planted(processes=1)))
    assert one.status == "not decidable" and one.missing == ("protocol: {processes: 3}",)


def test_a_prediction_that_is_wrong_is_shown_as_wrong(planted):
    text = shapes_section.section(Measured(planted(speed=1.25)))
    assert re.search(r"\| +-(20\.|19\.)", text)
    assert "padding was not measured" not in text


def test_shapes_have_a_row_each(planted):
    frame = planted(eager=True).changing_shapes.set_index("shape")
    assert frame.loc["b1-s32", "steady_ms"] == pytest.approx(2, rel=0.01)
    assert frame.loc["b1-s32", "runs_at"] == "b1-s64"
    assert not frame.loc["b1-s64", "compiled"] and frame.loc["b1-s16", "compiled"]
    assert np.isnan(frame.loc["b1-s16", "memory_mb"]) and frame.loc["b1-s32", "memory_mb"] == 10


def findings_of(tables):
    return shape_taxes(Measured(tables))


def test_a_tax_is_a_finding_with_its_number(planted):
    (one,) = findings_of(planted(change=3.0))
    assert one.status == "refuted"
    assert one.effect.estimate == pytest.approx(true_tax(3.0), rel=0.01)
    assert "misleads" in one.brief and "b1-s" in one.text
    assert one.records


def altered(tmp_path, change, **planted):
    """The findings where ``change`` (the names of the shapes by request, latencies of a pass) edits each pass."""
    cell = planted_shapes.write(tmp_path / "cell", **planted)
    for path in cell["runs"]:
        record = records.read(path, "changing")
        names = [record["requests"]["shapes"][shape] for shape in record["requests"]["order"]]
        passes = [[int(one) for one in change(names, np.array(each))] for each in record["sequence_ns"]]
        records.write(path, "changing", record | {"sequence_ns": passes})
    measured = Measured(tables_of([cell]))
    (one,) = shape_taxes(measured)
    return one, shapes_section.section(measured)


def test_a_stall_that_repeats_pay_too_is_no_cost_of_the_changes(tmp_path):
    one, section = altered(tmp_path, lambda names, latencies: latencies + 10_000_000 * (np.arange(len(names)) % 5 == 3))
    assert "repeat their shape pay the tax as well" in section
    assert one.status == "refuted" and "are not what costs" in one.text
    assert "repeat their shape pay as much" in one.brief


def test_a_pair_that_costs_now_and_then_is_named_though_its_median_is_steady(tmp_path):
    def change(names, latencies):
        dear = [(a, b) == ("b1-s16", "b1-s64") for a, b in itertools.pairwise(["", *names])]
        return latencies + 50_000_000 * (np.array(dear) & (np.cumsum(dear) % 3 == 0))

    one, section = altered(tmp_path, change)
    assert "pay the tax as well" not in section
    assert "the changes cost" in one.text and "falls on b1-s16 to b1-s64: 4." in one.text
    assert re.search(r"1\.0\d× in the median", one.text)


def test_what_pairs_add_is_the_sequence_less_its_steady_requests(planted):
    tables = planted(change=3.0)
    (row,) = tables.changing.to_dict("records")
    assert tables.transitions["excess_ms"].sum() == pytest.approx(row["sequence_ms"] - row["steady_ms"])
    assert row["change_cost_low"] < 3.0 < row["change_cost_high"]


def test_a_dear_first_appearance_is_named_and_is_no_tax(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    for path in cell["runs"]:
        edited(Path(path), "cold", "latency_ns", 1, value=900_000_000)
    (one,) = findings_of(tables_of([cell]))
    assert one.status == "supported"
    assert re.search(r"the first b1-s32 takes 900 ms, 4\d\d× its steady latency, once a process", one.text)


def test_a_sequence_that_is_faster_than_its_steady_requests_is_decided_and_no_cost(planted):
    (one,) = findings_of(planted(change=0.5))
    assert one.status == "refuted" and "less time in the sequence" in one.text and "is unknown" in one.text


def test_no_tax_is_a_finding_too(planted):
    (one,) = findings_of(planted())
    assert (one.status, one.brief) == ("supported", "")


def test_a_tax_within_the_drift_is_undecided(planted):
    (one,) = findings_of(planted(change=1.2, slower=1.5))
    assert one.status == "not decidable"
    assert one.missing == ("protocol: {processes: 6}",)


def test_one_process_decides_nothing(planted):
    tables = planted(processes=1, change=3.0)
    (one,) = findings_of(tables)
    assert one.status == "not decidable" and one.effect is None
    row = next(line for line in shapes_section.section(Measured(tables)).splitlines() if "3 shapes" in line)
    assert f"{true_tax(3.0):.2f}×" in row and "[" not in row


def test_the_section_says_what_fell_back_and_what_was_not_measured(planted, tmp_path):
    cell = planted_shapes.write(tmp_path / "eager", eager=True)
    absent = {**cell, "runtime": "vllm", "available": False, "reason": "no runner", "remedy": "another"}
    absent |= {"runs": [], "padded": [], "buckets": None}
    text = shapes_section.section(Measured(tables_of([cell, absent])))
    assert "1 shape run eagerly" in text
    assert "not measured: no runner" in text
    assert shapes_section.section(Measured(tables_of([]))) == ""


def test_a_flag_of_a_process_stands_in_the_section(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    edited(Path(cell["runs"][0]), "flags", value=["other processes used 90% of a core"])
    text = shapes_section.section(Measured(tables_of([cell])))
    assert "flagged: other processes used 90% of a core (1 of 3 runs)." in text


def test_flags_that_say_the_same_are_one_note_with_the_largest(tmp_path):
    cells = []
    for number, busy in enumerate((98, 160, 9)):
        names = planted_shapes.CELL | {"sequence": f"mixed{number}"}
        cells.append(planted_shapes.write(tmp_path / str(number), cell=names))
        edited(Path(cells[-1]["runs"][0]), "flags", value=[f"other processes used {busy}% of a core"])
    text = shapes_section.section(Measured(tables_of(cells)))
    assert "- 3 cells flagged: other processes used 160% of a core." in text and text.count("flagged") == 1


def test_a_failed_process_fails_the_cell_and_says_why(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    record = records.read(cell["runs"][0], "changing")
    kept = {name: record[name] for name in ("cell", "run", "log", "padded", "requests", "protocol", "flags")}
    failure = {"status": "failed", "failure": {"kind": "out-of-memory", "message": "too little"}}
    records.write(cell["runs"][0], "changing", kept | failure)
    (row,) = changing_tables(plan([cell])).changing.to_dict("records")
    assert row["status"] == "failed"
    assert row["reason"] == "1 of 3 processes failed, the others did not; out-of-memory: too little"
    assert f"`rm -r {tmp_path / 'cell'}`" in row["remedy"]
    assert "too little" in shapes_section.section(Measured(tables_of([cell])))


def test_records_of_another_cell_or_in_each_other_s_place_are_refused(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    with pytest.raises(UserError, match="another cell"):
        changing_tables(plan([{**cell, "sequence": "other"}]))
    with pytest.raises(UserError, match="with padding"):
        changing_tables(plan([{**cell, "runs": cell["padded"]}]))


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("sequence_ns", 0, 3), 900, "a latency of 900 ns"),
        (("cold", "latency_ns", 0), 700 * 10**9, "more than its limit"),
        (("run",), 2, "it is process 2"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, place, value, problem):
    cell = planted_shapes.write(tmp_path / "cell")
    edited(Path(cell["runs"][0]), *place, value=value)
    with pytest.raises(UserError, match=problem):
        changing_tables(plan([cell]))


TWICE = planted_shapes.run(1)["sequence_ns"][0]


@pytest.mark.parametrize(
    ("requests", "problem"),
    [
        ({"shapes": ["b1-s16", "b1-s64", "b1-s32"], "order": [0, 1, 2, 0]}, "in another order; held against .*run1"),
        ({"shapes": ["b1-s16", "b1-s64"], "order": [0, 1, 0, 1]}, "b1-s32 is a shape of the other requests only"),
    ],
)
def test_processes_of_other_requests_are_refused(tmp_path, requests, problem):
    cell = planted_shapes.write(tmp_path / "cell")
    requests |= {"logged": None, "sorted": False}
    records.write(cell["runs"][1], "changing", planted_shapes.run(2, requests=requests))
    with pytest.raises(UserError, match=problem):
        changing_tables(plan([cell]))


def test_padded_processes_of_other_requests_are_refused(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    records.write(cell["padded"][0], "changing", planted_shapes.run(1, padded=True))
    with pytest.raises(UserError, match=r"padded1.json cannot be believed \(b1-s32 is a shape of its requests only"):
        changing_tables(plan([cell]))


def test_cells_of_one_sequence_have_the_same_requests(tmp_path):
    cells = [planted_shapes.write(tmp_path / "one")]
    names = planted_shapes.CELL | {"runtime": "torch-eager"}
    cells.append(planted_shapes.write(tmp_path / "other", cell=names))
    for path in cells[1]["runs"]:
        edited(Path(path), "requests", "order", value=[0, 1, 2, 0, 0, 0] * 10)
    with pytest.raises(UserError, match=r"other/run1.json .*in another order; held against .*one/run1.json"):
        changing_tables(plan(cells))


def test_what_is_counted_twice_is_refused(tmp_path):
    cell = planted_shapes.write(tmp_path / "pass")
    edited(Path(cell["runs"][0]), "sequence_ns", 2, value=TWICE)
    with pytest.raises(UserError, match=r"sequence_ns\[0\] and sequence_ns\[2\] are the same to the nanosecond"):
        changing_tables(plan([cell]))
    cell = planted_shapes.write(tmp_path / "process")
    records.write(cell["runs"][2], "changing", planted_shapes.run(1) | {"run": 3})
    with pytest.raises(UserError, match="its latencies are those of process 1 to the nanosecond"):
        changing_tables(plan([cell]))


def test_a_log_of_which_only_the_first_requests_ran_says_so(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    for path in cell["runs"]:
        edited(Path(path), "requests", "logged", value=5000)
    text = shapes_section.section(Measured(tables_of([cell])))
    assert "flagged: the log has 5000 requests, and the first 60 by arrival ran (requests sets how many)." in text
    assert text.count("flagged") == 1


def test_wrong_outputs_fail_the_cell_whatever_it_was_measured_for(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    edited(Path(cell["runs"][0]), "parity", "b1-s32", "relative_l2", value=0.5)
    (row,) = changing_tables(plan([cell])).changing.to_dict("records")
    assert row["status"] == "failed" and "parity: at b1-s32: " in row["reason"]


def test_a_padded_process_that_is_missing(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell")
    Path(cell["padded"][1]).unlink()
    with pytest.raises(UserError, match=r"padded2.json does not exist"):
        changing_tables(plan([cell]))
    recorded = {**cell, "padded": [], "recorded": True}  # of another machine, as far as it was brought
    (row,) = changing_tables(plan([recorded])).changing.to_dict("records")
    assert row["status"] == "ok" and row["predicted_ms"] > 0 and pd.isna(row["padded_steady_ms"])
    text = shapes_section.section(Measured(tables_of([recorded])))
    assert "padding was not measured: of its padded processes not all were brought with it" in text


def test_one_pass_a_process_is_enough(tmp_path):
    cell = planted_shapes.write(tmp_path / "cell", change=3.0)
    for path in cell["runs"]:
        record = records.read(path, "changing")
        kept = {name: record[name][:count] for name, count in (("sequence_ns", 1), ("steady_ns", 2), ("return_ns", 2))}
        records.write(path, "changing", record | kept)
    (one,) = findings_of(tables_of([cell]))
    assert one.status == "refuted" and one.effect.estimate == pytest.approx(true_tax(3.0), rel=0.02)


def test_each_number_of_buckets_has_a_row(planted):
    frame = planted().changing_buckets.set_index("buckets")
    assert list(frame.index) == [1, 2]
    assert list(frame["chosen"]) == [False, True]
    assert frame.loc[1, "shapes"] == "b1-s64" and frame.loc[2, "shapes"] == "b1-s16;b1-s64"
    assert frame.loc[1, "predicted_ms"] == pytest.approx(4, rel=0.001)
    assert list(frame["memory_mb"]) == [10, 10]


def test_pictures_of_planted_cells_and_of_nothing(planted, tmp_path):
    tables = planted(change=3.0)
    figure = shape_transitions.draw(tables)
    fields = [image for axis in figure.axes for image in axis.get_images()]
    assert np.nanmax(fields[0].get_array()) == pytest.approx(3, rel=0.05)
    figure = latency_over_sequence.draw(tables)
    assert len(figure.axes) == 2
    figure = latency_over_buckets.draw(tables)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "steady, padded: predicted"]
    assert list(line.get_ydata()) == pytest.approx([4, 2], rel=0.001)
    for draw in (shape_transitions.draw, latency_over_sequence.draw, latency_over_buckets.draw):
        assert draw(tables_of([])).texts


def test_tables_are_read_as_they_were_written(planted, tmp_path):
    tables = planted(change=3.0)
    tables.write(tmp_path / "tables")
    again = read_tables(tmp_path / "tables")
    for name in CHANGING:
        assert getattr(again, name).to_json() == getattr(tables, name).to_json()
    for name in CHANGING:  # as written by an earlier version
        (tmp_path / "tables" / f"{name}.parquet").unlink()
    voucher = json.loads((tmp_path / "tables/tables.json").read_text())["files"]
    kept = {file: digest for file, digest in voucher.items() if file.removesuffix(".parquet") not in CHANGING}
    records.write(tmp_path / "tables/tables.json", "tables", {"files": kept})
    assert read_tables(tmp_path / "tables").changing.empty
