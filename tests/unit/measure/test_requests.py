"""Cells that generate: what is timed of them, what a request's reader waits for, and what follows from that."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import statistics
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from unit.measure import tiny_generator
from unit.measure.tiny_generator import TinyGenerator, make, prompts_of, tokens_after
from unit.record_samples import edited
from unit.report import planted_study as planted
from unit.study.test_study import CONFIG, LAPTOP

from ceilings import plugins, records
from ceilings.errors import CellFailure, UserError
from ceilings.measure import catalogue, worker
from ceilings.measure.cpu_bench import CpuBench
from ceilings.measure.loop import requests as timed_requests
from ceilings.measure.measurements import closed_loop, requests
from ceilings.measure.stopping import Protocol, secondary
from ceilings.models import pool
from ceilings.report.tables.collect import collect
from ceilings.schemas.run import HOST_SPEED, LATENCIES, REQUESTS
from ceilings.study.slices import Slices
from ceilings.study.study import Study
from ceilings.workload import generation
from ceilings.workload.shape import Shape

PROTOCOL = Protocol(
    warmup_seconds=0.005,
    warmup_max_seconds=0.05,
    min_iterations=20,
    min_seconds=0.02,
    max_seconds=0.1,
    precision=0.5,
    saturated_seconds=0.02,
    concurrency=1,
    time_limit_seconds=60,
)
DONE = {"closed-loop": closed_loop, "requests": requests}


class Watched(TinyGenerator):
    """Keeps what was called, and the tokens that came of each launch."""

    def load(self):
        super().load()
        self.seen: list = []

    def begin(self, slot):
        self.seen.append("begin")
        super().begin(slot)

    def prefill(self):
        self.seen.append("prefill")
        super().prefill()

    def launch(self, item):
        self.seen.append(item.position)
        launched = super().launch(item)
        self.seen.append(self.newest.tolist())
        return launched


class Slow(TinyGenerator):
    """Whose prefill takes 20 ms and whose steps 4 ms."""

    def prefill(self):
        time.sleep(0.02)
        super().prefill()

    def step(self):
        time.sleep(0.004)
        super().step()


def bench_of(runner, count=2, protocol=PROTOCOL):
    bench = CpuBench(runner)
    bench.elements = prompts_of(runner.shape, count)
    bench.slots = [runner.place(element) for element in bench.elements]
    bench.protocol, bench.shorter = protocol, secondary(protocol)
    return bench


# --- what is timed ---------------------------------------------------------------------------------------------------


def test_the_generator_gives_what_reading_everything_anew_gives():
    runner = make(TinyGenerator, "b3-p5-g6")
    for element in prompts_of(runner.shape, 2):
        answer = runner.run(runner.place(element))
        np.testing.assert_array_equal(answer.tokens, tokens_after(element["input_ids"], 6))


@pytest.mark.parametrize("count", [1, 3])
def test_an_iteration_is_a_token_and_the_prefill_before_it_is_not_timed(count):
    runner = make(Watched, "b2-p5-g6")
    bench = bench_of(runner, count)
    series = bench.closed_loop(main=True)
    assert set(series) == {*LATENCIES, *HOST_SPEED}
    positions = [call for call in runner.seen if isinstance(call, int)]
    measured = positions[len(series["warmup_ns"]) :]
    assert len(measured) == len(series["latency_ns"]) and len(measured) % 5 == 0
    assert measured == [1, 2, 3, 4, 5] * (len(measured) // 5)
    # The begin and the prefill stand before each first decode step and nowhere else.
    for before, call in itertools.pairwise(runner.seen):
        if isinstance(call, int):
            assert (before == "prefill") == (call == 1)
    last = [call for call in runner.seen if isinstance(call, list)][-len(measured) :]
    for k in range(len(measured) // 5):
        expected = tokens_after(bench.elements[k % count]["input_ids"], 6)[:, 1:].T.tolist()
        assert last[5 * k : 5 * k + 5] == expected


def test_an_iteration_of_one_generated_token_is_the_prefill():
    runner = make(Watched, "b2-p5-g1")
    series = bench_of(runner).closed_loop(main=True)
    assert len(series["latency_ns"]) >= 20
    assert runner.seen[:3] == ["begin", 0, "prefill"]
    assert set(map(str, runner.seen)) & {"1"} == set()


@pytest.mark.timing
def test_the_latency_is_that_of_a_step_and_the_first_token_s_that_of_the_prefill():
    protocol = dataclasses.replace(PROTOCOL, min_iterations=6, max_seconds=0.4)
    steps = bench_of(make(Slow, "b1-p5-g4"), protocol=protocol)
    assert 4e6 <= np.median(steps.closed_loop(main=True)["latency_ns"]) < 8e6
    first = bench_of(make(Slow, "b1-p5-g1"), protocol=protocol)
    assert 20e6 <= np.median(first.closed_loop(main=True)["latency_ns"]) < 30e6
    series = requests.measure(steps)["requests"]
    assert 20e6 <= np.median(series["first_token_ns"]) < 30e6
    assert 4e6 <= np.median(series["per_token_ns"]) < 8e6
    assert 32e6 <= np.median(series["request_ns"]) < 50e6


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["b1-p5-g1", "b2-p5-g2", "b3-p5-g7"])
def test_a_series_of_requests_has_what_it_is_made_of(shape):
    bench = bench_of(make(TinyGenerator, shape))
    before = bench.runner.made
    series = requests.measure(bench)["requests"]
    assert set(series) == set(REQUESTS)
    assert [name for name, check in REQUESTS.items() if check(series[name])] == []
    sizes = Shape.parse(shape)
    count, generated = len(series["request_ns"]), sizes["generated"]
    assert count >= 3 and bench.runner.made - before == count * generated
    assert series["tokens"] == count * generated * sizes.batch
    assert series["cache_bytes"] == sizes.batch * (5 + generated) * tiny_generator.WIDTH * 4
    assert len(series["token_ns"]) == count * (generated - 1)


def test_what_follows_from_known_times():
    """Two requests: gaps of 3, 7, 5, 9 and of 4, 4, 4, 4."""
    times = [[100, 110, 113, 120, 125, 134], [200, 220, 224, 228, 232, 236]]
    assert requests.series(times) == {
        "request_ns": [34, 36],
        "first_token_ns": [10, 20],
        "token_ns": [3, 7, 5, 9, 4, 4, 4, 4],
        "per_token_ns": [6, 4],
        "worst_gap_ns": [9, 4],
        "jitter_ns": [round(7.5 - 4.5), 0],
    }
    two = requests.series([[0, 5, 8], [0, 6, 10]])
    assert (two["per_token_ns"], two["worst_gap_ns"], two["jitter_ns"]) == ([3, 4], [3, 4], [])
    one = requests.series([[0, 5], [7, 9]])
    assert one["first_token_ns"] == one["request_ns"] == [5, 2]
    assert not any(one[name] for name in ("token_ns", "per_token_ns", "worst_gap_ns", "jitter_ns"))


def test_at_least_three_requests_however_slow_and_the_stop_rule_after_that():
    protocol = dataclasses.replace(PROTOCOL, max_seconds=0.01, min_iterations=1000)
    slots: list[int] = []

    def request(slot):
        slots.append(slot)
        start = time.perf_counter_ns()
        time.sleep(0.01)
        return [start, time.perf_counter_ns()]

    polled: list[int] = []
    times, ended, (start, end) = timed_requests(request, [0, 1], protocol, lambda: polled.append(1))
    assert slots == [0, 1, 0] and len(times) == len(polled) == 3
    assert ended["stop_reason"] == "time-cap" and ended["elapsed_ns"] == end - start
    assert start <= times[0][0] and times[-1][-1] <= end


def test_a_request_that_gives_fewer_tokens_is_no_measurement():
    bench = bench_of(make(TinyGenerator, "b1-p5-g4"))
    whole = bench.runner.request
    bench.runner.request = lambda slot: whole(slot)[:-1]
    with pytest.raises(RuntimeError, match="a request gave 3 tokens, and was asked for 4"):
        requests.measure(bench)


def test_requests_are_measured_of_what_generates_alone():
    def names(*arguments):
        return [one.name for one in catalogue.chosen(*arguments)]

    assert names("cuda", None, "generation") == ["closed-loop", "requests"] == names("cpu", None, "generation")
    assert names("cuda", ["requests", "boundaries"]) == ["closed-loop", "boundaries"]
    assert names("cuda", ["boundaries"], "generation") == ["closed-loop"]
    modules = catalogue.modules("cuda", None, "generation")
    assert modules[-1] == "ceilings.measure.measurements.requests" and len(modules) == 5
    assert "ceilings.measure.measurements.requests" not in catalogue.modules("cuda")


def test_a_record_depends_on_the_measurements_of_its_task():
    """Those of other models' cells stay as they were."""
    study = Study(CONFIG, LAPTOP)
    real = study.slices.models

    class Models:
        def __getattr__(self, name):
            return getattr(real, name)

        def outline(self, model):
            return dataclasses.replace(real.outline(model), task="text-generation")

    slices = Slices(study.config, study.slices.machines, Models(), "cupti")
    as_is, generating = (json.loads(one.measure("torch-eager", "m", "fp32")) for one in (study.slices, slices))
    assert as_is["measurements"] == [["closed-loop", "closed_loop"], ["saturated", "saturated"]]
    assert generating["measurements"] == [["closed-loop", "closed_loop"], ["requests", "requests"]]
    asked = {**CONFIG, "protocol": {"measurements": ["requests"]}}
    asked = json.loads(Study(asked, LAPTOP).slices.measure("torch-eager", "m", "fp32"))
    assert asked["measurements"] == [["closed-loop", "closed_loop"]]


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_gpu(diary, monkeypatch):
    """A bench by whether the stream is hidden, and what measures power: 200 W, always."""
    pytest.importorskip("cuda.bindings")
    from ceilings import gpu
    from ceilings.cuda import device as cuda
    from ceilings.cuda.monitor import Sample
    from ceilings.measure import cuda_bench
    from ceilings.measure.cuda_bench import CudaBench
    from ceilings.runtimes.cuda_runner import CudaRunner

    class OnGpu(tiny_generator.Steps, CudaRunner):
        def load(self):
            super().load()
            self.stream = types.SimpleNamespace(native="stream", synchronize=lambda: diary.append("wait"))

        def output_pointers(self, launched):
            return ()

        def begin(self, slot):
            diary.append("begin")
            super().begin(slot)

        def prefill(self):
            diary.append("prefill")
            super().prefill()

        def step(self):
            diary.append("step")
            super().step()

    class Hidden(OnGpu):
        stream_hidden = True

    class Waits(OnGpu):
        transfers_inside = True

    def refuse():
        raise cuda.CudaError("no device")

    monkeypatch.setattr(cuda_bench, "ENERGY_SECONDS", 0.0)
    monkeypatch.setattr(gpu, "visible", refuse)
    monkeypatch.setattr(cuda, "call_costs", lambda _: {"clock_ns": 1.0})
    monkeypatch.setattr(cuda, "Stream", lambda: None)

    def made(shape, hidden=False, waits=False):
        bench = CudaBench(make(Hidden if hidden else Waits if waits else OnGpu, shape))
        now = time.perf_counter_ns()
        empty = dict.fromkeys(field.name for field in dataclasses.fields(Sample))
        samples = [
            Sample(**empty | {"t_ns": now + k * 25_000_000, "energy_j": 200 * k * 0.025, "cost_s": 0.0})
            for k in range(-4, 400)
        ]
        bench._monitor = types.SimpleNamespace(samples=samples, poll=lambda: None, refused={}, processes={})
        elements = prompts_of(bench.runner.shape, 2)
        return bench, [bench.runner.place(element) for element in elements], elements

    return made


