"""Files cut into parts of a size, and joined again: what is damaged or missing is named. Standard library only.

A part is a zip file that Python runs (``python3 PART``). It holds the program that joins, ``part.json``, which is the
same in all parts of a parcel but for the number, and pieces of files, each called by its SHA-256. So each part says
what belongs to the parcel, any part can be the one that is run, and a piece that is there already need not come again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import files
from ceilings.errors import UserError

SUFFIX = ".pyz"
SUMS, MAKEFILE = "SHA256SUMS", "Makefile"
"""Files that lie beside parts."""

ABOUT = "part.json"
PIECES = "pieces/"

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, KeyError, ValueError, NotImplementedError)
"""What reading a damaged zip file raises."""

MEBIBYTE = 1 << 20
CHUNK = 1 << 20
STEP = MEBIBYTE // 8
"""A part has room for a multiple of this: files are cut at the same places though their list differs."""

RESERVED = 4096
"""Bytes of a part for what zip writes around its members."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+!-]*)?")
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of a file.

    Attributes:
        part: Number of the part that holds it, from 1.
        size: Bytes.
        sha256: Of these.
    """

    part: int
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Whole:
    """A file of a parcel.

    Attributes:
        name: With at most one folder before it.
        sha256: Of the whole file.
        pieces: In their order.
    """

    name: str
    sha256: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)


@dataclasses.dataclass(frozen=True)
class Parcel:
    """What all parts of a parcel say of it.

    Attributes:
        kind: ``kit`` or ``results``.
        about: What else the receiver needs to know, by that kind.
        files: In the order of their pieces.
        count: How many parts there are.
    """

    kind: str
    about: Mapping[str, Any]
    files: tuple[Whole, ...]
    count: int

    @property
    def identity(self) -> str:
        """Ten letters that no other parcel has."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:10]

    def name_of(self, part: int) -> str:
        """The file that a part is."""
        width = max(2, len(str(self.count)))
        return f"{self.kind}-{self.identity}-{part:0{width}}-of-{self.count:0{width}}{SUFFIX}"

    def __hash__(self) -> int:
        return hash(self.identity)

    def has(self, name: str) -> bool:
        """Whether a file is called as a part of this parcel is."""
        return name.startswith(f"{self.kind}-{self.identity}-")

    @classmethod
    def parse(cls, text: str) -> Parcel:
        """The parcel that a ``part.json`` describes.

        Raises:
            ValueError: It is no such text.
        """
        content = json.loads(text)
        try:
            wholes = tuple(
                Whole(one["name"], one["sha256"], tuple(Piece(**piece) for piece in one["pieces"]))
                for one in content["files"]
            )
            parcel = cls(content["kind"], content["about"], wholes, content["count"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"no description of a part ({error})") from None
        for whole in wholes:
            shas = (whole.sha256, *(piece.sha256 for piece in whole.pieces))
            if not _NAME.fullmatch(whole.name) or not all(map(_SHA.fullmatch, shas)):
                raise ValueError(f"no name of a file: {whole.name!r}")
        if parcel.identity != content["identity"]:
            raise ValueError("its description was changed")
        return parcel

    def text(self, part: int) -> str:
        """The ``part.json`` of a part."""
        return json.dumps({**dataclasses.asdict(self), "identity": self.identity, "part": part})


# ---- cutting ---------------------------------------------------------------------------------------------------------


def refuse_used(folder: Path, kind: str) -> None:
    """Raise UserError where parts of a kind cannot go: a folder with other files, which they could replace."""
    files.refuse_no_folder(folder, "name a new one: TO=FOLDER")
    held = {path.name for path in folder.glob("*") if not path.is_dir()} if folder.is_dir() else set()
    mine = {name for name in held if name.startswith(f"{kind}-") and name.endswith(SUFFIX)}
    if others := sorted(held - mine - ({SUMS, MAKEFILE} if mine else set())):
        raise UserError(f"{folder} holds {others[0]!r}, so that nothing is packed there; name a new folder: TO=FOLDER")


def cut(
    groups: Sequence[Mapping[str, Path]],
    kind: str,
    about: Mapping[str, Any],
    code: Mapping[str, str],
    *,
    folder: Path,
    megabytes: int,
) -> tuple[Parcel, list[Path]]:
    """Write files as parts; other parts of that kind in the folder go.

    Args:
        groups: Files by the names that they get; each group begins a part, so that a change of one leaves the pieces of
            those before it as they are.
        kind: Of the parcel.
        about: What the receiver needs to know.
        code: The program of each part, by the names of its modules in the zip file.
        folder: Where the parts go.
        megabytes: Size of a part at most, in MiB.

    Returns:
        The parcel, and its parts in their order.

    Raises:
        UserError: A part is too small for what each of them holds.
    """
    most = (
        megabytes * MEBIBYTE - sum(len(text.encode()) + len(name) * 2 + 200 for name, text in code.items()) - RESERVED
    )
    count = sum(len(group) for group in groups)
    total = sum(path.stat().st_size for group in groups for path in group.values())
    described = len(json.dumps(about)) + 300 * (count + total // (megabytes * MEBIBYTE // 2) + len(groups))
    room = (most - described) // STEP * STEP
    if room < STEP:
        raise UserError(f"parts of {megabytes} MiB are too small for a list of {count} files; give more MiB a part")
    stretches = [one for group in groups for one in _stretches(group, room)]
    numbered = _numbered(stretches)
    wholes = tuple(_whole(name, path, numbered[name]) for group in groups for name, path in group.items())
    parcel = Parcel(kind, about, wholes, max(part for of_one in numbered.values() for part, _ in of_one))

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{kind}-*{SUFFIX}"):
        old.unlink()
    sources = {name: path for group in groups for name, path in group.items()}
    written = [_write(parcel, part, sources, code, folder) for part in range(1, parcel.count + 1)]
    if too_large := [path.name for path in written if path.stat().st_size > megabytes * MEBIBYTE]:
        raise AssertionError(f"larger than {megabytes} MiB: {', '.join(too_large)}")
    sums = "".join(f"{files.sha256(path)}  {path.name}\n" for path in written)
    files.write_text(folder / SUMS, sums)
    return parcel, written


def _stretches(group: Mapping[str, Path], room: int) -> list[list[tuple[str, int]]]:
    """Of each part of a group the names and lengths that it holds, in order."""
    filled: list[list[tuple[str, int]]] = [[]]
    free = room
    for name, path in group.items():
        left = path.stat().st_size
        while True:
            if not free:
                filled.append([])
                free = room
            here = min(left, free)
            filled[-1].append((name, here))
            left, free = left - here, free - here
            if not left:
                break
    return filled


def _numbered(parts: Iterable[list[tuple[str, int]]]) -> dict[str, list[tuple[int, int]]]:
    """Of each file the parts and lengths of its pieces."""
    numbered: dict[str, list[tuple[int, int]]] = {}
    for part, held in enumerate(parts, start=1):
        for name, size in held:
            numbered.setdefault(name, []).append((part, size))
    return numbered


def _whole(name: str, path: Path, lengths: Iterable[tuple[int, int]]) -> Whole:
    """A file with its digests, read once."""
    pieces, total = [], hashlib.sha256()
    with open(path, "rb") as file:
        for part, size in lengths:
            digest, left = hashlib.sha256(), size
            while left and (data := file.read(min(CHUNK, left))):
                digest.update(data)
                total.update(data)
                left -= len(data)
            pieces.append(Piece(part, size, digest.hexdigest()))
    return Whole(name, total.hexdigest(), tuple(pieces))


def _write(parcel: Parcel, part: int, sources: Mapping[str, Path], code: Mapping[str, str], folder: Path) -> Path:
    target = folder / parcel.name_of(part)
    with files.atomic(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, text in code.items():
            _member(archive, name, text.encode())
        _member(archive, ABOUT, parcel.text(part).encode())
        for whole in parcel.files:
            begin = 0
            for piece in whole.pieces:
                if piece.part == part:
                    _copy(archive, sources[whole.name], begin, piece)
                begin += piece.size
    return target


def _member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name), content)  # without a time, so that equal content makes equal parts


def _copy(archive: zipfile.ZipFile, source: Path, begin: int, piece: Piece) -> None:
    name = PIECES + piece.sha256
    if name in archive.NameToInfo:
        return
    info = zipfile.ZipInfo(name)
    info.file_size = piece.size
    with open(source, "rb") as file, archive.open(info, "w") as member:
        file.seek(begin)
        left = piece.size
        while left:
            data = file.read(min(CHUNK, left))
            if not data:
                raise UserError(f"{source} became shorter while it was packed; pack again")
            member.write(data)
            left -= len(data)


# ---- joining ---------------------------------------------------------------------------------------------------------


def described(path: Path) -> Parcel:
    """The parcel that a part belongs to.

    Raises:
        UserError: It is no part, or damaged.
    """
    try:
        _refuse_irregular(path)
        with zipfile.ZipFile(path) as archive:
            return Parcel.parse(archive.read(ABOUT).decode())
    except DAMAGE:
        raise UserError(f"{path} is damaged, or no part; carry that file again") from None


def parcels(parts: Iterable[Path]) -> tuple[dict[Parcel, Path], list[Path]]:
    """The parcels of files with the first part of each, and the files that say nothing of one."""
    found: dict[Parcel, Path] = {}
    damaged = []
    for path in parts:
        try:
            found.setdefault(described(path), path)
        except UserError:
            damaged.append(path)
    return found, damaged


def _refuse_irregular(path: Path) -> None:
    """Raise an OSError for what is no regular file: a pipe would be waited for."""
    if problem := files.not_a_file(path):
        raise OSError(problem)


def take(parts: Iterable[Path], parcel: Parcel, store: Path, wanted: Iterable[Whole] | None = None) -> list[str]:
    """Put the pieces of a parcel's parts into a store; those that are there already are not read again.

    Args:
        parts: Files; those of other parcels are left alone.
        parcel: The parcel.
        store: Folder of pieces.
        wanted: Its files whose pieces are needed; None is all.

    Returns:
        Names of the parts that are damaged.
    """
    store.mkdir(parents=True, exist_ok=True)
    damaged = []
    needed = {PIECES + piece.sha256 for whole in (parcel.files if wanted is None else wanted) for piece in whole.pieces}
    for path in parts:
        try:
            _refuse_irregular(path)
            with zipfile.ZipFile(path) as archive:
                if Parcel.parse(archive.read(ABOUT).decode()) != parcel:
                    continue
                for name in archive.namelist():
                    if name in needed:
                        _keep(archive, name, store)
        except DAMAGE:
            damaged.append(path.name)
    return damaged


def _keep(archive: zipfile.ZipFile, name: str, store: Path) -> None:
    sha = name.removeprefix(PIECES)
    if (store / sha).exists():
        return
    digest = hashlib.sha256()
    # A full disk is no damage: what writes stands outside of what reads.
    with files.atomic(store / sha) as temporary, archive.open(name) as member, open(temporary, "wb") as file:
        while data := member.read(CHUNK):
            digest.update(data)
            _put(file, data)
        if digest.hexdigest() != sha:
            raise ValueError(f"{name} has another digest")


def _put(file: Any, data: bytes) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise UserError(f"cannot keep what came ({error.strerror}); free some space and run again") from None


def absent(wanted: Iterable[Whole], store: Path) -> list[int]:
    """Numbers of the parts whose pieces of the wanted files are not in the store."""
    return sorted({piece.part for whole in wanted for piece in whole.pieces if not (store / piece.sha256).exists()})


def join(whole: Whole, store: Path, target: Path) -> None:
    """Write a file from its pieces.

    Raises:
        UserError: It is not what was packed.
    """
    with files.atomic(target) as temporary:
        if len(whole.pieces) == 1:
            os.link(store / whole.pieces[0].sha256, temporary)
        with open(temporary, "ab") as file:
            for piece in whole.pieces[1:] and whole.pieces:
                with open(store / piece.sha256, "rb") as stored:
                    shutil.copyfileobj(stored, file, CHUNK)
        if files.sha256(temporary) != whole.sha256:
            for piece in whole.pieces:
                (store / piece.sha256).unlink(missing_ok=True)
            numbers = ", ".join(str(number) for number in sorted({piece.part for piece in whole.pieces}))
            raise UserError(f"{whole.name} is not what was packed; carry the parts {numbers} again")
