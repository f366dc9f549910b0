"""Kernels laid to layers of a real engine. The kernels are planted: TensorRT for RTX builds here and runs nowhere here.

The engine's own tactics name them, in the ways that captures published by others show: a tactic as it is
(``__myl_..._0x...``), with an ending (``sm80_xmma_gemm_..._execute_kernel_trt``), or within a template. Layer j takes
j + 1 us, so a time tells whose it is.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit import planted_records
from unit.engines.conftest import graphs, spec  # noqa: F401
from unit.traces import planted as planted_cells
from unit.traces.events import Events

from ceilings import records
from ceilings.engines import produce
from ceilings.files import read_json
from ceilings.report.render import time_account as where
from ceilings.report.tables.collect import collect
from ceilings.traces import engine_layers as layers
from ceilings.traces import store
from ceilings.traces.alignment import aligned

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"
STUB = "__myelin_CASK_STUB"


@pytest.fixture(scope="module")
def folder(graphs, spec, tmp_path_factory):  # noqa: F811
    """A real engine with what TensorRT tells of it."""
    path = tmp_path_factory.mktemp("engine")
    produce.produce(spec(), graphs["fp16"], path / "x.engine", precision="fp16", device="sm-8.9")
    return path


@pytest.fixture
def description(folder):
    return copy.deepcopy(read_json(folder / "x.layers.json"))


def kernel_of(entry):
    """What a capture would show: the tactic; for what is chosen on the user's machine, a name that is given nowhere."""
    tactic = entry["TacticName"]
    if tactic == STUB:
        return "nvjet_sm89_hsh_64x64"
    return tactic or f"{entry['Name'].rsplit('_myl', 1)[0]}_0x0123456789abcdef"


def planted(description):
    """(kernel, length in us, its layer's index), in order."""
    return [(kernel_of(entry), number + 1, number) for number, entry in enumerate(description["Layers"])]


def capture(kernels, graph=False, iterations=3, streams=1, text=None):
    """A capture that runs ``kernels`` in each iteration; ``text`` of a kernel's layer is the range round its launch."""
    events, now = Events(), 0.0
    for _ in range(iterations):
        begin, device, nodes = now, now + 20, []
        for layer, placed_here in itertools.groupby(enumerate(kernels), key=lambda placed: placed[1][2]):
            entered = now + 1
            for place, (name, length, _layer) in placed_here:
                now += 2
                kernel = (device, device + length, name, 7 + place % streams)
                device += length + 1
                if graph:
                    nodes.append((*kernel, place + 1))
                else:
                    events.launch(now, now + 1, kernel)
            if text:
                events.mark(entered, now + 1.5, text=text(layer))
        events.mark(begin + 0.5, now + 6, text="ExecutionContext::enqueue")
        if graph:
            events.launch(now + 2, now + 5, *nodes, name="cudaGraphLaunch_v10000")
            if text:
                events.mark(now + 1.8, now + 5.5, text=text(0))
        now = max(now + 6, device) + 5
        events.mark(begin, now)
        now += 5
    return events.capture(iterations=iterations)


def join(description, kernels, times=None, **how):
    return layers.join(capture(kernels, **how), layers.Engine(description), times)


def wrong(joined, kernels):
    """Layers with another time than that of their own kernels."""
    expected = [sum(length for _, length, layer in kernels if layer == index) for index in range(len(joined["each"]))]
    return [
        one["name"]
        for one, us in zip(joined["each"], expected, strict=True)
        if one["ns"] is not None and one["ns"] != us * 1e3
    ]


@pytest.mark.parametrize("graph", [False, True])
def test_every_layer_has_its_own_kernel(description, graph):
    kernels = planted(description)
    joined = join(description, kernels, graph=graph)
    assert joined["matched_share"] == 1 and joined["unmatched"] == [] and wrong(joined, kernels) == []
    by_kind = {(one["type"], one["evidence"]) for one in joined["each"]}
    assert by_kind == {("kgen", "tactic"), ("gemm", "between"), ("runtime_fusion", "name")}
    assert sum(joined["evidence_shares"].values()) == pytest.approx(1)
    assert sum(one["share"] for one in joined["each"]) == pytest.approx(1)
    attention = [one for one in joined["each"] if one["name"].startswith("_gemm_mha")]
    assert {one["precision"] for one in attention} == {"fp16"}
    assert any(node.endswith("layer.0/attention/MatMul") for node in attention[0]["nodes"])


def test_nobody_gets_a_wrong_time_where_layers_have_no_kernel(description):
    """Three layers in a row of each Transformer layer share two tactics, and both Transformer layers most of theirs."""
    kernels, matched = planted(description), []
    for seed in range(200):
        chosen = random.Random(seed)
        present = [kernel for kernel in kernels if chosen.random() > 0.02 * (1 + seed % 10)]
        joined = join(description, present, graph=bool(seed % 2), iterations=1)
        assert wrong(joined, present) == [] and joined["in_order_share"] == 1
        matched.append(joined["matched_share"])
    assert min(matched) < 0.8 < float(np.median(matched))