def test_a_step_is_timed_on_its_stream_and_the_prefill_is_over_before(on_gpu, diary):
    bench, slots, elements = on_gpu("b2-p5-g3")
    record = bench.measure(slots, elements, PROTOCOL, DONE)
    at = diary.index("record")
    step = ["wait", "record", "step", "record", "wait", "elapsed"]
    assert diary[at - 3 : at + 11] == ["begin", "prefill", *step, *step]
    latency = record["series"]["latency"]
    assert len(latency["gpu_ns"]) == len(latency["enqueue_ns"]) == len(latency["latency_ns"])
    assert len(latency["latency_ns"]) % 2 == 0


def test_a_call_that_waits_says_nothing_of_submitting_and_needs_no_flag(on_gpu):
    """Every token travels to the host: that is no peculiarity of this runtime."""
    bench, slots, elements = on_gpu("b2-p5-g3", waits=True)
    record = bench.measure(slots, elements, PROTOCOL, DONE)
    latency = record["series"]["latency"]
    assert latency["enqueue_ns"] is None and len(latency["gpu_ns"]) == len(latency["latency_ns"])
    assert record["flags"] == []


def test_a_hidden_stream_leaves_the_host_s_clock_alone(on_gpu, diary):
    bench, slots, elements = on_gpu("b2-p5-g3", hidden=True)
    record = bench.measure(slots, elements, PROTOCOL, DONE)
    latency = record["series"]["latency"]
    assert latency["gpu_ns"] is None and latency["enqueue_ns"] is None and len(latency["latency_ns"]) >= 20
    assert set(latency) == {*LATENCIES, *HOST_SPEED} and not {"record", "wait", "elapsed"} & set(diary)
    assert [name for name, check in LATENCIES.items() if check(latency[name])] == []


