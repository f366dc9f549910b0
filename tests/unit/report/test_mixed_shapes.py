"""Changing shapes against one shape and against each other: what a benchmark of one shape chooses, and what helps."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from planted_study import CPU, GPU, IMAGE, TEXT, StudyMaker
from unit import planted_shapes
from unit.planted_shapes import STEADY_MS
from unit.record_samples import edited

from ceilings import records
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.findings.one_shape import choices, published_latencies, shape_taxes
from ceilings.report.analysis.hypotheses import judged, shape_claims
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.mixed_shapes import MixedShapes
from ceilings.report.analysis.shape_advice import BUCKETS, NoLever, shape_advice
from ceilings.report.render.shape_levers import shape_levers, shape_levers_json
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.study.config import checked

EAGER, ORT = "torch-eager", "onnxruntime-cpu"
FIXED_MS = {EAGER: 10.0, ORT: 5.0}


class Mixed:
    """A study whose cells have a latency at b1-s128, and one with changing shapes.

    Args:
        runs: Processes.
    """

    def __init__(self, tmp_path, *, runs=3, between=0.001, fixed=FIXED_MS, device=CPU, model=TEXT, sizes=((1, 128),)):
        self.folder, self.runs, self.device, self.model = tmp_path, runs, device, model
        self.maker = StudyMaker(
            tmp_path, lambda runtime, *_: fixed[runtime.removesuffix(".aa")], runs=runs, between=between
        )
        for runtime in fixed:
            self.maker.measure(device, [(runtime, "fp32")], sizes, model=model)
        self.changing = []

    def add(self, runtime, *, sequence="mixed", steady=1.0, **planted):
        names = {"device": self.device, "runtime": runtime, "model": self.model, "precision": "fp32"}
        cell = {**names, "sequence": sequence}
        latencies = {name: steady * value for name, value in STEADY_MS.items()}
        where = self.folder / f"results/changing/{runtime}/{sequence}"
        made = planted_shapes.write(where, self.runs, cell=cell, steady=latencies, **planted)
        self.changing.append(made)
        return made

    def measured(self):
        return Measured(collect(self.maker.plan() | {"changing": self.changing}))


def test_the_published_number_is_held_against_the_sequence(tmp_path):
    study = Mixed(tmp_path)
    study.add(ORT, change=2.0)
    (one,) = published_latencies(study.measured())
    mean = MixedShapes(study.measured()).cells[0].row["sequence_ms"]
    assert one.status == "refuted" and "b1-s128 publishes a mean of 5." in one.text
    assert one.effect.estimate == pytest.approx(mean / 5.05, rel=0.02)
    assert one.cells == (f"{CPU}/{ORT}/{TEXT}/fp32/b1-s128",) and one.records
    assert "of this one after another" in one.text and "ms in the mean" in one.brief


def test_a_published_number_that_holds_is_said_to(tmp_path):
    study = Mixed(tmp_path, fixed={ORT: 1.662})
    study.add(ORT)
    (one,) = published_latencies(study.measured())
    assert (one.status, one.brief) == ("supported", "")


def test_one_process_decides_nothing_of_one_shape_and_many(tmp_path):
    study = Mixed(tmp_path, runs=1)
    study.add(ORT, change=3.0)
    study.add(EAGER)
    measured = study.measured()
    for one in (*published_latencies(measured), *choices(measured)):
        assert one.status == "not decidable" and one.missing and "one process" in one.text


def test_a_benchmark_of_one_shape_that_chooses_the_slower_one(tmp_path):
    study = Mixed(tmp_path)
    study.add(ORT, change=5.0)  # the faster one at one shape
    study.add(EAGER, steady=1.1)
    (one,) = choices(study.measured())
    assert one.status == "refuted" and "chooses the slower one" in one.brief
    assert re.search(r"1.9\d× faster than torch-eager fp32, over the sequence 3.8\d× slower", one.brief)
    assert one.effect.low > 5
    assert len(one.records) == 2


def test_a_ratio_that_stays_is_said_to_stay(tmp_path):
    study = Mixed(tmp_path)
    study.add(ORT)
    study.add(EAGER, steady=2.0)
    (one,) = choices(study.measured())
    assert one.status == "supported" and not one.brief


def test_a_ratio_that_changes_without_turning(tmp_path):
    study = Mixed(tmp_path)
    study.add(ORT)
    study.add(EAGER, steady=1.2)
    (one,) = choices(study.measured())
    assert one.status == "refuted" and "chooses" not in one.text
    assert one.effect.estimate == pytest.approx(2 / 1.2, rel=0.03)  # of the faster over the slower one


def test_noise_as_large_as_the_change_decides_nothing(tmp_path):
    study = Mixed(tmp_path, between=0.3)
    study.maker.repeat(CPU, ORT, "fp32", 1, 128)
    study.add(ORT)
    study.add(EAGER, steady=1.2)
    measured = study.measured()
    assert [one.status for one in choices(measured)] == ["not decidable"]


def test_what_is_missing_is_an_entry_of_a_study(tmp_path):
    study = Mixed(tmp_path, runs=1)
    study.add(ORT)
    known = {"study": "x", "models": {"m": {"architecture": "bert"}}}
    sweeps = {"x": {"models": ["m"], "runtimes": [EAGER], "precisions": ["fp32"], "batches": [1], "sequences": [8]}}
    mine = [one for one in findings(study.measured().tables) if "shape" in one.topic.lower()]
    for entry in {entry for one in mine for entry in one.missing}:
        checked(known | {"sweeps": sweeps} | yaml.safe_load(entry))


# --- levers ----------------------------------------------------------------------------------------------------------


def test_padding_and_another_runtime_are_levers_with_their_measured_gain(tmp_path):
    study = Mixed(tmp_path)
    study.add(ORT, change=5.0)  # padding keeps its changes steady: 2 ms in place of some 6
    study.add(EAGER, steady=2.0)
    first, second, *others = shape_advice(study.measured())
    assert (first.lever, first.ground) == (BUCKETS, "this cell")
    assert first.factor[0] < first.estimate < first.factor[1] < 1
    assert "b1-s16 and b1-s64" in first.change and "shape tax" in first.because
    assert second.lever == EAGER and second.estimate > first.estimate
    assert len(second.records) == 2 and not second.snippet
    (nothing,) = others
    assert isinstance(nothing, NoLever) and "slower" in nothing.because
    page = shape_levers(study.measured())
    assert "**Pad to b1-s16 and b1-s64**" in page and "Nothing: no measured lever" in page
    assert [one["lever"] for one in json.loads(json.dumps(shape_levers_json(study.measured())))] == [BUCKETS, EAGER]


def test_a_lever_of_other_cells_is_to_be_tried_with_their_range(tmp_path):
    study = Mixed(tmp_path)
    study.add(ORT, change=5.0)
    study.add(EAGER)
    bare = study.add(ORT, sequence="other", change=4.0)
    bare |= {"buckets": None, "padded": []}
    mine = [one for one in shape_advice(study.measured()) if one.cell.row["sequence"] == "other"]
    assert {one.lever for one in mine} == {BUCKETS, EAGER}
    for one in mine:
        assert one.ground == "other cells" and one.estimate is None and one.factor[1] < 1
        assert "not measured of it" in one.because
        section = yaml.safe_load(one.snippet)["changing"]
        assert section == (
            {"buckets": {"most": 4}} if one.lever == BUCKETS else {"cells": [f"{EAGER}/{TEXT}/fp32/other"]}
        )


def test_levers_within_the_noise_are_none(tmp_path):
    study = Mixed(tmp_path, runs=1)
    study.add(ORT, change=5.0)
    (one,) = shape_advice(study.measured())
    assert isinstance(one, NoLever) and "undecided, one process" in one.because


def test_tables_from_before_there_was_a_row_a_process_have_their_taxes_alone(tmp_path):
    study = Mixed(tmp_path)
    study.add(ORT, change=5.0)
    study.add(EAGER)
    tables = study.measured().tables
    earlier = Measured(replace(tables, changing_runs=tables.changing_runs.iloc[:0]))
    assert len(shape_taxes(earlier)) == 2
    assert published_latencies(earlier) == choices(earlier) == []
    assert all(isinstance(one, NoLever) for one in shape_advice(earlier))


def test_a_study_without_changing_shapes_has_no_levers(tmp_path):
    measured = Mixed(tmp_path).measured()
    assert shape_advice(measured) == [] and shape_levers(measured) == ""


# --- claims of others ------------------------------------------------------------------------------------------------

CUDA = "onnxruntime-cuda"


def claim(measured, number):
    return next(ours for hypothesis, ours in judged(measured, Evidence()) if hypothesis.number == number)


class Batches(Mixed):
    """An image encoder on the CUDA provider, whose batches of 1 and 2 take turns."""

    def __init__(self, tmp_path, *, change, runtime=CUDA):
        super().__init__(tmp_path, fixed={runtime: 1.0}, device=GPU, model=IMAGE, sizes=((1, 224),))
        cell = {"device": GPU, "runtime": runtime, "model": IMAGE, "precision": "fp32", "sequence": "batches"}
        names = ["b1-i224", "b2-i224"] * 30
        requests = {"shapes": names[:2], "order": [0, 1] * 30, "logged": None, "sorted": False}
        made = planted_shapes.write(tmp_path / "batches", cell=cell, steady={**STEADY_MS})
        steady = dict.fromkeys(names, 1.0)
        for number, path in enumerate(made["runs"], 1):
            made_so = planted_shapes.run(number, cell=cell, steady=steady, requests=requests, change=change)
            records.write(path, "changing", made_so)
        self.changing.append({**made, "buckets": None, "padded": []})


@pytest.mark.parametrize(("change", "word"), [(8.0, "8."), (1.0, "1.0")])
def test_the_provider_s_half_of_claim_17_is_read_from_sequences(tmp_path, change, word):
    ours = claim(Batches(tmp_path, change=change).measured(), 17)
    assert ours.verdict == "not decidable"  # TensorRT's half is missing
    assert f"{word}" in ours.ours and "at a change of the batch" in ours.ours
    assert ours.missing and not any("sequences:" in entry for entry in ours.missing)
    assert "rival explanation" in claim(Batches(tmp_path / "again", change=change).measured(), 10).ours


def test_a_stall_of_the_sequence_that_no_return_shows_is_nothing_redone(tmp_path):
    study = Batches(tmp_path, change=8.0)
    for path in study.changing[0]["runs"]:
        calm = records.read(path, "changing")["steady_ns"]
        edited(Path(path), "return_ns", value=[[shape[0] for shape in reference] for reference in calm])
    measured = study.measured()
    (cell,) = MixedShapes(measured).cells
    for hoped in (True, False):
        assert shape_claims._redone(cell, cell.tax, hoped=hoped) == "not decidable"
    assert "1.0" in claim(measured, 17).ours.split("at a change of the batch, ")[1]
    (one,) = shape_taxes(measured)
    assert "Every request changes its shape" in one.text and "so the changes do not explain the tax" in one.text


def test_what_a_return_shows_too_is_redone(tmp_path):
    (cell,) = MixedShapes(Batches(tmp_path, change=8.0).measured()).cells
    assert shape_claims._redone(cell, cell.tax, hoped=True) == "supported"
    assert shape_claims._redone(cell, cell.tax, hoped=False) == "refuted"


def test_without_a_sequence_claim_17_names_the_study(tmp_path):
    measured = Mixed(tmp_path, fixed={CUDA: 1.0}, device=GPU, model=IMAGE, sizes=((1, 224),)).measured()
    sequences, changing, *_ = claim(measured, 17).missing
    section = yaml.safe_load(sequences) | yaml.safe_load(changing)
    assert section["changing"]["cells"] == [f"{CUDA}/{IMAGE}/fp16/batches"]
    sweeps = {"x": {"models": [IMAGE], "runtimes": [CUDA], "precisions": ["fp16"], "batches": [1]}}
    model = {"architecture": "vit", "task": "image-embedding"}
    checked({"study": "x", "models": {IMAGE: model}, "sweeps": sweeps} | section)
