"""Files cut into parts and joined again, whatever happens to the parts on the way."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ceilings.errors import UserError
from ceilings.files import sha256
from ceilings.offline import parts

MEBIBYTE = parts.MEBIBYTE
PROJECT = Path(__file__).parents[3]


def random_file(path, size, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


@pytest.fixture
def sources(tmp_path):
    """Two groups of files: one file larger than a part, one that is empty, two that are equal."""
    sizes = {"wheels/big.whl": 5 * MEBIBYTE // 2, "wheels/empty.whl": 0, "wheels/a.whl": 1000, "wheels/b.whl": 1000}
    first = {name: random_file(tmp_path / "from" / name, size) for name, size in sizes.items()}
    return [first, {"project.tar.gz": random_file(tmp_path / "from/project", 7000, seed=1)}]


def cut(sources, folder, **more):
    return parts.cut(sources, "kit", {"for": "cpu"}, {"__main__.py": "print(1)"}, folder=folder, megabytes=1, **more)


def test_parts_hold_all_and_none_is_larger_than_asked(sources, tmp_path):
    parcel, written = cut(sources, tmp_path / "kit")
    assert len(written) == parcel.count == 4 and all(path.stat().st_size <= MEBIBYTE for path in written)
    assert [path.name for path in written] == [parcel.name_of(part) for part in (1, 2, 3, 4)]
    assert all(parts.described(path) == parcel for path in written)
    assert parts.take(written, parcel, tmp_path / "store") == []
    assert parts.absent(parcel.files, tmp_path / "store") == []
    for group in sources:
        for name, path in group.items():
            whole = next(one for one in parcel.files if one.name == name)
            parts.join(whole, tmp_path / "store", tmp_path / "to" / name)
            assert (tmp_path / "to" / name).read_bytes() == path.read_bytes() and whole.size == path.stat().st_size


def test_sums_are_those_of_the_parts(sources, tmp_path):
    _, written = cut(sources, tmp_path / "kit")
    lines = (tmp_path / "kit/SHA256SUMS").read_text().splitlines()
    assert lines == [f"{sha256(path)}  {path.name}" for path in written]


def test_equal_files_make_equal_parts_and_old_parts_go(sources, tmp_path):
    _, written = cut(sources, tmp_path / "kit")
    before = {path.name: path.read_bytes() for path in written}
    _, again = cut(sources, tmp_path / "kit")
    assert {path.name: path.read_bytes() for path in again} == before
    sources[1]["project.tar.gz"].write_bytes(b"another revision")
    _, changed = cut(sources, tmp_path / "kit")
    assert not set(changed) & set(written)
    assert sorted((tmp_path / "kit").glob("*.pyz")) == sorted(changed)


def test_a_change_of_the_last_group_leaves_the_pieces_before_it(sources, tmp_path):
    before, written = cut(sources, tmp_path / "kit")
    parts.take(written, before, tmp_path / "store")
    sources[1]["project.tar.gz"].write_bytes(b"another revision" * 50)
    after, _ = cut(sources, tmp_path / "kit")
    assert parts.absent(after.files, tmp_path / "store") == [after.count]


def test_a_part_that_is_missing_is_named_and_what_came_stays(sources, tmp_path):
    parcel, written = cut(sources, tmp_path / "kit")
    parts.take(written[:2], parcel, tmp_path / "store")
    assert parts.absent(parcel.files, tmp_path / "store") == [3, 4]
    for path in written[:2]:
        path.unlink()
    parts.take(written[2:], parcel, tmp_path / "store")
    assert parts.absent(parcel.files, tmp_path / "store") == []


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flip, lambda data: data[:-1000], lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[1000:]],
    ids=["a bit", "cut at the end", "cut in half", "empty", "begin gone"],
)
def test_a_part_that_is_damaged_is_named(sources, tmp_path, damage):
    parcel, written = cut(sources, tmp_path / "kit")
    written[1].write_bytes(damage(written[1].read_bytes()))
    assert parts.take(written, parcel, tmp_path / "store") == [written[1].name]
    assert parts.absent(parcel.files, tmp_path / "store") == [2]
    assert not [path for path in (tmp_path / "store").iterdir() if len(path.name) != 64]  # nothing half written


def test_a_piece_of_the_right_name_and_another_content_is_damage(sources, tmp_path):
    """A separate zip file that fits its checksums."""
    parcel, written = cut(sources, tmp_path / "kit")
    with zipfile.ZipFile(written[0]) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(written[0], "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, flip(content) if name.startswith(parts.PIECES) else content)
    assert parts.take(written, parcel, tmp_path / "store") == [written[0].name]


def test_a_part_of_another_parcel_is_left_alone(sources, tmp_path):
    parcel, written = cut(sources, tmp_path / "kit")
    sources[1]["project.tar.gz"].write_bytes(b"another revision")
    _, others = cut(sources, tmp_path / "other")
    shutil.copy(others[3], tmp_path / "kit")
    assert parts.take((*written[:3], *others[3:]), parcel, tmp_path / "store") == []
    assert parts.absent(parcel.files, tmp_path / "store") == [4]


@pytest.mark.parametrize("content", [b"", b"no zip file"])
def test_what_is_no_part_is_refused(tmp_path, content):
    (tmp_path / "x.pyz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pyz is damaged, or no part; carry that file again"):
        parts.described(tmp_path / "x.pyz")


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "a/b/c", ".hidden", ""])
def test_a_description_that_names_files_elsewhere_is_refused(name):
    parcel = parts.Parcel("kit", {}, (parts.Whole(name, "0" * 64, ()),), 1)
    with pytest.raises(ValueError, match="no name of a file"):
        parts.Parcel.parse(parcel.text(1))


def test_a_description_that_was_changed_is_refused(sources, tmp_path):
    parcel, _ = cut(sources, tmp_path / "kit")
    with pytest.raises(ValueError, match="changed"):
        parts.Parcel.parse(parcel.text(1).replace('"for": "cpu"', '"for": "gpu"'))


def test_a_stored_piece_that_went_bad_is_named_and_dropped(sources, tmp_path):
    parcel, written = cut(sources, tmp_path / "kit")
    store = tmp_path / "store"
    parts.take(written, parcel, store)
    big = next(whole for whole in parcel.files if whole.name == "wheels/big.whl")
    (store / big.pieces[1].sha256).write_bytes(b"rot")
    with pytest.raises(UserError, match=r"wheels/big.whl is not what was packed; carry the parts 1, 2, 3 again"):
        parts.join(big, store, tmp_path / "big.whl")
    assert not (tmp_path / "big.whl").exists() and parts.absent([big], store) == [1, 2, 3]


def test_parts_too_small_for_their_list_are_refused(tmp_path):
    many = {f"wheels/{number}.whl": random_file(tmp_path / str(number), 10) for number in range(4000)}
    with pytest.raises(UserError, match="parts of 1 MiB are too small for a list of 4000 files; give more MiB a part"):
        cut([many], tmp_path / "kit")


@pytest.mark.parametrize("name", ["README.md", "Makefile", "SHA256SUMS", "kit-1.txt", ".bashrc"])
def test_a_folder_with_other_files_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(UserError, match=rf"holds '{name}', so that nothing is packed there; name a new folder: TO="):
        parts.refuse_used(tmp_path, "kit")


@pytest.mark.parametrize(("program", "kind"), [("pack_kit.py", ["--kind", "cpu"]), ("pack_results.py", [])])
def test_packing_asks_before_it_replaces_a_file(tmp_path, program, kind):
    (tmp_path / "Makefile").write_text("mine:\n")
    command = [sys.executable, PROJECT / "workflow_scripts" / program, *kind, "--output-dir", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "error: . holds 'Makefile'" in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("Makefile", "mine:\n")]


def test_a_folder_of_such_parts_or_a_new_one_is_taken(sources, tmp_path):
    parts.refuse_used(tmp_path / "new", "kit")
    cut(sources, tmp_path / "kit")
    (tmp_path / "kit/Makefile").touch()
    (tmp_path / "kit/ceilings").mkdir()  # unpacked for a trial
    parts.refuse_used(tmp_path / "kit", "kit")
    with pytest.raises(UserError, match="so that nothing is packed there"):
        parts.refuse_used(tmp_path / "kit", "results")
    with pytest.raises(UserError, match=r"Makefile/x cannot be made, since .*Makefile is no folder; name a new one"):
        parts.refuse_used(tmp_path / "kit" / "Makefile" / "x", "kit")
    with pytest.raises(UserError, match="Makefile is no folder"):
        parts.refuse_used(tmp_path / "kit/Makefile", "kit")