def test_joules_are_those_of_whole_requests_and_never_of_steps_with_prefills_between(on_gpu):
    protocol = dataclasses.replace(PROTOCOL, min_seconds=1.6, max_seconds=1.6)
    bench, slots, elements = on_gpu("b2-p5-g3")
    energy = bench.measure(slots, elements, protocol, DONE)["energy"]
    series = requests.facts(bench, 1, 3)
    assert energy["latency"] is None
    assert energy["requests"]["inferences"] % series["tokens"] == 0
    assert energy["requests"]["mean_watts"] == pytest.approx(200, rel=0.01)
    each = energy["requests"]["seconds"] * 200 / energy["requests"]["inferences"]
    assert energy["requests"]["joules_per_inference"] == pytest.approx(each, rel=0.01)
    first, slots, elements = on_gpu("b2-p5-g1")
    assert first.measure(slots, elements, protocol, DONE)["energy"]["latency"]["mean_watts"] == pytest.approx(200, 0.01)


def test_requests_are_repeated_until_the_counter_bounds_their_energy(on_gpu, monkeypatch):
    from ceilings.measure import cuda_bench

    bench, slots, elements = on_gpu("b2-p5-g3")
    record = bench.measure(slots, elements, PROTOCOL, DONE)
    assert record["energy"]["requests"] is None
    assert record["gpu"]["refused"]["energy of requests"].startswith(
        "the counter does not bound it within 25% over 0.0"
    )
    assert "energy of latency" not in record["gpu"]["refused"]  # steps have no energy, however long they are measured
    monkeypatch.setattr(cuda_bench, "ENERGY_SECONDS", 0.6)
    bench, slots, elements = on_gpu("b2-p5-g3")
    record = bench.measure(slots, elements, PROTOCOL, DONE)
    assert 0.6 <= record["series"]["requests"]["elapsed_ns"] / 1e9 < 0.9
    # A reading each 25 ms: at either end the counter is known between the reading before and the one after.
    assert record["energy"]["requests"]["uncertainty"] < 4 * 0.025 / 0.6
    bench, slots, elements = on_gpu("b2-p5-g3")
    bench._monitor.refused["energy_j"] = "not supported"  # then nothing is gained by waiting
    record = bench.measure(slots, elements, PROTOCOL, DONE)
    assert record["series"]["requests"]["elapsed_ns"] / 1e9 < 0.3


