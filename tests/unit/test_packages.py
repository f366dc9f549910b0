"""What an import gets is what is recorded, whatever metadata lies about."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unit.planted_packages import install, leave_metadata

from ceilings import packages, provenance
from ceilings.study.availability import installed

SCRIPTS = Path(provenance.__file__).parents[1]


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def found(name):
    package = packages.find(name)
    return package and (package.name, package.version)


def module(version, more=""):
    return {"thing/__init__.py": f'__version__ = "{version}"\n{more}'}


@pytest.mark.parametrize("old", ["0.9", "1.18.0", "2.0"])
def test_metadata_of_a_version_that_is_gone_counts_for_nothing(site, old):
    install(site, "thing", "1.31.1", module("1.31.1"))
    leave_metadata(site, "thing", old, module(old))
    assert found("thing") == ("thing", "1.31.1")


def test_the_module_counts_also_where_its_own_metadata_is_gone(site):
    leave_metadata(site, "thing", "1.18.0", module("1.18.0"))
    install(site, "thing", "1.31.1", module("1.31.1")).joinpath("RECORD").unlink()
    assert found("thing") == ("thing", "1.31.1")


def test_of_two_packages_with_one_module_the_one_whose_files_are_there_counts(site):
    """As onnxruntime and onnxruntime-gpu are: the same ``__init__.py``, and another library."""
    cpu = {"onnxruntime/__init__.py": '__version__ = "9.1"\n', "onnxruntime/capi/state.so": "cpu"}
    gpu = {**cpu, "onnxruntime/capi/state.so": "with CUDA"}
    install(site, "onnxruntime", "9.1", cpu)
    install(site, "onnxruntime-gpu", "9.1", gpu)
    leave_metadata(site, "onnxruntime", "8.0", {**cpu, "onnxruntime/__init__.py": '__version__ = "8.0"\n'})
    assert found("onnxruntime-gpu") == ("onnxruntime-gpu", "9.1") and found("onnxruntime") is None
    assert installed(["onnxruntime|onnxruntime-gpu"]) == {"onnxruntime-gpu": "9.1"}


def test_a_version_that_another_file_states(site):
    """The same ``__init__.py`` in both versions, which says nothing."""
    new, old = (
        {"thing/__init__.py": "from .version import version as __version__\n", "thing/version.py": f"version = '{v}'\n"}
        for v in ("2.1", "2.0")
    )
    leave_metadata(site, "thing", "2.0", old)
    install(site, "thing", "2.1", new)
    assert found("thing") == ("thing", "2.1")
    (site / "thing-2.1.dist-info/RECORD").unlink()
    packages._found.cache_clear()
    packages._records.cache_clear()
    assert found("thing") == ("thing", "2.1")


def test_a_module_that_states_none_has_its_owner_s(site):
    """As onnx: its ``__version__`` is asked of the metadata, which may be the wrong one."""
    text = {"thing/__init__.py": "import importlib.metadata\n__version__ = importlib.metadata.version('thing')\n"}
    leave_metadata(site, "thing", "1.0", {"thing/__init__.py": "old\n"})
    install(site, "thing", "1.5", text)
    assert found("thing") == ("thing", "1.5")


def test_a_folder_earlier_on_the_path_shadows_the_package(site, tmp_path, monkeypatch):
    install(site, "thing", "1.0", module("1.0"))
    shadow = tmp_path / "mine"
    (shadow / "thing").mkdir(parents=True)
    (shadow / "thing/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(shadow))
    package = packages.find("thing")
    assert package.version == packages.UNKNOWN and not package.installed
    assert package.to_json() == {
        "package": "thing",
        "version": "unknown",
        "file": "thing/__init__.py",
        "site_packages": False,
        "library": None,
    }


def test_what_is_not_there_is_not_installed(site):
    (site / "empty").mkdir()  # a folder without modules, such as one of results
    leave_metadata(site, "thing", "1.0", module("1.0"))
    leave_metadata(site, "empty", "1.0", {})
    assert found("thing") is None and found("empty") is None and found("no-such-thing") is None


def test_packages_whose_modules_are_called_otherwise(site):
    install(site, "some-name", "3.2", {"other/__init__.py": "", "other/library.so": ""})
    install(site, "only-libraries", "4.0", {"lib/libthing.so": "elf"})
    assert found("some-name") == ("some-name", "3.2") and found("only_libraries") == ("only-libraries", "4.0")


def test_a_package_in_place_has_the_version_of_its_metadata(site, tmp_path, monkeypatch):
    source = tmp_path / "source"
    (source / "thing").mkdir(parents=True)
    (source / "thing/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(source))
    leave_metadata(site, "thing", "5.0.dev1", {"__editable__.thing.pth": str(source)})
    assert found("thing") == ("thing", "5.0.dev1")


@pytest.mark.parametrize("name", ["numpy", "onnx", "onnxruntime", "onnxslim", "transformers", "safetensors"])
def test_versions_of_the_installed_packages_are_those_that_they_give(name):
    code = f"import {name}; print({name}.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert packages.find(name).version == done.stdout.strip()


def test_a_process_records_what_it_imported_and_says_what_was_planned(tmp_path):
    """A leftover of numpy in front: metadata alone would call it that."""
    leave_metadata(tmp_path, "numpy", "1.18.0", {"numpy/__init__.py": "old"})
    code = (
        "import json, numpy; from ceilings.provenance import provenance, package_flags; "
        "print(json.dumps([provenance(['numpy']), package_flags({'numpy': '1.18.0'}), numpy.__file__]))"
    )
    path = os.pathsep.join([str(tmp_path), str(SCRIPTS)])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    record, flags, file = json.loads(done.stdout)
    version = packages.find("numpy").version
    assert record["packages"] == {"numpy": version}
    assert flags == [f"planned with numpy 1.18.0, but numpy {version} was imported"]
    entry = record["modules"]["numpy"]
    library = next(Path(file).parent.rglob(entry["library"]["file"]))
    assert entry["library"]["sha256"] == hashlib.sha256(library.read_bytes()).hexdigest()
    assert entry["file"] == "numpy/__init__.py" and entry["site_packages"]
    assert str(Path(file).parents[1]) not in done.stdout.replace(file, "")


def test_a_folder_where_the_user_stands_shadows_nothing(tmp_path):
    """Workers start with ``-m``, for which Python searches the working directory first."""
    from ceilings.environment import executing

    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("raise SystemExit('shadowed')")
    command = [sys.executable, "-m", "ceilings.measure.worker", "none", "none"]
    done = subprocess.run(command, cwd=tmp_path, env=executing(1), capture_output=True, text=True, check=False)
    assert done.stderr.startswith("error: none does not exist")