def test_kernels_in_another_order_have_a_layer_only_where_no_other_has_their_name(description):
    kernels = planted(description)
    tactics = [entry["TacticName"] for entry in description["Layers"]]
    alone = {
        entry["Name"]
        for entry in description["Layers"]
        if tactics.count(entry["TacticName"]) == 1 or "Fc" in entry["Name"]
    }
    swapped = [kernels[5], *kernels[1:5], kernels[0], *kernels[6:]]
    shuffled = random.Random(3).sample(kernels, len(kernels))
    for other in (swapped, shuffled, kernels[::-1]):
        joined = join(description, other)
        assert wrong(joined, kernels) == [] and joined["in_order_share"] == 0 == joined["evidence_shares"]["between"]
        assert 0.2 < joined["matched_share"] < 0.6
        assert {one["name"] for one in joined["each"] if one["evidence"]} <= alone
    assert "and 0.0% of the iterations ran in the order of the layers" in where.layers(joined)


def test_kernels_on_several_streams_need_a_name_that_one_layer_has(description):
    kernels = planted(description)
    joined = join(description, kernels, graph=True, streams=2)
    tactics = [entry["TacticName"] for entry in description["Layers"]]
    alone = {entry["Name"] for entry in description["Layers"] if tactics.count(entry["TacticName"]) == 1}
    assert {one["name"] for one in joined["each"] if one["evidence"]} <= alone and wrong(joined, kernels) == []
    assert joined["evidence_shares"]["between"] == 0 < joined["evidence_shares"]["tactic"]


def test_a_layer_may_have_many_kernels(description):
    """As a subgraph that TensorRT does not tell apart; the layers round it say where it begins and ends."""
    kernels = planted(description)
    description["Layers"][7:10] = [{"Name": "{ForeignNode[a...b]}", "LayerType": "Myelin", "Metadata": ""}]
    inside = [(f"__myl_bb0_{k}_MulAdd", 5, 7) for k in range(30)]
    after = [(name, length, layer - 2) for name, length, layer in kernels[10:]]
    joined = join(description, [*kernels[:7], *inside, *after])
    foreign = joined["each"][7]
    # What follows it is a product without a tactic: it and the subgraph cannot be distinguished.
    assert foreign["evidence"] is None and joined["each"][8]["evidence"] is None
    assert joined["unmatched_ns"] == 30 * 5_000 + 11_000
    description["Layers"][8]["TacticName"] = "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64"
    after[0] = (f"{description['Layers'][8]['TacticName']}_execute_kernel_trt", *after[0][1:])
    joined = join(description, [*kernels[:7], *inside, *after])
    foreign = joined["each"][7]
    assert (foreign["evidence"], foreign["kernels"], foreign["ns"]) == ("between", 30, 150_000)
    assert joined["matched_share"] == 1


def test_the_longest_tactic_counts_and_what_ends_a_product_is_part_of_it(description):
    kernels = planted(description)
    short, long = "sm80_xmma_gemm_f16f16_tensor16x8x16", "sm80_xmma_gemm_f16f16_tensor16x8x16_aligna2"
    description["Layers"][1]["TacticName"], description["Layers"][7]["TacticName"] = short, long
    kernels[1] = (f"void cutlass::Kernel2<{short}_fused>(T1::Params)", *kernels[1][1:])
    kernels[7] = (f"{long}_execute_kernel_trt", *kernels[7][1:])
    kernels.insert(8, ("void cublasLt::splitKreduce_kernel<32, 16, int, __half>(int)", 40, 7))
    joined = join(description, kernels)
    assert wrong(joined, kernels) == [] and joined["matched_share"] == 1
    assert (joined["each"][7]["evidence"], joined["each"][7]["kernels"]) == ("tactic", 2)


def test_a_product_is_no_copy_and_a_layer_without_work_gets_none(description):
    kernels = planted(description)
    kernels[1] = ("void genericReformat::copyPackedKernel<float>(int)", 2, None)
    description["Layers"].insert(3, {"Name": "shuffle", "LayerType": "NoOp", "Metadata": ""})
    later = [(name, length, layer and layer + (layer > 2)) for name, length, layer in kernels]
    later.insert(3, ("void at::native::elementwise_kernel<128>(int)", 7, None))
    joined = join(description, later)
    assert joined["each"][1]["evidence"] is None and joined["each"][3]["evidence"] is None
    assert [one["name"] for one in joined["unmatched"]] == ["elementwise_kernel", "copyPackedKernel"]
    assert wrong(joined, later) == []


@pytest.mark.parametrize("numbered", [True, False])
def test_a_range_of_tensorrt_goes_before_a_name(description, numbered):
    """Ranges have a layer's name, with or without Myelin's number: the order then distinguishes layers of one name."""
    kernels = [("some_kernel", length, layer) for _, length, layer in planted(description)]
    kernels[3:4] = [("some_kernel", 2, 3)] * 2

    def text(layer):
        name = description["Layers"][layer]["Name"]
        return name if numbered else name.rsplit("_myl", 1)[0]

    joined = join(description, kernels, text=text)
    assert wrong(joined, kernels) == [] and joined["evidence_shares"]["range"] == pytest.approx(1)
    assert joined["each"][3]["kernels"] == 2
    replayed = join(description, kernels, text=text, graph=True)
    assert replayed["evidence_shares"]["range"] == 0  # what a range holds is the launch of the whole graph


