"""What a killed run leaves in folders: removed if whose it was has certainly ended, else kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from ceilings import leftovers, lifetime
from ceilings.files import atomic

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"
KILLED = """
import os, signal
from ceilings import files, lifetime
folder = lifetime.temporary_folder()
beside = lifetime.temporary_folder("results")
with files.atomic("results/deep/run1.json") as path:
    path.write_text("{")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Folder of results in which a process was killed while it wrote; its temporary files lie in ``tmp``."""
    (tmp_path / "results").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    environment = {"PYTHONPATH": str(SCRIPTS), "TMPDIR": str(tmp_path / "tmp")}
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=environment, check=False)
    assert len(list((tmp_path / "tmp").iterdir())) == 1 and len(list((tmp_path / "results").rglob(".*"))) == 2
    return tmp_path / "results"


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() or not any(path.iterdir()))


def test_what_a_killed_process_was_writing_goes(results, tmp_path):
    keep = [results / name for name in (".gitkeep", "run2.json", ".hidden.12-34.json", ".x.1-1-00000000.json")]
    for path in keep:
        path.touch()
    with atomic(results / "run3.json") as mine:  # of a living process
        mine.touch()
        said = leftovers.clear(results)
        assert names(results) == sorted(["deep", mine.name, *(path.name for path in keep)])
    assert not list((tmp_path / "tmp").iterdir())
    assert "2 half-written files" in said and "1 temporary folder" in said
    assert leftovers.clear(results) is None


def test_a_lock_goes_with_its_holder(tmp_path):
    folder = tmp_path / ".snakemake"
    lock = folder / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert not leftovers.release_lock(folder)  # nobody knows whose it is
    leftovers.hold(folder)
    assert not leftovers.release_lock(folder) and lock.exists()
    number, start, system = lifetime.identity().split("-")
    (folder / leftovers.HOLDER).write_text(f"{number}-{start}-00000000")
    assert not leftovers.release_lock(folder) and lock.exists()  # another machine's
    (folder / leftovers.HOLDER).write_text(f"{number}-{int(start) - 1}-{system}")
    assert leftovers.release_lock(folder) and not lock.exists()
    lock.touch()
    assert not leftovers.release_lock(folder)  # the next one's