@pytest.mark.parametrize("hidden", [False, True])
def test_a_capture_marks_steps_and_no_prefill(on_gpu, diary, hidden):
    from ceilings.measure.gpu_loop import Regime
    from ceilings.traces import target

    bench, slots, _ = on_gpu("b1-p5-g4", hidden)
    runner = bench.runner
    items, whole = runner.iterations(slots), len(runner.iterations(slots[:1]))
    regime, marks = (
        Regime(runner.activate, runner.launch, items, whole),
        (lambda: diary.append("{"), lambda: diary.append("}")),
    )
    target.iterate(regime, runner.exposed_stream, 7, marks)
    text = " ".join(call for call in diary if hidden or call != "elapsed")
    inside = [part.split("}")[0].split() for part in text.split("{")[1:]]
    assert inside == [["step"] if hidden else ["step", "record", "wait"]] * 7
    assert text.count("begin prefill") == 3 == diary.count("prefill")
    # Of a longer request the middle: two steps before, then the marked ones go on.
    diary.clear()
    target.iterate(regime, runner.exposed_stream, 1, (lambda: None, lambda: None))
    target.iterate(regime, runner.exposed_stream, 1, marks, first=1)
    assert diary.count("prefill") == 1 and diary.count("step") == 2 and diary.count("{") == 1
    assert [target.lead(*sizes) for sizes in ((1, 50), (31, 100), (100, 31), (512, 2))] == [0, 0, 34, 255]


