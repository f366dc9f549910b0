"""Traces that a study names: how they are written, what is refused, and what only they make anew."""

from __future__ import annotations

import json
import os

import pytest

from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.study import captures
from ceilings.study.study import Study

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
SWEEP = {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1], "sequences": [32]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a file that may be a trace: its content is looked at when it is explained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    os.utime(tmp_path / "mine.json", (1, 1))
    return tmp_path


def study(**named):
    models = {"m": {"architecture": "bert", "weights": "random"}}
    return Study({"study": "s", "models": models, "sweeps": {"one": SWEEP}, "captures": named}, LAPTOP)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("mine.json", []),
        ({"path": "mine.json"}, []),
        ({"path": "mine.json", "range": "step*"}, ["--range", "step*"]),
        ({"path": "mine.json", "by": "period"}, ["--period"]),
        ({"path": "mine.json", "latency": 1.25}, ["--latency", "1.25"]),
        ({"path": "mine.json", "latency": "1.25"}, ["--latency", "1.25"]),
        ({"path": "mine.json", "between": [0, 100.5]}, ["--between", "0", "100.5"]),
        # as `--config 'captures={mine: {...}}'` delivers it
        (
            {"path": "mine.json", "between": ["0", "100.5"], "process": "1"},
            ["--between", "0", "100.5", "--process", "1"],
        ),
    ],
)
def test_what_an_iteration_is(given, options):
    assert list(study(mine=given).capture("mine").options) == options


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"mine": "mina.json"},
            r"captures.mine: mina.json does not exist; did you mean 'mine.json'\? \(paths start at",
        ),
        ({"mine": "x.json"}, "captures.mine: x.json does not exist; correct it"),
        ({"mine": "."}, "captures.mine: . is a folder; name a file"),
        ({"mine": {"path": "other.sqlite"}}, "captures.mine.path: other.sqlite does not exist; correct it"),
        ({"Mine": "mine.json"}, 'captures: "Mine" is not allowed here; use lower-case letters, digits and hyphens'),
        ({"a-against-b": "mine.json"}, "use lower-case letters, digits and hyphens, .* without -against-"),
        ({"mine": 3}, "captures.mine: 3 is not text or keys with values"),
        ({"mine": {"range": "x"}}, "captures.mine: missing 'path'; add path"),
        ({"mine": {"path": "mine.json", "rnge": "x"}}, "captures.mine: unknown key 'rnge', did you mean 'range'"),
        (
            {"mine": {"path": "mine.json", "by": "steps"}},
            "captures.mine.by: \"steps\" is not allowed, did you mean 'step'",
        ),
        (
            {"mine": {"path": "mine.json", "by": "step", "range": "x"}},
            "captures.mine: range and by both say what an iteration is; keep one of them",
        ),
        ({"mine": {"path": "mine.json", "between": [5, 1]}}, r"captures.mine.between: \[5, 1\] ends before it begins"),
        ({"mine": {"path": "mine.json", "between": [5]}}, "has the length 1, which is below 2; give two times in ms"),
        (
            {"mine": {"path": "mine.json", "between": ["a", 5]}},
            'captures.mine.between.0: "a" is not allowed; allowed: a time',
        ),
        (
            {"mine": {"path": "mine.json", "process": -1}},
            "captures.mine.process: -1 is not allowed; allowed: the number",
        ),
        ({"mine": "--output=x"}, 'captures.mine: "--output=x" is not allowed here'),
        ({"mine": "{input}.json"}, "use one line of text without braces|is not allowed here"),
    ],
)
def test_bad_input_names_key_value_and_remedy(named, message):
    with pytest.raises(UserError, match=message):
        study(**named)


def test_an_unknown_name_has_a_remedy():
    with pytest.raises(UserError, match=r"no capture 'other'; add captures: \{other: PATH\}, or --config"):
        study().capture("other")
    with pytest.raises(UserError, match="no capture 'min'; did you mean 'mine'"):
        study(mine="mine.json").capture("min")


def test_content_counts_and_time_does_not(folder):
    before = study(mine="mine.json").capture_contents("mine")
    os.utime(folder / "mine.json", (9, 9))
    assert study(mine="mine.json").capture_contents("mine") == before
    (folder / "mine.json").write_text("[]")
    assert study(mine="mine.json").capture_contents("mine") != before


def test_a_capture_changes_nothing_of_the_plan_or_of_what_is_proposed():
    assert study(mine="mine.json").plan() == study().plan()
    assert study(mine="mine.json").next_slice == study().next_slice


def test_the_summary_rests_on_its_record_and_links_to_its_page():
    targets = study(mine="mine.json").targets
    assert "results/explained/mine.json" in targets.evidence
    assert targets.explained_pages == ["results/explained/mine.md"]
    assert study().targets.explained_pages == []


def test_a_study_may_have_captures_alone():
    alone = Study({"captures": {"mine": "mine.json"}}, LAPTOP)
    assert alone.cells == [] and alone.targets.runs == [] and alone.config["study"] == "captures"
    assert alone.targets.explained_pages == ["results/explained/mine.md"]
    assert list(alone.capture("mine").options) == []
    named = Study({"study": "mine", "captures": {"mine": "mine.json"}, "models": {}, "sweeps": {}}, LAPTOP)
    assert named.config["study"] == "mine" and named.cells == []


@pytest.mark.parametrize("config", [{}, {"captures": {}}, {"study": "s"}])
def test_a_study_of_nothing_is_none(config):
    with pytest.raises(UserError, match=r"missing 'study', 'models', 'sweeps'|missing 'models', 'sweeps'"):
        Study(config, LAPTOP)


def test_what_is_measured_needs_all_its_keys():
    with pytest.raises(UserError, match="missing 'study', 'models'"):
        Study({"sweeps": {"one": SWEEP}, "captures": {"mine": "mine.json"}}, LAPTOP)


def test_those_that_cannot_be_explained_are_said_in_a_line(folder):
    records = {"bad": {"failure": "bad.json is no trace;\x1b[2J export it"}, "good": {"groups": []}}
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
    empty = {"traceEvents": [], "otherData": {"failure": "good.json has no kernels"}}
    (folder / "good.perfetto.json").write_text(json.dumps(empty))
    (folder / "other.json").write_text("{}")
    (folder / "other.perfetto.json").write_text('{"traceEvents": [{}], "otherData": {}}')
    tried = [folder / f"{name}.json" for name in ("bad", "good", "other", "absent")]
    assert captures.unreadable(tried) == [
        "the capture bad cannot be explained: bad.json is no trace;\\x1b[2J export it",
        "the capture good has no trace for Perfetto: good.json has no kernels",
    ]
