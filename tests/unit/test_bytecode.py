"""Bytecode is kept where the libraries have none, so that only the first process compiles them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import cache_from_source

import pytest

from ceilings import bytecode


@pytest.fixture
def library(tmp_path, monkeypatch):
    """An installed library without bytecode, and its source."""
    site = tmp_path / "site-packages"
    source = site / "slowlib" / "__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("VALUE = 1\n")
    folder = site / "slowlib-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: slowlib\nVersion: 1.0\n")
    (folder / "RECORD").write_text("slowlib/__init__.py,,10\n")
    monkeypatch.syspath_prepend(str(site))
    return source


def test_processes_share_bytecode_where_none_may_be_written(library, tmp_path):
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(library.parents[1])}
    kept = tmp_path / "kept"
    assert bytecode.keep(kept, environment, ["slowlib"])
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    subprocess.run([sys.executable, "-c", "import slowlib"], env=environment, check=True)
    assert [path.name.split(".")[0] for path in kept.rglob("slowlib/*.pyc")] == ["__init__"]
    assert not list(library.parent.rglob("*.pyc"))


def test_nothing_changes_where_python_can_write_or_has_written(library, tmp_path):
    environment = {}
    assert not bytecode.keep(tmp_path / "kept", environment, ["slowlib"]) and environment == {}
    compiled = cache_from_source(str(library))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(library)], check=True, env={})
    assert compiled and list(library.parent.rglob("*.pyc"))
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    assert not bytecode.keep(tmp_path / "kept", environment, ["slowlib"])
    assert environment == {"PYTHONDONTWRITEBYTECODE": "1"}


def test_a_place_that_somebody_chose_stays(library, tmp_path):
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/chosen"}
    assert not bytecode.keep(tmp_path / "kept", environment, ["slowlib"])
    assert environment["PYTHONPYCACHEPREFIX"] == "/chosen"


def test_what_is_not_installed_is_not_looked_at(tmp_path):
    assert not bytecode.keep(tmp_path, {"PYTHONDONTWRITEBYTECODE": "1"}, ["no-such-library"])
