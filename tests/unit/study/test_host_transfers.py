"""The key of a study that asks for transfers between its hosts and their GPUs."""

import dataclasses
import json

import pytest
from unit.record_samples import CONTENTS
from unit.study.test_study import CONFIG, GPU, LAPTOP, SWEEP

from ceilings import records
from ceilings.errors import UserError
from ceilings.study.study import Study

SERVER = dataclasses.replace(LAPTOP, gpu=GPU)
ON_GPU = {**CONFIG, "sweeps": {"one": {**SWEEP, "runtimes": ["torch-cuda-eager"]}}}
RECORD = "results/hosts/nvidia-test/transfers.json"


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch):
    monkeypatch.setattr("ceilings.study.availability.installed", lambda needed: dict.fromkeys(needed, "2.11"))


def planned(study):
    return json.loads(study.plan()).get("transfers")


def test_a_study_that_asks_for_them_gets_them_of_its_gpu():
    study = Study({**ON_GPU, "transfers": True}, SERVER)
    assert study.targets.transfers == planned(study) == [RECORD]
    assert "transfers" in study.targets.parts


@pytest.mark.parametrize(
    ("config", "host"),
    [(ON_GPU, SERVER), ({**CONFIG, "transfers": True}, SERVER), ({**ON_GPU, "transfers": True}, LAPTOP)],
    ids=["not asked for", "no cell on a GPU", "no GPU"],
)
def test_other_studies_have_none(config, host):
    study = Study(config, host)
    assert not study.targets.transfers and planned(study) is None and "transfers" not in study.targets.parts


def test_those_of_another_machine_are_read_where_they_came_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for at in ("results/hosts/nvidia-other", "results/benchmarks/nvidia-other/torch-cuda-eager/m/fp32/b1-s32"):
        (tmp_path / at).mkdir(parents=True)
    (tmp_path / "results/benchmarks/nvidia-other/torch-cuda-eager/m/fp32/b1-s32/run1.json").write_text("{}")
    config = {**ON_GPU, "transfers": True, "devices": ["nvidia-other"], "protocol": {"processes": 1}}
    assert planned(Study(config, LAPTOP)) is None
    (tmp_path / "results/hosts/nvidia-other/transfers.json").write_text("{}")
    study = Study(config, LAPTOP)
    other = "results/hosts/nvidia-other/transfers.json"
    assert planned(study) == [other] and not study.targets.transfers and other in study.targets.recorded_records


def test_it_is_asked_for_by_true_or_false():
    with pytest.raises(UserError, match="transfers"):
        Study({**ON_GPU, "transfers": "yes"}, SERVER)


def test_a_verdict_on_separate_cards_is_made_and_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = "torch-cuda-eager/m/fp32/b1-s32"
    config = {**ON_GPU, "colocation": {"pair": {"cells": [cell, cell], "how": ["cards", "processes"]}}}
    study = Study({**config, "protocol": {"processes": 1}}, SERVER)
    verdict = "results/hosts/nvidia-test/side_by_side.json"
    assert study.targets.side_by_side == [verdict] and not study.side_by_side
    assert study.targets.runs_on_cards("nvidia-test") == ["results/colocation/nvidia-test/pair/cards/run1.json"]
    assert Study(ON_GPU, SERVER).targets.side_by_side == [] and not Study(CONFIG, LAPTOP).side_by_side
    for word, allowed in (("allowed", True), ("forbidden", False)):
        records.write(verdict, "side-by-side", CONTENTS["side-by-side"] | {"verdict": word, "cards": [GPU.uuid]})
        assert study.side_by_side == allowed


def test_a_verdict_holds_for_the_cards_that_were_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(ON_GPU, SERVER)
    for cards, allowed in ((["GPU-other", SERVER.gpu.uuid], True), (["GPU-other"], False), ([], False)):
        content = CONTENTS["side-by-side"] | {"verdict": "allowed", "cards": cards}
        records.write("results/hosts/nvidia-test/side_by_side.json", "side-by-side", content)
        assert study.side_by_side == allowed


def test_a_verdict_that_cannot_be_made_here_says_why():
    cell = "torch-cuda-eager/m/fp32/b1-s32"
    config = {**ON_GPU, "colocation": {"pair": {"cells": [cell, cell], "how": ["cards"]}}}
    with pytest.raises(UserError, match="2 instances need 2 cards, and 1 of the kind can be seen; make more visible"):
        Study(config, dataclasses.replace(SERVER, cards=1)).runs_to_judge("nvidia-test")
    with pytest.raises(UserError, match=r"name cells of nvidia-test in a co-location with how: \[cards\]"):
        Study(ON_GPU, SERVER).runs_to_judge("nvidia-test")
