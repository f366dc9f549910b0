"""docs/study.md lists the names that a study can use, as the catalogues have them."""

from __future__ import annotations

from pathlib import Path

from ceilings.runtimes.catalogue import MINIMUM_CAPABILITY, PRECISIONS, RUNTIMES
from ceilings.study.sweeps import left_out
from ceilings.workload.task import TASKS

DOCS = (Path(__file__).parents[3] / "docs/study.md").read_text(encoding="utf-8")
LINES = DOCS.splitlines()


def test_every_runtime_with_its_precisions():
    listed = [line for line in LINES if line.startswith("| `") and line.split("`")[1] in RUNTIMES]
    expected = [
        f"| `{name}` | {one.device} | {', '.join(one.precisions)} | {one.note} |" for name, one in RUNTIMES.items()
    ]
    assert listed == expected


def test_every_setting_with_its_values_its_default_first():
    first = {one.settings: name for name, one in reversed(RUNTIMES.items()) if one.settings}
    expected = {
        f"| `{one.name}` | `{name}` | {one.allowed} | {one.meaning} |" for known, name in first.items() for one in known
    }
    names = {one.name for known in first for one in known}
    listed = [line for line in LINES if line.startswith("| `") and line.split("`")[1] in names]
    assert len(listed) == len(expected) and set(listed) == expected


def test_every_precision_and_where_it_has_hardware():
    rows = {line.split("`")[1]: line for line in LINES if line.startswith("| `") and line.split("`")[1] in PRECISIONS}
    assert tuple(rows) == PRECISIONS
    for name, (major, minor) in MINIMUM_CAPABILITY.items():
        assert f"compute capability {major}.{minor}" in rows[name]


def test_every_task():
    (row,) = [line for line in LINES if line.startswith("| `task` |")]
    assert all(f"`{name}`" in row for name in TASKS)


def test_precisions_that_a_runtime_does_not_have_are_listed_once():
    sweep = {"runtimes": ["torch-eager", "onnxruntime-cpu"], "precisions": ["fp32", "bf16", "int8"]}
    assert left_out({"sweeps": {"a": sweep, "b": sweep}}) == [("torch-eager", "int8"), ("onnxruntime-cpu", "bf16")]
