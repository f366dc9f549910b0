"""What counts as a change of code."""

import shutil

import pytest

from ceilings.study import code


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A copy of workflow_scripts that a test may edit."""
    copy = tmp_path / "workflow_scripts"
    shutil.copytree(code.SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    plumbing = {copy / path.relative_to(code.SCRIPTS) for path in code.PLUMBING}
    monkeypatch.setattr(code, "SCRIPTS", copy)
    monkeypatch.setattr(code, "PLUMBING", plumbing)
    return copy


def digests():
    code.digest.cache_clear()
    code._read.cache_clear()
    return {
        "cpu": code.digest("ceilings.measure.worker", "ceilings.runtimes.onnxruntime_cpu"),
        "torch": code.digest("ceilings.measure.worker", "ceilings.runtimes.torch_cpu"),
        "export": code.digest("export_onnx"),
        "report": code.digest("write_report"),
    }


@pytest.mark.parametrize(
    ("file", "addition", "changed"),
    [
        ("ceilings/measure/loop.py", "X = 1", {"cpu", "torch"}),
        ("ceilings/runtimes/torch_cpu.py", "X = 1", {"torch"}),
        ("ceilings/runtimes/base.py", "X = 1", {"cpu", "torch"}),
        ("export_onnx.py", "X = 1", {"export"}),
        ("ceilings/measure/loop.py", "# a comment", set()),
        ("ceilings/report/render/page/table.js", "// read with the page", {"report"}),
        ("ceilings/files.py", "X = 1", set()),
        ("ceilings/study/progress.py", "X = 1", set()),
    ],
)
def test_an_edit_changes_the_digests_of_what_imports_it(scripts, file, addition, changed):
    before = digests()
    path = scripts / file
    path.write_text(path.read_text() + f"\n{addition}\n")
    after = digests()
    assert {name for name in before if before[name] != after[name]} == changed


def test_unknown_module_is_refused():
    with pytest.raises(ModuleNotFoundError, match="no_such_program"):
        code.digest("no_such_program")