# --- in a record and in the tables -----------------------------------------------------------------------------------


def planted_cell(folder, shape="b4-p16-g9", runs=3, count=40):
    """A cell that generates, its times drawn; and the times of each process."""
    maker = planted.StudyMaker(folder, runs=runs)
    cell = maker.add(planted.GPU, "torch-cuda-eager", "fp16", 4, 128, n=64)
    sizes = Shape.parse(shape)
    cell["shape"], cell["axes"] = shape, dict(sizes.sizes)
    random = np.random.default_rng(0)
    every = []
    for run in range(1, runs + 1):
        gaps = (1e6 * np.exp(random.normal(0, 0.1, (count, sizes["generated"] - 1)))).astype(int)
        firsts = (8e6 * np.exp(random.normal(0, 0.1, (count, 1)))).astype(int)
        times = np.cumsum(np.hstack([np.full((count, 1), 10**9), firsts, gaps]), 1)
        every.append(times)
        tokens = count * sizes.batch * sizes["generated"]
        made = {
            **requests.series(times.tolist()),
            **{"batch": sizes.batch, "generated": sizes["generated"], "tokens": tokens, "cache_bytes": 50_000_000},
            **{"stop_reason": "precise", "elapsed_ns": int((times[:, -1] - times[:, 0]).sum()) + 1000},
        }
        record = records.read(cell["runs"][run - 1], "run")
        series = {"latency": record["series"]["latency"], "requests": made}
        energy = {"requests": {"joules_per_inference": 0.02 * run, "inferences": tokens, "uncertainty": 0.01 * run}}
        changes = {"cell": {**record["cell"], "shape": shape}, "series": series, "energy": energy}
        records.write(cell["runs"][run - 1], "run", record | changes, indent=None)
    return maker, every


def logs(values):
    return math.exp(statistics.median(math.log(value) for value in values))


