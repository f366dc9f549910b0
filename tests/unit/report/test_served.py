"""Models behind servers: tables, findings against planted answers, both ways, and their pages as a reader sees them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from unit.report import planted_study as planted
from unit.report.planted_serving import (
    BARE_MS,
    BATCHING,
    FP32,
    INPUT,
    INT8,
    OUTPUT,
    REST,
    ServedStudy,
    Truth,
    batched,
    plain,
    uncounted,
)

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.analysis.findings.serving_costs import LIMIT, OVER_BARE, QUEUE, SATURATION, UNFLAGGED, serving
from ceilings.report.analysis.findings.serving_pairs import BATCHING as TOPIC_BATCHING
from ceilings.report.analysis.findings.serving_pairs import BESIDE, NETWORK, ONE_SETTING, UNDISTURBED
from ceilings.report.analysis.hypotheses import judged
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.served import ServedLoads
from ceilings.report.catalogue import PLOTS
from ceilings.report.render import plots
from ceilings.report.render.marking import marked
from ceilings.report.render.notes import observations
from ceilings.report.render.page import page
from ceilings.report.render.page.served_charts import WHOLE, served_panels
from ceilings.report.render.pictures import NOTHING_TO_SHOW
from ceilings.report.render.plots import serving_latency
from ceilings.report.render.summary import summary
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import read_tables
from ceilings.report.tables.served_quantities import PARTS
from ceilings.report.tables.served_windows import settling_requests
from ceilings.statistics.intervals import ratio

SERVING_PLOTS = ("serving_latency", "serving_throughput", "batches_formed")


def claims_of(study):
    return serving(Measured(study.tables()))


def about(study, topic):
    return [finding for finding in claims_of(study) if finding.topic == topic]


def the(study, topic):
    (finding,) = about(study, topic)
    return finding


def served(tables, deployment, load):
    rows = tables.serving[(tables.serving["deployment"] == deployment) & (tables.serving["load"] == load)]
    return rows.iloc[0]


# --- tables ----------------------------------------------------------------------------------------------------------


def test_the_account_of_a_request_closes(tmp_path):
    """Parts add up to the client's mean, the server's parts to what it counts as a request."""
    study = ServedStudy(tmp_path)
    study.deploy("a", cells=(FP32, INT8), rates=(20.0,))
    study.deploy("b", batched, batching=BATCHING)
    rows = study.tables().serving
    assert len(rows) == 2 * 4 + 3
    names = [part.column for part in PARTS]
    assert rows[names].sum(axis=1).to_list() == pytest.approx(rows["client_ms"].to_list(), rel=1e-9)
    assert rows[names[1:]].sum(axis=1).to_list() == pytest.approx(rows["request_ms"].to_list(), rel=1e-9)


def test_numbers_are_those_that_were_planted(tmp_path):
    study = ServedStudy(tmp_path, between=0.0, sizes=(4,))
    study.deploy("a", batched, batching=BATCHING, closed=(4,))
    row = served(study.tables(), "a", "4 clients")
    truth = batched(FP32, 4)
    assert row["infer_ms"] == pytest.approx(truth.infer, rel=1e-3)
    assert row["queue_ms"] == pytest.approx(truth.queue, rel=1e-3)
    assert row["beyond_ms"] == pytest.approx(truth.beyond, rel=0.1)
    assert row["answered_per_s"] == pytest.approx(truth.per_s, rel=1e-3)
    assert (row["batch_mean"], json.loads(row["batch_sizes"])) == (4.0, {"4": 1.0})
    assert (row["runs"], row["windows"], row["n"]) == (3, 6, 6 * 60)
    assert row["bare_ms"] == pytest.approx(10 * 4**0.8, rel=0.05)
    assert row["added_ms"] == pytest.approx(row["infer_ms"] - row["bare_ms"])


def test_a_batch_counts_as_often_as_it_has_inputs(tmp_path):
    """Of 4 executions one has 4 inputs: more than half of the requests wait for it."""
    study = ServedStudy(tmp_path, between=0.0, sizes=(1, 4))
    study.deploy(
        "a", lambda cell, clients: replace(plain(cell, 1), batches={1: 3, 4: 1}), closed=(4,), batching=BATCHING
    )
    row = served(study.tables(), "a", "4 clients")
    ones, fours = 10.0, 10 * 4**0.8
    assert row["bare_ms"] == pytest.approx((3 * ones + 4 * fours) / 7, rel=0.03)


def test_a_batch_that_is_filled_up_is_held_against_the_size_that_is_executed(tmp_path):
    """Of the batches of 1 and 3 inputs that servers count, 2 and 4 were executed."""
    study = ServedStudy(tmp_path, between=0.0, sizes=(1, 2, 4))
    filled = {**BATCHING, "preferred": [2], "pad": True}
    study.deploy("a", lambda cell, clients: replace(plain(cell, 1), batches={1: 3, 3: 1}), closed=(4,), batching=filled)
    row = served(study.tables(), "a", "4 clients")
    twos, fours = 10 * 2**0.8, 10 * 4**0.8
    assert row["bare_ms"] == pytest.approx((3 * twos + 3 * fours) / 6, rel=0.03)


def test_sizes_that_were_not_measured_bare_have_no_bare_time(tmp_path):
    study = ServedStudy(tmp_path, sizes=(1,))
    study.deploy("a", batched, closed=(1, 4), batching=BATCHING)
    rows = study.tables().serving
    assert rows["bare_ms"].notna().to_list() == [True, False]


def test_a_server_that_counts_nothing_has_a_client_alone(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", change=uncounted)
    row = served(study.tables(), "a", "1 client")
    assert row["p50_ms"] > 0 and row["flagged"] == 0
    assert all(pd.isna(row[name]) for name in ("request_ms", "beyond_ms", "queue_ms", "bare_ms", "batch_mean"))


def test_one_server_bounds_nothing(tmp_path):
    study = ServedStudy(tmp_path, runs=1)
    study.deploy("a")
    row = served(study.tables(), "a", "1 client")
    assert pd.notna(row["p50_ms"]) and pd.isna(row["p50_low_ms"]) and pd.isna(row["answered_low_per_s"])
    assert all(not finding.brief for finding in about(study, OVER_BARE))


def test_tails_need_requests(tmp_path):
    study = ServedStudy(tmp_path, runs=3, rounds=1, n=100)
    study.deploy("a")
    row = served(study.tables(), "a", "1 client")
    assert pd.notna(row["p95_ms"]) and pd.isna(row["p99_ms"])  # 300 requests


def test_relative_rates_are_one_load_in_all_runs(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", rates=(50.0,), change=lambda one: one | ({"asked": "0.8x"} if one["kind"] == "open" else {}))
    for k, path in enumerate(study.serving[0]["runs"]):
        record = records.read(path, "serving")
        for window in record["windows"]:
            window["rate"] = window["rate"] and 50.0 + k
        records.write(path, "serving", record)
    row = served(study.tables(), "a", "0.8x")
    assert (row["runs"], row["rate_per_s"]) == (3, 51.0)


def unvisited(window):
    """As a window to which nobody came."""
    empty = dict.fromkeys(("sent", "answered", "answered_inside"), 0) | {"latency_ns": [], "late_ns": []}
    counted = {name: {} if name == "batch_sizes" else 0 for name in window["server"]}
    return window | empty | {"server": counted}


def test_windows_to_which_nobody_came_are_part_of_a_rate(tmp_path):
    """A request in one of two windows is half a request a window, not one."""
    study = ServedStudy(tmp_path, between=0.0)
    study.deploy("a", closed=(), rates=(20.0,), change=lambda one: unvisited(one) if one["round"] == 1 else one)
    study.deploy("b", closed=(), rates=(20.0,), change=unvisited)
    tables = study.tables()
    row = served(tables, "a", "20/s")
    assert row["answered_per_s"] == pytest.approx(10, rel=0.01) and (row["n"], row["windows"]) == (180, 6)
    assert "nobody came in windows of 3 s; lengthen protocol.serving" in served(tables, "b", "20/s")["reason"]


def test_tables_come_back_as_they_were_written(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", rates=(20.0,))
    tables = collect(study.plan())
    pd.testing.assert_frame_equal(tables.serving, study.tables().serving)
    tables.write(tmp_path / "tables")
    again = read_tables(tmp_path / "tables")
    assert serving(Measured(again)) == serving(Measured(tables))
    assert len(pd.read_csv(tmp_path / "tables/serving.csv")) == 4
    assert not (tmp_path / "tables/serving_samples.csv").exists()


@pytest.mark.parametrize(("column", "value"), [("p50_ms", 1.0), ("n", 7), ("client_ms", 3.0), ("load", "9 clients")])
def test_edited_tables_contradict_their_samples(tmp_path, column, value):
    study = ServedStudy(tmp_path)
    study.deploy("a", closed=(1, 2))
    tables = study.tables()
    serving = tables.serving.copy()
    serving.loc[0, column] = value
    replace(tables, serving=serving).write(tmp_path / "tables")
    with pytest.raises(UserError, match=r"contradict each other \(serving"):
        read_tables(tmp_path / "tables")


def test_tables_older_than_serving_are_read(tmp_path):
    tables = ServedStudy(tmp_path).tables()
    tables.write(tmp_path / "tables")
    for name in ("serving.parquet", "serving_windows.parquet", "serving_samples.parquet", "tables.json"):
        (tmp_path / "tables" / name).unlink()
    assert read_tables(tmp_path / "tables").serving.empty


# --- records that cannot be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("answered", 3, "has 60 latencies of 3 answers"),
        ("sent", 61, "of 61 requests of windows[0] 60 were answered and 0 failed"),
        ("ended_ns", 10**9, "ended before it began"),
        ("cell", INT8, "and the server has no such cell"),
        (("server", "executions"), 7, "7 executions, and batch sizes of 60"),
        (("server", "inferences"), 7, "7 inferences, and batch sizes of 60"),
        (("server", "queue_ns"), 10**12, "more than the"),
        ("answered_inside", 61, "61 requests were answered in it, of 60"),
        ("drained_ns", 10**9 + 1, "is longer than the 1 ns until its last answer"),
        ("latency_ns", [10**8] * 60, "its latencies add up to 6000000000 ns, more than 1 times the"),
        ("latency_ns", [10**6] * 60, "at the server, more than the 60000000 ns that clients waited"),
    ],
)
def test_windows_that_cannot_be_are_refused(tmp_path, place, value, why):
    study = ServedStudy(tmp_path)
    path = study.deploy("a")["runs"][0]
    record = records.read(path, "serving")
    here = record["windows"][0]
    *outer, last = place if isinstance(place, tuple) else (place,)
    for name in outer:
        here = here[name]
    here[last] = value
    records.write(path, "serving", record)
    with pytest.raises(UserError, match="cannot be believed") as error:
        study.tables()
    assert why in str(error.value)


def test_a_record_of_another_deployment_is_refused(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a")
    study.deploy("b")
    study.serving[0]["runs"] = study.serving[1]["runs"]
    with pytest.raises(UserError, match="another cell"):
        study.tables()


def test_wrong_answers_get_no_number(tmp_path):
    study = ServedStudy(tmp_path)
    path = study.deploy("a", cells=(FP32, INT8))["runs"][2]
    record = records.read(path, "serving")
    record["cells"][FP32]["parity"]["relative_l2"] = 0.5
    records.write(path, "serving", record)
    rows = study.tables().serving.set_index("precision")
    assert rows.loc["fp32", "status"] == "failed" and rows.loc["fp32", "reason"].startswith("parity: relative L2")
    assert set(rows.loc["int8", "status"]) == {"ok"}


# --- windows with faults ---------------------------------------------------------------------------------------------


def failing(window):
    return window | {"failed": {"HTTP 500": 2}, "sent": window["sent"] + 2}


def asked_elsewhere(window):
    return window | {"server": window["server"] | {"others": {"a/1": 3, "b; c/1": 1}}}


def miscounted(window):
    server = window["server"] | {"requests": window["server"]["requests"] - 1}
    return window | {"server": server}


FAULTS = {
    "busy": (lambda one: one | {"client_cores": 0.95}, "the client could not keep up: it used its cores whole"),
    "late": (lambda one: one | {"late_ns": [10**7] * 60}, "the client could not keep up: it sent late"),
    "connections": (lambda one: one | {"exhausted": 4}, "the client could not keep up: it had no connection free"),
    "given up": (lambda one: one | {"unsent": 1}, "the client could not keep up: it had no connection free"),
    "late at times": (
        lambda one: one | {"late_ns": [1000] * 57 + [10**8] * 3},
        "the client could not keep up: it sent late",
    ),
    "waiting": (
        lambda one: one | {"client_waited_ns": 2 * sum(one["latency_ns"])},
        "the client could not keep up: it waited for a processor that others had",
    ),
    "failed": (failing, "requests failed: HTTP 500"),
    "counts": (miscounted, "server and client counted different requests"),
    "company": (asked_elsewhere, "other models of the server were asked meanwhile: a/1 and b, c/1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_disturbed_windows_carry_no_claim(tmp_path, fault):
    change, words = FAULTS[fault]
    study = ServedStudy(tmp_path)
    study.limit_ms = 1000
    study.deploy("a", change=change, closed=(1, 2))
    study.deploy("b", transport="grpc", change=change, closed=(1, 2))
    tables = study.tables()
    row = served(tables, "a", "1 client")
    assert row["flagged"] == 6 and f"{words} (6 of 6 windows)" in row["flags"]
    claims = serving(Measured(tables))
    assert claims
    assert {finding.status for finding in claims if finding.claim} == {"not decidable"}
    assert not any(finding.brief for finding in claims)
    text = summary(study.plan(), tables, Evidence(), "plots")
    assert "**4 of 4 loads behind servers were disturbed**" in text and f"behind servers: {words}." in text
    assert "-R measure_serving`" in text, "what measures them again"


def test_threads_of_a_client_that_wait_for_each_other_disturb_nothing(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", change=lambda one: one | {"client_waited_ns": int(0.19 * (one["drained_ns"] - one["began_ns"]))})
    assert served(study.tables(), "a", "1 client")["flagged"] == 0  # it computed on 0.2 cores


def test_flags_of_servers_are_cautions(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", closed=(1,), run_flags=["client and server share cores; run it on more"])
    tables = study.tables()
    assert served(tables, "a", "1 client")["flags"] == "client and server share cores, run it on more (3 of 3 servers)"
    text = summary(study.plan(), tables, Evidence(), "plots")
    assert "- 1 load behind servers: client and server share cores, run it on more." in text


def test_a_disturbed_load_leaves_the_others(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", change=lambda one: one | ({"exhausted": 3} if one["concurrency"] == 1 else {}))
    finding = the(study, OVER_BARE)
    assert "2 clients: a request takes" in finding.text
    # What requests wait for each other there is not what the server costs.
    assert "the lightest load, 1 client, was disturbed" in finding.text
    assert (finding.status, finding.effect, finding.brief) == ("not decidable", None, "")
    assert finding.subject == "onnxruntime-cpu fp32 behind a"


def test_too_few_closed_loops_say_which_it_was(tmp_path):
    """One that was asked for is another remedy than one of two that was disturbed."""
    study = ServedStudy(tmp_path)
    study.deploy("a", closed=(1, 2), change=lambda one: one | ({"exhausted": 3} if one["concurrency"] == 1 else {}))
    study.deploy("b", closed=(2,))
    disturbed, few = about(study, SATURATION)
    assert disturbed.missing == (UNFLAGGED,) and few.missing == ("concurrency: [1, 2, 4, 8]",)
    assert {finding.subject for finding in (disturbed, few)} == {f"onnxruntime-cpu fp32 behind {name}" for name in "ab"}


def test_disturbed_pairs_are_named_and_want_a_client_that_keeps_up(tmp_path):
    """More clients are the remedy only where no closed loop was asked of both."""

    def pair(name, **loads):
        study = ServedStudy(tmp_path / name)
        study.deploy("off", change=lambda one: one | {"exhausted": 3}, **loads)
        study.deploy("on", batched, batching=BATCHING, closed=(2,))
        return the(study, TOPIC_BATCHING)

    disturbed, other = pair("disturbed", closed=(1, 2)), pair("other", closed=(4,))
    assert disturbed.missing == (UNDISTURBED,) and "was disturbed" in disturbed.text
    assert other.missing == ("concurrency: [1, 8] of both",) and "was asked of both" in other.text
    assert disturbed.subject == other.subject == "onnxruntime-cpu fp32, on against off"


def test_a_failed_deployment_has_its_log_and_its_remedy_in_code(tmp_path):
    study = ServedStudy(tmp_path)
    for name in ("a", "b"):
        study.fail(study.deploy(name, cells=(FP32, INT8)))
    study.deploy("c")
    plan, tables, evidence = marked(study.plan(), study.tables())
    text = summary(plan, tables, evidence, "plots")
    log = re.escape(records.read(study.serving[0]["runs"][0], "serving")["log"])
    folders = " ".join(f"results/serving/{planted.CPU}/{name}" for name in "ab")
    assert re.search(
        rf"\n- a and b: failed, crashed: .* \(see `{log}`, mend the cause, then `rm -r {folders}` and run", text
    )


# --- findings --------------------------------------------------------------------------------------------------------


def slower_by(factor):
    """A server that makes a request so much longer than the bare runtime."""

    def law(cell, clients):
        whole = BARE_MS[cell.split("/")[2]] * factor
        return Truth(0.3, 0.0, whole - 0.65, 1e3 / whole, {1: 1})

    return law


@pytest.mark.parametrize(
    ("factor", "status"), [(1.5, "refuted"), (1.2, "refuted"), (1.0, "supported"), (0.8, "supported")]
)
def test_what_a_server_costs_over_the_bare_runtime(tmp_path, factor, status):
    study = ServedStudy(tmp_path)
    study.deploy("a", slower_by(factor))
    finding = the(study, OVER_BARE)
    assert finding.status == status
    assert finding.effect.low * 0.98 <= factor <= finding.effect.high * 1.02
    assert f"serving/{planted.CPU}/a/run1.json" in finding.records
    # No part of an execution: that may be shorter, as it is at 0.8.
    assert "; the bare runtime takes 10.0 ms at the batch sizes formed." in finding.text
    if factor == 1.5:
        assert "most is the execution's addition to the bare runtime" in finding.brief


def test_noisy_servers_decide_nothing(tmp_path):
    study = ServedStudy(tmp_path, between=0.3, runs=3)
    study.deploy("a", slower_by(1.1))
    finding = the(study, OVER_BARE)
    assert finding.status == "not decidable" and finding.undecided_by_noise and not finding.brief
    assert finding.missing == ("protocol: {processes: 6}",)


def test_a_cell_without_a_bare_loop_has_no_comparison(tmp_path):
    study = ServedStudy(tmp_path, sizes=())
    study.deploy("a")
    finding = the(study, OVER_BARE)
    assert finding.status == "not decidable" and "Bare it was not measured" in finding.text


def test_other_threads_than_the_bare_cell_s_are_another_comparison(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", threads=1)
    finding = the(study, OVER_BARE)
    assert finding.status == "not decidable" and finding.missing == ("cpu_threads: 1",)
    assert "computes with 1 thread, and as a bare cell with 2" in finding.text


def test_a_study_whose_cells_were_not_measured_has_all_pages(tmp_path):
    """As of an endpoint whose cells cannot run here."""
    study = ServedStudy(tmp_path, sizes=())
    flags = [f"other processes used {share}% of a core" for share in (40, 9)]
    study.deploy("a", closed=(1, 2), run_flags=flags)
    tables = study.tables()
    assert "## Serving" in summary(study.plan(), tables, Evidence(), "plots")
    note = observations(study.plan(), tables, Evidence(), "plots")
    assert "behind a answers 88." in note and "- 2 loads behind servers: other processes used 40%" in note
    assert 'id="serving"' in page(study.plan(), tables, Evidence())


@pytest.mark.parametrize(("loads", "status", "first"), [(plain, "supported", "2 clients"), (None, "refuted", None)])
def test_from_which_load_on_requests_queue(tmp_path, loads, status, first):
    study = ServedStudy(tmp_path)
    study.deploy("a", loads or (lambda cell, clients: plain(cell, 1)), closed=(1, 2, 8))
    finding = the(study, QUEUE)
    assert finding.status == status
    assert ("From 2 clients on the queue takes longer" in finding.text) is bool(first)


def test_a_server_that_counts_no_queue_says_nothing_of_it(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", change=uncounted)
    assert "does not count how long requests queue" in the(study, QUEUE).text


@pytest.mark.parametrize(
    ("per_s", "status", "flat"),
    [
        (lambda clients: 80.0 * clients, "supported", None),
        (lambda clients: 80.0 * min(clients, 2), "refuted", "beyond 2 clients it gains less than 5% a step"),
        (lambda clients: 80.0, "refuted", "beyond 1 client it gains less than 5% a step"),
    ],
)
def test_where_the_throughput_flattens(tmp_path, per_s, status, flat):
    study = ServedStudy(tmp_path)
    study.deploy("a", lambda cell, clients: replace(plain(cell, clients), per_s=per_s(clients)))
    finding = the(study, SATURATION)
    assert finding.status == status
    assert flat is None or flat in finding.text
    # Where the heaviest load still gains, its throughput is no limit.
    assert ("answers at most" in finding.text and "answers at most" in finding.brief) is (status != "supported")
    assert ("answers at most" in finding.text or "answers at most" in finding.brief) is (status == "refuted")
    assert ("more clients may get more" in finding.text and "may get more" in finding.brief) is (status == "supported")


def test_few_clients_across_a_round_trip_are_no_news_of_the_server(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("far", lambda cell, clients: replace(plain(cell, clients), per_s=8.0 * clients), round_trip_ms=100)
    finding = the(study, SATURATION)
    assert finding.status == "supported" and not finding.brief


def test_an_undecided_throughput_is_no_limit(tmp_path):
    study = ServedStudy(tmp_path, between=0.1)
    study.deploy("a", lambda cell, clients: replace(plain(cell, clients), per_s=80.0 * (1.05 if clients > 1 else 1)))
    finding = the(study, SATURATION)
    assert finding.status == "not decidable"
    assert "at most" not in finding.text and "at most" not in finding.brief


@pytest.mark.parametrize("closed", [(1, 2), ()])
def test_a_window_of_few_requests_shows_no_steady_state_beyond_the_server(tmp_path, closed):
    """Four times what it answers, in windows of 12 requests: their thirds say nothing, and no latency is shown."""
    study = ServedStudy(tmp_path, n=12)
    study.limit_ms = 1e6

    def of_few(window):
        return window | ({"ended_ns": window["began_ns"] + 3 * 10**7} if window["kind"] == "open" else {})

    study.deploy("a", closed=closed, rates=(400.0,), change=of_few)
    row = served(study.tables(), "a", "400/s")
    assert (row["growing"], row["state"]) == (0, "short")
    texts = " ".join(finding.text for finding in serving(Measured(study.tables())))
    assert "`protocol.serving.window_seconds: 1` would do" in texts and "It sustains" not in texts


def test_rates_beyond_the_server_have_no_latency(tmp_path):
    study = ServedStudy(tmp_path, n=120)
    study.limit_ms = 1e6
    study.deploy("a", rates=(20.0, 60.0, 200.0))
    tables = study.tables()
    row = served(tables, "a", "200/s")
    assert row["growing"] == 6
    finding = the(study, SATURATION)
    assert "It sustains 20.0/s and 60.0/s. At 200/s the queue grows" in finding.text
    assert "200/s" not in the(study, QUEUE).text and "200/s" not in the(study, LIMIT).text
    assert re.search(r"\| +200/s +\| +grows", observations(study.plan(), tables, Evidence(), "plots"))


def test_rates_whose_windows_are_too_short_have_no_latency(tmp_path):
    study = ServedStudy(tmp_path, n=60)
    study.limit_ms = 1e6
    study.deploy("a", rates=(20.0, 60.0))
    tables = study.tables()
    row = served(tables, "a", "60/s")
    assert row["state"] == "short" and settling_requests(row["share"]) > 60
    finding = the(study, SATURATION)
    seconds = math.ceil(settling_requests(row["share"]) / 60)
    assert "It sustains 20.0/s. At 60.0/s the windows end before the queue has settled" in finding.text
    assert f"`protocol.serving.window_seconds: {seconds}` would do" in finding.text
    assert "60.0/s" not in the(study, LIMIT).text
    assert re.search(r"\| +60/s +\| +short", observations(study.plan(), tables, Evidence(), "plots"))


def test_a_study_of_overloads_alone(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", closed=(), rates=(200.0, 400.0))
    claims = claims_of(study)
    assert {finding.status for finding in claims} == {"not decidable"}
    tables = study.tables()
    assert "behind a server" in summary(study.plan(), tables, Evidence(), "plots")
    for name in SERVING_PLOTS:
        plots.draw(name, tables)


def test_the_picture_holds_a_batch_against_a_bare_batch(tmp_path):
    """A line at the bare latency of one request would call the larger batch a cost of the server."""
    study = ServedStudy(tmp_path, sizes=(1, 2, 4))
    study.deploy("a", batched, closed=(1, 4), batching=BATCHING)
    tables = study.tables()
    figure = serving_latency.draw(tables)
    (lines,) = figure.axes[0].collections[-1:]
    shown = [segment[0, 1] for segment in lines.get_segments()]
    assert shown == pytest.approx([served(tables, "a", load)["bare_ms"] for load in ("1 client", "4 clients")])
    assert shown[1] > 2 * shown[0]


def test_open_loops_alone(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", closed=(), rates=(20.0, 60.0))
    assert "20/s: a request takes" in the(study, OVER_BARE).text
    assert "It sustains 20.0/s and 60.0/s" in the(study, SATURATION).text


def test_the_best_load_below_a_limit(tmp_path):
    study = ServedStudy(tmp_path, n=120)
    study.limit_ms = 30.0
    study.deploy("a")  # 2 clients wait for 25 ms, 4 for 48
    study.deploy("b", batched, batching=BATCHING)  # 2 for 22 ms, 4 for 36
    finding = the(study, LIMIT)
    assert finding.status == "supported"
    assert "most is answered by onnxruntime-cpu fp32 behind" in finding.text and "at 2 clients" in finding.text


def test_a_limit_that_nothing_meets(tmp_path):
    study = ServedStudy(tmp_path, n=120)
    study.limit_ms = 3.0
    study.deploy("a")
    finding = the(study, LIMIT)
    assert finding.status == "refuted" and "no load meets it; the lowest p99 is" in finding.text


def test_a_limit_without_requests_enough(tmp_path):
    study = ServedStudy(tmp_path, n=20)
    study.limit_ms = 30.0
    study.deploy("a")
    assert the(study, LIMIT).status == "not decidable"


# --- pairs -----------------------------------------------------------------------------------------------------------


def no_gain(cell, clients):
    """Batches form and bring nothing."""
    return replace(plain(cell, clients), batches={int(min(clients, 4)): 1})


@pytest.mark.parametrize(("law", "status"), [(batched, "supported"), (no_gain, "refuted")])
def test_what_dynamic_batching_buys_and_costs(tmp_path, law, status):
    study = ServedStudy(tmp_path)
    study.deploy("on", law, batching=BATCHING)
    study.deploy("off")
    finding = the(study, TOPIC_BATCHING)
    assert finding.status == status
    assert "behind on (batching up to 4, delay 2 ms) against off (off)" in finding.text
    if law is batched:
        truth = batched(FP32, 8).per_s / plain(FP32, 8).per_s
        assert finding.effect.low <= truth <= finding.effect.high
        assert re.search("a request at 1 client is 1.1[4-9]× slower", finding.brief)


@pytest.mark.parametrize(("beyond", "status"), [(0.1, "supported"), (1.0, "refuted"), (3.0, "refuted")])
def test_http_against_grpc(tmp_path, beyond, status):
    """HTTP spends 1 ms beyond the server."""
    study = ServedStudy(tmp_path)
    study.deploy("grpc", lambda cell, clients: replace(plain(cell, clients), beyond=beyond), transport="grpc")
    study.deploy("http")
    finding = the(study, ONE_SETTING)
    assert finding.status == status and finding.claim == "gRPC is faster than HTTP"
    assert "behind grpc (grpc) against http (http)" in finding.text


@pytest.mark.parametrize(
    "settings",
    [
        {"transport": "grpc", "batching": BATCHING},
        {"transport": "grpc", "round_trip_ms": 20},
        {"batching": BATCHING, "instances": 2},
        {"kind": "embedded", "transport": "grpc"},
        {"transport": "grpc", "threads": 1},
    ],
)
def test_deployments_that_differ_in_two_things_are_not_compared(tmp_path, settings):
    study = ServedStudy(tmp_path)
    study.deploy("a")
    study.deploy("b", **settings)
    assert not about(study, ONE_SETTING) and not about(study, TOPIC_BATCHING)


def test_deployments_that_serve_other_cells_are_not_compared(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", cells=(FP32, INT8))
    study.deploy("b", transport="grpc")
    assert not about(study, ONE_SETTING)


def test_a_server_and_what_comes_with_it_are_one_setting(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a")
    study.deploy("b", slower_by(1.1), kind="embedded", version="1.7.1", backend="python", closed=(1,))
    assert the(study, ONE_SETTING).claim == "Triton is faster than the embedded server"


def grpc_and_again(root, beyond, **study):
    """A deployment over HTTP, one over gRPC that is half a millisecond faster, and the first once more."""
    made = ServedStudy(root, **study)
    made.deploy("http")
    made.deploy("grpc", lambda cell, clients: replace(plain(cell, clients), beyond=0.5), transport="grpc")
    if beyond is not None:
        again = {"law": lambda cell, clients: replace(plain(cell, clients), beyond=beyond)}
        made.deploy("http.aa", **again, aa_of="http")
    return made


@pytest.mark.parametrize(("beyond", "verdict"), [(None, "faster"), (1.0, "faster"), (3.0, "same within noise")])
def test_a_difference_of_deployments_counts_beyond_that_of_equal_ones(tmp_path, beyond, verdict):
    study = grpc_and_again(tmp_path, beyond)
    (finding,) = about(study, ONE_SETTING)
    assert finding.verdict == verdict


def test_deployments_of_two_names_that_differ_in_nothing_are_an_a_a_pair_too(tmp_path):
    study = grpc_and_again(tmp_path, None)
    study.deploy("again", lambda cell, clients: replace(plain(cell, clients), beyond=3.0))
    loads = ServedLoads(Measured(study.tables()))
    assert loads.noise_floor(loads.lines[0].head) > 0.1 and len(loads.aa_pairs) == 1
    (finding, _) = about(study, ONE_SETTING)
    assert finding.verdict == "same within noise"


def test_the_second_of_a_pair_is_noise_and_nothing_else(tmp_path):
    study = grpc_and_again(tmp_path, 1.0)
    of_second = [finding for finding in claims_of(study) if "http.aa" in finding.text]
    assert [finding.topic for finding in of_second] == ["Noise"]
    (noise,) = of_second
    loads = ServedLoads(Measured(study.tables()))
    (pair,) = loads.aa_pairs
    assert [*pair.latency] == [*pair.throughput] == ["1 client", "2 clients", "8 clients"]
    latency, throughput = pair.floors
    assert 0 < latency < 0.05 and 0 < throughput < 0.05
    assert f"**{latency:.1%}** for latencies and **{throughput:.1%}** for throughputs" in noise.text
    plan, tables, evidence = marked(study.plan(), study.tables(), Evidence())
    assert "noise_deployments" not in summary(plan, tables, evidence, "plots")


def test_noise_counts_at_its_load(tmp_path):
    """A pair that differs at eight clients alone: at one client a smaller difference is one."""

    def rough(cell, clients):
        truth = plain(cell, clients)
        return replace(truth, beyond=40.0 if clients == 8 else truth.beyond)

    def quicker(cell, clients):
        truth = plain(cell, clients)
        return replace(truth, beyond=0.1, queue=0.8 * truth.queue)

    study = ServedStudy(tmp_path)
    study.deploy("http", rates=(10,))
    study.deploy("grpc", quicker, transport="grpc", rates=(10,))
    study.deploy("http.aa", rough, aa_of="http")
    loads = ServedLoads(Measured(study.tables()))
    http, grpc = loads.lines
    light, heavy, rate = (loads.noise_floor(http.loads[at]) for at in (0, 2, 3))
    assert light < 0.05 and heavy > 0.3
    assert rate == heavy, "at a load that the pair has not, the widest of all"
    one, eight = (loads.compare(grpc.loads[at], http.loads[at]) for at in (0, 2))
    assert one.verdict == "faster" and eight.ratio.high < one.ratio.low
    assert eight.below_floor and not eight.decided


def test_throughputs_have_a_noise_of_their_own(tmp_path):
    """Equal latencies, and a second deployment that answers a fifth less: of a throughput that much is noise."""
    study = ServedStudy(tmp_path)
    study.deploy("one")
    study.deploy("more", slower_rate(1.1), batching=BATCHING)

    def judged():
        loads = ServedLoads(Measured(study.tables()))
        one, more = (line.loads[0] for line in loads.lines)
        return loads, loads.more(more, one)

    assert judged()[1].verdict == "faster"
    study.deploy("one.aa", slower_rate(0.8), aa_of="one")
    loads, pair = judged()
    latency, throughput = loads.aa_pairs[0].floors
    assert latency < 0.05 and 0.2 < throughput < 0.4
    assert pair.below_floor and not pair.decided


def slower_rate(factor):
    return lambda cell, clients: replace(plain(cell, clients), per_s=factor * plain(cell, clients).per_s)


def test_servers_without_a_pair_are_a_caution_with_the_entry(tmp_path):
    study = grpc_and_again(tmp_path, None)
    assert any("`noise_deployments: [http]`" in finding.text for finding in about(study, "Noise"))
    plan, tables, evidence = marked(study.plan(), study.tables(), Evidence())
    assert "The noise between deployments on" in summary(plan, tables, evidence, "plots")
    alone = ServedStudy(tmp_path / "alone")
    alone.deploy("http")
    assert not about(alone, "Noise")


def test_one_server_each_leaves_the_noise_unknown(tmp_path):
    study = grpc_and_again(tmp_path, 1.0, runs=1)
    (noise,) = about(study, "Noise")
    assert noise.text.endswith("so no difference is shown. Set `protocol: {processes: 3}`.")
    assert the(study, ONE_SETTING).verdict == "undecided"


def test_a_disturbed_pair_says_nothing_of_the_noise(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("one")
    study.deploy("one.aa", change=failing, aa_of="one")
    (noise,) = about(study, "Noise")
    assert noise.text.endswith("So it says nothing of the noise.")
    loads = ServedLoads(Measured(study.tables()))
    assert loads.noise_floor(loads.lines[0].head) is None


def test_noise_of_servers_above_the_margin_calls_no_two_deployments_equal(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("http")
    study.deploy("grpc", transport="grpc")
    assert the(study, ONE_SETTING).status == "refuted"  # equal within 5%
    study.deploy("http.aa", lambda cell, clients: replace(plain(cell, clients), beyond=3.0), aa_of="http")
    loads = ServedLoads(Measured(study.tables()))
    one, other = (line.head for line in loads.lines)
    assert loads.noise_floor(one) > 0.05 and not loads.equal(one, other, 0.05)
    assert loads.equal(one, one, 0.05)


@pytest.mark.parametrize(("trip", "status"), [(400.0, "supported"), (5.0, "refuted")])
def test_whether_the_network_hides_a_difference(tmp_path, trip, status):
    study = ServedStudy(tmp_path)
    study.deploy("near", cells=(FP32, INT8))
    study.deploy("far", cells=(FP32, INT8), round_trip_ms=trip)
    finding = the(study, NETWORK)
    assert finding.status == status
    assert "without the round trip, behind near" in finding.text
    assert ("hides their difference" in finding.brief) is (status == "supported")
    ours = {one.number: judgement for one, judgement in judged(Measured(study.tables()), Evidence())}[12]
    assert ours.verdict == ("supported" if trip == 400 else "not decidable")  # theirs was longer than 5 ms
    assert not [one for one in about(study, OVER_BARE) if "behind far" in one.text]


def test_a_network_cannot_hide_what_is_not_there(tmp_path):
    study = ServedStudy(tmp_path)

    def same(cell, clients):
        return plain(FP32, clients)

    study.deploy("near", same, cells=(FP32, INT8))
    study.deploy("far", same, cells=(FP32, INT8), round_trip_ms=400.0)
    finding = the(study, NETWORK)
    assert finding.status == "not decidable" and not finding.brief


def test_a_far_deployment_alone_is_judged_by_its_server(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("far", cells=(FP32, INT8), round_trip_ms=400.0)
    finding = the(study, NETWORK)
    assert finding.status == "supported" and "at the server" in finding.brief
    study = ServedStudy(tmp_path / "uncounted")
    study.deploy("far", cells=(FP32, INT8), round_trip_ms=400.0, change=uncounted)
    assert the(study, NETWORK).status == "not decidable"


def test_two_cells_behind_one_server(tmp_path):
    study = ServedStudy(tmp_path, precisions=("fp32", "int8"))
    study.deploy("a", cells=(FP32, INT8))
    finding = the(study, BESIDE)
    assert finding.status == "supported" and finding.effect.high < 0.6
    assert "in interleaved windows of one server" in finding.text

    def reversed_(cell, clients):
        return plain(INT8 if cell == FP32 else FP32, clients)

    study = ServedStudy(tmp_path / "reversed", precisions=("fp32", "int8"))
    study.deploy("a", reversed_, cells=(FP32, INT8))
    assert the(study, BESIDE).status == "refuted"


def test_cells_behind_one_server_are_compared_within_each_server(tmp_path):
    """Servers that differ by a factor of two and more say nothing of cells that take turns on each of them."""
    study = ServedStudy(tmp_path, precisions=("fp32", "int8"), between=0.7)
    study.deploy("a", cells=(FP32, INT8))
    loads = ServedLoads(Measured(study.tables()))
    a, b = (line.loads[0] for line in sorted(loads.lines, key=lambda line: line.head.label))
    assert {a.cell, b.cell} == {FP32, INT8} and a.load == b.load
    whole = [
        sum((law.beyond, law.queue, law.infer, INPUT, OUTPUT, REST)) for law in (plain(a.cell, 1), plain(b.cell, 1))
    ]
    truth = whole[0] / whole[1]
    across, within = ratio(a.groups, b.groups), loads.compare(a, b)
    assert across.high / across.low > 3  # so wide are servers apart
    assert within.ratio.high / within.ratio.low < 1.1 and within.ratio.estimate == pytest.approx(truth, rel=0.05)
    assert within.decided


# --- claims of others ------------------------------------------------------------------------------------------------

CUDA, TENSORRT = (f"{runtime}/distilbert/fp32/b1-s128" for runtime in ("onnxruntime-cuda", "onnxruntime-tensorrt"))


def changing(redone):
    """Batches of 1 and 4 in turn; ``redone``: how many times the bare execution they take."""

    def law(cell, clients):
        bare = 1.1 * BARE_MS["fp32"] * (1 + 4 * 4**0.8) / 5  # end to end, by requests
        return Truth(1.0, 1.0, bare * redone[cell], 50.0, {1: 1, 4: 1})

    return law


@pytest.mark.parametrize(
    ("cuda", "tensorrt", "verdict"),
    [(5.0, 1.0, "supported"), (1.0, 1.0, "refuted"), (5.0, 5.0, "refuted"), (1.5, 1.0, "not decidable")],
)
def test_what_is_redone_at_changes_of_the_batch_size(tmp_path, cuda, tensorrt, verdict):
    study = ServedStudy(tmp_path, gpu=True, sizes=(1, 4))
    study.deploy(
        "a", changing({CUDA: cuda, TENSORRT: tensorrt}), cells=(CUDA, TENSORRT), batching=BATCHING, closed=(4,)
    )
    ours = {one.number: judgement for one, judgement in judged(Measured(study.tables()), Evidence())}[17]
    assert ours.verdict == verdict


def test_their_comparison_shows_what_the_server_counted(tmp_path):
    half = "onnxruntime-tensorrt/distilbert/fp16/b1-s128"
    study = ServedStudy(tmp_path, gpu=True, sizes=(1, 4))

    def law(cell, clients):
        return replace(plain(FP32, clients), infer=4.7 if cell == half else 31.1)

    study.deploy("a", law, cells=(CUDA, half), closed=(1,))
    ours = {one.number: judgement for one, judgement in judged(Measured(study.tables()), Evidence())}[10]
    assert "execution 4.7" in ours.ours and "against 31." in ours.ours


@pytest.mark.parametrize(
    ("first", "warm", "verdict"), [(200, 30, "supported"), (20, 10, "refuted"), (200, 150, "refuted")]
)
def test_first_start_against_a_warm_one(tmp_path, first, warm, verdict):
    study = ServedStudy(tmp_path, gpu=True, sizes=(1, 4))
    starts = {"first_start_ns": {"ready": first * 10**9}, "warm_start_ns": {"ready": warm * 10**9}}
    study.deploy("a", lambda cell, clients: plain(FP32, clients), cells=(TENSORRT,), **starts)
    ours = {one.number: judgement for one, judgement in judged(Measured(study.tables()), Evidence())}[13]
    assert ours.verdict == verdict


# --- what did not run ------------------------------------------------------------------------------------------------


def test_what_was_not_measured_says_why(tmp_path):
    study = ServedStudy(tmp_path)
    study.fail(study.deploy("broken"))
    study.unavailable("absent", (FP32, INT8))
    tables = study.tables()
    assert sorted(tables.serving["status"]) == ["failed", "unavailable", "unavailable"]
    assert serving(Measured(tables)) == []
    text = summary(study.plan(), tables, Evidence(), "plots")
    assert "- broken: failed, crashed: the server ended with status 1" in text
    assert "- absent: unavailable, no serving packages (make .venv/serving)." in text
    assert "\n2 deployments were not measured in whole: [Serving](#serving) says why.\n" in text
    for name in SERVING_PLOTS:
        assert NOTHING_TO_SHOW[name](tables)
        plots.draw(name, tables)


def test_the_first_paragraph_counts_deployments_runs_and_requests(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("a", closed=(1, 2))
    study.fail(study.deploy("b"))
    study.unavailable("c")
    text = summary(study.plan(), study.tables(), Evidence(), "plots")
    # 3 servers, each with 2 rounds of 2 loads of 60 requests
    assert "Behind servers: 1 of 3 deployments measured in whole, with 3 runs and 720 requests." in text


def test_a_load_that_nobody_answered_is_a_failure(tmp_path):
    def refused(window):
        if window["concurrency"] != 8:
            return window
        gone = {"latency_ns": [], "answered": 0, "answered_inside": 0, "failed": {"refused": window["sent"]}}
        return window | gone | {"server": {}}

    study = ServedStudy(tmp_path)
    study.deploy("a", change=refused)
    row = served(study.tables(), "a", "8 clients")
    assert (row["status"], row["failures"]) == ("failed", 6 * 60)
    assert row["reason"] == "runtime-error: no request was answered: refused"
    assert "no request was answered" in summary(study.plan(), study.tables(), Evidence(), "plots")


# --- pages -----------------------------------------------------------------------------------------------------------


def test_the_report_draws_what_the_tables_say(tmp_path):
    study = ServedStudy(tmp_path, sizes=(1, 2, 4))
    study.deploy("http", rates=(300,))
    study.deploy("batched", batched, batching=BATCHING)
    study.deploy("http.aa", aa_of="http")
    tables = study.tables()
    (panel,) = served_panels(Measured(tables))
    assert panel["gone"] == "the queue grows: http, onnxruntime-cpu fp32: 300/s"
    loads = [f"{name}, onnxruntime-cpu fp32: {load}" for name in ("http", "batched") for load in LOADS]
    assert list(dict.fromkeys(row["row"] for row in panel["latency"])) == loads, "and nothing of the second one"
    row = served(tables, "batched", "8 clients")
    of = [one for one in panel["latency"] if one["row"] == loads[-1]]
    assert sum(one.get("ms", 0) for one in of) == pytest.approx(row["client_ms"])
    (median,) = [one for one in of if "p50_ms" in one]
    assert (median["low"], median["p50_ms"], median["high"]) == (row["p50_low_ms"], row["p50_ms"], row["p50_high_ms"])
    assert [one["bare_ms"] for one in of if "bare_ms" in one] == [row["bare_ms"]]
    assert {(one["size"], one["share"]) for one in panel["batches"] if one["row"] == loads[-1]} == {("batch 4", 1.0)}
    (point,) = [one for one in panel["throughput"] if (one["deployment"], one["short"]) == ("batched", "8")]
    assert (panel["tail"], point["ms"], point["per_s"]) == ("p95", row["p95_ms"], row["answered_per_s"])


LOADS = ("1 client", "2 clients", "8 clients")


def test_the_report_draws_a_server_that_counts_nothing_as_a_whole(tmp_path):
    study = ServedStudy(tmp_path, runs=1)
    study.deploy("mine", kind="endpoint", change=uncounted)
    (panel,) = served_panels(Measured(study.tables()))
    assert {row["part"] for row in panel["latency"] if "part" in row} == {WHOLE}
    assert not any("low" in row for row in panel["latency"]) and not panel["batches"]
    assert served_panels(Measured(ServedStudy(tmp_path / "none").tables())) == []


def test_a_study_without_servers_has_no_section(tmp_path):
    study = ServedStudy(tmp_path)
    tables = study.tables()
    assert "## Serving" not in summary(study.plan(), tables, Evidence(), "plots")
    assert serving(Measured(tables)) == []
    assert all(NOTHING_TO_SHOW[name](tables) for name in SERVING_PLOTS)


def test_pages_show_deployments(tmp_path):
    study = ServedStudy(tmp_path)
    study.deploy("plain-http", cells=(FP32, INT8), rates=(20.0, 200.0))
    study.deploy("batched-http", batched, cells=(FP32, INT8), batching=BATCHING)
    tables, plan = study.tables(), study.plan()
    short = summary(plan, tables, Evidence(), "plots")
    section = short[short.index("## Serving") : short.index("## Findings")]
    assert "| batched-http (triton, http, batching up to 4, delay 2 ms) |" in section
    assert len(short.splitlines()) <= 150
    note = observations(plan, tables, Evidence(), "plots")
    assert "11. What does serving cost" not in short and "Question: What does serving cost" in note
    assert all(f"(plots/{name}.svg)" in note for name in SERVING_PLOTS)
    html = page(plan, tables, Evidence())
    assert 'id="serving"' in html and "11. What does serving cost" in html
    for name in SERVING_PLOTS:
        assert name in PLOTS and plots.draw(name, tables).axes
