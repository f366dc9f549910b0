"""Which files of Nsight Systems go to a host."""

from __future__ import annotations

import tarfile

import pytest

from ceilings.errors import UserError
from ceilings.offline import install, profiler


def test_what_records_and_imports_goes_and_links_become_files(tmp_path):
    folder = tmp_path / "2025.1.1"
    for name in ("target-linux-x64/nsys", "target-linux-x64/lib/a.so.1", "host-linux-x64/Importer", "docs/manual.pdf"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
        (folder / name).chmod(0o755)
    (folder / "target-linux-x64/lib/a.so").symlink_to("a.so.1")
    profiler.pack(folder, tmp_path / "nsys.tar.gz")
    with tarfile.open(tmp_path / "nsys.tar.gz") as tar:
        assert all(one.isreg() for one in tar)
    environment = tmp_path / ".venv"
    (environment / "bin").mkdir(parents=True)
    install.place_nsys(tmp_path / "nsys.tar.gz", tmp_path / ".kit")
    install.link_nsys(tmp_path / ".kit", profiler.program(folder), environment)
    assert (environment / "bin/nsys").read_text() == "target-linux-x64/nsys"
    assert (environment / "bin/nsys").stat().st_mode & 0o100
    placed = tmp_path / ".kit/nsys/2025.1.1"
    assert (placed / "target-linux-x64/lib/a.so").read_text() == "target-linux-x64/lib/a.so.1"
    assert (placed / "host-linux-x64/Importer").exists() and not (placed / "docs").exists()


def test_a_folder_without_nsys_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no nsys; name the folder of a version"):
        profiler.program(tmp_path)