def test_every_quantity_follows_from_the_times(tmp_path):
    maker, every = planted_cell(tmp_path)
    tables = collect(maker.plan())
    row = tables.cells.iloc[0]
    whole = logs(statistics.median(r[-1] - r[0] for r in times.tolist()) for times in every) / 1e6
    between = [[[b - a for a, b in itertools.pairwise(r[1:])] for r in times.tolist()] for times in every]
    expected = {
        "request_p50_ms": whole,
        "first_token_p50_ms": logs(statistics.median(r[1] - r[0] for r in times.tolist()) for times in every) / 1e6,
        "per_token_p50_ms": logs(statistics.median(sum(gaps) / 8 for gaps in each) for each in between) / 1e6,
        "worst_gap_ms": logs(statistics.median(map(max, each)) for each in between) / 1e6,
        "token_p99_ms": sorted(gap for each in between for gaps in each for gap in gaps)[int(0.99 * 959)] / 1e6,
        "tokens_per_s": 9e3 / whole,
        "total_tokens_per_s": 36e3 / whole,
        "token_j": 0.04,
        "tokens_per_j": 25.0,
        "token_j_error": 0.03,
        "cache_mb": 50.0,
        "peak_without_cache_mb": 850.0,
    }
    expected["jitter_ms"] = logs(statistics.median(map(middle_half, each)) for each in between) / 1e6
    within = {"token_p99_ms": 5e-3, "jitter_ms": 1e-5}  # other ranks; whole nanoseconds
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=within.get(name, 1e-6)), name
    for stem in ("request_p50", "first_token_p50", "per_token_p50", "token_p99"):
        assert row[f"{stem}_low_ms"] < row[f"{stem}_ms"] < row[f"{stem}_high_ms"], stem
    declared = {one.column for one in catalogue.REQUESTS.quantities}
    assert declared == set(expected)
    samples = tables.samples[tables.samples["series"] == "token"]
    assert len(samples) == 3 * 40 * 8


def middle_half(gaps):
    """The interquartile range of eight values, by linear interpolation between ranks."""
    ordered = sorted(gaps)
    low = ordered[1] + 0.75 * (ordered[2] - ordered[1])
    return ordered[5] + 0.25 * (ordered[6] - ordered[5]) - low


def test_of_one_generated_token_there_are_no_gaps(tmp_path):
    maker, _ = planted_cell(tmp_path, "b4-p16-g1")
    row = collect(maker.plan()).cells.iloc[0]
    assert row["first_token_p50_ms"] == row["request_p50_ms"] > 0
    missing = ("per_token_p50_ms", "token_p99_ms", "jitter_ms", "worst_gap_ms", "token_p99_low_ms")
    assert row[list(missing)].isna().all()


def test_too_few_gaps_bound_no_percentile(tmp_path):
    maker, _ = planted_cell(tmp_path, "b4-p16-g3", count=4)
    assert np.isnan(float(collect(maker.plan()).cells.iloc[0]["token_p99_ms"] or np.nan))


@pytest.mark.parametrize(
    ("place", "value", "flaw"),
    [
        (("tokens",), 7, "40 requests of b4-p16-g9 do not give 7 tokens"),
        (("generated",), 8, "its requests are of 8 tokens for 4 prompts, and its shape is b4-p16-g9"),
        (("batch",), 2, "its requests are of 9 tokens for 2 prompts"),
        (("token_ns", 3), 5, "request 0 took [0-9]+ ns, and its tokens [0-9]+ ns"),
        (("token_ns",), [5], "1 token_ns beside 40 requests of 9 tokens"),
        (("jitter_ns",), [], "0 jitter_ns beside 40 requests"),
        (("jitter_ns", 1), 10**9, "the gaps of request 1 do not differ by 1000000000 ns"),
        (("per_token_ns", 2), 5, "request 2 took 5 ns a token, and its gaps say"),
        (("worst_gap_ns", 1), 5, "the longest gap of request 1 is [0-9]+ ns, not 5 ns"),
        (("first_token_ns", 0), 10**12, "request 0 took [0-9]+ ns, and its tokens"),
        (("elapsed_ns",), 5, "its requests add up to [0-9]+ ns, more than the 5 ns that they took"),
        (("cache_bytes",), -1, "cache_bytes is -1; it must be"),
        (("token_ns", 3), 0, r"token_ns\[3\] is 0; it must be"),
        (("request_ns",), [], "request_ns is an empty list"),
    ],
)
def test_requests_that_cannot_be_are_refused(tmp_path, place, value, flaw):
    maker, _ = planted_cell(tmp_path)
    edited(Path(maker.cells[0]["runs"][1]), "series", "requests", *place, value=value)
    with pytest.raises(UserError, match=flaw):
        collect(maker.plan())


