"""Searches for the best batch in tables, findings, the section and the picture, from records whose truth is planted."""

import json

import pandas as pd
import pytest
from unit import planted_searches
from unit.planted_records import overwrite
from unit.planted_searches import affine

from ceilings import records, schemas
from ceilings.errors import UserError
from ceilings.report.analysis.findings.batch_limits import best_batches
from ceilings.report.analysis.measured import Measured
from ceilings.report.render import batch_section
from ceilings.report.render.plots import best_batch
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.search_rows import search_tables


def plan(*searches):
    return {"best_batch": list(searches), "tolerances": {"fp32": 0.001}}


def tables_of(*searches):
    columns = ("device", "runtime", "model", "precision", "shape", "aa_of", "status", "flags", "run", "series")
    empty = pd.DataFrame(columns=[*columns, "latency_ns"])
    return Tables(empty, empty, empty, **vars(search_tables(plan(*searches))))


@pytest.fixture
def planted(tmp_path):
    def make(**options):
        return tables_of(planted_searches.write(tmp_path, **options))

    return make


def row_of(tables):
    (row,) = tables.best_batches.to_dict("records")
    return row


def finding_of(tables):
    (finding,) = best_batches(Measured(tables))
    return finding


def test_a_row_holds_the_planted_answer(planted):
    row = row_of(planted())
    assert (row["status"], row["best"], row["largest"], row["exceeds"]) == ("ok", 24, 24, 25)
    assert row["p50_low_ms"] < affine(24) < row["p50_high_ms"] < 20
    assert row["inferences_per_s"] == pytest.approx(24e3 / affine(24), rel=0.01)
    assert row["gain"] == pytest.approx(24 * affine(1) / affine(24), rel=0.01)
    assert (row["bounded_by"], row["again_verdict"]) == ("limit", "keeps")
    assert row["level_from"] == 24


def test_batches_stand_in_the_order_of_the_search(planted):
    steps = planted().searched_batches
    assert steps["batch"].tolist() == [1, 2, 4, 8, 16, 32, 24, 28, 26, 25, 24]
    assert steps["again"].tolist() == [False] * 10 + [True]
    assert steps["verdict"].tolist()[5:7] == ["exceeds", "keeps"]
    assert (steps["peak_mb"] == 200).all()


def test_a_batch_at_the_limit_is_undecided_and_the_finding_says_so(planted):
    tables = planted(limit_ms=affine(25))
    row = row_of(tables)
    assert (row["best"], row["undecided_from"], row["undecided_to"], row["exceeds"]) == (24, 25, 25, 26)
    assert "Of larger batches 25 is undecided and 26 exceeds it." in finding_of(tables).text
    assert "| 25 " in batch_section.section(tables)


def test_the_finding_says_what_bounds_the_throughput(planted, tmp_path):
    assert "The limit bounds it" in finding_of(planted()).text
    level = finding_of(planted(curve=lambda batch: max(4.0, 0.5 * batch)))
    assert "Throughput bounds it" in level.text and "From batch 8 on (4" in level.text
    assert "raise best_batch.most above 64" in finding_of(planted(limit_ms=1000.0)).text
    failed = finding_of(planted(limit_ms=1000.0, fails_from=20))
    assert "19**" in failed.text and "20 does not run. That bounds it: out-of-memory: failed to allocate" in failed.text


def test_an_effect_is_the_throughput_beside_the_smallest_batch(planted):
    finding = finding_of(planted())
    assert finding.effect.estimate == pytest.approx(24 * affine(1) / affine(24), rel=0.01)
    assert finding.effect.low < finding.effect.estimate < finding.effect.high
    assert "batch 24 has the highest throughput within 20.0 ms" in finding.brief


def test_an_answer_that_does_not_hold_at_the_end_is_not_certain(planted):
    tables = planted(later=1.2)
    finding = finding_of(tables)
    assert finding.status == "not decidable" and finding.brief == ""
    assert finding.missing == ("protocol: {processes: 6}",)
    assert "which exceeds the limit: the answer is not certain" in finding.text
    assert "measured once more, batch 24 exceeds the limit" in batch_section.section(tables)


def test_no_batch_keeps_a_limit_below_the_smallest_one(planted):
    tables = planted(limit_ms=1.0)
    assert (
        "no batch that was measured keeps the limit of 1.00 ms (p50); batch 1 takes 5.79 ms" in finding_of(tables).text
    )
    assert finding_of(tables).effect is None
    assert "no batch keeps the limit for certain" in batch_section.section(tables)
    near = finding_of(planted(limit_ms=affine(1)))
    assert near.status == "not decidable" and "undecided whether" in near.text


def test_a_limit_of_times_the_smallest_batch_follows_from_it(planted):
    row = row_of(planted(limit_ms=None, limit_times=3.0))
    assert row["limit_ms"] == pytest.approx(17.4, rel=0.01) and row["best"] == 20


def test_a_tail_is_held_against_the_limit_where_the_study_says_so(planted):
    tables = planted(percentile="p99", limit_ms=affine(24) * 1.005)
    row = row_of(tables)
    assert row["best"] < 24 and row["judged_ms"] > row["p50_ms"]
    assert f" (p99 {row['judged_ms']:.1f} ms [" in finding_of(tables).text