def test_what_is_certain_is_what_all_alignments_say():
    def places(first, second):
        joined = aligned([frozenset(k for k, b in enumerate(second) if a == b) for a in first], len(second))
        return None if joined is None else joined.tolist()

    assert places("abc", "abc") == [0, 1, 2] and places("axc", "abc") == [0, -1, 2]
    assert places("ac", "abc") == [0, 2]
    assert places("aa", "aaa") == [-1, -1]
    assert places("abab", "abab") == [0, 1, 2, 3]
    assert places("ab", "abab") == [-1, -1]
    assert places("bac", "abc") is None and places("aa", "ab") is None
    assert places("", "abc") == [] and places("a", "") == [-1]


def test_an_engine_of_several_profiles_is_read_by_the_one_that_runs(description, tmp_path):
    second = copy.deepcopy(description["Layers"])
    for entry in second:
        entry["Name"] += " [profile 1]"
    description["Layers"] += second
    records.write(tmp_path / "x.layers.json", "layers", description)
    ranges = [{"batch": [1, 1, 2], "sequence": [8, 32, 64]}, {"batch": [4, 4, 8], "sequence": [8, 32, 64]}]
    made = {"profiles": ranges, "engine_sha256": description["engine_sha256"]}
    records.write(tmp_path / "x.json", "engine", planted_records.ENGINE | made)
    for batch, profile in ((1, 0), (8, 1)):
        engine = layers.read(tmp_path / "x.layers.json", {"shape": f"b{batch}-s32"})
        assert {layer.profile for layer in engine.layers} == {profile}


def test_a_budget_with_layers(description, folder, tmp_path):
    """The whole way: a kept capture, the engine's layers, the profiler's times; then what the summary says of it."""
    kernels = planted(description)
    cell = {"device": "x", "runtime": "tensorrt-rtx", "model": "m", "precision": "fp16", "shape": "b1-s32"}
    events = capture(kernels, graph=True)
    events.meta.update(cell=cell)
    store.write(tmp_path / "c.sqlite", events)
    times = {
        "layers": [
            dict.fromkeys(("kind", "precision", "nodes"))
            | dict.fromkeys(("median_ns", "p10_ns", "p90_ns"), 2_000.0 * (k + 1))
            | {"name": entry["Name"]}
            for k, entry in enumerate(description["Layers"])
        ],
        "layers_sum_ns": 650_000.0,
    }
    head = {"device": "x", "runtime": {}, "precision": "fp16", "shape": "b1-s32"}
    told = {"status": "ok", "failure": None, "iterations": 3, "inference_ns": {"plain": 1.0, "profiled": 2.0}}
    records.write(
        tmp_path / "t.layers.json", "layer-times", {**head, **told, **times, "provenance": planted_records.PROVENANCE}
    )

    def account(*more):
        command = [sys.executable, SCRIPTS / "account_budget.py", "--capture", tmp_path / "c.sqlite"]
        command += ["--output", tmp_path / "b.json", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "b.json").read_text()), done.stdout

    plain, _ = account()
    assert "layers" not in plain
    record, log = account("--layers", folder / "x.layers.json", "--layer-times", tmp_path / "t.layers.json")
    assert "100.0% of the time in kernels and copies has a layer" in log
    joined = record.pop("layers")
    assert {key for key in record if record[key] != plain[key]} == {"provenance", "digest"}
    assert joined["profiler_sum_ns"] == 650_000 and {one["profiler_ratio"] for one in joined["each"]} == {2}
    last = joined["each"][-1]
    assert where.layers(joined).startswith("100% of the time in kernels and copies has a layer (by tactic ")
    assert (
        f"the longest: `{last['name']}` (kgen, {last['precision']}) 25.0 µs, by the profiler 2.00 times that; "
        in where.layers(joined)
    )
    maker = planted_cells.study(tmp_path)
    of_engine = read_json(maker.cells[1]["budget"]) | {"layers": joined}
    records.write(maker.cells[1]["budget"], "budget", of_engine)
    plan = maker.plan() | {"traces": {"cells": ["*"], "source": "cupti", "reason": None}}
    page = where.where_time_goes(plan, collect(plan))
    assert page.count("of the time in kernels and copies has a layer") == 1
    assert "- onnxruntime-cuda fp16 distilbert b1-s128: 100% of the time" in page
    records.write(tmp_path / "x.layers.json", "layers", {**description, "Layers": []})
    records.write(tmp_path / "x.json", "engine", read_json(folder / "x.json"))
    assert account("--layers", tmp_path / "x.layers.json")[0].keys() == plain.keys()