def test_a_prefill_before_each_step_is_no_gap_in_a_cpu_s_loop(tmp_path):
    """A loop of steps may take much longer than its latencies; one of inferences may not."""
    maker, _ = planted_cell(tmp_path)
    for run in (1, 2, 3):
        record = records.read(maker.cells[0]["runs"][run - 1], "run")
        latency = record["series"]["latency"]
        latency |= {"gpu_ns": None, "enqueue_ns": None, "elapsed_ns": 5 * latency["elapsed_ns"]}
        latency["stop_reason"] = Protocol.from_json(record["protocol"]).stop_reason(
            latency["latency_ns"], latency["elapsed_ns"]
        )
        maker.change(maker.cells[0], run, series=record["series"] | {"latency": latency})
    row = collect(maker.plan()).cells.iloc[0]
    assert row["p50_ms"] > 0 and np.isnan(float(row["gpu_p50_ms"] or np.nan))


# --- the process that measures ---------------------------------------------------------------------------------------


def test_the_cold_start_ends_with_the_first_token():
    runner = make(Watched, "b1-p5-g6")
    slot = runner.place(prompts_of(runner.shape, 1)[0])
    assert runner.first(slot) is None
    assert runner.seen == ["begin", "prefill"] and runner.made == 1
    assert runner.run(slot).tokens.shape == (1, 6) and runner.made == 7 and runner.runs_ns == []


def test_what_the_runtime_raises_is_turned_by_its_runner():
    class Fails(TinyGenerator):
        def prefill(self):
            raise CellFailure("out-of-memory", "too large")

        def failures(self):
            entered.append(1)
            return self.phase("failing")

    entered: list[int] = []
    runner = make(Fails, "b1-p5-g2")
    for call in (runner.first, runner.run):
        with pytest.raises(CellFailure, match="too large"):
            call(prompts_of(runner.shape, 1)[0]["input_ids"])
    assert len(entered) == 2


def test_a_cell_that_generates_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    """A plug-in's runtime, so that the path is whole: inputs, first token, parity, closed loop, requests."""
    pytest.importorskip("ceilings.graphs.token_parity")
    from ceilings.graphs.token_parity import scored
    from ceilings.measure.supervisor import supervise
    from ceilings.measure.text_judge import verdict

    folder = tmp_path / "mine"
    (folder / "runtimes").mkdir(parents=True)
    (folder / "catalogue.py").write_text("")
    shutil.copy(tiny_generator.__file__, folder / "runtimes/tiny_generator.py")
    monkeypatch.setenv(plugins.VARIABLE, str(folder))
    task = task_of(tmp_path, Shape.parse("b2-p5-g6"))
    record = supervise(task)
    assert record["status"] == "ok", record["failure"]
    assert list(record["series"]) == ["latency", "requests"]
    assert {"load", "first_run"} <= set(record["cold_start_ns"])
    inputs = pool.digest(pool.load_pool(task["inputs"]))
    assert record["texts"] == {"weights": None, "inputs": inputs, "tokens": [], "places": []}
    assert record["parity"]["texts"] is None
    read = verdict([{**record, "run": 1, "digest": "ab" * 32}], task)["runs"]["1"]
    assert (read["texts"], scored(record["parity"], read)["top1_agreement"]) == (0, 1)
    assert record["cold_start_ns"]["first_run"] < min(record["series"]["requests"]["request_ns"]) * 1000