def test_a_slow_batch_is_named(planted):
    row = row_of(planted(curve=lambda batch: affine(batch) * (2 if batch == 16 else 1)))
    assert (row["best"], row["outliers"]) == (24, "16")


def test_a_search_that_failed_and_one_that_cannot_be_are_listed_with_the_reason(tmp_path):
    failed = planted_searches.write(tmp_path, fails_from=1)
    absent = {**failed, "record": None, "available": False, "reason": "no GPU", "remedy": "buy one"}
    tables = tables_of(failed, absent)
    assert tables.best_batches["status"].tolist() == ["failed", "unavailable"]
    section = batch_section.section(tables)
    assert "not measured: out-of-memory: failed to allocate" in section and "not measured: no GPU; buy one" in section
    assert best_batches(Measured(tables)) == []


def test_flags_that_differ_by_a_number_are_one_kind_of_all_their_batches(tmp_path):
    search = planted_searches.write(tmp_path)
    record = json.loads((tmp_path / "s32.json").read_text())
    for step, flag in ((0, "a card was reset"), (0, "others used 90% of a core"), (2, "others used 91% of a core")):
        record["steps"][step]["runs"][0]["flags"].append(flag)
    overwrite(tmp_path / "s32.json", record)
    flags = row_of(tables_of(search))["flags"]
    assert flags == "batch 1: a card was reset; batch 1, 4: others used 90% of a core, for example"


def test_there_is_no_section_without_searches():
    assert batch_section.section(tables_of()) == ""


def test_the_picture_shows_each_search_with_its_limit(planted):
    figure = best_batch.draw(planted())
    latency, throughput = figure.axes
    assert any(list(line.get_ydata()) == [20.0, 20.0] for line in latency.get_lines())
    assert "best batch within 20.0 ms: 24" in throughput.get_title(loc="left") + throughput.get_title()
    assert {text.get_text() for text in latency.texts} == {str(step) for step in range(1, 12)}
    assert best_batch.draw(tables_of()).texts


def test_a_search_of_which_no_batch_keeps_the_limit_is_undecided_where_a_batch_reaches_it(planted):
    """The smallest is slow for certain, and the next may keep the limit."""
    tables = planted(curve=lambda batch: 25.0 if batch == 1 else 20.0)
    assert pd.isna(row_of(tables)["best"]) and finding_of(tables).status == "not decidable"
    assert "undecided whether a batch keeps the limit of 20.0 ms" in finding_of(tables).text


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("steps", 3, "batch"), 9, "step 4 measured batch 9, and from those before it 8 follows"),
        (("steps", 0, "runs", 0, "latency_ns", 0), 5, "a latency of 5 ns is shorter than any call"),
        (("steps", 0, "runs", 0, "elapsed_ns"), 5, "its latencies add up to more than the 5 ns"),
        (("steps", 0, "runs", 0, "stop_reason"), "time-cap", "it stopped for 'time-cap', by its protocol 'precise'"),
        (("steps", 10, "batch"), 25, "step 11 measured batch 25, and from those before it 24 follows"),
        (("steps", 0, "runs", 0, "parity", "relative_l2"), 0.5, "batch 1: "),
    ],
)
def test_a_search_whose_numbers_cannot_be_is_refused(tmp_path, place, value, reason):
    search = planted_searches.write(tmp_path)
    record = json.loads((tmp_path / "s32.json").read_text())
    here = record
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    overwrite(tmp_path / "s32.json", record)
    with pytest.raises(UserError, match=reason):
        tables_of(search)


def end_after(count):
    return lambda steps: steps.__delitem__(slice(count, None))


def repeat(*, of, at):
    """Have a step's processes stand in another once more."""
    return lambda steps: steps[at - 1].update(runs=steps[of - 1]["runs"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (end_after(5), "it ends after 5 steps, and from these batch 32 follows"),
        (end_after(10), "it ends after 10 steps, and from these batch 24 follows"),
        (repeat(of=7, at=11), "a process of step 7 stands in step 11 once more"),
        (lambda steps: steps[0]["runs"].__setitem__(2, steps[0]["runs"][0]), "of step 1 stands in step 1 once more"),
    ],
)
def test_a_search_that_ended_early_or_holds_a_process_twice_is_refused(tmp_path, change, reason):
    search = planted_searches.write(tmp_path)
    record = json.loads((tmp_path / "s32.json").read_text())
    change(record["steps"])
    overwrite(tmp_path / "s32.json", record)
    with pytest.raises(UserError, match=reason):
        tables_of(search)


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda content: content["search"].update(limit_times=3.0), "search has not one limit"),
        (lambda content: content["steps"].clear(), "steps is empty"),
        (lambda content: content["steps"][1]["runs"].pop(), "steps[1].runs are not 3 processes"),
        (lambda content: content["steps"][1].update(again=True), "steps[1].again stands before the end"),
    ],
)
def test_a_damaged_record_is_refused(change, flaw):
    content = {key: value for key, value in planted_searches.record().items() if key not in records.SEAL}
    change(content)
    assert schemas.flaw("best-batch", content) == flaw
