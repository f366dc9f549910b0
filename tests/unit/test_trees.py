"""What is taken for a results tree, and what an archive may not do."""

import io
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from ceilings import trees
from ceilings.errors import UserError

RUN = "benchmarks/nvidia-h200/tensorrt/m/fp16/b1-s8/run1.json"


def archive(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
            else:
                head = tarfile.TarInfo(member[0])
                head.size = len(member[1])
                made.addfile(head, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize("prefix", ["", "./", "results/", "./results/", "host/project/results/"])
def test_a_tree_is_found_however_it_was_packed(tmp_path, prefix):
    path = archive(tmp_path / "a.tar.gz", (f"{prefix}{RUN}", b"{}"), (f"{prefix}summary.md", b"x"))
    with trees.opened(path) as results:
        assert list(map(str, trees.files_of(results))) == [RUN]
        assert (results / RUN).read_bytes() == b"{}"
        temporary = results
    assert not temporary.exists()


@pytest.mark.parametrize("below", ["", "results", "host/results"])
def test_a_folder_is_found(tmp_path, below):
    file = tmp_path / below / RUN
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with trees.opened(tmp_path) as results:
        assert results == tmp_path / below
        assert list(map(str, trees.files_of(results))) == [RUN]


GOOD = (RUN, b"{}")
HOSTILE = {
    "parent": [("../evil", b"x")],
    "parent within": [("benchmarks/../../evil", b"x")],
    "absolute": [("/tmp/evil", b"x")],
    "backslash": [("..\\evil", b"x")],
    "control": [("benchmarks/a\x1b[31m", b"x")],
    "symbolic link": [special("benchmarks/link", tarfile.SYMTYPE, "/etc/passwd")],
    "link to a folder, then through it": [
        special("benchmarks/out", tarfile.SYMTYPE, "/tmp"),
        ("benchmarks/out/evil", b"x"),
    ],
    "hard link": [special("benchmarks/link", tarfile.LNKTYPE, RUN)],
    "device": [special("benchmarks/null", tarfile.CHRTYPE)],
    "block device": [special("benchmarks/disk", tarfile.BLKTYPE)],
    "pipe": [special("benchmarks/pipe", tarfile.FIFOTYPE)],
    "twice": [(RUN, b"other")],
    "file and folder": [(f"{RUN}/x", b"x")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing(tmp_path, monkeypatch, members):
    inside = tmp_path / "deep" / "temporary"
    inside.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(inside))
    path = archive(tmp_path / "a.tar.gz", GOOD, *members)
    with pytest.raises(UserError, match=r"a\.tar\.gz"), trees.opened(path):
        pass
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == [
        "a.tar.gz",
        "deep",
        "deep/temporary",
    ]


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.tar.gz", GOOD, ("benchmarks/big", bytes(1 << 20)))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 19))
    with pytest.raises(UserError, match="more than there is room for"), trees.opened(path):
        pass


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no archive", lambda b: b""])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    path = archive(tmp_path / "a.tar.gz", (RUN, os.urandom(50_000)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"no whole archive|no results tree"), trees.opened(path):
        pass


def test_a_link_in_a_folder_is_refused(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "link").symlink_to("/etc/passwd")
    with trees.opened(tmp_path) as results, pytest.raises(UserError, match="is a link"):
        list(trees.files_of(results))


def test_what_is_no_tree_is_refused(tmp_path):
    for path, why in ((tmp_path, "holds no results tree"), (tmp_path / "none", "does not exist")):
        with pytest.raises(UserError, match=why), trees.opened(path):
            pass
    for name in "ab":
        (tmp_path / name / "benchmarks").mkdir(parents=True)
    with pytest.raises(UserError, match=r"several results trees \(a, b\)"), trees.opened(tmp_path):
        pass


def test_of_a_whole_checkout_the_results_are_taken(tmp_path):
    for name in ("benchmarks/dag.py", f"results/{RUN}"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")
    with trees.opened(tmp_path) as results:
        assert results == tmp_path / "results"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    folder = tmp_path / "benchmarks" / "x"
    folder.mkdir(parents=True, mode=0)
    with pytest.raises(UserError, match=r"benchmarks/x cannot be read \(Permission denied\); make it readable"):
        list(trees.files_of(tmp_path))
