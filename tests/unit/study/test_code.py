"""What counts as a change of code."""

import re
import shutil

import pytest

from ceilings import packages, plugins
from ceilings.measure import catalogue
from ceilings.models.catalogue import FAMILIES
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study import code

LEFT_OUT = ("PLUMBING", "HANDED_ON")


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A copy of workflow_scripts that a test may edit."""
    copy = tmp_path / "workflow_scripts"
    shutil.copytree(code.SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    moved = {name: {copy / path.relative_to(code.SCRIPTS) for path in getattr(code, name)} for name in LEFT_OUT}
    monkeypatch.setattr(code, "SCRIPTS", copy)
    for name, paths in moved.items():
        monkeypatch.setattr(code, name, paths)
    return copy


def digests():
    code.digest.cache_clear()
    code._read.cache_clear()
    return {
        "cpu": code.digest(*catalogue.modules("cpu"), "ceilings.runtimes.onnxruntime_cpu"),
        "torch": code.digest(*catalogue.modules("cpu"), "ceilings.runtimes.torch_cpu"),
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
        ("ceilings/models/catalogue.py", "X = 1", set()),
        ("ceilings/runtimes/catalogue.py", "X = 1", set()),
        ("ceilings/report/catalogue.py", "X = 1", set()),
        ("ceilings/measure/catalogue.py", "X = 1", {"report"}),  # which declares what the report's columns mean
    ],
)
def test_an_edit_changes_the_digests_of_what_imports_it(scripts, file, addition, changed):
    before = digests()
    path = scripts / file
    path.write_text(path.read_text() + f"\n{addition}\n")
    after = digests()
    assert {name for name in before if before[name] != after[name]} == changed


def test_edits_of_words_reach_the_tables_and_no_measurement(scripts):
    """A meaning of a failure is a cell of the table; the classes of errors only carry it."""
    before = {**digests(), "tables": code.digest("collect_cells")}
    path = scripts / "ceilings/failure_kinds.py"
    path.write_text(path.read_text().replace("the time limit passed", "it took too long"))
    after = {**digests(), "tables": code.digest("collect_cells")}
    assert {name for name in before if before[name] != after[name]} == {"tables"}


PACKAGES = {
    "fetch_weights": {"torch", "transformers", "safetensors", "tokenizers"},
    "export_onnx": {"onnx", "torch"},
    "simplify_onnx": {"onnx", "onnxslim"},
    "calibrate_ranges": {"onnx", "onnxruntime"},
    "quantize_graph": {"onnx", "onnxruntime", "ml-dtypes"},
    "fuse_graph": {"onnx", "onnxruntime"},
    "check_parity": {"onnx", "onnxruntime"},
    "collect_cells": {"pandas", "numpy"},
    "draw_plot": {"matplotlib", "pandas"},
    "write_summary": {"tabulate", "pandas"},
    "ceilings.models.graph_reference": {"onnxruntime"},
}


@pytest.mark.parametrize("module", PACKAGES)
def test_a_program_s_packages_are_those_that_its_modules_import(module):
    """Within functions too; with the version that an import gets."""
    named = dict(part.split(" ") for part in code.libraries(module).split(", "))
    known = {name.replace("-gpu", "") if name.startswith("onnxruntime") else name for name in named}
    assert PACKAGES[module] <= known and all(named.values())
    for name, version in named.items():
        assert packages.find(name).version == version


def test_packages_of_the_report_make_nothing_else_anew():
    """And a new ONNX Runtime makes no weights, inputs or references of PyTorch anew."""
    for module in ("measure_latency", *catalogue.modules("cpu"), "fetch_weights", "compute_reference", "check_parity"):
        assert not {"pandas", "tabulate", "matplotlib"} & set(re.findall(r"[\w-]+", code.libraries(module)))
    for program in ("fetch_weights", "make_inputs", "compute_reference", "make_data"):
        assert "onnx" not in code.libraries(program)


def test_imports_for_type_checkers_do_not_count(scripts):
    path = scripts / "export_perfetto.py"
    before = code.libraries("export_perfetto")
    path.write_text(path.read_text() + "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n")
    for clear in (code.libraries, code._read):
        clear.cache_clear()
    assert code.libraries("export_perfetto") == before
    path.write_text(path.read_text() + "\ndef work():\n    import torch\n")
    for clear in (code.libraries, code._read):
        clear.cache_clear()
    assert "torch " in code.libraries("export_perfetto")
    code.libraries.cache_clear()


def test_unknown_module_is_refused():
    with pytest.raises(ModuleNotFoundError, match="no_such_program"):
        code.digest("no_such_program")


def test_modules_of_plug_ins_are_found_and_named_alike_wherever_they_lie(tmp_path, monkeypatch):
    before = []
    for place in ("here", "there"):
        module = tmp_path / place / "runtimes" / "theirs.py"
        module.parent.mkdir(parents=True)
        (tmp_path / place / "catalogue.py").touch()
        module.write_text("from ceilings.runtimes import base\n")
        monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / place))
        code.digest.cache_clear()
        before.append(code.digest("ceilings.runtimes.theirs"))
    assert before[0] == before[1]
    assert code.SCRIPTS / "ceilings/runtimes/base.py" in code.reached("ceilings.runtimes.theirs")
    module.write_text("from ceilings.runtimes import base\nX = 1\n")
    code.digest.cache_clear()
    code._read.cache_clear()
    assert code.digest("ceilings.runtimes.theirs") != before[1]


CATALOGUES = {f"ceilings/{room}/catalogue.py" for room in ("models", "runtimes", "measure", "report")}
RUN = [
    *(module for device in ("cpu", "cuda") for module in catalogue.modules(device)),
    *sorted({f"ceilings.runtimes.{name}" for one in RUNTIMES.values() for name in (one.module, one.generator) if name}),
    *sorted(family.module for family in FAMILIES.values()),
    *("capture_trace", "ceilings.traces.target", "ceilings.traces.cupti", "account_budget", "measure_peaks"),
    "measure_transfers",
    *("fetch_weights", "import_onnx", "make_inputs", "compute_reference", "export_onnx", "simplify_onnx"),
    *("convert_precision", "quantize_graph", "calibrate_ranges", "check_parity", "bound_latency"),
]


@pytest.mark.parametrize("module", dict.fromkeys(RUN))
def test_no_catalogue_shapes_what_is_made_timed_captured_or_measured(module):
    """A new family, runtime, measurement or plot makes nothing anew."""
    reached = {str(path.relative_to(code.SCRIPTS)) for path in code.reached(module)}
    assert not reached & CATALOGUES


def test_a_plug_in_s_quantities_count_for_the_tables_alone(tmp_path, monkeypatch):
    """Its columns are read by path; no import leads to them."""
    monkeypatch.setenv(plugins.VARIABLE, "")  # restored at the end
    plugins.activate([_folder(tmp_path / "mine", "scale = 1e-6")])

    def digests():
        code.digest.cache_clear()
        code._read.cache_clear()
        return code.digest("collect_cells"), code.digest("write_summary"), code.digest("ceilings.measure.worker")

    before = digests()
    _folder(tmp_path / "mine", "scale = 1e-3")
    after = digests()
    code.digest.cache_clear()
    code._read.cache_clear()
    assert before[0] != after[0] and before[1] != after[1], "tables and summary are made anew"
    assert before[2] == after[2], "nothing is timed again"


def _folder(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "catalogue.py").write_text(text + "\nMEASUREMENTS = []\n")
    return folder


def test_what_was_parsed_is_kept_for_the_next_process(scripts, tmp_path, monkeypatch):
    modules = ("ceilings.runtimes.torch_cpu", "ceilings.workload.shape")
    memory = tmp_path / ".snakemake" / "ceilings" / "code.json"
    memory.parent.mkdir(parents=True)

    def next_process():
        monkeypatch.setattr(code, "_SOURCES", code._Sources())
        code.digest.cache_clear()
        code._read.cache_clear()
        code.keep(memory)
        return [code.digest(module) for module in modules]

    before = next_process()
    code._SOURCES.write()
    with monkeypatch.context() as patch:
        patch.setattr(code.ast, "parse", None)  # nothing is parsed again
        assert next_process() == before
    changed = scripts / "ceilings" / "runtimes" / "torch_cpu.py"
    changed.write_text(changed.read_text() + "\nX = 1\n")
    runtime, shape = next_process()
    assert runtime != before[0]
    assert shape == before[1]
    for damage in ("", "[]", '{"3.11 ab": 5}', '{"3.11 ab": []}', memory.read_text()[:-40]):
        memory.write_text(damage)
        assert next_process() == [runtime, shape]
