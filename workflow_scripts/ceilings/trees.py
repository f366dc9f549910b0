"""Results trees as somebody hands them over: a folder, or a ``.tar.gz`` of one that is believed nothing.

Of an archive only regular files and folders below it are taken, by names that lead nowhere else. A link, a device, a
path with ``..`` or from the root, a name that stands twice, or more bytes than there is room for refuse the whole of
it. Standard library only.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ceilings import lifetime
from ceilings.errors import UserError

FOLDERS = (
    "benchmarks",
    "best_batch",
    "calibration",
    "changing",
    "colocation",
    "engines",
    "floors",
    "hosts",
    "models",
    "onnx",
    "overlap",
    "parity",
    "quality",
    "serving",
    "tables",
    "traces",
)
"""What lies in a results tree; one of them makes a folder one."""

NEVER = (".nsys-rep", ".ncu-rep", ".qdstrm")
"""Suffixes of captures that hold the environments of all processes of a machine."""

MOST_FILES = 1_000_000


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yield the results folder of a tree, of an archive in a temporary place.

    Args:
        path: A results folder, a folder that holds one as ``results``, or an archive of either.

    Raises:
        UserError: It is none, or an archive that could write elsewhere.
    """
    if path.is_dir():
        yield _results(path, path)
        return
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a results folder or a .tar.gz of one")
    with lifetime.temporary_folder() as temporary:
        _unpack(path, Path(temporary))
        yield _results(Path(temporary), path)


def files_of(results: Path) -> Iterator[PurePosixPath]:
    """Every file of a results folder by its path below it, in order.

    Raises:
        UserError: Something in it is a link or no regular file.
    """
    for name in FOLDERS:
        if os.path.lexists(results / name):
            yield from _files(results, PurePosixPath(name))


def stays(file: PurePosixPath | Path) -> bool:
    """Whether a file, by its path below the results, never leaves its machine: a raw capture, or what is hidden."""
    return file.name.endswith(NEVER) or any(part.startswith(".") for part in file.parts)


def _files(results: Path, below: PurePosixPath) -> Iterator[PurePosixPath]:
    path = results / below
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        try:
            entries = sorted(path.iterdir())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); make it readable, or take it out") from None
        for entry in entries:
            yield from _files(results, below / entry.name)
    elif stat.S_ISREG(mode):
        yield below
    else:
        what = "a link" if stat.S_ISLNK(mode) else "no regular file"
        raise UserError(f"{path} is {what}; put the file itself there, or take it out")


def _results(root: Path, given: Path) -> Path:
    """The results folder in what was given: the highest one, also where a whole checkout was packed."""
    level = [root]
    for _ in range(4):  # as a person packs it: results, project/results, host/project/results
        either = (inner if is_tree(inner := folder / "results") else folder for folder in level)
        if found := [folder for folder in either if is_tree(folder)]:
            if len(found) > 1:
                names = ", ".join(sorted(str(folder.relative_to(root)) for folder in found))
                raise UserError(f"{given} holds several results trees ({names}); name one of them")
            return found[0]
        level = [entry for folder in level for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    raise UserError(f"{given} holds no results tree (no folder such as benchmarks); name a results folder")


def is_tree(folder: Path) -> bool:
    """Whether a folder is a results folder."""
    return any((folder / name).is_dir() for name in FOLDERS)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as opened_archive:
            taken, room = set(), shutil.disk_usage(folder).free
            for member in opened_archive:
                path = _refused(archive, member)
                if not path.parts:
                    continue
                if path in taken and not member.isdir():
                    raise UserError(f"{archive} holds {str(path)!r} twice; pack it anew")
                taken.add(path)
                room -= max(member.size, 0)
                if room < 0 or len(taken) > MOST_FILES:
                    raise UserError(f"{archive} holds more than there is room for in {folder.parent}; set TMPDIR")
                _write(opened_archive, member, folder / path)
    except tarfile.ReadError as error:
        if "could not be opened" not in str(error):
            raise UserError(f"{archive} is no whole archive ({error}); pack it again with tar -czf") from None
        raise UserError(f"{archive} is no whole archive, or none at all; pack one with tar -czf") from None
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, UnicodeError) as error:
        raise UserError(f"{archive} is no whole archive ({error}); pack it again with tar -czf") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{archive} names one path as file and folder ({error.strerror}); pack it anew") from None


def _refused(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    """The path of a member, which is a file or a folder within the archive."""
    path = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()):
        what = "a link" if member.issym() or member.islnk() else "no regular file"
        raise UserError(f"{archive}: {member.name!r} is {what}; pack files and folders only (tar -h follows links)")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or not member.name.isprintable():
        raise UserError(f"{archive}: {member.name!r} leads out of the archive; pack it anew from the results folder")
    return path


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write a member's bytes; its owner, mode and links count for nothing."""
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None
    with content, open(path, "xb") as file:
        shutil.copyfileobj(content, file)
    os.utime(path, (member.mtime, member.mtime))