def test_a_runner_that_goes_wrong_while_it_is_timed_gets_no_number(tmp_path, monkeypatch):
    """Right requests before the timed part say nothing of a cache that the timed ones spoil."""

    class Spoiled(TinyGenerator):
        begun = 0

        def begin(self, slot):
            super().begin(slot)
            self.begun += 1
            if self.begun == 6:  # the third request after the two that are compared and the first answer
                self.embeddings = np.roll(self.embeddings, 1, 0)

    monkeypatch.setattr(tiny_generator, "RUNNER", Spoiled)
    monkeypatch.setitem(sys.modules, "ceilings.runtimes.tiny_generator", tiny_generator)
    record = worker.measure(task_of(tmp_path, Shape.parse("b2-p5-g6")))
    assert (record["status"], record["failure"]["kind"], record["series"]) == ("failed", "parity", {})
    assert record["failure"]["message"].startswith("after the timed part, ")
    assert record["parity"]["token_agreement"] == 1  # as it was before


def test_texts_of_before_and_after_the_timed_part_are_handed_over(tmp_path, monkeypatch):
    """The reference reads them afterwards: here those of a runner whose last step goes wrong when it is timed."""

    class Late(TinyGenerator):
        begun = 0

        def begin(self, slot):
            super().begin(slot)
            self.begun += 1

        def step(self):
            super().step()
            if self.begun >= 6 and self.length == 5 + 5:
                self.newest = (self.newest + 1) % tiny_generator.VOCABULARY

    monkeypatch.setattr(tiny_generator, "RUNNER", Late)
    monkeypatch.setitem(sys.modules, "ceilings.runtimes.tiny_generator", tiny_generator)
    record = worker.measure(task_of(tmp_path, Shape.parse("b2-p5-g6")))
    right = np.load(tmp_path / "reference.npz")["output/tokens"].reshape(-1, 6)
    right[:, -1] = (right[:, -1] + 1) % tiny_generator.VOCABULARY
    assert record["texts"]["places"] == [[element, row] for element in range(3) for row in range(2)]
    assert record["texts"]["tokens"] == right.tolist()


def task_of(folder, shape, count=3):
    """A worker's task, with its files: the reference by reading everything anew."""
    elements = prompts_of(shape, count)
    arrays = {"input_ids": np.stack([element["input_ids"] for element in elements])}
    named = {f"{pool.PREFIX}{name}": array for name, array in arrays.items()}
    seal = np.array(pool.sealed(arrays, "random", 1.0))
    pool.save(folder / "inputs.npz", **named, sha256=seal, source=np.array("random"), real_share=np.array(1.0))
    pool.save_outputs(folder / "reference.npz", reference(elements, shape), pool.digest(arrays))
    tiny_generator.WORKLOAD.write(folder)
    (folder / "model").mkdir()
    (folder / "model/model.safetensors").write_bytes(b"")
    cell = {"device": "cpu-here", "runtime": "tiny", "model": "tiny", "precision": "fp32", "shape": str(shape)}
    protocol = dataclasses.asdict(PROTOCOL)
    return {
        "cell": cell,
        "spec": {
            **{"module": "tiny_generator", "options": {}, "packages": {}, "threads": 1, "tolerance": 1e-3},
            **{"protocol": protocol, "measurements": catalogue.task_entries("cpu", None, "generation")},
        },
        **{"artifact": str(folder / "model"), "inputs": str(folder / "inputs.npz")},
        **{"reference": str(folder / "reference.npz"), "workload": str(folder / "workload.json")},
    }


def reference(elements, shape):
    rows, checked = min(shape.batch, generation.CHECKED_ROWS), min(shape["generated"], generation.CHECKED_STEPS)
    made = {"tokens": [], "logits": []}
    for element in elements:
        ids, every = element["input_ids"], []
        for _ in range(shape["generated"]):
            every.append(tiny_generator.logits_of(ids))
            ids = np.concatenate([ids, every[-1].argmax(1)[:, None]], 1)
        logits = np.stack(every, 1)
        made["tokens"].append(ids[:, shape["prompt"] :])
        made["logits"].append(logits[:rows, :checked].astype(np.float32))
    return {name: np.stack(parts) for name, parts in made.items()}
