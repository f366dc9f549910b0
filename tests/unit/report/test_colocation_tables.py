"""Co-locations in tables, findings, the section and the matrix, from records whose truth is planted."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from unit import planted_colocation
from unit.planted_colocation import FAST, SLOW
from unit.planted_records import overwrite
from unit.record_samples import edited
from unit.report.test_changing_shapes import planted_frame

from ceilings import records
from ceilings.errors import UserError
from ceilings.measure.colocation import Sharing
from ceilings.report.analysis import cautions
from ceilings.report.analysis.findings.company import company
from ceilings.report.analysis.measured import Measured
from ceilings.report.render import colocation_section
from ceilings.report.render.plots import interference
from ceilings.report.tables.colocation_rows import COLOCATION_KEY, PAIR_COLUMNS, colocation_tables
from ceilings.report.tables.frames import COLOCATION, Tables, read_tables

PLAN = {"tolerances": {"fp32": 0.001}}
UNLIKE = {(FAST, SLOW): 3.0, (SLOW, FAST): 1.25}


def tables_of(*planned):
    made = colocation_tables({**PLAN, "colocation": list(planned)})
    return Tables(**{name: planted_frame() for name in ("cells", "runs", "samples")}, **vars(made))


@pytest.fixture
def planted(tmp_path):
    def make(**options):
        return tables_of(planted_colocation.write(tmp_path / "group", **options))

    return make


def test_gain_and_slowdowns_are_the_planted_ones_whatever_the_drift(planted):
    tables = planted(slowed=UNLIKE, drift=1.1)
    (row,) = tables.colocation.to_dict("records")
    true = 1 / 3 + 1 / 1.25
    assert row["gain"] == pytest.approx(true, rel=0.01)
    assert row["gain_low"] <= true <= row["gain_high"]
    assert row["noise"] == pytest.approx(0.1, rel=0.15)
    fast, slow = tables.colocated.to_dict("records")
    assert fast["slowdown"] == pytest.approx(3, rel=0.01)
    assert slow["slowdown"] == pytest.approx(1.25, rel=0.01)
    assert slow["alone_per_s"] == pytest.approx(2 * 1000 / 4 / 1.1**1.5, rel=0.01)  # two rows a request
    assert fast["alone_p50_ms"] == pytest.approx(1.1**1.5, rel=0.06)
    assert row["together_per_s"] == pytest.approx(fast["together_per_s"] + slow["together_per_s"])
    assert row["turns_per_s"] == pytest.approx((fast["whole_per_s"] + slow["whole_per_s"]) / 2)


def test_more_turns_for_the_fast_one_are_no_gain(planted):
    """By a sum of inferences a second they would be: 1.5 times that of equal turns."""
    (row,) = planted(slowed={(FAST, SLOW): 1 / 0.9, (SLOW, FAST): 1 / 0.1}).colocation.to_dict("records")
    assert row["together_per_s"] / row["turns_per_s"] > 1.2
    assert row["gain"] == pytest.approx(1, rel=0.01)


def test_the_matrix_holds_who_slows_whom(planted):
    pairs = planted(slowed=UNLIKE).interference.set_index(["slowed", "neighbour"])["slowdown"]
    assert pairs[FAST, SLOW] == pytest.approx(3, rel=0.01)
    assert pairs[SLOW, FAST] == pytest.approx(1.25, rel=0.01)


def test_four_instances_have_each_pair_of_cells_once(planted):
    tables = planted(cells=(FAST, FAST, SLOW, SLOW), slowed={**UNLIKE, (FAST, FAST): 1.5, (SLOW, SLOW): 1.1})
    pairs = tables.interference.set_index(["slowed", "neighbour"])["slowdown"]
    assert pairs.to_dict() == pytest.approx(
        {(FAST, FAST): 1.5, (FAST, SLOW): 3, (SLOW, FAST): 1.25, (SLOW, SLOW): 1.1}, rel=0.01
    )
    assert list(tables.colocated["instance"]) == [1, 2, 3, 4]
    assert tables.colocated["slowdown"].iloc[0] == pytest.approx(1.5 * 3 * 3, rel=0.01)


def test_split_cores_are_held_against_the_whole_machine(planted):
    """Each member alone takes 1.6 times as long with its half, and nothing more in company: gain 2 / 1.6."""
    tables = planted(
        cells=(FAST, FAST), sharing=Sharing("processes", "split"), part=1.6, slowed={(FAST, FAST): 1.0}, busy=2.0
    )
    (row,) = tables.colocation.to_dict("records")
    assert row["gain"] == pytest.approx(2 / 1.6, rel=0.01)
    one = tables.colocated.iloc[0]
    assert one["slowdown"] == pytest.approx(1, rel=0.01)
    assert one["whole_per_s"] == pytest.approx(1000, rel=0.01)
    assert one["alone_per_s"] == pytest.approx(1000 / 1.6, rel=0.01)
    assert (row["use_alone"], row["use_together"]) == (0.5, 1.0)


def test_the_noise_of_a_gain_is_that_of_the_references_on_the_whole_machine(tmp_path):
    """Of split cores: references of the members are steady, and each second one of the whole machine is slower."""
    sharing = Sharing("processes", "split")
    group = planted_colocation.write(tmp_path / "group", cells=(FAST, FAST), sharing=sharing)

    def slower(record):
        for window in record["windows"]:
            if window["instances"] == [2] and window["round"] % 2:
                answered = window["answers"]["2"]
                count = 4 * len(answered["latency_ns"]) // 5
                answered.update(latency_ns=answered["latency_ns"][:count], completions=count)

    for path in group["runs"]:
        changed(path, slower)
    tables = tables_of(group)
    assert (tables.colocated["noise"] < 0.01).all()
    assert tables.colocation["noise"].tolist() == [pytest.approx(0.25, rel=0.05)]


def findings_of(tables):
    return company(Measured(tables))


def test_a_gain_is_a_finding_that_names_what_was_idle(planted):
    (one,) = findings_of(planted(slowed={(FAST, SLOW): 1.2, (SLOW, FAST): 1.1}, busy=1.0))
    assert one.status == "supported" and "1.74" in one.brief
    assert "Alone an instance has 25% in use (cores busy)" in one.text and "together it is 50%" in one.text
    assert "A request of text" in one.text and "1.20× as long" in one.text


def test_no_idle_share_is_named_where_alone_most_is_in_use(planted):
    (one,) = findings_of(planted(slowed={(FAST, SLOW): 1.2, (SLOW, FAST): 1.1}, busy=3.0))
    assert one.status == "supported" and "in use" not in one.text


def test_no_idle_share_is_named_where_other_processes_have_it(tmp_path):
    group = planted_colocation.write(tmp_path / "group", slowed={(FAST, SLOW): 1.2, (SLOW, FAST): 1.1}, busy=1.0)
    for path in group["runs"]:
        edited(Path(path), "neighbours", value={"others_cores": 2.2})
    tables = tables_of(group)
    assert tables.colocation["use_others"].tolist() == [pytest.approx(0.55)]
    assert "in use" not in findings_of(tables)[0].text


@pytest.mark.parametrize(
    ("factor", "status", "words"),
    [
        (2.0, "refuted", "only queue"),
        (3.0, "refuted", "cost each other more"),
        (1.0, "supported", "together 2 instances"),
    ],
)
def test_queueing_and_disturbance_are_findings_too(planted, factor, status, words):
    (one,) = findings_of(planted(slowed={(FAST, SLOW): factor, (SLOW, FAST): factor}))
    assert one.status == status and words in one.text


def test_a_gain_within_what_references_differ_by_is_undecided(planted):
    (one,) = findings_of(planted(slowed={(FAST, SLOW): 1.85, (SLOW, FAST): 1.85}, drift=1.3))
    assert one.status == "not decidable" and one.missing == ("protocol: {processes: 6}",)


def test_one_run_decides_nothing(planted):
    tables = planted(processes=1)
    (one,) = findings_of(tables)
    assert one.status == "not decidable" and one.effect is None
    assert pd.isna(tables.colocation["gain_low"]).all()
    assert "1.00× |" in colocation_section.section(tables)


@pytest.mark.parametrize(
    ("activity", "of", "alone"), [(0.2, "SMs busy", 0.2), (None, "time with a kernel", 0.45)], ids=["gpm", "without"]
)
def test_use_of_a_gpu_is_its_multiprocessors_where_counters_say_it(planted, activity, of, alone):
    (row,) = planted(activity=activity, utilisation=0.45).colocation.to_dict("records")
    assert (row["use_of"], row["use_alone"], row["use_together"]) == (
        of,
        pytest.approx(alone),
        pytest.approx(2 * alone),
    )


ON_CARDS = {"cells": (FAST, FAST), "sharing": Sharing("cards")}


@pytest.mark.parametrize(
    ("factor", "verdict", "status", "words"),
    [
        (1.0, "allowed", "supported", "so cells of these cards may run side by side. 2 cards at once do"),
        (1.02, "allowed", "supported", "that is within 5%"),
        (1.3, "forbidden", "refuted", "so cells of these cards must take turns"),
    ],
)
def test_separate_cards_may_run_side_by_side_only_undisturbed(planted, factor, verdict, status, words):
    tables = planted(**ON_CARDS, slowed={(FAST, FAST): factor})
    (row,) = tables.colocation.to_dict("records")
    assert row["side_by_side"] == verdict and row["gain"] == pytest.approx(2 / factor, rel=0.01)
    (finding,) = company(Measured(tables))
    assert finding.status == status and words in finding.text
    assert finding.effect.estimate == pytest.approx(factor, rel=0.01)
    section = colocation_section.section(tables)
    assert f"planted by cards: side by side: {verdict}." in section and "have a gain of n" in section


@pytest.mark.parametrize("options", [{"processes": 1}, {"jitter": 0.08}])
def test_what_is_unknown_of_cards_lets_them_take_turns(planted, options):
    tables = planted(**ON_CARDS, slowed={(FAST, FAST): 1.02}, **options)
    assert tables.colocation["side_by_side"].tolist() == ["undecided"]
    (finding,) = company(Measured(tables))
    assert finding.status == "not decidable" and "take turns" in finding.text and finding.missing


def test_on_one_device_nothing_is_said_of_side_by_side(planted):
    tables = planted(cells=(FAST, FAST))
    assert tables.colocation["side_by_side"].tolist() == [None]
    assert "side by side" not in colocation_section.section(tables)


def test_the_section_shows_groups_instances_flags_and_what_was_not_measured(tmp_path):
    group = planted_colocation.write(tmp_path / "group", slowed=UNLIKE)
    edited(Path(group["runs"][0]), "flags", value=["other processes used 90% of a core"])
    absent = {**group, "how": "mps", "available": False, "reason": "no MPS", "remedy": "leave it out", "runs": []}
    text = colocation_section.section(tables_of(group, absent))
    assert "| planted | threads" in text.replace("  ", "") and "3.00×" in text
    assert "1× text b1-s32 (onnxruntime-cpu fp32), 1× image b2-i32 (onnxruntime-cpu fp32)" in text
    assert "flagged: other processes used 90% of a core (1 of 3 runs)." in text
    assert "planted by mps: not measured: no MPS (leave it out)." in text
    short = colocation_section.section(tables_of(group, absent), most=1)
    assert "flagged" not in short and "no MPS" in short and "More co-locations and instances" in short
    assert colocation_section.section(tables_of()) == ""


def test_flags_that_differ_by_a_number_are_one_kind(tmp_path):
    group = planted_colocation.write(tmp_path / "group")
    for path, used in zip(group["runs"], (90, 91, 91), strict=True):
        edited(Path(path), "flags", value=[f"other processes used {used}% of a core", "a card was reset"][: used - 89])
    tables = tables_of(group)
    assert tables.colocation["flags"].tolist() == [
        "other processes used 90% of a core, for example (3 of 3 runs); a card was reset (2 of 3 runs)"
    ]
    assert cautions._colocated(Measured(tables)) == [
        "1 co-location: other processes used 90% of a core, for example.",
        "1 co-location: a card was reset.",
    ]
    (busy,) = cautions._busy_company(Measured(tables))
    assert busy.startswith("**1 of 1 co-location had other processes for company**") and "-R measure_colocation" in busy


def test_a_machine_that_was_quiet_is_no_caution(planted):
    assert cautions._busy_company(Measured(planted())) == []


def test_the_picture_has_a_panel_a_way_to_share(tmp_path):
    ways = [Sharing("threads"), Sharing("processes"), Sharing("processes", "split")]
    groups = [planted_colocation.write(tmp_path / str(one), sharing=one, slowed=UNLIKE) for one in ways]
    figure = interference.draw(tables_of(*groups))
    titles = [title for axis in figure.axes if (title := axis.get_title(loc="left"))]
    assert len(titles) == 3 and "as processes, cores split" in titles[2]
    assert any(text.get_text().startswith("3.00×\n[") for text in figure.axes[0].texts)
    assert "no co-location" in interference.draw(tables_of()).texts[0].get_text()


def test_names_of_three_cells_stand_apart_and_a_pair_that_was_not_measured_is_no_value():
    cells = [FAST, SLOW, FAST.replace("onnxruntime-cpu", "torch-eager")]
    pairs = pd.DataFrame(
        [
            {**dict(zip(COLOCATION_KEY, ("cpu-planted", "g", how, "shared"), strict=True)), "slowed": a, "neighbour": b}
            for how in ("threads", "processes")
            for a, b in itertools.permutations(cells, 2)
        ],
        columns=PAIR_COLUMNS,
    ).assign(slowdown=1.5, slowdown_low=1.4, slowdown_high=1.6)
    figure = interference.draw(SimpleNamespace(interference=pairs))
    figure.draw_without_rendering()
    names = [label for axis in figure.axes[:2] for label in axis.get_xticklabels()]
    assert [label.get_rotation() for label in names] == [30] * 6
    ends = [label.get_window_extent().x1 for label in names[:3]]
    assert min(b - a for a, b in itertools.pairwise(ends)) > 7 * 1.2 * 2  # two lines of 7 points
    assert sum(shown.get_text() == "not\nmeasured" for shown in figure.axes[0].texts) == 3


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("run",), 2, "it is run 2"),
        (("cells",), [FAST, FAST], "of other cells"),
        (("windows", 1, "answers", "0", "completions"), 3.5, "3.5 completions of"),
        (("windows", 1, "answers", "0", "latency_ns", 0), 10**10, "answered for"),
        (("windows", 1, "answers", "0", "latency_ns", 0), 7, "7 ns, shorter than any call"),
        (("instances", 1, "parity", "relative_l2"), 0.5, "image/fp32/b2-i32: "),
    ],
)
def test_a_record_that_cannot_be_is_refused(tmp_path, place, value, problem):
    group = planted_colocation.write(tmp_path / "group", processes=1)
    edited(Path(group["runs"][0]), *place, value=value)
    with pytest.raises(UserError, match=problem):
        tables_of(group)


def drop(*, of):
    """Without the first company of some instances."""

    def change(record):
        windows = record["windows"]
        windows.remove(next(one for one in windows if one["instances"] == of))

    return change


def at_once(record):
    """The second reference is measured while the first is."""
    first, second = record["windows"][:2]
    second.update({end: first[end] for end in ("opened_ns", "closed_ns")})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop(of=[0, 1, 2]), "it has 20 windows, and of its instances 21 follow"),
        (drop(of=[0, 1]), "it has 20 windows, and of its instances 21 follow"),
        (lambda record: record["windows"].reverse(), r"windows\[0\] is not a reference of round 0, of instance 2"),
        (at_once, r"windows\[1\] opened before the one before it had closed"),
        (lambda record: record["instances"][0].update(batch=7), r"instances\[0\] has batch 7, and its shape is b1-s32"),
        (lambda record: record["instances"][0].update(threads=7), r"instances\[1\] has 2 threads, and 7 follow"),
        (lambda record: record["instances"][0].update(processors=[0]), r"instances\[0\] is not the one of onnx"),
    ],
)
def test_a_run_whose_windows_or_instances_do_not_follow_from_its_group_is_refused(tmp_path, change, problem):
    group = planted_colocation.write(tmp_path / "group", processes=1, cells=(FAST, FAST, SLOW), seconds=0.2)
    changed(group["runs"][0], change)
    with pytest.raises(UserError, match=problem):
        tables_of(group)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record["instances"][1].update(processors=[0]), "two of its instances share a processor"),
        (lambda record: record.update(physical_cores=1), "1 cores cannot be split among 2 instances"),
    ],
)
def test_split_cores_are_separate_ones(tmp_path, change, problem):
    sharing = Sharing("processes", "split")
    group = planted_colocation.write(tmp_path / "group", processes=1, cells=(FAST, FAST), sharing=sharing)
    changed(group["runs"][0], change)
    with pytest.raises(UserError, match=problem):
        tables_of(group)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record.update(physical_cores=64), "its physical_cores differs from that of run 1"),
        (lambda record: record["protocol"].update(min_seconds=9), "its protocol differs from that of run 1"),
        (lambda record: [one.update(threads=1) for one in record["instances"]], "other threads than those of run 1"),
    ],
)
def test_runs_of_a_group_are_measured_in_one_way(tmp_path, change, problem):
    group = planted_colocation.write(tmp_path / "group", processes=2)
    changed(group["runs"][1], change)
    with pytest.raises(UserError, match=problem):
        tables_of(group)


def test_a_run_counts_once(tmp_path):
    group = planted_colocation.write(tmp_path / "group", processes=2)
    again = json.loads(Path(group["runs"][0]).read_text()) | {"run": 2}
    overwrite(Path(group["runs"][1]), again)
    with pytest.raises(UserError, match="are one measurement twice"):
        tables_of(group)


def changed(path, change):
    record = json.loads(Path(path).read_text())
    change(record)
    overwrite(Path(path), record)


def test_a_failed_run_is_a_row_with_its_reason(tmp_path):
    group = planted_colocation.write(tmp_path / "group", processes=1)
    record = json.loads(Path(group["runs"][0]).read_text())
    dropped = ("instances", "windows", "physical_cores", "neighbours", "gpu", "provenance", *records.SEAL)
    failed = {key: value for key, value in record.items() if key not in dropped}
    failure = {"kind": "out-of-memory", "message": "instance 2: the memory does not suffice"}
    records.write(group["runs"][0], "colocation", {**failed, "status": "failed", "failure": failure})
    (row,) = tables_of(group).colocation.to_dict("records")
    assert (row["status"], row["reason"]) == ("failed", "out-of-memory: instance 2: the memory does not suffice")


def test_tables_are_read_as_they_were_written(planted, tmp_path):
    tables = planted()
    tables.write(tmp_path / "tables")
    again = read_tables(tmp_path / "tables")
    for name in COLOCATION:
        assert getattr(again, name).to_json() == getattr(tables, name).to_json()
