"""A run that could not write what it needs is refused before it begins, in one line."""

import collections
import shutil
import tempfile

import pytest

from ceilings.errors import UserError
from ceilings.study import disk

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path


def test_room_is_no_news():
    disk.refuse_full("results")


@pytest.mark.parametrize("full", ["results", ".snakemake", "tmp"])
def test_a_full_disk_is_named(here, monkeypatch, full):
    (here / full).mkdir(exist_ok=True)
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(4096, 4096, 0) if path == here / full else real(path))
    remedy = ", or set TMPDIR to another folder and run" if full == "tmp" else " and run"
    with pytest.raises(
        UserError, match=rf"^the disk of .*{full} is full \(0 bytes are free\); free some .*{remedy} again"
    ):
        disk.refuse_full("results")


@pytest.mark.parametrize(("kind", "why"), [("missing", "is no folder"), ("file", "is no folder")])
def test_a_temporary_folder_that_is_none(here, monkeypatch, kind, why):
    given = here / kind
    if kind == "file":
        given.write_text("")
    monkeypatch.setenv("TMPDIR", str(given))
    with pytest.raises(
        UserError, match=rf"^TMPDIR is {given}, which {why}; make it a writable folder, or unset TMPDIR$"
    ):
        disk.refuse_full("results")
