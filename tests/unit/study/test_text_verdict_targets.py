"""Which verdicts on generated texts a study asks for, and what each depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.study.test_study import CONFIG, LAPTOP

from ceilings.errors import UserError
from ceilings.study.paths import Paths
from ceilings.study.study import Study

MODELS = {"g": {"architecture": "gpt2", "task": "text-generation"}, "e": {"architecture": "bert"}}
SWEEPS = {
    "text": {
        **{"models": ["g"], "runtimes": ["torch-eager"], "precisions": ["fp32"]},
        "axes": {"batch": [2], "prompt": [8], "generated": [4]},
    },
    "encoder": {
        **{"models": ["e"], "runtimes": ["torch-eager"], "precisions": ["fp32"]},
        **{"batches": [1], "sequences": [8]},
    },
}
NAME = ("torch-eager", "g", "fp32", "b2-p8-g4")


def study(host=LAPTOP, **changes):
    given = {"models": MODELS, "sweeps": SWEEPS, "noise_cells": ["/".join(NAME)]}
    return Study({**CONFIG, **given, **changes}, host)


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """Runs of another machine in the results of this one."""
    monkeypatch.chdir(tmp_path)
    for number in range(1, 10):
        path = Path(Paths().run("cpu-other", *NAME, process=number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return Path(Paths().texts("cpu-other", *NAME))


def test_cells_that_generate_have_one_each_and_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study()
    device = made.cells[0].device
    names = ("torch-eager", "torch-eager.aa")
    assert made.targets.texts == [Paths().texts(device, runtime, *NAME[1:]) for runtime in names]
    assert [cell.texts for cell in made.cells if cell.model == "e"] == [None]


def test_texts_of_others_are_read_here_where_nobody_has(brought):
    here = study(devices=["recorded"])
    assert here.targets.texts == [str(brought)] and str(brought) not in here.targets.recorded_records
    brought.write_text("{}")
    assert study(devices=["recorded"]).targets.texts == []
    assert str(brought) in study(devices=["recorded"]).targets.recorded_records


def test_what_was_read_here_stays_a_target(brought):
    """Else the tables would be made anew for the same verdict."""
    brought.write_text("{}")
    log, weights = Path(Paths().texts_log("cpu-other", *NAME)), Path(Paths().weights("g"), "model.safetensors")
    for file in (log, weights):
        file.parent.mkdir(parents=True)
        file.touch()
    made = study(devices=["recorded"])
    assert made.targets.texts == [str(brought)] and str(brought) not in made.targets.recorded_records


def test_a_verdict_that_came_with_its_log_is_kept(brought):
    """Nothing here read it: other weights, made to read it again, would leave the cell without a number."""
    brought.write_text("{}")
    log = Path(Paths().texts_log("cpu-other", *NAME))
    log.parent.mkdir(parents=True)
    log.touch()
    assert study(devices=["recorded"]).targets.texts == []


def test_nodes_read_nothing_of_devices_that_none_of_them_has(brought):
    assert study(devices=["recorded"], nodes={"n": {"constraint": "large"}}).targets.texts == []


def test_a_model_without_text_is_refused():
    with pytest.raises(UserError, match="'e' generates no text; ask for a cell of a model that does"):
        study().read_runs("torch-eager", "e", "fp32", "b1-s8", "cpu-x")


def test_runs_do_not_depend_on_what_reads_their_texts():
    made = study()
    digests = made.slices.reader("g"), made.slices.reader("e")
    assert digests[0] and not digests[1]
    assert digests[0] not in made.slices.measure(*NAME[:3])
