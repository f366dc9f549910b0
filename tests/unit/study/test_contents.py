"""Files from outside count by what they hold."""

import os
import time

import pytest

from ceilings.study.contents import SETTLED_NS, Contents


@pytest.fixture
def folder(tmp_path):
    for name, text in (("config.json", "{}"), ("model.safetensors", "1234")):
        (tmp_path / "weights").mkdir(exist_ok=True)
        (tmp_path / "weights" / name).write_text(text)
    return tmp_path / "weights"


def of(folder):
    return Contents(folder.parent / "memory.json").named(list(folder.iterdir()), folder)


def test_content_counts_also_where_size_and_time_stay(folder):
    before, file = of(folder), folder / "model.safetensors"
    times = file.stat()
    file.write_text("1235")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert of(folder) != before
    file.write_text("1234")
    assert of(folder) == before


def test_a_file_added_counts_and_a_touch_or_a_copy_does_not(folder, tmp_path):
    before = of(folder)
    (folder / "config.json").touch()
    folder.rename(tmp_path / "elsewhere")
    assert of(tmp_path / "elsewhere") == before
    (tmp_path / "elsewhere" / "tokenizer.json").write_text("{}")
    assert of(tmp_path / "elsewhere") != before


def test_a_file_is_read_once(folder, monkeypatch):
    """Once it is old enough that no later content can have its times."""
    monkeypatch.setattr(time, "time_ns", lambda: (folder / "config.json").stat().st_ctime_ns + 2 * SETTLED_NS)
    before = of(folder)
    monkeypatch.setattr("ceilings.files.sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert of(folder) == before
    (folder.parent / "memory.json").write_text("{")
    with pytest.raises(pytest.fail.Exception, match="was read again"):
        of(folder)


def test_what_cannot_be_read_or_kept_stops_nothing(folder, tmp_path):
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    assert "gone none" in Contents(folder / "config.json" / "memory.json").named(list(folder.iterdir()), folder)
    assert Contents(tmp_path / "m").counted([]).startswith("0 files, ")
