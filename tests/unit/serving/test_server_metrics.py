"""What servers count, read from text that real ones gave: eight requests in two batches, of Triton and embedded."""

import dataclasses
import json
from pathlib import Path

import pytest

from ceilings.serving.servers.metrics import (
    Counters,
    MetricsError,
    counters,
    disagreement,
    requests_by_model,
    samples,
    sizes,
    statistics_counters,
    statistics_entry,
    statistics_requests,
    statistics_sizes,
)

DATA = Path(__file__).parent / "data"
TRITON = (DATA / "triton_metrics.txt").read_text()
EMBEDDED = (DATA / "embedded_metrics.txt").read_text()
STATISTICS = json.loads((DATA / "triton_statistics.json").read_text())


def test_tritons_counters_are_those_of_one_model_in_ns():
    of = counters(TRITON, "joined")
    assert (of.requests, of.failures, of.executions, of.inferences) == (8, 0, 2, 8)
    assert (of.request_ns, of.queue_ns, of.compute_infer_ns) == (465_368_000, 227_419_000, 230_016_000)
    assert (of.compute_input_ns, of.compute_output_ns) == (1_376_000, 6_488_000)
    assert counters(TRITON, "plain", "1").requests == 3


def test_failures_of_every_reason_count():
    text = TRITON.replace('plain",reason="BACKEND",version="1"} 0', 'plain",reason="BACKEND",version="1"} 2')
    text = text.replace('plain",reason="REJECTED",version="1"} 0', 'plain",reason="REJECTED",version="1"} 1')
    assert counters(text, "plain").failures == 3


def test_the_embedded_servers_counters_and_sizes():
    of = counters(EMBEDDED, "joined")
    assert (of.requests, of.failures, of.executions, of.inferences) == (8, 0, 2, 8)
    assert (of.queue_ns, of.request_ns) == (19_225_371, 77_673_347)
    assert sizes(EMBEDDED, "joined") == {4: 2}
    assert sizes(EMBEDDED, "plain") == {1: 3}


def test_the_parts_of_a_request_are_no_longer_than_it():
    for text in (TRITON, EMBEDDED):
        for model in ("joined", "plain"):
            of = counters(text, model)
            parts = (of.queue_ns, of.compute_input_ns, of.compute_infer_ns, of.compute_output_ns)
            assert 0 < sum(parts) <= of.request_ns


MLSERVER = """\
# TYPE model_infer_request_success_total counter
model_infer_request_success_total{model="a",version=""} 4.0
# TYPE model_infer_request_failure_total counter
model_infer_request_failure_total{model="a",version=""} 1.0
# TYPE model_infer_request_duration summary
model_infer_request_duration_count{model="a",version=""} 4.0
model_infer_request_duration_sum{model="a",version=""} 0.5
"""


def test_an_mlserver_counts_requests_and_no_times():
    assert counters(MLSERVER, "a") == Counters(requests=4, failures=1)
    assert counters(MLSERVER, "b") == Counters(requests=0, failures=0)  # not asked yet
    assert requests_by_model(MLSERVER) == {"a/": 5}


@pytest.mark.parametrize(
    ("text", "models"), [(TRITON, {"plain/1": 3, "joined/1": 8}), (EMBEDDED, {"plain/1": 3, "joined/1": 8})]
)
def test_requests_of_every_model_are_those_of_each(text, models):
    assert requests_by_model(text) == models
    assert requests_by_model("http_requests 3\n") is None


def test_statistics_count_requests_of_every_model():
    (entry,) = STATISTICS["model_stats"]
    counted = statistics_counters(entry)
    assert statistics_requests(STATISTICS) == {
        f"{entry['name']}/{entry['version']}": counted.requests + counted.failures
    }


def test_a_server_of_another_kind_gives_nothing_and_a_known_one_names_its_models():
    assert counters("http_requests 3\n", "joined") == Counters()
    with pytest.raises(MetricsError, match=r"counts nothing of absent; it has .*'joined'"):
        counters(TRITON, "absent")
    with pytest.raises(MetricsError, match="counts nothing of joined/2"):
        counters(TRITON, "joined", "2")


def test_statistics_say_the_same_as_metrics():
    entry = statistics_entry(STATISTICS, "joined", "1")
    assert statistics_sizes(entry) == {4: 2}
    assert disagreement(counters(TRITON, "joined"), statistics_counters(entry)) is None


@pytest.mark.parametrize(("field", "more"), [("requests", 1), ("executions", 1), ("queue_ns", 20_000)])
def test_accounts_that_differ_by_more_than_rounding_are_named(field, more):
    theirs = statistics_counters(statistics_entry(STATISTICS, "joined"))
    other = dataclasses.replace(theirs, **{field: getattr(theirs, field) + more})
    assert field in disagreement(counters(TRITON, "joined"), other)


def test_statistics_without_the_model_are_an_error():
    for answer in ({}, {"model_stats": []}, STATISTICS | {"model_stats": [{"name": "other"}]}):
        with pytest.raises(MetricsError, match="nothing of joined"):
            statistics_entry(answer, "joined")


def test_a_difference_is_taken_field_by_field():
    before, now = Counters(requests=3, queue_ns=10), Counters(requests=8, queue_ns=25, failures=1)
    assert now - before == Counters(requests=5, queue_ns=15)  # what one look lacks has no difference


def test_a_counter_that_fell_means_another_server():
    with pytest.raises(MetricsError, match="requests fell from 8 to 3"):
        Counters(requests=3) - Counters(requests=8)


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ("n 3", {}, 3.0),
        ("n{} 1e3 1395066363000", {}, 1000.0),
        ('n{a="x,y",b="}"} 2', {"a": "x,y", "b": "}"}, 2.0),
        (r'n{a="q\"\\\n",} 0', {"a": 'q"\\\n'}, 0.0),
        ("n +Inf", {}, float("inf")),
    ],
)
def test_lines_of_the_format(line, labels, value):
    (one,) = samples(f"# TYPE n counter\n\n{line}\n")
    assert (one.name, one.labels, one.value) == ("n", labels, value)


@pytest.mark.parametrize("line", ["<html>", "n", 'n{a="x} 3', "n{a=x} 3", "n three", 'n{a="x" b="y"} 1'])
def test_what_is_no_line_of_it_is_refused(line):
    with pytest.raises(MetricsError, match="no line of Prometheus"):
        list(samples(line))
